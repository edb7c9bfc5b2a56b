//! The leader's planner: reads a state, proposes grants. It decides nothing, since `apply` looks at every grant
//! again; so it may use floating point, and may change with any release.
//!
//! First fit in the order of the queues. Jobs whose tasks need the same stand in one bucket, and a shape that
//! fits no worker now fits none later in the same plan: so a plan looks at the head of each bucket, at each
//! worker, and at what it grants, but never at the queued rest.

mod ahead;
mod spread;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
};

use proto::{
    internal::{GrantRun, OrdinalRange, assign_publications::Assignment},
    v1::AttemptKey,
};

use self::spread::Spread;
use crate::{
    State,
    indexes::{Bucket, Turn},
    job::{Job, Place},
    limits,
    queue::{Load, Queue},
    shape::Shape,
};

/// Where a plan that ran out of budget goes on: behind everything that stands before this in its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Cursor {
    /// Priority (negated) and number of the first job that was not looked at; absent: from the start.
    at: Option<Turn>,
}

/// What a plan proposes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// At most [`limits::GRANTS_IN_AN_ENTRY`] tasks.
    pub grants: Vec<GrantRun>,
    /// Publications whose session ended, and who is to complete them.
    pub publications: Vec<Assignment>,
    /// Where to go on when the plan isn't finished.
    pub cursor: Cursor,
    /// Whether everything was looked at; then the cursor stands at the start.
    pub finished: bool,
}

/// Plans grants for the sessions that are `heard`, from `cursor` on, in at most `budget` steps. A step is a look
/// at a job, at a worker for a shape, or the grant of a task.
pub fn plan(state: &State, heard: &BTreeSet<u64>, cursor: Cursor, budget: usize) -> Plan {
    let mut planner = Planner::new(state, heard, budget);
    let publications = planner.publications(heard);
    let cursor = planner.fill(cursor);
    if cursor.is_none() {
        planner.grant_ahead();
    }
    Plan { grants: planner.grants, publications, finished: cursor.is_none(), cursor: cursor.unwrap_or_default() }
}

/// Tasks that a plan may grant though looking at the workers has used up its budget.
const LEAST_GRANTS: usize = 64;

struct Planner<'s> {
    state: &'s State,
    workers: Vec<Worker>,
    /// What the queues will hold.
    loads: BTreeMap<&'s str, Load>,
    /// For each job granted from: how many tasks, and from which ordinal on its queued tasks are untouched.
    taken: BTreeMap<u64, Taken>,
    steps: usize,
    tasks: usize,
    grants: Vec<GrantRun>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Taken {
    count: u32,
    next: u32,
}

/// A worker as it will be when the plan is applied.
#[derive(Debug, Clone)]
struct Worker {
    session: u64,
    capacity: Shape,
    free: Shape,
    /// What it holds ahead of need.
    ahead: usize,
    sated: bool,
    leases: usize,
    /// The job of which it was granted a task last in this plan; 0: none.
    granted: u64,
}

impl Worker {
    /// The share of its cpus that is free; more first.
    fn share(&self) -> f64 {
        self.free.cpu_milli as f64 / self.capacity.cpu_milli.max(1) as f64
    }
}

impl<'s> Planner<'s> {
    fn new(state: &'s State, heard: &BTreeSet<u64>, budget: usize) -> Self {
        let workers = heard
            .iter()
            .filter_map(|id| Some((*id, state.sessions.get(id)?)))
            .filter(|(_, session)| session.accepts())
            .map(|(id, session)| Worker {
                session: id,
                capacity: session.about.capacity,
                free: session.free(),
                ahead: session.holds.ahead.len(),
                sated: session.sated,
                leases: session.holds.leases.len(),
                granted: 0,
            })
            .collect();
        let loads = state.queues.iter().map(|(name, queue)| (&**name, queue.load)).collect();
        let taken = BTreeMap::new();
        Self { state, workers, loads, taken, steps: budget, tasks: limits::GRANTS_IN_AN_ENTRY, grants: Vec::new() }
    }

    /// Gives publications whose session ended to those that are heard, evenly. They need no capacity; a worker
    /// that drains does it only where there is no other.
    fn publications(&self, heard: &BTreeSet<u64>) -> Vec<Assignment> {
        let mut sessions: Vec<u64> = self.workers.iter().map(|worker| worker.session).collect();
        if sessions.is_empty() {
            sessions.extend(heard.iter().filter(|id| self.state.sessions.contains_key(*id)));
        }
        let mut sessions = sessions.into_iter().cycle();
        let orphans = self.state.indexes.orphans.iter().take(limits::GRANTS_IN_AN_ENTRY);
        orphans
            .filter_map(|(job_id, ordinal)| {
                let record = self.state.jobs.get(*job_id)?.records.get(ordinal)?;
                let attempt = AttemptKey { job_id: *job_id, ordinal: *ordinal, attempt: record.attempt };
                Some(Assignment { attempt: Some(attempt), session: sessions.next()? })
            })
            .collect()
    }

