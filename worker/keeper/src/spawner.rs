//! A spawning thread: takes orders, makes processes. A few of them, since each sleeps while a program is loaded.

use std::sync::{Arc, atomic::Ordering};

use crate::{
    board::Board,
    cgroup::{Cgroups, Slot},
    clock::boottime_ms,
    prepare::Prepared,
    process,
    protocol::{End, Spawn},
    servers::{self, Lent},
    shared::Shared,
    signals,
    spawn::{Spawned, Stack, spawn},
    table::Order,
};

/// Works for as long as the keeper lives: the processes made here die with this very thread.
pub(crate) fn run(shared: &Shared, board: Board, cgroups: Option<&Arc<Cgroups>>, mut stack: Stack) -> ! {
    signals::block_all();
    loop {
        let order = next(shared);
        let number = order.number;
        make(shared, board, cgroups, &mut stack, order);
        shared.lock().end_making(number);
        shared.entered.notify_all();
        shared.wake_soon();
    }
}

fn next(shared: &Shared) -> Order {
    let mut table = shared.lock();
    loop {
        if let Some(order) = table.next_order(boottime_ms()) {
            return order;
        }
        if table.has_unsent() {
            shared.wake();
        }
        table = shared.ordered.wait(table).expect("a panic ends the process");
    }
}

fn make(shared: &Shared, board: Board, cgroups: Option<&Arc<Cgroups>>, stack: &mut Stack, order: Order) {
    let Order { key, spawn: wanted, place, .. } = order;
    let not_made = |end, detail| shared.lock().not_made(key, end, detail);
    let prepared = match Prepared::new(&wanted) {
        Ok(prepared) => prepared,
        Err((end, detail)) => return not_made(end, detail),
    };
    let slot = match cgroups.map(|cgroups| cgroups.slot(wanted.memory_mib, wanted.cpu_milli)).transpose() {
        Ok(slot) => slot.flatten(),
        Err(failure) => return not_made(End::NotStarted, format!("cannot limit the process: {failure}")),
    };
    let forked = fork(shared, board, &wanted, place, slot.as_ref());
    let made = match &forked {
        Some(lent) => Ok(Spawned { pid: lent.pid(), failure: None }),
        None => spawn(&prepared, board.place(place), slot.as_ref().map(Slot::entrance), None, stack),
    };
    match made {
        Err(failure) => not_made(End::NotStarted, format!("cannot make a process: {failure}")),
        Ok(spawned) => {
            let mut table = shared.lock();
            table.made(key, spawned, slot, boottime_ms());
            if let Some(lent) = forked.filter(|lent| shared.listen_to(lent).is_ok()) {
                table.servers.lend(lent);
            }
            if wanted.memory_mib > 0 {
                shared.to_watch.notify_one();
            }
        }
    }
}

/// The process from the fork server that the order names, if it has one.
fn fork(shared: &Shared, board: Board, wanted: &Spawn, place: u32, slot: Option<&Slot>) -> Option<Lent> {
    let spare = servers::spare(shared, wanted)?;
    board.place(place).store(spare.pid, Ordering::Release);
    let admitted = slot.map_or(Ok(()), |slot| slot.admit(spare.pid));
    // One that somebody killed would be taken for a task that was.
    let spare = if process::has_ended(spare.pid) || admitted.is_err() {
        spare
    } else {
        match spare.become_task(wanted) {
            Ok(lent) => return Some(lent),
            Err(spare) => spare,
        }
    };
    // It is not reaped before this order is done with.
    board.clear(place);
    process::signal_group(spare.pid, libc::SIGKILL);
    shared.lock().servers.given_up(&spare);
    None
}
