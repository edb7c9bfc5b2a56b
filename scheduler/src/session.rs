//! A worker's standing with the grid, from its join.
//!
//! A session is opened by a worker's join and ends by an entry that expires it, or by a join of a worker of the
//! same name. While it lives it may hold leases and publications; with its end all its leases are lost. A crash
//! of a coordinator changes nothing of it.

use std::{collections::BTreeMap, sync::Arc};

use imbl::OrdSet;

use crate::shape::Shape;

#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub about: Arc<About>,
    /// Not heard of for half its time.
    pub silent_since_ms: Option<u64>,
    /// Why it gets nothing more; absent while it does.
    pub draining: Option<Arc<str>>,
    /// Why it gets nothing until that is taken back.
    pub cordoned: Option<Arc<str>>,
    /// Highest sequence of its reports that was applied.
    pub applied_sequence: u64,
    /// It gave back what it had ahead: nothing more of that kind until one of its attempts ends.
    pub sated: bool,
    pub health: Health,
    /// Derived from the jobs' records.
    pub holds: Holds,
}

/// Whether what runs there fails, whichever job it is of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Health {
    /// Different jobs that failed there since one succeeded there.
    pub failed_jobs: Vec<u64>,
    /// Log time of the first of these failures.
    pub failing_since_ms: u64,
    /// Log time of the last success.
    pub succeeded_ms: Option<u64>,
    /// Why it gets nothing more until an operator says otherwise.
    pub quarantined: Option<Arc<str>>,
}

/// What a session is for its whole life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct About {
    pub worker: Arc<str>,
    pub pool: String,
    pub labels: BTreeMap<String, String>,
    pub capacity: Shape,
    pub version: String,
    /// Wall clock at its join.
    pub opened_ms: i64,
}

/// Derived: what the jobs' records say of one session.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Holds {
    /// Capacity that is taken.
    pub used: Shape,
    /// Every lease: job, ordinal.
    pub leases: OrdSet<(u64, u32)>,
    /// Those among them that hold no capacity, in the order in which they were granted: index, job, ordinal.
    pub ahead: OrdSet<(u64, u64, u32)>,
    /// Publications that it is to complete.
    pub publications: OrdSet<(u64, u32)>,
}

impl Session {
    pub fn free(&self) -> Shape {
        self.about.capacity.less(&self.holds.used)
    }

    /// Whether it may get tasks at all.
    pub fn accepts(&self) -> bool {
        self.draining.is_none() && self.cordoned.is_none() && self.health.quarantined.is_none()
    }
}
