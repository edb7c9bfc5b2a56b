//! What the tasks of a job need of a worker, and of the grid: what decides where and when one can start.

use std::collections::BTreeMap;

use proto::{internal::JobSubmission, v1};

use crate::{session::About, shape::Shape};

/// Shared by all jobs that need the same: the planner treats them alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ask {
    /// At least one, in the order in which they are tried.
    pub shapes: Box<[Shape]>,
    pub constraints: Box<[Constraint]>,
    /// What each task takes of the grid's licenses.
    pub licenses: BTreeMap<Box<str>, u32>,
    /// Of each attempt; 0: none.
    pub time_limit_ms: u64,
    pub has_outputs: bool,
}

/// A label that a worker must have, or better has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Constraint {
    pub label: Box<str>,
    /// Any of these; empty: whatever its value.
    pub values: Box<[Box<str>]>,
    pub negated: bool,
    pub preferred: bool,
}

/// The label by which a pool is asked for.
const POOL: &str = "pool";

impl Ask {
    pub fn of(job: &JobSubmission) -> Self {
        let first = job.resources.as_ref().map(Shape::from).expect("its resources were looked at");
        Self {
            shapes: std::iter::once(first).chain(job.alternatives.iter().map(Shape::from)).collect(),
            constraints: job.constraints.iter().map(Constraint::from).collect(),
            licenses: job.licenses.iter().map(|(name, count)| (name.as_str().into(), *count)).collect(),
            time_limit_ms: job.time_limit_ms,
            has_outputs: job.has_outputs,
        }
    }

    /// What a task needs by default.
    pub fn shape(&self) -> &Shape {
        &self.shapes[0]
    }

    /// The same with at least so much memory.
    pub fn grown(&self, memory_mib: u64) -> Self {
        let grow = |shape: &Shape| Shape { memory_mib: shape.memory_mib.max(memory_mib), ..*shape };
        Self { shapes: self.shapes.iter().map(grow).collect(), ..self.clone() }
    }

    /// The first constraint that a worker doesn't meet.
    pub fn unmet(&self, about: &About) -> Option<&Constraint> {
        self.constraints.iter().find(|one| !one.preferred && !one.holds(about))
    }

    /// How many of its preferences a worker meets.
    pub fn liking(&self, about: &About) -> usize {
        self.constraints.iter().filter(|one| one.preferred && one.holds(about)).count()
    }
}

impl Constraint {
    fn holds(&self, about: &About) -> bool {
        let value = match &*self.label {
            POOL => Some(about.pool.as_str()),
            label => about.labels.get(label).map(String::as_str),
        };
        let found = value.is_some_and(|value| self.values.is_empty() || self.values.iter().any(|one| **one == *value));
        found != self.negated
    }

    /// As the command line has it.
    pub fn describe(&self) -> String {
        match (self.values.is_empty(), self.negated) {
            (true, false) => self.label.to_string(),
            (true, true) => format!("!{}", self.label),
            (false, negated) => format!("{}{}={}", self.label, if negated { "!" } else { "" }, self.values.join(",")),
        }
    }
}

impl From<&v1::Constraint> for Constraint {
    fn from(asked: &v1::Constraint) -> Self {
        Self {
            label: asked.label.as_str().into(),
            values: asked.values.iter().map(|value| value.as_str().into()).collect(),
            negated: asked.negated,
            preferred: asked.preferred,
        }
    }
}

impl From<&Constraint> for v1::Constraint {
    fn from(one: &Constraint) -> Self {
        Self {
            label: one.label.to_string(),
            values: one.values.iter().map(ToString::to_string).collect(),
            negated: one.negated,
            preferred: one.preferred,
        }
    }
}
