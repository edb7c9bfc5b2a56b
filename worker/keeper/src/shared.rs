//! The table, its lock, and how the keeper's threads wake one another.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::{Condvar, Mutex, MutexGuard},
};

use rustix::event::{EventfdFlags, eventfd};

use crate::{Failure, table::Table};

/// What all threads of a keeper have in common.
pub(crate) struct Shared {
    table: Mutex<Table>,
    /// A spawning thread has something to do.
    pub ordered: Condvar,
    /// A process was entered, or there is none to enter: the reaping thread may look again.
    pub entered: Condvar,
    /// A process whose memory is to be watched may be there.
    pub to_watch: Condvar,
    wake: OwnedFd,
}

impl Shared {
    pub fn new(table: Table) -> Result<Shared, Failure> {
        let wake =
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(Failure::system("make an eventfd"))?;
        Ok(Shared {
            table: Mutex::new(table),
            ordered: Condvar::new(),
            entered: Condvar::new(),
            to_watch: Condvar::new(),
            wake,
        })
    }

    /// The table. A thread that panics aborts the keeper, so the lock is never found poisoned.
    pub fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("a panic ends the process")
    }

    /// Readable after [`Shared::wake`].
    pub fn wake_fd(&self) -> impl AsFd {
        &self.wake
    }

    /// Makes the main thread look at the table.
    pub fn wake(&self) {
        // Fails only when it was woken 2^64 times already.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Takes back what [`Shared::wake`] did.
    pub fn woken(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.wake, &mut count);
    }
}
