//! Grants ahead of need: a worker whose tasks take less than the way to the leader and back would idle between
//! them; so it is given some of the same job before it has room.
//!
//! A job is short when enough of its tasks have ended and they took less than 100 ms on average. Nothing is
//! granted ahead over the head of a job that stands before it and could use the same worker: else the short one
//! would take each place that comes free, for ever.

use super::{Cursor, Planner, Worker, lanes::Head};
use crate::{job::Job, limits, session::Session};

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
        // Where room is kept for somebody, nothing may be waiting for it.
        let mut open: Vec<usize> =
            (0..self.workers.len()).filter(|worker| self.workers[*worker].kept.is_none()).collect();
        for mut lane in self.lanes(&Cursor::default()).in_order() {
            while let Some(head) = lane.pop() {
                if open.is_empty() || self.tasks == 0 || self.steps == 0 {
                    return;
                }
                self.steps = self.steps.saturating_sub(1 + open.len());
                let ask = &head.bucket.ask;
                let alone = head.grown.is_some() || ask.shapes.len() > 1 || !ask.licenses.is_empty();
                if let Some(depth) = depth(self.job(head.turn.1)).filter(|_| !alone) {
                    self.fill_ahead(&head, &open, depth);
                }
                if self.pending(&head) > 0 && self.room(head.bucket, ask.shape()) > 0 {
                    // What is left of it comes next: nothing behind it may be there before.
                    open.retain(|worker| {
                        let worker = &self.workers[*worker];
                        !ask.shapes.iter().any(|shape| worker.could_hold(ask, shape))
                    });
                } else {
                    lane.push_next(self.state, &head);
                }
            }
        }
    }

    /// Whether a worker has a task of this job: what it runs of others may take long.
    fn runs(&self, worker: &Worker, id: u64) -> bool {
        let leases = |session: &Session| session.holds.leases.range((id, 0)..=(id, u32::MAX)).next().is_some();
        worker.granted == id || self.state.sessions.get(&worker.session).is_some_and(leases)
    }

    fn fill_ahead(&mut self, head: &Head<'s>, open: &[usize], depth: f64) {
        let (id, ask) = (head.turn.1, &head.bucket.ask);
        let room = u64::from(self.pending(head)).min(self.room(head.bucket, ask.shape())).min(self.tasks as u64);
        let mut hungry: Vec<(usize, usize)> = Vec::new();
        for worker in open {
            let one = &self.workers[*worker];
            let places = ask.shape().times(&one.about.capacity) as f64;
            // Rounded up, so that a worker has at least one waiting for each place.
            let target = ((depth * places).ceil() as usize).min(limits::AHEAD);
            // Topped up when half is gone: many small entries would cost more than they bring.
            let low = places >= 1.0 && one.ahead * 2 <= target && one.ahead < target;
            if !one.sated && low && ask.unmet(one.about).is_none() && self.runs(one, id) {
                hungry.push((*worker, target - one.ahead));
            }
        }
        // What is scarce is shared evenly, or the last worker would run long alone.
        let mut left = room as usize;
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
        self.hand_out(head, &shares, 0, true);
    }
}
