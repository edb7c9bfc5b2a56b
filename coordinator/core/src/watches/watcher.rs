//! One watch: what it wants to hear of, and what it has not been told yet.

use std::collections::{BTreeMap, BTreeSet};

use proto::internal::OrdinalRange;
use scheduler::State;

use crate::limits;

/// A change that a watch may show.
#[derive(Debug, Clone, Copy)]
pub(super) enum Change {
    Job(u64),
    Tasks(u64, OrdinalRange),
}

impl Change {
    pub fn job(self) -> u64 {
        match self {
            Self::Job(job) | Self::Tasks(job, _) => job,
        }
    }

    /// Whether it may be an end.
    fn may_end(self, state: &State) -> bool {
        match self {
            Self::Job(job) => state.job_has_ended(job),
            Self::Tasks(job, range) => {
                let mut ordinals = range.first..range.first + range.count;
                // Whoever waits for many has much to hear of anyway.
                range.count as usize > limits::PATIENT_TASKS
                    || ordinals.any(|ordinal| state.task_has_ended(job, ordinal))
            }
        }
    }
}

/// Which jobs a watch is about.
#[derive(Debug, Clone)]
pub(super) enum Wanted {
    Jobs(BTreeSet<u64>),
    /// All jobs with all of these labels.
    Labels(BTreeMap<String, String>),
}

impl Wanted {
    /// Whether it is about this job, as far as the state knows it.
    pub fn includes(&self, job: u64, state: &State) -> bool {
        match self {
            Self::Jobs(jobs) => jobs.contains(&job),
            Self::Labels(wanted) => state
                .labels(job)
                .is_some_and(|labels| wanted.iter().all(|(name, value)| labels.get(name) == Some(value))),
        }
    }
}

#[derive(Debug)]
pub(super) struct Watcher {
    pub wanted: Wanted,
    pub tasks: bool,
    /// Messages that its caller has not taken yet.
    pub untaken: u32,
    pub changed_jobs: BTreeSet<u64>,
    pub changed_tasks: BTreeMap<u64, Vec<OrdinalRange>>,
    /// News that aren't an end may wait so long.
    pub patience_ms: u64,
    /// When the oldest news has to be told.
    pub due_ms: Option<u64>,
    /// What it was told is void, since something got lost.
    pub anew: bool,
}

impl Watcher {
    pub fn new(wanted: Wanted, tasks: bool, patience_ms: u64) -> Self {
        Self {
            wanted,
            tasks,
            untaken: 0,
            changed_jobs: BTreeSet::new(),
            changed_tasks: BTreeMap::new(),
            patience_ms,
            due_ms: None,
            anew: false,
        }
    }

    pub fn note(&mut self, change: Change, state: &State, now_ms: u64) {
        match change {
            Change::Job(job) => {
                self.changed_jobs.insert(job);
            }
            Change::Tasks(job, range) if self.tasks => add_range(self.changed_tasks.entry(job).or_default(), range),
            Change::Tasks(..) => return,
        }
        let patience_ms = if self.patience_ms > 0 && change.may_end(state) { 0 } else { self.patience_ms };
        let due_ms = now_ms + patience_ms;
        self.due_ms = Some(self.due_ms.map_or(due_ms, |due| due.min(due_ms)));
    }

    pub fn has_news(&self) -> bool {
        !self.changed_jobs.is_empty() || !self.changed_tasks.is_empty()
    }

    /// Its caller is to ask for everything again.
    pub fn begin_anew(&mut self, now_ms: u64) {
        (self.anew, self.due_ms) = (true, Some(now_ms));
    }

    /// Whether its caller is to be told something now, and has room for it.
    pub fn is_due(&self, now_ms: u64) -> bool {
        self.due_ms.is_some_and(|due| due <= now_ms) && self.untaken < limits::UNTAKEN_MESSAGES
    }
}

/// Adds a range to ascending ones that don't touch.
fn add_range(ranges: &mut Vec<OrdinalRange>, range: OrdinalRange) {
    let (mut first, mut end) = (range.first, range.first + range.count);
    let from = ranges.partition_point(|known| known.first + known.count < first);
    let to = ranges.partition_point(|known| known.first <= end);
    if let Some(touching) = ranges.get(from..to).filter(|touching| !touching.is_empty()) {
        first = first.min(touching[0].first);
        end = end.max(touching[touching.len() - 1].first + touching[touching.len() - 1].count);
    }
    ranges.splice(from..to, [OrdinalRange { first, count: end - first }]);
}

/// The first `room` ordinals, and the rest.
pub(super) fn split_ranges(ranges: Vec<OrdinalRange>, room: usize) -> (Vec<OrdinalRange>, Vec<OrdinalRange>) {
    let (mut now, mut later, mut left) = (Vec::new(), Vec::new(), u32::try_from(room).unwrap_or(u32::MAX));
    for range in ranges {
        let count = range.count.min(left);
        left -= count;
        if count > 0 {
            now.push(OrdinalRange { first: range.first, count });
        }
        if count < range.count {
            later.push(OrdinalRange { first: range.first + count, count: range.count - count });
        }
    }
    (now, later)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u32, count: u32) -> OrdinalRange {
        OrdinalRange { first, count }
    }

    #[test]
    fn ranges_that_touch_are_joined() {
        let mut ranges = Vec::new();
        for added in [range(5, 2), range(0, 1), range(1, 2), range(10, 1), range(4, 3)] {
            add_range(&mut ranges, added);
        }
        assert_eq!(ranges, [range(0, 3), range(4, 3), range(10, 1)]);
        add_range(&mut ranges, range(0, 20));
        assert_eq!(ranges, [range(0, 20)]);
    }

    #[test]
    fn a_message_takes_what_fits_and_leaves_the_rest() {
        let split = split_ranges(vec![range(0, 3), range(10, 5)], 5);
        assert_eq!(split, (vec![range(0, 3), range(10, 2)], vec![range(12, 3)]));
    }
}
