//! How many processes a second, against the machine's own limit.

use std::{
    ffi::CString,
    ptr, thread,
    time::{Duration, Instant},
};

use worker_keeper::protocol::{Forget, Spawn, from_agent::Message, from_keeper};

use crate::grid::{Keeper, key, spawn};

const COUNT: u64 = 4_000;
/// Ordered and not yet ended, as an agent with work ahead has it.
const WINDOW: u64 = 64;

#[test]
fn the_keeper_is_not_much_slower_than_bare_spawning() {
    let (bare, kept) = (bare(), kept());
    println!("processes a second: {bare:.0} by posix_spawn on two threads, {kept:.0} through the keeper");
    // Other tests run beside this one, so the bound is a loose one.
    assert!(kept > bare / 3.0, "{kept:.0} against {bare:.0}");
}

fn kept() -> f64 {
    let mut keeper = Keeper::start();
    // One spool for all, as if spools were reused: to make and remove files is a file system's figure, and on
    // ext4, which looks far and wide for an inode that was not freed a moment ago, it can exceed the spawn's.
    let first = spawn(&keeper, 1, &["/bin/true"]);
    let order = |job| Spawn { key: Some(key(job)), ..first.clone() };
    let orders: Vec<Message> = (1..=COUNT).map(|job| Message::Spawn(order(job))).collect();
    let start = Instant::now();
    let mut orders = orders.into_iter();
    keeper.send(orders.by_ref().take(WINDOW as usize).collect::<Vec<_>>());
    let mut ended = 0;
    while ended < COUNT {
        let from_keeper::Message::Exited(exited) = keeper.receive() else { continue };
        ended += 1;
        let forget = Message::Forget(Forget { keys: vec![exited.key.unwrap()] });
        let next = orders.next();
        keeper.send(next.into_iter().chain([forget]).collect::<Vec<_>>());
    }
    COUNT as f64 / start.elapsed().as_secs_f64()
}

fn bare() -> f64 {
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..COUNT / 2).for_each(|_| posix_spawn_true()));
        }
    });
    assert!(start.elapsed() < Duration::from_secs(120));
    COUNT as f64 / start.elapsed().as_secs_f64()
}

#[allow(unsafe_code)]
fn posix_spawn_true() {
    let program = CString::new("/bin/true").unwrap();
    let mut arguments = [program.as_ptr().cast_mut(), ptr::null_mut()];
    let environment = [ptr::null_mut()];
    let mut pid = 0;
    // SAFETY: null-terminated arrays of null-terminated strings; the process is waited for.
    unsafe {
        let spawned = libc::posix_spawn(
            &mut pid,
            program.as_ptr(),
            ptr::null(),
            ptr::null(),
            arguments.as_mut_ptr(),
            environment.as_ptr(),
        );
        assert_eq!(spawned, 0);
        assert_eq!(libc::waitpid(pid, ptr::null_mut(), 0), pid);
    }
}
