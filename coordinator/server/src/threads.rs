//! The threads that own what must not wait for the network: replica, log, core, snapshots, digests and the
//! history.

pub mod core;
pub mod digests;
pub mod history;
pub mod log;
pub mod replica;
pub mod snapshots;

use std::thread::{Builder, JoinHandle};

/// Starts a thread under a name that debuggers show.
fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    Builder::new().name(name.to_owned()).spawn(body)
}
