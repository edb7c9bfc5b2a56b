//! The table, its lock, and how the keeper's threads wake one another.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::{
        Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::{
    buffer::spare_capacity,
    event::{EventfdFlags, epoll, eventfd},
    time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime},
};

use crate::{Failure, servers::Lent, table::Table};

/// What all threads of a keeper have in common.
pub(crate) struct Shared {
    table: Mutex<Table>,
    /// A spawning thread has something to do.
    pub ordered: Condvar,
    /// A process was entered, or there is none to enter: the reaping thread may look again.
    pub entered: Condvar,
    /// A fork server has made a process, or won't.
    pub forked: Condvar,
    /// A process whose memory is to be watched may be there.
    pub to_watch: Condvar,
    wake: OwnedFd,
    /// Woken and not yet looked: one more word would be a system call for nothing.
    woken: AtomicBool,
    /// Of `CLOCK_MONOTONIC`, relative.
    soon: OwnedFd,
    soon_set: AtomicBool,
    servers: OwnedFd,
    /// Of the streams of forked tasks, by process id. One that is closed leaves it by itself.
    lent: OwnedFd,
}

/// What can wait is sent so much later at the latest: a short process's start goes out with its end, at the cost
/// of one waking of the main thread and one of the agent instead of two.
const SOON: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };

impl Shared {
    pub fn new(table: Table) -> Result<Shared, Failure> {
        let event =
            || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(Failure::system("make an eventfd"));
        let (wake, servers) = (event()?, event()?);
        let soon = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)
            .map_err(Failure::system("make a timer"))?;
        Ok(Shared {
            table: Mutex::new(table),
            ordered: Condvar::new(),
            entered: Condvar::new(),
            forked: Condvar::new(),
            to_watch: Condvar::new(),
            wake,
            woken: AtomicBool::new(false),
            soon,
            soon_set: AtomicBool::new(false),
            servers,
            lent: epoll::create(epoll::CreateFlags::CLOEXEC).map_err(Failure::system("make an epoll set"))?,
        })
    }

    /// The table. A thread that panics aborts the keeper, so the lock is never found poisoned.
    pub fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("a panic ends the process")
    }

    /// Makes as many spawning threads look at the table as have something to do.
    pub fn wake_spawners(&self, orders: usize) {
        match orders {
            0 => {}
            1 => self.ordered.notify_one(),
            _ => self.ordered.notify_all(),
        }
    }

    /// Readable after [`Shared::wake`].
    pub fn wake_fd(&self) -> impl AsFd {
        &self.wake
    }

    /// Readable a little after [`Shared::wake_soon`].
    pub fn soon_fd(&self) -> impl AsFd {
        &self.soon
    }

    /// Makes the main thread look at the table.
    pub fn wake(&self) {
        if !self.woken.swap(true, Ordering::SeqCst) {
            // Fails only when it was woken 2^64 times already.
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        }
    }

    /// Makes the main thread look at the table within [`SOON`].
    pub fn wake_soon(&self) {
        if !self.soon_set.swap(true, Ordering::SeqCst) {
            let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: SOON };
            timerfd_settime(&self.soon, TimerfdTimerFlags::empty(), &once).expect("a timer that was made can be set");
        }
    }

    /// Takes back what [`Shared::wake`] did; the caller looks at the table after this.
    pub fn woken(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.wake, &mut count);
        self.woken.store(false, Ordering::SeqCst);
    }

    /// Takes back what [`Shared::wake_soon`] did, likewise.
    pub fn woken_soon(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.soon, &mut count);
        self.soon_set.store(false, Ordering::SeqCst);
    }

    /// Has [`Shared::heard`] tell, once, when there is something to read on this stream.
    pub fn listen_to(&self, lent: &Lent) -> rustix::io::Result<()> {
        let (pid, once) =
            (epoll::EventData::new_u64(lent.pid() as u64), epoll::EventFlags::IN | epoll::EventFlags::ONESHOT);
        match epoll::modify(&self.lent, lent.stream(), pid, once) {
            // It is its process's first task.
            Err(rustix::io::Errno::NOENT) => epoll::add(&self.lent, lent.stream(), pid, once),
            done => done,
        }
    }

    /// Readable when [`Shared::heard`] has something to tell.
    pub fn lent_fd(&self) -> impl AsFd {
        &self.lent
    }

    /// The processes on whose streams there is something to read.
    pub fn heard(&self) -> Vec<i32> {
        let mut events = Vec::with_capacity(64);
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // An interruption is as good as none: what was not told is told the next time.
        let _ = epoll::wait(&self.lent, spare_capacity(&mut events), Some(&now));
        events.iter().map(|event: &epoll::Event| event.data.u64() as i32).collect()
    }

    /// Readable after [`Shared::wake_servers`].
    pub fn servers_fd(&self) -> impl AsFd {
        &self.servers
    }

    /// Makes the thread of the fork servers look at the table.
    pub fn wake_servers(&self) {
        let _ = rustix::io::write(&self.servers, &1u64.to_ne_bytes());
    }

    /// Takes back what [`Shared::wake_servers`] did, likewise.
    pub fn servers_woken(&self) {
        let _ = rustix::io::read(&self.servers, &mut [0; 8]);
    }
}