    /// Whether tasks of this bucket may be granted at all.
    fn open(&self, bucket: &Bucket) -> bool {
        let queue = self.queue(bucket);
        let unpublished_are_full = self.state.indexes.unpublished >= limits::UNPUBLISHED as u64;
        !queue.paused && (!bucket.has_outputs || !unpublished_are_full)
    }

    fn queue(&self, bucket: &Bucket) -> &'s Queue {
        self.state.queues.get(&bucket.queue).expect("a bucket's queue exists")
    }

    /// How many more tasks of this bucket its queue allows.
    fn queue_room(&self, bucket: &Bucket) -> u64 {
        self.queue(bucket).room(&self.loads[&*bucket.queue], &bucket.shape)
    }

    /// Queued tasks of a job that this plan may still grant.
    fn pending(&self, id: u64, job: &Job) -> u32 {
        let taken = self.taken.get(&id).copied().unwrap_or_default().count;
        (job.counts.pending - taken).min(job.room().saturating_sub(taken))
    }

    /// Grants capacity to jobs in the order of their queues. `None` when all were looked at.
    fn fill(&mut self, cursor: Cursor) -> Option<Cursor> {
        let state = self.state;
        let mut heads: BinaryHeap<Reverse<(Turn, &Bucket)>> = BinaryHeap::new();
        let mut spreads: BTreeMap<&Bucket, Spread> = BTreeMap::new();
        for (bucket, line) in &state.indexes.ready {
            if !self.open(bucket) {
                continue;
            }
            let head = match cursor.at {
                None => line.get_min(),
                Some(at) => line.get_next(&at),
            };
            heads.extend(head.map(|turn| Reverse((*turn, bucket))));
        }
        while let Some(Reverse((turn, bucket))) = heads.pop() {
            if self.steps == 0 || self.tasks == 0 {
                return Some(Cursor { at: Some(turn) });
            }
            self.steps = self.steps.saturating_sub(1);
            let spread = spreads.entry(bucket).or_insert_with(|| {
                self.steps = self.steps.saturating_sub(self.workers.len());
                Spread::new(&self.workers, &bucket.shape)
            });
            let job = state.jobs.get(turn.1).expect("a ready job exists");
            let wanted = u64::from(self.pending(turn.1, job)).min(self.queue_room(bucket));
            // However small the budget, each plan gets on.
            let steps = self.steps.max(LEAST_GRANTS);
            let wanted = wanted.min(self.tasks as u64).min(steps as u64) as usize;
            let shares = spread.take(&mut self.workers, &bucket.shape, wanted);
            let exhausted = spread.is_empty();
            self.hand_out(turn.1, job, bucket, &shares, false);
            if !exhausted && self.pending(turn.1, job) > 0 && (self.steps == 0 || self.tasks == 0) {
                return Some(Cursor { at: Some(turn) });
            }
            // A shape that fits nowhere now fits nowhere later in this plan.
            if !exhausted && self.queue_room(bucket) > 0 {
                let next = state.indexes.ready[bucket].get_next(&(turn.0, turn.1 + 1));
                heads.extend(next.map(|turn| Reverse((*turn, bucket))));
            }
        }
        None
    }

    /// Proposes the lowest queued tasks of a job for workers: (position, how many).
    fn hand_out(&mut self, id: u64, job: &Job, bucket: &'s Bucket, shares: &[(usize, usize)], ahead: bool) {
        let mut at = self.taken.get(&id).copied().unwrap_or_default().next;
        let mut total = 0;
        for (worker, count) in shares {
            let mut left = *count as u32;
            while left > 0 {
                let Some((first, run)) = job.tasks.next(at, Place::Pending) else { break };
                let count = run.min(left);
                self.workers[*worker].granted = id;
                let session = self.workers[*worker].session;
                let tasks = Some(OrdinalRange { first, count });
                self.grants.push(GrantRun { session, job_id: id, tasks, ahead });
                at = first + count;
                left -= count;
                total += count as usize;
            }
        }
        if total > 0 {
            let taken = self.taken.entry(id).or_default();
            taken.count += total as u32;
            taken.next = at;
            let load = self.loads.get_mut(&*bucket.queue).expect("every queue has a load");
            load.running += total as u64;
            if !ahead {
                (0..total).for_each(|_| load.used.add(&bucket.shape));
            }
            self.tasks = self.tasks.saturating_sub(total);
            self.steps = self.steps.saturating_sub(total);
        }
    }
}
