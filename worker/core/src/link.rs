//! The stream to a coordinator: when to open one, and when to give one up.

use crate::timing::{RECONNECT_LEAST_MS, RECONNECT_MOST_MS, UNANSWERED_MS};

/// Where the newest stream stands. A crash of the agent leaves nothing of it: the next one starts at `Idle`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// There is none; one is opened at `at_ms`.
    Idle { at_ms: u64 },
    /// The driver connects; left when it says how that went, or when it takes too long.
    Connecting { stream: u64, since_ms: u64 },
    /// `OpenSession` was sent; left by `SessionOpened`.
    Opening { stream: u64, sent_ms: u64 },
    /// The session goes on over it.
    Open { stream: u64 },
}

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) stage: Stage,
    newest: u64,
    failures: u32,
    elsewhere: bool,
    jitter: u64,
}

impl Link {
    pub(crate) fn new(jitter: u64) -> Self {
        Self { stage: Stage::Idle { at_ms: 0 }, newest: 0, failures: 0, elsewhere: false, jitter }
    }

    /// The stream that exists, in whichever stage.
    pub(crate) fn stream(&self) -> Option<u64> {
        match self.stage {
            Stage::Idle { .. } => None,
            Stage::Connecting { stream, .. } | Stage::Opening { stream, .. } | Stage::Open { stream } => Some(stream),
        }
    }

    /// The stream over which the session goes on.
    pub(crate) fn open(&self) -> Option<u64> {
        match self.stage {
            Stage::Open { stream } => Some(stream),
            Stage::Idle { .. } | Stage::Connecting { .. } | Stage::Opening { .. } => None,
        }
    }

    /// Begins a stream when one is due: its number, and whether another coordinator is wanted.
    pub(crate) fn connect_if_due(&mut self, now_ms: u64) -> Option<(u64, bool)> {
        match self.stage {
            Stage::Idle { at_ms } if at_ms <= now_ms => {
                self.newest += 1;
                self.stage = Stage::Connecting { stream: self.newest, since_ms: now_ms };
                Some((self.newest, std::mem::take(&mut self.elsewhere)))
            }
            _ => None,
        }
    }

    /// Notes that the session stands: the next failure is the first again.
    pub(crate) fn opened(&mut self, stream: u64) {
        self.stage = Stage::Open { stream };
        self.failures = 0;
    }

    /// Plans another stream, `least_ms` from now or later: at once after the first failure.
    pub(crate) fn retire(&mut self, now_ms: u64, elsewhere: bool, least_ms: u64) {
        let delay_ms = match self.failures {
            0 => 0,
            failures => self.delay_ms(failures - 1),
        };
        self.failures = self.failures.saturating_add(1);
        self.elsewhere |= elsewhere;
        self.stage = Stage::Idle { at_ms: now_ms + delay_ms.max(least_ms) };
    }

    /// Doubles from [`RECONNECT_LEAST_MS`] with the doublings, and differs between workers by up to a half.
    pub(crate) fn delay_ms(&self, doublings: u32) -> u64 {
        let base = (RECONNECT_LEAST_MS << doublings.min(20)).min(RECONNECT_MOST_MS);
        let mixed = self.jitter.wrapping_add(self.newest).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
        base + mixed % (base / 2 + 1)
    }

    /// Whether opening it takes too long.
    pub(crate) fn overdue(&self, now_ms: u64) -> bool {
        self.give_up_ms().is_some_and(|at_ms| at_ms <= now_ms)
    }

    fn give_up_ms(&self) -> Option<u64> {
        match self.stage {
            Stage::Connecting { since_ms, .. } => Some(since_ms + UNANSWERED_MS),
            Stage::Opening { sent_ms, .. } => Some(sent_ms + UNANSWERED_MS),
            Stage::Idle { .. } | Stage::Open { .. } => None,
        }
    }

    pub(crate) fn timer_ms(&self) -> Option<u64> {
        match self.stage {
            Stage::Idle { at_ms } => Some(at_ms),
            _ => self.give_up_ms(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_retried_at_once_and_later_ones_ever_more_slowly() {
        let mut link = Link::new(7);
        assert_eq!(link.connect_if_due(0), Some((1, false)));
        let mut now_ms = 0;
        let mut delays = Vec::new();
        for _ in 0..8 {
            link.retire(now_ms, true, 0);
            let at_ms = link.timer_ms().unwrap_or_default();
            delays.push(at_ms - now_ms);
            now_ms = at_ms;
            assert!(matches!(link.connect_if_due(now_ms), Some((_, true))));
        }
        assert_eq!(delays[0], 0);
        for (doublings, delay_ms) in delays[1..].iter().enumerate() {
            let base = (RECONNECT_LEAST_MS << doublings).min(RECONNECT_MOST_MS);
            assert!((base..=base + base / 2).contains(delay_ms), "{delays:?}");
        }
    }
}
