//! Grants ahead of need: a worker whose tasks take less than the way to the leader and back would idle between
//! them; so it is given some of the same job before it has room.
//!
//! A job is short when enough of its tasks have ended and they took less than 100 ms on average. Nothing is
//! granted ahead over the head of a job that stands before it and could use the same worker: else the short one
//! would take each place that comes free, for ever.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::{Planner, Worker};
use crate::{
    indexes::{Bucket, Turn},
    job::Job,
    limits,
    session::Session,
};

/// Ends after which the mean is believed.
const PROVEN_ENDS: u32 = 16;
/// How much work a worker is granted ahead, in milliseconds.
const AHEAD_MS: f64 = 100.0;
/// The least that a task is taken to run: spawning alone takes that long.
const LEAST_MS: f64 = 0.5;

/// How many tasks of a job are 100 ms of work for one place; `None` when they aren't short.
fn depth(job: &Job) -> Option<f64> {
    if job.terms.at_most_once || job.runs.ends < PROVEN_ENDS {
        return None;
    }
    let mean = (job.runs.run_ms as f64 / f64::from(job.runs.ends)).max(LEAST_MS);
    (mean < AHEAD_MS).then_some(AHEAD_MS / mean)
}

impl<'s> Planner<'s> {
    /// Fills up what workers hold ahead, in the order of the queues, after all capacity was granted.
    pub(super) fn grant_ahead(&mut self) {
        let state = self.state;
        let mut open: Vec<usize> = (0..self.workers.len()).collect();
        let mut heads: BinaryHeap<Reverse<(Turn, &Bucket)>> = BinaryHeap::new();
        for (bucket, line) in &state.indexes.ready {
            if self.open(bucket) {
                heads.extend(line.get_min().map(|turn| Reverse((*turn, bucket))));
            }
        }
        while let Some(Reverse((turn, bucket))) = heads.pop() {
            if open.is_empty() || self.tasks == 0 || self.steps == 0 {
                return;
            }
            self.steps = self.steps.saturating_sub(1 + open.len());
            let job = state.jobs.get(turn.1).expect("a ready job exists");
            if let Some(depth) = depth(job) {
                self.fill_ahead(turn.1, job, bucket, &open, depth);
            }
            if self.pending(turn.1, job) > 0 && self.queue_room(bucket) > 0 {
                // What is left of it comes next: nothing behind it may be there before.
                open.retain(|worker| !bucket.shape.fits(&self.workers[*worker].capacity));
            } else {
                let next = state.indexes.ready[bucket].get_next(&(turn.0, turn.1 + 1));
                heads.extend(next.map(|turn| Reverse((*turn, bucket))));
            }
        }
    }

    /// Whether a worker has a task of this job: what it runs of others may take long.
    fn runs(&self, worker: &Worker, id: u64) -> bool {
        let leases = |session: &Session| session.holds.leases.range((id, 0)..=(id, u32::MAX)).next().is_some();
        worker.granted == id || self.state.sessions.get(&worker.session).is_some_and(leases)
    }

    fn fill_ahead(&mut self, id: u64, job: &Job, bucket: &'s Bucket, open: &[usize], depth: f64) {
        let room = u64::from(self.pending(id, job)).min(self.queue_room(bucket)).min(self.tasks as u64) as usize;
        let mut hungry: Vec<(usize, usize)> = Vec::new();
        for worker in open {
            let one = &self.workers[*worker];
            let places = bucket.shape.times(&one.capacity) as f64;
            // Rounded up, so that a worker has at least one waiting for each place.
            let target = ((depth * places).ceil() as usize).min(limits::AHEAD);
            // Topped up when half is gone: many small entries would cost more than they bring.
            if !one.sated && self.runs(one, id) && places >= 1.0 && one.ahead * 2 <= target && one.ahead < target {
                hungry.push((*worker, target - one.ahead));
            }
        }
        // What is scarce is shared evenly, or the last worker would run long alone.
        let mut left = room;
        let mut shares = Vec::with_capacity(hungry.len());
        hungry.sort_unstable_by_key(|(_, wanted)| *wanted);
        let count = hungry.len();
        for (position, (worker, wanted)) in hungry.into_iter().enumerate() {
            let fair = left.div_ceil(count - position);
            let share = wanted.min(fair);
            left -= share;
            self.workers[worker].ahead += share;
            shares.push((worker, share));
        }
        self.hand_out(id, job, bucket, &shares, true);
    }
}
