//! What the running tasks occupy of the machine.

use proto::v1::{Capacity, Resources};

/// Capacity and its use. Never refuses to give back, never counts below zero.
#[derive(Debug)]
pub(crate) struct Slots {
    capacity: Capacity,
    cpu_milli: u64,
    memory_mib: u64,
    gpus: u64,
    scratch_gib: u64,
    tasks: u64,
}

impl Slots {
    pub(crate) fn new(capacity: Capacity) -> Self {
        Self { capacity, cpu_milli: 0, memory_mib: 0, gpus: 0, scratch_gib: 0, tasks: 0 }
    }

    /// Whether there is room. An idle machine has room for anything: whether it is large enough at all was the
    /// coordinator's question, and a task that nobody starts would wait for ever.
    pub(crate) fn fits(&self, wanted: &Resources) -> bool {
        self.tasks == 0
            || (self.cpu_milli + wanted.cpu_milli <= self.capacity.cpu_milli
                && self.memory_mib + wanted.memory_mib <= self.capacity.memory_mib
                && self.gpus + u64::from(wanted.gpus) <= u64::from(self.capacity.gpus)
                && self.scratch_gib + wanted.scratch_gib <= self.capacity.scratch_gib)
    }

    /// How many have room.
    pub(crate) fn taken(&self) -> usize {
        usize::try_from(self.tasks).unwrap_or(usize::MAX)
    }

    pub(crate) fn take(&mut self, taken: &Resources) {
        self.cpu_milli += taken.cpu_milli;
        self.memory_mib += taken.memory_mib;
        self.gpus += u64::from(taken.gpus);
        self.scratch_gib += taken.scratch_gib;
        self.tasks += 1;
    }

    pub(crate) fn give(&mut self, given: &Resources) {
        self.cpu_milli = self.cpu_milli.saturating_sub(given.cpu_milli);
        self.memory_mib = self.memory_mib.saturating_sub(given.memory_mib);
        self.gpus = self.gpus.saturating_sub(u64::from(given.gpus));
        self.scratch_gib = self.scratch_gib.saturating_sub(given.scratch_gib);
        self.tasks = self.tasks.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_counted_in_every_dimension() {
        let mut slots = Slots::new(Capacity { cpu_milli: 2000, memory_mib: 100, gpus: 1, scratch_gib: 10 });
        let small = Resources { cpu_milli: 500, memory_mib: 10, gpus: 0, scratch_gib: 1 };
        slots.take(&small);
        for (wanted, fits) in [
            (Resources { cpu_milli: 1500, memory_mib: 90, gpus: 1, scratch_gib: 9 }, true),
            (Resources { cpu_milli: 1501, ..Default::default() }, false),
            (Resources { memory_mib: 91, ..Default::default() }, false),
            (Resources { gpus: 2, ..Default::default() }, false),
            (Resources { scratch_gib: 10, ..Default::default() }, false),
        ] {
            assert_eq!(slots.fits(&wanted), fits, "{wanted:?}");
        }
        slots.give(&small);
        assert!(slots.fits(&Resources { cpu_milli: 9000, ..Default::default() }), "an idle machine takes anything");
    }
}
