//! Reads: the state as the public API shows it.

mod grid;
mod jobs;
mod tasks;

pub use self::grid::Backlog;
pub(crate) use self::tasks::state_of;

use std::collections::BTreeMap;

use prost_types::Timestamp;
use proto::v1::{self, AttemptKey, Cause, IndexRange, JobState, Manifest, Resources};

/// Which jobs a list shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// Whose jobs; absent: everyone's.
    pub owner: Option<String>,
    /// Ended ones too. Without it and without `states` only those that have not ended.
    pub ended: bool,
    /// Any of these; empty: no choice by state.
    pub states: Vec<JobState>,
    /// Of this queue alone; empty: all.
    pub queue: String,
    /// All must match.
    pub labels: BTreeMap<String, String>,
    /// Accepted at this time or later, milliseconds since the Unix epoch.
    pub created_after_ms: Option<i64>,
}

/// Some of the jobs that a filter shows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    /// Newest first, without their failures.
    pub jobs: Vec<v1::Job>,
    /// Below which number the next page begins, if there may be more.
    pub next: Option<u64>,
    /// The page ends here before its time: this job is in the history, and not at hand.
    pub missing: Option<u64>,
}

/// What is needed to rebuild the full spec of a job and to grant its tasks.
#[derive(Debug, Clone, PartialEq)]
pub struct JobSubmissionView {
    /// Its number.
    pub id: u64,
    /// Whoever submitted it.
    pub owner: String,
    /// Its indexes; a plain job has the index 0 alone.
    pub ranges: Vec<IndexRange>,
    /// Whether it was submitted as an array.
    pub is_array: bool,
    /// What one task needs now, as changed by retries.
    pub resources: Resources,
    /// What it takes instead where that doesn't fit, likewise.
    pub alternatives: Vec<Resources>,
    /// Of each attempt, milliseconds; 0: none. This and what follows as changed since the submit.
    pub time_limit_ms: u64,
    /// Milliseconds; 0: none.
    pub queue_time_limit_ms: u64,
    /// Milliseconds; 0: none.
    pub total_time_limit_ms: u64,
    /// Higher first.
    pub priority: i32,
    /// 0: no limit.
    pub max_running: u32,
    /// 0: no limit.
    pub max_failures: u32,
    /// What it waits, or waited, for.
    pub after: Vec<v1::Dependency>,
    /// Whether it is held now.
    pub held: bool,
    /// Whether its tasks have outputs.
    pub has_outputs: bool,
}

/// A session that lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionView {
    /// Its number, from 1.
    pub id: u64,
    /// The worker's name, as its certificate says.
    pub worker: String,
    /// Log time, milliseconds, at which it was noted as not heard of for half its time; absent: it isn't.
    pub silent_since_ms: Option<u64>,
    /// Gets nothing more: it drains, is cordoned or quarantined.
    pub draining: bool,
    /// Highest sequence of its reports that was applied.
    pub applied_sequence: u64,
}

/// Something a session is asked to do, standing in the state.
#[derive(Debug, Clone, PartialEq)]
pub enum Instruction {
    /// It holds the lease of this attempt.
    Grant {
        /// The attempt.
        key: AttemptKey,
        /// Index of the entry that granted it.
        granted_index: u64,
        /// Whether it is to be started only when there is room.
        ahead: bool,
        /// What it gets, where that isn't what its job asks for first.
        resources: Option<Resources>,
    },
    /// It is to stop this attempt, of which it also holds the lease.
    Kill {
        /// The attempt.
        key: AttemptKey,
        /// What its end is to be reported as.
        cause: Cause,
        /// Index of the entry that asked for it.
        index: u64,
    },
    /// It is to complete the uploads of this attempt.
    Publish {
        /// The attempt.
        key: AttemptKey,
        /// What was uploaded.
        manifest: Manifest,
        /// Index of the entry that assigned it.
        index: u64,
    },
}

/// Where what an attempt wrote is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLocation {
    /// The attempt.
    pub key: AttemptKey,
    /// The session that ran it; its logs lie under this number on S3.
    pub session: u64,
    /// The worker's name.
    pub worker: String,
    /// Which of the session's bundles; 0: objects of their own, or none.
    pub bundle: u32,
    /// Length of what it wrote, once it ended.
    pub stdout_bytes: u64,
    /// Length of what it wrote, once it ended.
    pub stderr_bytes: u64,
    /// Whether its process has ended.
    pub ended: bool,
}

/// Milliseconds since the Unix epoch, as the API has them.
pub(crate) fn timestamp(wall_ms: i64) -> Timestamp {
    let nanos = wall_ms.rem_euclid(1000) as i32 * 1_000_000;
    Timestamp { seconds: wall_ms.div_euclid(1000), nanos }
}
