//! Derived: ways to find things without looking at the rest. Never in a snapshot; made anew when one is read.

mod line;

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

pub(crate) use self::line::Line;
use crate::{
    ask::Ask,
    job::{Job, Phase, Terms},
};

#[derive(Debug, Clone, Default)]
pub(crate) struct Indexes {
    /// Jobs that may be granted from, in the order of their queue, by what their tasks need.
    pub ready: OrdMap<Bucket, Line>,
    /// Tasks that are queued with more memory than their job's others: each stands for itself, with its ordinal.
    pub grown: OrdMap<Bucket, OrdSet<(Turn, u32)>>,
    /// Log time at which a back-off is over: time, job, ordinal.
    pub timers: OrdSet<(u64, u64, u32)>,
    /// Log time at which a time limit is over: time, job, which of its deadlines.
    pub deadlines: OrdSet<(u64, u64, u8)>,
    /// Job, and a job that waits for it.
    pub dependents: OrdSet<(u64, u64)>,
    /// Job, and a job that waits for it task by task.
    pub twins: OrdSet<(u64, u64)>,
    /// Publications whose session has ended.
    pub orphans: OrdSet<(u64, u32)>,
    /// Jobs that have not ended, by owner; all of one priority.
    pub open: OrdMap<Arc<str>, Line>,
    /// Newest job of each owner.
    pub newest: OrdMap<Arc<str>, u64>,
    /// Worker's name to the session that lives.
    pub workers: OrdMap<Arc<str>, u64>,
    /// All terms in use, so that equal ones are shared.
    pub terms: OrdSet<Arc<Terms>>,
    /// All that is asked for, likewise.
    pub asks: OrdSet<Arc<Ask>>,
    /// Terms of jobs that left: others may have them too.
    left_terms: OrdSet<Arc<Terms>>,
    /// Tasks that have not ended.
    pub unended_tasks: u64,
    /// Tasks whose outputs are being published.
    pub unpublished: u64,
    /// Bytes of all specs.
    pub spec_bytes: u64,
}

/// Jobs whose tasks are interchangeable for the planner: what one doesn't fit into, none does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Bucket {
    pub queue: Arc<str>,
    pub ask: Arc<Ask>,
}

/// A job's place in its queue: priority (negated, so that higher comes first), then number.
pub(crate) type Turn = (i32, u64);

impl Bucket {
    pub fn of(terms: &Terms) -> Self {
        Self { queue: terms.queue.clone(), ask: terms.ask.clone() }
    }
}

pub(crate) fn turn_of(terms: &Terms, id: u64) -> Turn {
    (-terms.priority, id)
}

impl Indexes {
    /// The one copy of these terms.
    pub fn intern(&mut self, terms: Terms) -> Arc<Terms> {
        if let Some(known) = self.terms.get(&terms) {
            return known.clone();
        }
        let terms = Arc::new(terms);
        self.terms.insert(terms.clone());
        terms
    }

    /// The one copy of what is asked for.
    pub fn intern_ask(&mut self, ask: Ask) -> Arc<Ask> {
        if let Some(known) = self.asks.get(&ask) {
            return known.clone();
        }
        let ask = Arc::new(ask);
        self.asks.insert(ask.clone());
        ask
    }

    /// Puts a task that is queued with more memory into its line, or takes it out.
    pub fn set_grown(&mut self, id: u64, job: &Job, ordinal: u32, memory_mib: u64, queued: bool) {
        let ask = self.intern_ask(job.terms.ask.grown(memory_mib));
        let (bucket, turn) = (Bucket { queue: job.terms.queue.clone(), ask }, turn_of(&job.terms, id));
        if queued {
            self.grown.entry(bucket).or_default().insert((turn, ordinal));
        } else {
            let line = self.grown.get_mut(&bucket).expect("a grown task stands in its line");
            line.remove(&(turn, ordinal));
            if line.is_empty() {
                self.grown.remove(&bucket);
            }
        }
    }

    /// Sets the timers of a job's time limits as they are now.
    pub fn set_deadlines(&mut self, id: u64, job: &mut Job) {
        let due = job.deadlines();
        let Some(extra) = job.extra.as_deref_mut() else { return };
        for (at, which) in [(0, 0u8), (1, 1)] {
            if extra.armed[at] != due[at] {
                self.deadlines.extend(due[at].map(|due| (due, id, which)));
                if let Some(before) = extra.armed[at] {
                    self.deadlines.remove(&(before, id, which));
                }
                extra.armed[at] = due[at];
            }
        }
    }

    /// The one copy of an owner's name.
    pub fn owner(&self, name: &str) -> Arc<str> {
        self.newest.get_key_value(name).map_or_else(|| name.into(), |(known, _)| known.clone())
    }

    pub fn set_ready(&mut self, id: u64, job: &mut Job, ready: bool) {
        if job.indexed.ready == ready {
            return;
        }
        job.indexed.ready = ready;
        let (bucket, turn) = (Bucket::of(&job.terms), turn_of(&job.terms, id));
        if ready {
            self.ready.entry(bucket).or_default().insert(turn);
        } else {
            let line = self.ready.get_mut(&bucket).expect("a ready job stands in its bucket");
            line.remove(turn);
            if line.is_empty() {
                self.ready.remove(&bucket);
            }
        }
    }

    pub fn set_open(&mut self, id: u64, job: &mut Job, open: bool) {
        if job.indexed.open == open {
            return;
        }
        job.indexed.open = open;
        let owner = &job.terms.owner;
        if open {
            self.open.entry(owner.clone()).or_default().insert((0, id));
        } else {
            let jobs = self.open.get_mut(owner).expect("an open job is among its owner's");
            jobs.remove((0, id));
            if jobs.is_empty() {
                self.open.remove(owner);
            }
        }
    }

    /// Forgets a job that has ended.
    pub fn remove_job(&mut self, id: u64, job: &Job) {
        self.spec_bytes -= job.text.spec().len() as u64;
        for edge in job.after() {
            self.dependents.remove(&(edge.job, id));
            if edge.is_by_task() {
                self.twins.remove(&(edge.job, id));
            }
        }
        self.left_terms.insert(job.terms.clone());
    }

    /// Drops terms, and what is asked for, that only these tables have. What a snapshot still has is looked at again
    /// the next time.
    pub fn drop_unused_terms(&mut self) {
        let unused: Vec<_> = self.left_terms.iter().filter(|terms| Arc::strong_count(terms) == 2).cloned().collect();
        for terms in unused {
            self.left_terms.remove(&terms);
            self.terms.remove(&terms);
            // The table and these terms.
            if Arc::strong_count(&terms.ask) == 2 {
                self.asks.remove(&terms.ask);
            }
        }
    }

    /// Takes in a job: at its submit, and for every job of a snapshot.
    pub fn add_job(&mut self, id: u64, job: &Job) {
        self.spec_bytes += job.text.spec().len() as u64;
        self.newest.insert(job.terms.owner.clone(), id);
        for edge in job.after() {
            self.dependents.insert((edge.job, id));
            if edge.is_by_task() {
                self.twins.insert((edge.job, id));
            }
        }
        for (ordinal, record) in &job.records {
            match &record.phase {
                Phase::Backoff { until_ms } => {
                    self.timers.insert((*until_ms, id, *ordinal));
                }
                Phase::Publishing(publication) if publication.assigned.is_none() => {
                    self.orphans.insert((id, *ordinal));
                }
                Phase::Pending if record.memory_mib > 0 => self.set_grown(id, job, *ordinal, record.memory_mib, true),
                Phase::Publishing(_) | Phase::Pending | Phase::Leased(_) => {}
            }
        }
    }
}
