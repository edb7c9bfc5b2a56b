//! What a queue used of late, in integers: what is in use adds up, and at every 64th part of the half-life all of it
//! shrinks by the 64th root of one half. So equal histories are equal numbers on every replica.

use crate::shape::{Resource, Shape};

/// Steps in a half-life.
const STEPS: u64 = 64;
/// After so many half-lives nothing of the past is left to speak of.
const HALF_LIVES: u64 = 10;
/// 2^(-1/64), in units of 2^-32.
const SHRINK: u128 = 4_248_701_965;

/// Amounts times milliseconds of log time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Usage {
    /// Log time up to which everything is counted.
    pub at_ms: u64,
    pub cpu: u64,
    pub memory: u64,
    pub gpus: u64,
    pub scratch: u64,
}

impl Usage {
    /// As it is at `now_ms`, when `used` has been in use since it was last brought up to date.
    pub fn until(mut self, now_ms: u64, used: &Shape, half_life_ms: u64) -> Self {
        if now_ms <= self.at_ms {
            return self;
        }
        if half_life_ms < STEPS {
            return Self { at_ms: now_ms, ..Self::default() };
        }
        let step = half_life_ms / STEPS;
        let horizon = step * STEPS * HALF_LIVES;
        if now_ms - self.at_ms > horizon {
            self = Self { at_ms: now_ms - horizon, ..Self::default() };
        }
        while self.at_ms < now_ms {
            let boundary = (self.at_ms / step + 1) * step;
            let next = boundary.min(now_ms);
            self.add(used, next - self.at_ms);
            if next == boundary {
                self.shrink();
            }
            self.at_ms = next;
        }
        self
    }

    fn add(&mut self, used: &Shape, milliseconds: u64) {
        let more = |sum: &mut u64, amount: u64| *sum = sum.saturating_add(amount.saturating_mul(milliseconds));
        more(&mut self.cpu, used.cpu_milli);
        more(&mut self.memory, used.memory_mib);
        more(&mut self.gpus, u64::from(used.gpus));
        more(&mut self.scratch, used.scratch_gib);
    }

    fn shrink(&mut self) {
        for sum in [&mut self.cpu, &mut self.memory, &mut self.gpus, &mut self.scratch] {
            *sum = ((u128::from(*sum) * SHRINK) >> 32) as u64;
        }
    }

    pub fn amount(&self, resource: Resource) -> u64 {
        match resource {
            Resource::Cpu => self.cpu,
            Resource::Memory => self.memory,
            Resource::Gpu => self.gpus,
            Resource::Scratch => self.scratch,
        }
    }
}

/// What constant use adds up to in the long run, in milliseconds of it: the half-life divided by ln 2.
pub(crate) fn memory_ms(half_life_ms: u64) -> u64 {
    half_life_ms + half_life_ms * 443 / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF_LIFE: u64 = 640_000;

    fn used(cpu_milli: u64) -> Shape {
        Shape { cpu_milli, ..Shape::default() }
    }

    #[test]
    fn use_counts_half_after_a_half_life() {
        let start = Usage { cpu: 1 << 40, ..Usage::default() };
        let after = start.until(HALF_LIFE, &used(0), HALF_LIFE);
        assert!(after.cpu.abs_diff(1 << 39) < 1 << 20, "{after:?}");
        let long_after = start.until(HALF_LIFE * 11, &used(0), HALF_LIFE);
        assert_eq!(long_after.cpu, 0);
    }

    #[test]
    fn constant_use_settles_at_the_memory_of_the_half_life() {
        let settled = Usage::default().until(HALF_LIFE * 10, &used(1000), HALF_LIFE);
        let expected = 1000 * memory_ms(HALF_LIFE);
        assert!(settled.cpu.abs_diff(expected) < expected / 50, "{settled:?}, not {expected}");
    }

    #[test]
    fn the_steps_in_which_time_goes_on_change_nothing() {
        let at_once = Usage::default().until(1_000_000, &used(3), HALF_LIFE);
        let mut by_steps = Usage::default();
        for now in (0..=1_000_000).step_by(317).chain([1_000_000]) {
            by_steps = by_steps.until(now, &used(3), HALF_LIFE);
        }
        assert_eq!(by_steps, at_once);
    }

    #[test]
    fn without_a_half_life_nothing_is_remembered() {
        assert_eq!(Usage::default().until(5, &used(9), 0), Usage { at_ms: 5, ..Usage::default() });
    }
}
