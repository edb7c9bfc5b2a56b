//! Queues: named orders of jobs. One exists, `default`; creating and setting them comes with fair share.

use crate::shape::Shape;

/// The queue of jobs that name none.
pub(crate) const DEFAULT: &str = "default";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Queue {
    pub weight: u32,
    pub paused: bool,
    /// Zero means: no limit.
    pub max_running: u64,
    pub max_cpu_milli: u64,
    pub max_memory_mib: u64,
    pub max_queued: u64,
    /// Derived.
    pub load: Load,
}

/// Derived: what is in a queue now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Load {
    /// Tasks that wait, back-offs and dependencies included.
    pub queued: u64,
    /// Tasks with a lease.
    pub running: u64,
    /// Capacity that they hold.
    pub used: Shape,
}

impl Queue {
    pub fn new() -> Self {
        Self {
            weight: 1,
            paused: false,
            max_running: 0,
            max_cpu_milli: 0,
            max_memory_mib: 0,
            max_queued: 0,
            load: Load::default(),
        }
    }

    /// How many more tasks of this shape its limits allow, when so much is in use.
    pub fn room(&self, load: &Load, shape: &Shape) -> u64 {
        let left = |most: u64, used: u64, each: u64| match (most, each) {
            (0, _) | (_, 0) => u64::MAX,
            (most, each) => most.saturating_sub(used) / each,
        };
        left(self.max_running, load.running, 1)
            .min(left(self.max_cpu_milli, load.used.cpu_milli, shape.cpu_milli))
            .min(left(self.max_memory_mib, load.used.memory_mib, shape.memory_mib))
    }
}
