//! The threads that own what must not wait for the network: replica, log, core, snapshots, digests and the
//! history.

pub mod core;
pub mod digests;
pub mod history;
pub mod log;
mod pauses;
pub mod queue;
pub mod replica;
pub mod snapshots;

use std::thread::{Builder, JoinHandle};

/// How much less than the others a thread counts that works in the background.
const BACKGROUND: i32 = 10;

/// Starts a thread under a name that debuggers show.
fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    Builder::new().name(name.to_owned()).spawn(body)
}

/// The same for a thread that should have a processor when the others leave one.
fn spawn_in_background(name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    spawn(name, || {
        // Of this thread alone, as Linux has it; one that can't be put back works as the others do.
        let _ = rustix::process::nice(BACKGROUND);
        body();
    })
}
