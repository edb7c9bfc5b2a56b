//! Grants: what the leader's plan proposed, looked at again task by task. What is stale is skipped.

use proto::{
    internal::{GrantRun, GrantTasks},
    v1::AttemptKey,
};

use super::Step;
use crate::{
    Event, Outcome, Rejection, State,
    ask::Ask,
    indexes::Indexes,
    job::{Job, Lease, Phase, Place, Record},
    licenses::Licenses,
    limits,
    queue::{Queue, Reservation},
    session::Session,
    shape::Shape,
};

impl State {
    pub(crate) fn admit_grants(&self, grants: &GrantTasks) -> Result<(), Rejection> {
        let tasks: u64 = grants.runs.iter().map(|run| run.tasks.map_or(0, |tasks| u64::from(tasks.count))).sum();
        if tasks > limits::GRANTS_IN_AN_ENTRY as u64 {
            let message = format!("the entry grants {tasks} tasks, {} at most", limits::GRANTS_IN_AN_ENTRY);
            return Err(Rejection::invalid("runs", message));
        }
        Ok(())
    }
}

impl Step<'_> {
    pub fn grant(&mut self, grants: &GrantTasks) -> Outcome {
        let mut granted = 0;
        for run in &grants.runs {
            granted += self.grant_run(run);
            if granted > 0 {
                // A job that has no more room, or no more tasks, is out of its line before the next run.
                self.settle();
            }
        }
        Outcome::Count(granted)
    }

    fn grant_run(&mut self, run: &GrantRun) -> u32 {
        let Some(range) = &run.tasks else { return 0 };
        let State { jobs, sessions, queues, licenses, indexes, index, time_ms, wall_ms, half_life_ms, .. } =
            &mut *self.state;
        if !jobs.get(run.job_id).is_some_and(Job::startable) {
            return 0;
        }
        let Some(session) = sessions.get_mut(&run.session).filter(|session| session.accepts()) else { return 0 };
        let job = jobs.get_mut(run.job_id).expect("it was found");
        let queue = queues.get_mut(&job.terms.queue).expect("a job's queue exists");
        let ask = job.terms.ask.clone();
        if ask.unmet(&session.about).is_some() || run.alternative as usize >= ask.shapes.len() {
            return 0;
        }
        if queue.paused || (ask.has_outputs && indexes.unpublished >= limits::UNPUBLISHED as u64) {
            return 0;
        }
        queue.count_usage(*time_ms, *half_life_ms);
        let mut granting = Granting {
            id: run.job_id,
            ask: &ask,
            alternative: run.alternative as usize,
            licenses,
            indexes,
            now_ms: *time_ms,
            job,
            session_id: run.session,
            session,
            queue,
            may_be_ahead: run.ahead,
            index: *index,
            wall_ms: *wall_ms,
            events: &mut self.events,
        };
        let runs = granting.grant(range.first, range.first.saturating_add(range.count));
        let mut total = 0;
        for (first, count) in runs {
            self.touch_tasks(run.job_id, first, count);
            total += count;
        }
        total
    }
}

/// Everything that one run of grants looks at or changes.
struct Granting<'a> {
    id: u64,
    ask: &'a Ask,
    alternative: usize,
    licenses: &'a mut Licenses,
    indexes: &'a mut Indexes,
    now_ms: u64,
    job: &'a mut Job,
    session_id: u64,
    session: &'a mut Session,
    queue: &'a mut Queue,
    may_be_ahead: bool,
    index: u64,
    wall_ms: i64,
    events: &'a mut Vec<Event>,
}

impl Granting<'_> {
    /// Grants what is queued of `first..end` as long as there is room; the runs that were granted.
    fn grant(&mut self, first: u32, end: u32) -> Vec<(u32, u32)> {
        let end = end.min(self.job.tasks.count());
        let shape = self.ask.shapes[self.alternative];
        let mut granted = Vec::new();
        if let Some(memory_mib) = self.grown_at(first) {
            let shape = Shape { memory_mib: shape.memory_mib.max(memory_mib), ..shape };
            if self.grant_one(first, &shape) {
                self.indexes.set_grown(self.id, self.job, first, memory_mib, false);
                granted.push((first, 1));
            }
            return granted;
        }
        let mut at = first;
        while let Some((run, count)) = self.job.tasks.next(at, Place::Pending).filter(|(run, _)| *run < end) {
            let stop = end.min(run + count);
            let mut ordinal = run;
            while ordinal < stop && self.grant_one(ordinal, &shape) {
                ordinal += 1;
            }
            if ordinal > run {
                self.job.tasks.fill(run, ordinal, Place::Active);
                granted.push((run, ordinal - run));
            }
            if ordinal < stop {
                break;
            }
            at = stop;
        }
        self.job.tasks.raise_low();
        granted
    }

    /// What a task gets that is queued with more memory than the others of its job.
    fn grown_at(&self, ordinal: u32) -> Option<u64> {
        let record = self.job.records.get(&ordinal)?;
        (matches!(record.phase, Phase::Pending) && record.memory_mib > 0).then_some(record.memory_mib)
    }

    /// Grants one task, unless nothing has room for it.
    fn grant_one(&mut self, ordinal: u32, shape: &Shape) -> bool {
        let (job, session) = (&mut *self.job, &mut *self.session);
        if job.room() == 0 || self.queue.room(&self.queue.load, shape) == 0 {
            return false;
        }
        if self.licenses.room(&self.ask.licenses) == 0 {
            return false;
        }
        let fits = shape.fits(&session.free());
        // A license is taken by what runs.
        let may_wait = !job.terms.at_most_once && self.ask.licenses.is_empty();
        let ahead_allowed = self.may_be_ahead && may_wait && session.holds.ahead.len() < limits::AHEAD;
        if !fits && !ahead_allowed {
            return false;
        }
        let attempt = job.attempt_of(ordinal) + 1;
        let lease = Lease {
            session: self.session_id,
            granted_index: self.index,
            granted_wall_ms: self.wall_ms,
            granted_ms: self.now_ms,
            kill: None,
            start_ms: None,
            ahead: !fits,
            pinned: (shape != self.ask.shape()).then(|| Box::new(*shape)),
        };
        let resources = lease.pinned.as_deref().map(|shape| (*shape).into());
        let grown = job.records.get(&ordinal).is_some_and(|record| record.memory_mib > 0);
        match job.records.get_mut(&ordinal) {
            Some(record) => (record.attempt, record.phase) = (attempt, Phase::Leased(lease)),
            None => {
                let record = Record { attempt, failures: 0, lost: 0, memory_mib: 0, phase: Phase::Leased(lease) };
                job.records.insert(ordinal, record);
            }
        }
        *(if grown { &mut job.counts.grown } else { &mut job.counts.pending }) -= 1;
        job.counts.leased += 1;
        self.licenses.take(&self.ask.licenses);
        let kept = Reservation { job: self.id, session: self.session_id };
        self.queue.reservation = self.queue.reservation.filter(|reservation| *reservation != kept);
        job.highest_attempt = job.highest_attempt.max(attempt);
        session.holds.leases.insert((self.id, ordinal));
        self.queue.load.running += 1;
        if fits {
            session.holds.used.add(shape);
            self.queue.load.used.add(shape);
        } else {
            session.holds.ahead.insert((self.index, self.id, ordinal));
        }
        let key = AttemptKey { job_id: self.id, ordinal, attempt };
        self.events.push(Event::Granted { session: self.session_id, key, ahead: !fits, resources });
        true
    }
}
