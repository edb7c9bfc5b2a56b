//! The keeper: the parent of all task processes of a worker.
//!
//! An agent is restarted, upgraded, or crashes; its tasks must not notice. So a second process, small enough
//! never to need either, spawns them, reaps them and keeps their ends until the agent has passed them on. It
//! also holds what a restarted agent takes over: the session, its connection number and its deadline. When the
//! deadline passes, every task is killed, whether an agent is there or not.
//!
//! One [`keeper::run`] per directory. In it: `keeper.lock` (held while the keeper *or any of its tasks* may
//! live), `keeper.pid`, `keeper.sock`. The protocol is `proto/keeper.proto`; [`frames`] puts its messages into
//! bytes, [`Client`] is a blocking agent's end.
//!
//! Inside: the main thread owns the socket and the timers, a few threads spawn, one reaps, one watches memory
//! if a task asked for that, one looks after fork servers, which make processes faster than loading a program can. They share one [`table`] under one lock, which is never held over a system call
//! that waits.

mod board;
mod cgroup;
mod client;
mod clock;
mod descriptors;
mod failure;
pub mod frames;
mod guardian;
mod keeper;
mod memory;
mod prepare;
mod process;
mod reaper;
mod servers;
mod shared;
mod signals;
mod socket;
mod spawn;
mod spawner;
mod table;

/// The messages between agent and keeper.
#[allow(missing_docs, clippy::all)]
pub mod protocol {
    include!(concat!(env!("OUT_DIR"), "/millgrid.keeper.v1.rs"));
}

pub use client::Client;
pub use clock::boottime_ms;
pub use failure::Failure;
pub use keeper::run;
pub use socket::connect;
