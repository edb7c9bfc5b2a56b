//! How long the core thread applies nothing while a snapshot is being taken.
//!
//! In the thread's own processor time: by the wall clock one would see how the system shares its processors among
//! everything that runs on the machine.

use std::time::Duration;

use crate::clock;

/// Adds up round by round what a thread does besides applying.
#[derive(Debug, Default)]
pub struct Pauses {
    /// The thread's processor time when the round began.
    begun: Duration,
    /// Of this round, spent on applying.
    applied: Duration,
    /// The longest round less what it applied, of those since the snapshot began that is being taken.
    longest: Option<Duration>,
}

impl Pauses {
    /// A round begins.
    pub fn begin_round(&mut self) {
        (self.begun, self.applied) = (clock::thread_time(), Duration::ZERO);
    }

    /// It is over.
    pub fn end_round(&mut self) {
        if let Some(longest) = &mut self.longest {
            let paused = (clock::thread_time() - self.begun).saturating_sub(self.applied);
            *longest = paused.max(*longest);
        }
    }

    /// What `apply` takes is no pause.
    pub fn applying(&mut self, apply: impl FnOnce()) {
        if self.longest.is_none() {
            return apply();
        }
        let begun = clock::thread_time();
        apply();
        self.applied += clock::thread_time() - begun;
    }

    /// A snapshot begins: the copy of the state was made in this round, which counts.
    pub fn snapshot_begun(&mut self) {
        self.longest = Some(Duration::ZERO);
    }

    /// It has ended; the longest pause, if one had begun.
    pub fn snapshot_ended(&mut self) -> Option<Duration> {
        self.longest.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(least: Duration) {
        let begun = clock::thread_time();
        while clock::thread_time() - begun < least {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn what_is_applied_is_no_pause_and_what_is_slept_neither() {
        let long = Duration::from_millis(20);
        let mut pauses = Pauses::default();
        pauses.begin_round();
        pauses.snapshot_begun();
        pauses.applying(|| work(long));
        std::thread::sleep(long);
        pauses.end_round();
        let idle = pauses.snapshot_ended().unwrap_or_default();
        assert!(idle < long, "{idle:?}");

        pauses.begin_round();
        pauses.snapshot_begun();
        work(long);
        pauses.end_round();
        pauses.begin_round();
        pauses.end_round();
        let busy = pauses.snapshot_ended().unwrap_or_default();
        assert!(busy >= long, "{busy:?}");
        assert_eq!(pauses.snapshot_ended(), None);
    }
}
