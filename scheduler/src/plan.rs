//! The leader's planner: reads a state, proposes grants. It decides nothing, since `apply` looks at every grant
//! again; so it may change with any release.
//!
//! The queue that used least of late for its weight comes first (module `lanes`); in a queue, jobs by their order.
//! Jobs whose tasks need the same stand in one bucket, and what fits no worker now fits none later in the same plan:
//! so a plan looks at the head of each bucket, at each worker, and at what it grants, but never at the queued rest.
//! The first job of a queue that fits nowhere gets room kept for it (module `reserve`).

mod ahead;
mod lanes;
mod reserve;
mod spread;
mod worker;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proto::{
    internal::{GrantRun, OrdinalRange, assign_publications::Assignment, reserve::Reservation as Reserved},
    v1::AttemptKey,
};

pub(crate) use self::lanes::rank_of;
use self::{
    lanes::{Head, Lane},
    spread::Spread,
    worker::Worker,
};
use crate::{
    State,
    indexes::{Bucket, Turn},
    job::{Job, Place},
    limits,
    queue::{Load, Queue},
    shape::Shape,
    usage::Usage,
};

/// Where a plan that ran out of budget goes on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor {
    /// For each queue the priority (negated) and number of the first job that was not looked at; absent: none is left.
    at: BTreeMap<Arc<str>, Option<Turn>>,
}

/// What a plan proposes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// At most [`limits::GRANTS_IN_AN_ENTRY`] tasks.
    pub grants: Vec<GrantRun>,
    /// Publications whose session ended, and who is to complete them.
    pub publications: Vec<Assignment>,
    /// Room to keep, or not to keep any more, on workers for jobs that fit nowhere.
    pub reservations: Vec<Reserved>,
    /// Where to go on when the plan isn't finished.
    pub cursor: Cursor,
    /// Whether everything was looked at; then the cursor stands at the start.
    pub finished: bool,
}

/// Plans grants for the sessions that are `heard`, from `cursor` on, in at most `budget` steps. A step is a look
/// at a job, at a worker for what a job needs, or the grant of a task.
pub fn plan(state: &State, heard: &BTreeSet<u64>, cursor: &Cursor, budget: usize) -> Plan {
    let mut planner = Planner::new(state, heard, budget);
    let publications = planner.publications(heard);
    planner.take_up_reservations();
    let cursor = planner.fill(cursor);
    if cursor.is_none() {
        planner.grant_ahead();
    }
    Plan {
        reservations: planner.new_reservations(),
        grants: planner.grants,
        publications,
        finished: cursor.is_none(),
        cursor: cursor.unwrap_or_default(),
    }
}

/// Tasks that a plan may grant though looking at the workers has used up its budget.
const LEAST_GRANTS: usize = 64;

struct Planner<'s> {
    state: &'s State,
    workers: Vec<Worker<'s>>,
    /// What all workers have.
    capacity: Shape,
    /// What the queues will hold, and what they used of late.
    loads: BTreeMap<&'s str, (Load, Usage)>,
    /// Licenses that the plan has handed out.
    licenses: BTreeMap<&'s str, u64>,
    taken: BTreeMap<u64, Taken>,
    spreads: BTreeMap<(&'s Bucket, usize), Spread>,
    reservations: Vec<Reserved>,
    steps: usize,
    tasks: usize,
    grants: Vec<GrantRun>,
}

/// What a plan grants of one job.
#[derive(Debug, Clone, Copy, Default)]
struct Taken {
    /// Tasks in all.
    count: u32,
    /// Those among them that had memory of their own.
    grown: u32,
    /// From which ordinal on its queued tasks are untouched.
    next: u32,
}

impl<'s> Planner<'s> {
    fn new(state: &'s State, heard: &BTreeSet<u64>, budget: usize) -> Self {
        let heard = heard.iter().filter_map(|id| Some((*id, state.sessions.get(id)?)));
        let workers: Vec<Worker> =
            heard.filter(|(_, session)| session.accepts()).map(|(id, session)| Worker::new(id, session)).collect();
        let mut capacity = Shape::default();
        workers.iter().for_each(|worker| capacity.add(&worker.about.capacity));
        let of = |queue: &Queue| (queue.load, queue.usage.until(state.time_ms, &queue.load.used, state.half_life_ms));
        Self {
            state,
            workers,
            capacity,
            loads: state.queues.iter().map(|(name, queue)| (&**name, of(queue))).collect(),
            licenses: BTreeMap::new(),
            taken: BTreeMap::new(),
            spreads: BTreeMap::new(),
            reservations: Vec::new(),
            steps: budget,
            tasks: limits::GRANTS_IN_AN_ENTRY,
            grants: Vec::new(),
        }
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

    fn job(&self, id: u64) -> &'s Job {
        self.state.jobs.get(id).expect("what stands in a line is a job")
    }

    /// Whether tasks of this bucket may be granted at all.
    fn open(&self, bucket: &Bucket) -> bool {
        let unpublished_are_full = self.state.indexes.unpublished >= limits::UNPUBLISHED as u64;
        !self.queue(bucket).paused && (!bucket.ask.has_outputs || !unpublished_are_full)
    }

