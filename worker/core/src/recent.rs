//! Bounded memories: specs of jobs, and attempts that ended.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use proto::v1::GrantedJob;

use crate::{
    Key,
    timing::{ENDED_REMEMBERED, SPECS},
};

/// Specs received, the oldest forgotten first.
#[derive(Debug, Default)]
pub(crate) struct Specs {
    jobs: BTreeMap<u64, Arc<GrantedJob>>,
    order: VecDeque<u64>,
}

impl Specs {
    pub(crate) fn insert(&mut self, job: GrantedJob) {
        let id = job.job_id;
        if self.jobs.insert(id, Arc::new(job)).is_none() {
            self.order.push_back(id);
        }
        if self.order.len() > SPECS
            && let Some(oldest) = self.order.pop_front()
        {
            self.jobs.remove(&oldest);
        }
    }

    /// For grants to come of a job that is known.
    pub(crate) fn set_time_limit(&mut self, job: u64, time_limit_ms: u64) {
        if let Some(known) = self.jobs.get_mut(&job) {
            Arc::make_mut(known).time_limit_ms = time_limit_ms;
        }
    }

    pub(crate) fn get(&self, job: u64) -> Option<&Arc<GrantedJob>> {
        self.jobs.get(&job)
    }
}

/// Attempts whose end was acknowledged, so that a late repeat of their grant starts nothing.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    keys: BTreeSet<Key>,
    order: VecDeque<Key>,
}

impl Ended {
    pub(crate) fn insert(&mut self, key: Key) {
        if self.keys.insert(key) {
            self.order.push_back(key);
        }
        if self.order.len() > ENDED_REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.keys.remove(&oldest);
        }
    }

    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.keys.contains(key)
    }

    pub(crate) fn clear(&mut self) {
        self.keys.clear();
        self.order.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_are_bounded_and_forget_the_oldest() {
        let (mut specs, mut ended) = (Specs::default(), Ended::default());
        for job in 1..=(SPECS as u64 + 1) {
            specs.insert(GrantedJob { job_id: job, ..Default::default() });
            ended.insert(Key { job, ordinal: 0, attempt: 1 });
        }
        assert!(specs.get(1).is_none() && specs.get(2).is_some());
        assert!(!ended.contains(&Key { job: 1, ordinal: 0, attempt: 1 }));
        assert!(ended.contains(&Key { job: 2, ordinal: 0, attempt: 1 }));
    }
}
