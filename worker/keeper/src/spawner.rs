//! A spawning thread: takes orders, makes processes. A few of them, since each sleeps while a program is loaded.

use std::sync::Arc;

use crate::{
    board::Board,
    cgroup::Cgroups,
    clock::boottime_ms,
    prepare::Prepared,
    protocol::End,
    shared::Shared,
    signals,
    spawn::{Stack, spawn},
    table::Order,
};

/// Works for as long as the keeper lives: the processes made here die with this very thread.
pub(crate) fn run(shared: &Shared, board: Board, cgroups: Option<&Arc<Cgroups>>, mut stack: Stack) -> ! {
    signals::block_all();
    loop {
        let order = next(shared);
        make(shared, board, cgroups, &mut stack, order);
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
    let Order { key, spawn: wanted, place } = order;
    let not_made = |end, detail| shared.lock().not_made(key, end, detail);
    let prepared = match Prepared::new(&wanted) {
        Ok(prepared) => prepared,
        Err((end, detail)) => return not_made(end, detail),
    };
    let slot = match cgroups.map(|cgroups| cgroups.slot(wanted.memory_mib, wanted.cpu_milli)).transpose() {
        Ok(slot) => slot.flatten(),
        Err(failure) => return not_made(End::NotStarted, format!("cannot limit the process: {failure}")),
    };
    let cgroup = slot.as_ref().map(|slot| slot.entrance());
    match spawn(&prepared, board.place(place), cgroup, stack) {
        Err(failure) => not_made(End::NotStarted, format!("cannot make a process: {failure}")),
        Ok(spawned) => {
            let mut table = shared.lock();
            table.made(key, spawned, slot, boottime_ms());
            if wanted.memory_mib > 0 {
                shared.to_watch.notify_one();
            }
        }
    }
}
