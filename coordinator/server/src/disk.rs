//! The disk under the data directory: how full it is, and the reserve on it.
//!
//! The log may use the last byte, and then the reserve: what workers report must be recorded. New jobs are refused
//! long before, by the core, which is told here.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use coordinator_core::Input;
use replication::Reserve;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tracing::{error, info, warn};

use crate::{config::Election, inbox::Inbox, leadership::Leadership};

/// How often it is looked at: at a gigabyte a second less than [`LOW`] is written meanwhile.
const LOOK: Duration = Duration::from_millis(250);

/// New jobs are refused while less than so many reserves are free. More than what may be on its way to the log already:
/// 64 MiB that wait and 64 MiB that are not committed.
const LOW: u64 = 4;

/// And until so many are free, so that making the reserve again doesn't lead there.
const ENOUGH: u64 = 6;

/// Bytes kept back for a grid of this kind: enough for some hundred thousand ends. A grid for one person's tests has
/// three of them on one disk.
pub fn reserve_bytes(election: Election) -> u64 {
    match election {
        Election::Default => 64 << 20,
        Election::Fast => 8 << 20,
    }
}

/// What is known of the disk, for the metrics and `/readyz`.
#[derive(Debug, Default)]
pub struct Disk {
    free_bytes: AtomicU64,
    low: AtomicBool,
    reserve_held: AtomicBool,
}

impl Disk {
    /// Bytes free, as of the last look.
    pub fn free_bytes(&self) -> u64 {
        self.free_bytes.load(Ordering::Relaxed)
    }

    /// Whether new jobs are refused because of it.
    pub fn is_low(&self) -> bool {
        self.low.load(Ordering::Relaxed)
    }

    /// Whether the reserve is there.
    pub fn reserve_is_held(&self) -> bool {
        self.reserve_held.load(Ordering::Relaxed)
    }
}

/// Looks after the disk until `leadership` ends.
pub async fn watch(reserve: Reserve, disk: Arc<Disk>, core: Arc<Inbox>, mut leadership: watch::Receiver<Leadership>) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watcher = Watcher { reserve, disk, core, troubled: false };
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            changed = leadership.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            }
        }
        // A disk in trouble may take its time to answer.
        let Ok(back) = tokio::task::spawn_blocking(move || {
            watcher.look();
            watcher
        })
        .await
        else {
            return;
        };
        watcher = back;
    }
}

struct Watcher {
    reserve: Reserve,
    disk: Arc<Disk>,
    core: Arc<Inbox>,
    /// That it can't be looked at, or has no reserve, was told.
    troubled: bool,
}

impl Watcher {
    fn look(&mut self) {
        match self.try_look() {
            Ok(()) => self.troubled = false,
            Err(error) if !self.troubled => {
                self.troubled = true;
                error!(%error, "the disk has no reserve: once it is full this coordinator ends");
            }
            Err(_) => {}
        }
        self.disk.reserve_held.store(self.reserve.is_held(), Ordering::Relaxed);
    }

    fn try_look(&self) -> io::Result<()> {
        let free = self.reserve.free_bytes()?;
        self.disk.free_bytes.store(free, Ordering::Relaxed);
        let (bytes, was_low) = (self.reserve.bytes(), self.disk.is_low());
        let low = is_low(was_low, self.reserve.is_held(), free, bytes);
        if low != was_low {
            self.disk.low.store(low, Ordering::Relaxed);
            self.core.push(Input::DiskLow(low));
            match low {
                true => warn!(free_bytes = free, "the disk is almost full: no new jobs while this coordinator leads"),
                false => info!(free_bytes = free, "there is room on the disk again"),
            }
        }
        if low { Ok(()) } else { self.reserve.make() }
    }
}

/// Whether new jobs are to be refused. A reserve that has to be made takes its own size away first.
fn is_low(was_low: bool, reserve_is_held: bool, free: u64, reserve: u64) -> bool {
    let left = if reserve_is_held { free } else { free.saturating_sub(reserve) };
    left < reserve.saturating_mul(if was_low { ENOUGH } else { LOW })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_low_stays_so_until_there_is_clearly_room() {
        assert!(!is_low(false, true, 400, 100));
        assert!(is_low(false, true, 399, 100));
        assert!(is_low(true, true, 599, 100));
        assert!(!is_low(true, true, 600, 100));
    }

    #[test]
    fn room_for_the_reserve_is_no_room_for_jobs() {
        assert!(is_low(true, false, 699, 100));
        assert!(!is_low(true, false, 700, 100));
        // Made again, it leaves what was enough: nothing goes back and forth.
        assert!(!is_low(false, true, 700 - 100, 100));
        assert!(is_low(false, false, 499, 100));
    }
}
