//! Derived: ways to find things without looking at the rest. Never in a snapshot; made anew when one is read.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::{
    job::{Job, Phase, Terms},
    shape::Shape,
};

#[derive(Debug, Clone, Default)]
pub(crate) struct Indexes {
    /// Jobs that may be granted from, in the order of their queue, by what their tasks need.
    pub ready: OrdMap<Bucket, OrdSet<Turn>>,
    /// Log time at which a back-off is over: time, job, ordinal.
    pub timers: OrdSet<(u64, u64, u32)>,
    /// Job, and a job that waits for it.
    pub dependents: OrdSet<(u64, u64)>,
    /// Publications whose session has ended.
    pub orphans: OrdSet<(u64, u32)>,
    /// Jobs that have not ended, by owner.
    pub open: OrdMap<Arc<str>, OrdSet<u64>>,
    /// Jobs that have not ended.
    pub open_all: OrdSet<u64>,
    /// Newest job of each owner.
    pub newest: OrdMap<Arc<str>, u64>,
    /// Worker's name to the session that lives.
    pub workers: OrdMap<Arc<str>, u64>,
    /// All terms in use, so that equal ones are shared.
    pub terms: OrdSet<Arc<Terms>>,
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
    pub shape: Shape,
    pub has_outputs: bool,
}

/// A job's place in its queue: priority (negated, so that higher comes first), then number.
pub(crate) type Turn = (i32, u64);

impl Bucket {
    pub fn of(terms: &Terms) -> Self {
        Self { queue: terms.queue.clone(), shape: terms.shape, has_outputs: terms.has_outputs }
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
            line.remove(&turn);
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
            self.open_all.insert(id);
            self.open.entry(owner.clone()).or_default().insert(id);
        } else {
            self.open_all.remove(&id);
            let jobs = self.open.get_mut(owner).expect("an open job is among its owner's");
            jobs.remove(&id);
            if jobs.is_empty() {
                self.open.remove(owner);
            }
        }
    }

    /// Takes in a job: at its submit, and for every job of a snapshot.
    pub fn add_job(&mut self, id: u64, job: &Job) {
        self.spec_bytes += job.spec.len() as u64;
        self.newest.insert(job.terms.owner.clone(), id);
        for edge in job.after() {
            self.dependents.insert((edge.job, id));
        }
        for (ordinal, record) in &job.records {
            match &record.phase {
                Phase::Backoff { until_ms } => {
                    self.timers.insert((*until_ms, id, *ordinal));
                }
                Phase::Publishing(publication) if publication.assigned.is_none() => {
                    self.orphans.insert((id, *ordinal));
                }
                Phase::Publishing(_) | Phase::Pending | Phase::Leased(_) => {}
            }
        }
    }
}
