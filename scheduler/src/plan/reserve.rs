//! No starvation: for the first job of a queue that fits nowhere, room is kept on the worker where it will come free
//! soonest. Others may have what is left beside it, or what they give back, by their time limits, before it starts.
//!
//! A plan keeps such room by itself; it is written into the log only once somebody would have taken of it, and then
//! stays until it is used or void, whoever leads.

use std::{cell::Cell, sync::Arc};

use proto::internal::reserve::Reservation as Reserved;

use super::{Planner, Worker, lanes::Head, worker::Kept};
use crate::{ask::Ask, indexes::Bucket, job::Job, queue::Queue, shape::Shape};

/// Workers of which it is computed when their tasks will have ended.
const CANDIDATES: usize = 16;
/// Rooms that one plan keeps by itself.
const KEPT_BY_A_PLAN: usize = 8;

impl<'s> Planner<'s> {
    /// Keeps the room that the log says, and voids what doesn't hold any more.
    pub(super) fn take_up_reservations(&mut self) {
        let state = self.state;
        for (name, queue) in &state.queues {
            let Some(reservation) = queue.reservation else { continue };
            let worker = self.workers.iter().position(|worker| worker.session == reservation.session);
            let job = state.jobs.get(reservation.job);
            let good = job.zip(worker).and_then(|(job, worker)| self.still_good(queue, name, job, worker));
            match good {
                Some((worker, kept)) => self.workers[worker].kept = Some(Kept { job: reservation.job, ..kept }),
                None => self.reservations.push(Reserved { queue: name.to_string(), ..Reserved::default() }),
            }
        }
    }

    fn still_good(&self, queue: &Queue, name: &Arc<str>, job: &Job, worker: usize) -> Option<(usize, Kept)> {
        let waits = job.startable() && job.counts.pending + job.counts.grown > 0 && job.terms.queue == *name;
        let worker_of = &self.workers[worker];
        let shape = job.terms.ask.shapes.iter().find(|shape| worker_of.could_hold(&job.terms.ask, shape))?;
        let bucket = Bucket::of(&job.terms);
        let allowed = !queue.paused && self.room(&bucket, shape) > 0;
        (waits && allowed && worker_of.kept.is_none()).then(|| (worker, self.kept(0, shape, worker_of)))
    }

    /// Grants a task of a job where room is kept for it, if it has come free; or for one that stands behind it in its
    /// queue. (It wasn't there, or held, when the room was kept: the other can't start before it has.)
    pub(super) fn use_reservation(&mut self, head: &Head<'s>) -> bool {
        let id = head.turn.1;
        let mine = |kept: &Kept| kept.job == id || self.state.stands_before(id, kept.job);
        let Some(at) = self.workers.iter().position(|worker| worker.kept.as_ref().is_some_and(mine)) else {
            return false;
        };
        let ask = &head.bucket.ask;
        let fits = |shape: &Shape| shape.fits(&self.workers[at].free) && self.room(head.bucket, shape) > 0;
        let Some(alternative) = ask.shapes.iter().position(fits) else { return false };
        let now_ms = self.state.time_ms;
        let worker = &mut self.workers[at];
        // The other's is kept until it is its turn. When that will be, this plan can't say.
        worker.kept = worker.kept.take().filter(|kept| kept.job != id).map(|kept| Kept { start_ms: now_ms, ..kept });
        worker.free = worker.free.less(&ask.shapes[alternative]);
        worker.leases += 1;
        self.hand_out(head, &[(at, 1)], alternative, false) > 0
    }

    /// Keeps room for a job that fits nowhere, if its queue has none kept yet and some worker could hold it.
    pub(super) fn keep_room(&mut self, head: &Head<'s>) {
        let queue = self.queue(head.bucket);
        let kept = self.workers.iter().filter_map(|worker| worker.kept.as_ref());
        let mine = kept.clone().any(|kept| self.job(kept.job).terms.queue == head.bucket.queue);
        if mine || queue.reservation.is_some() || kept.count() >= KEPT_BY_A_PLAN || self.pending(head) == 0 {
            return;
        }
        if head.bucket.ask.shapes.iter().all(|shape| self.room(head.bucket, shape) == 0) {
            return;
        }
        // Where all ask for as much, nobody slips past: whatever comes free fits the first of them.
        let ready = self.state.indexes.ready.keys().chain(self.state.indexes.grown.keys());
        let asked = |bucket: &'s Bucket| bucket.ask.shapes.iter();
        if ready.flat_map(asked).all(|other| head.bucket.ask.shapes.iter().any(|shape| shape.fits(other))) {
            return;
        }
        self.steps = self.steps.saturating_sub(self.workers.len());
        if let Some((worker, kept)) = self.soonest(&head.bucket.ask, head.turn.1) {
            self.workers[worker].kept = Some(kept);
        }
    }

