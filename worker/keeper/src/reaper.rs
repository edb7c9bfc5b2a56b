//! The reaping thread.

use std::io;

use crate::{clock::boottime_ms, guardian::Guardian, process, shared::Shared, signals};

/// Reaps every child as it ends, for as long as the keeper lives. The guardian is a child too and never ends
/// before the keeper does; if somebody killed it there is a new one.
pub(crate) fn run(shared: &Shared, guardian: &Guardian, mut guardian_pid: i32) -> io::Error {
    signals::block_all();
    loop {
        let pid = match process::wait_for_any() {
            Ok(pid) => pid,
            Err(failure) => return failure,
        };
        if pid == guardian_pid {
            let _ = process::reap(pid);
            if shared.lock().ending {
                return io::Error::from(io::ErrorKind::BrokenPipe);
            }
            guardian_pid = match guardian.start() {
                Ok(pid) => pid,
                Err(failure) => return failure,
            };
            continue;
        }
        let mut table = shared.lock();
        // It may be quicker than the thread that made it.
        let newest = table.newest_making();
        while !table.knows(pid, newest) {
            table = shared.entered.wait(table).expect("a panic ends the process");
        }
        let task = table.reap(pid, boottime_ms());
        let orders = table.orders();
        drop(table);
        if !task {
            shared.wake_servers();
            continue;
        }
        // First: a processor without a task is worse than an end that is told a little later.
        shared.wake_spawners(orders);
        shared.wake();
    }
}
