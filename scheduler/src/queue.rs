//! Queues: named orders of jobs, among which the grid is shared.

use proto::v1::{Placement, QueueGuarantee, QueueSettings};

use crate::{job::Runs, shape::Shape, usage::Usage};

/// The queue of jobs that name none. It is there from the beginning and stays.
pub(crate) const DEFAULT: &str = "default";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Queue {
    pub weight: u32,
    pub paused: bool,
    /// No submit is taken.
    pub draining: bool,
    /// Zero means: no limit.
    pub max_running: u64,
    pub max_cpu_milli: u64,
    pub max_memory_mib: u64,
    pub max_queued: u64,
    pub guarantee: QueueGuarantee,
    pub placement: Placement,
    pub usage: Usage,
    /// How long its tasks ran of late.
    pub recent: Runs,
    /// Room that is kept for its first job that fitted nowhere.
    pub reservation: Option<Reservation>,
    /// Derived.
    pub load: Load,
}

/// Room kept for a job: what it leaves of the worker, others may have, and the rest until it could start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reservation {
    pub job: u64,
    pub session: u64,
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
            draining: false,
            max_running: 0,
            max_cpu_milli: 0,
            max_memory_mib: 0,
            max_queued: 0,
            guarantee: QueueGuarantee::default(),
            placement: Placement::Spread,
            usage: Usage::default(),
            recent: Runs::default(),
            reservation: None,
            load: Load::default(),
        }
    }

    /// Takes over what is named.
    pub fn set(&mut self, settings: &QueueSettings) {
        fn take<T: Copy>(field: &mut T, value: Option<T>) {
            *field = value.unwrap_or(*field);
        }
        take(&mut self.weight, settings.weight);
        take(&mut self.paused, settings.paused);
        take(&mut self.draining, settings.draining);
        take(&mut self.max_running, settings.max_running);
        take(&mut self.max_cpu_milli, settings.max_cpu_milli);
        take(&mut self.max_memory_mib, settings.max_memory_mib);
        take(&mut self.max_queued, settings.max_queued);
        take(&mut self.guarantee.running, settings.guaranteed_running);
        take(&mut self.guarantee.cpu_milli, settings.guaranteed_cpu_milli);
        take(&mut self.guarantee.memory_mib, settings.guaranteed_memory_mib);
        take(&mut self.placement, settings.placement.and_then(|placement| Placement::try_from(placement).ok()));
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

    /// Whether so much in use is less than it is guaranteed.
    pub fn is_short(&self, load: &Load) -> bool {
        load.running < self.guarantee.running
            || load.used.cpu_milli < self.guarantee.cpu_milli
            || load.used.memory_mib < self.guarantee.memory_mib
    }

    /// Brings its usage up to date; before any change of what is in use.
    pub fn count_usage(&mut self, now_ms: u64, half_life_ms: u64) {
        if self.usage.at_ms < now_ms {
            self.usage = self.usage.until(now_ms, &self.load.used, half_life_ms);
        }
    }
}
