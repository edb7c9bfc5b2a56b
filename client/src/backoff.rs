//! How long to wait between tries.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// First pause once every endpoint has failed; a change of leader takes about a second, so that the first few
/// pauses are well below it.
const MIN_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause: what a caller may lose after the grid is back.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Jittered, doubling pauses without an end. The first tries go round the endpoints at once: where one
/// coordinator is gone the others most often are not.
pub(crate) struct Pauses {
    at_once: usize,
    endless: ExponentialBackoff,
}

impl Pauses {
    /// For a grid of so many endpoints.
    pub(crate) fn new(endpoints: usize) -> Self {
        let mut seed = [0u8; 8];
        getrandom::fill(&mut seed).expect("the operating system has randomness once it has booted");
        let endless = ExponentialBuilder::new()
            .with_min_delay(MIN_PAUSE)
            .with_max_delay(MAX_PAUSE)
            .with_jitter()
            .with_jitter_seed(u64::from_le_bytes(seed))
            .without_max_times()
            .build();
        Self { at_once: endpoints.saturating_sub(1), endless }
    }

    /// The pause before the next try.
    pub(crate) fn next_pause(&mut self) -> Duration {
        match self.at_once.checked_sub(1) {
            Some(left) => {
                self.at_once = left;
                Duration::ZERO
            }
            None => self.endless.next().unwrap_or(MAX_PAUSE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_tried_at_once_and_then_with_bounded_pauses() {
        let mut pauses = Pauses::new(3);
        let first: Vec<Duration> = (0..30).map(|_| pauses.next_pause()).collect();
        assert_eq!(first[..2], [Duration::ZERO; 2]);
        assert!(first[2] >= MIN_PAUSE && first[2] <= 2 * MIN_PAUSE);
        assert!(first[20..].iter().all(|pause| *pause >= MAX_PAUSE && *pause <= 2 * MAX_PAUSE));
    }
}