    fn queue(&self, bucket: &Bucket) -> &'s Queue {
        self.state.queues.get(&bucket.queue).expect("a bucket's queue exists")
    }

    /// How many more tasks of this bucket, with one of its shapes, its queue and the licenses allow.
    fn room(&self, bucket: &Bucket, shape: &Shape) -> u64 {
        let by_queue = self.queue(bucket).room(&self.loads[&*bucket.queue].0, shape);
        let free = |name: &str| {
            self.state.licenses.free(name).saturating_sub(self.licenses.get(name).copied().unwrap_or_default())
        };
        let by_license = bucket.ask.licenses.iter().map(|(name, each)| free(name) / u64::from(*each).max(1)).min();
        by_queue.min(by_license.unwrap_or(u64::MAX))
    }

    /// Tasks of a head that this plan may still grant.
    fn pending(&self, head: &Head) -> u32 {
        let job = self.job(head.turn.1);
        let taken = self.taken.get(&head.turn.1).copied().unwrap_or_default();
        let queued = match head.grown {
            Some(_) => u32::from(job.startable()),
            None => job.counts.pending - (taken.count - taken.grown),
        };
        queued.min(job.room().saturating_sub(taken.count))
    }

    /// Grants capacity, queue by queue in turn. `None` when everything was looked at.
    fn fill(&mut self, cursor: &Cursor) -> Option<Cursor> {
        let mut lanes = self.lanes(cursor);
        while let Some((mut lane, quota)) = lanes.first(self) {
            match self.serve(&mut lane, quota) {
                Served::Some => lanes.put_back(lane, self),
                Served::Nothing => lanes.close(lane),
                Served::OutOfBudget => {
                    lanes.put_back(lane, self);
                    return Some(lanes.cursor());
                }
            }
        }
        None
    }

    /// Grants up to `quota` tasks of the first job of a queue that fits somewhere.
    fn serve(&mut self, lane: &mut Lane<'s>, quota: u64) -> Served {
        while let Some(head) = lane.pop() {
            if self.steps == 0 || self.tasks == 0 {
                lane.push(head);
                return Served::OutOfBudget;
            }
            self.steps = self.steps.saturating_sub(1);
            let wanted = u64::from(self.pending(&head)).min(quota);
            let granted = self.place(&head, wanted);
            let full = (0..head.bucket.ask.shapes.len())
                .all(|at| self.spreads.get(&(head.bucket, at)).is_some_and(Spread::is_empty));
            if full && granted < wanted {
                self.keep_room(&head);
            }
            let closed = head.bucket.ask.shapes.iter().all(|shape| self.room(head.bucket, shape) == 0);
            if !full && !closed {
                if self.pending(&head) > 0 && granted > 0 {
                    lane.push(head);
                } else {
                    lane.push_next(self.state, &head);
                }
            }
            if granted > 0 {
                return Served::Some;
            }
        }
        Served::Nothing
    }

    /// Finds room for `wanted` tasks of a head; for how many there was.
    fn place(&mut self, head: &Head<'s>, wanted: u64) -> u64 {
        let mut granted = u64::from(wanted > 0 && self.use_reservation(head));
        for alternative in 0..head.bucket.ask.shapes.len() {
            let shape = head.bucket.ask.shapes[alternative];
            if !self.spreads.contains_key(&(head.bucket, alternative)) {
                self.steps = self.steps.saturating_sub(self.workers.len());
                let placement = self.queue(head.bucket).placement;
                let spread = Spread::new(&self.workers, &head.bucket.ask, &shape, placement, self.state.time_ms);
                self.spreads.insert((head.bucket, alternative), spread);
            }
            // However small the budget, each plan gets on.
            let steps = self.steps.max(LEAST_GRANTS);
            let most = (wanted - granted).min(self.room(head.bucket, &shape)).min(self.tasks as u64).min(steps as u64);
            if most == 0 {
                continue;
            }
            let spread = self.spreads.get_mut(&(head.bucket, alternative)).expect("it was made");
            let shares = spread.take(&mut self.workers, &head.bucket.ask, &shape, most as usize);
            granted += self.hand_out(head, &shares, alternative, false);
        }
        granted
    }

    /// Proposes the lowest queued tasks of a job for workers: (position, how many). How many there were.
    fn hand_out(&mut self, head: &Head<'s>, shares: &[(usize, usize)], alternative: usize, ahead: bool) -> u64 {
        let (id, job) = (head.turn.1, self.job(head.turn.1));
        let mut at = self.taken.get(&id).copied().unwrap_or_default().next;
        let mut total = 0u32;
        for (worker, count) in shares {
            let mut left = *count as u32;
            while left > 0 {
                let run = match head.grown {
                    Some(ordinal) => Some((ordinal, 1)),
                    None => job.tasks.next(at, Place::Pending),
                };
                let Some((first, run)) = run else { break };
                let count = run.min(left);
                self.workers[*worker].granted = id;
                let session = self.workers[*worker].session;
                let tasks = Some(OrdinalRange { first, count });
                self.grants.push(GrantRun { session, job_id: id, tasks, ahead, alternative: alternative as u32 });
                if head.grown.is_none() {
                    at = first + count;
                }
                left -= count;
                total += count;
            }
        }
        if total > 0 {
            let taken = self.taken.entry(id).or_default();
            taken.count += total;
            taken.grown += if head.grown.is_some() { total } else { 0 };
            taken.next = at;
            let (load, _) = self.loads.get_mut(&*head.bucket.queue).expect("every queue has a load");
            load.running += u64::from(total);
            if !ahead {
                (0..total).for_each(|_| load.used.add(&head.bucket.ask.shapes[alternative]));
            }
            for (name, each) in &head.bucket.ask.licenses {
                *self.licenses.entry(name).or_default() += u64::from(*each) * u64::from(total);
            }
            self.tasks = self.tasks.saturating_sub(total as usize);
            self.steps = self.steps.saturating_sub(total as usize);
        }
        u64::from(total)
    }
}

/// What came of serving a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Served {
    /// Something was granted, and there may be more.
    Some,
    /// None of its jobs can be granted anything now.
    Nothing,
    OutOfBudget,
}