    /// The worker on which a task could start first.
    fn soonest(&self, ask: &Ask, job: u64) -> Option<(usize, Kept)> {
        let mut candidates: Vec<(u64, usize, Shape)> = Vec::new();
        for (position, worker) in self.workers.iter().enumerate().filter(|(_, worker)| worker.kept.is_none()) {
            let Some(shape) = ask.shapes.iter().find(|shape| worker.could_hold(ask, shape)) else { continue };
            candidates.push((lacking(shape, worker), position, *shape));
        }
        // Least lacking first: those are the likeliest, and there may be very many.
        candidates.sort_unstable();
        let candidates = candidates.into_iter().take(CANDIDATES);
        let kept = candidates.map(|(lack, position, shape)| {
            let kept = self.kept(job, &shape, &self.workers[position]);
            (kept.start_ms, lack, position, kept)
        });
        kept.min_by_key(|(start_ms, lack, position, _)| (*start_ms, *lack, *position)).map(|(.., at, kept)| (at, kept))
    }

    fn kept(&self, job: u64, shape: &Shape, worker: &Worker) -> Kept {
        Kept { job, shape: *shape, start_ms: self.start_on(worker, shape), mattered: Cell::new(false) }
    }

    /// When so much will be free there. What has no time limit may end at any moment.
    fn start_on(&self, worker: &Worker, shape: &Shape) -> u64 {
        let now_ms = self.state.time_ms;
        let mut free = worker.free;
        let mut ends: Vec<(u64, Shape)> = Vec::new();
        let leases = self.state.sessions.get(&worker.session).map(|session| &session.holds.leases);
        for (id, ordinal) in leases.into_iter().flatten() {
            let job = self.job(*id);
            let Some(lease) = job.records.get(ordinal).and_then(|record| record.lease()).filter(|one| !one.ahead)
            else {
                continue;
            };
            let limit_ms = job.terms.ask.time_limit_ms;
            let end = if limit_ms == 0 { now_ms } else { lease.granted_ms.saturating_add(limit_ms).max(now_ms) };
            ends.push((end, lease.shape(job.terms.shape())));
        }
        ends.sort_unstable();
        let mut start_ms = now_ms;
        for (end, held) in ends {
            if shape.fits(&free) {
                break;
            }
            start_ms = end;
            free.add(&held);
        }
        start_ms
    }

    /// What to write into the log: voids, and rooms that others would have taken of.
    pub(super) fn new_reservations(&self) -> Vec<Reserved> {
        let mut reservations = self.reservations.clone();
        for worker in &self.workers {
            let Some(kept) = worker.kept.as_ref().filter(|kept| kept.mattered.get()) else { continue };
            let name = &self.job(kept.job).terms.queue;
            let known = self.state.queues.get(name).and_then(|queue| queue.reservation);
            if known.is_none_or(|known| known.job != kept.job) {
                let (queue, job_id, session) = (name.to_string(), kept.job, worker.session);
                reservations.push(Reserved { queue, job_id, session });
            }
        }
        reservations
    }
}

/// How much of a worker's capacity is missing, in thousandths, for the resource that lacks most.
fn lacking(shape: &Shape, worker: &Worker) -> u64 {
    let part = |missing: u64, all: u64| missing.saturating_mul(1000) / all.max(1);
    let (free, all) = (&worker.free, &worker.about.capacity);
    [
        part(shape.cpu_milli.saturating_sub(free.cpu_milli), all.cpu_milli),
        part(shape.memory_mib.saturating_sub(free.memory_mib), all.memory_mib),
        part(shape.scratch_gib.saturating_sub(free.scratch_gib), all.scratch_gib),
        part(u64::from(shape.gpus.saturating_sub(free.gpus)), u64::from(all.gpus)),
    ]
    .into_iter()
    .max()
    .unwrap_or_default()
}
