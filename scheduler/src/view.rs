//! Reads: the state as the public API shows it.

use std::collections::BTreeMap;

use bytes::Bytes;
use proto::{
    internal::OrdinalRange,
    v1::{self, AttemptKey, Cause, IndexRange, JobState, Manifest, Resources, TaskState},
};

use crate::State;

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
    /// Noted as not heard of for half its time.
    pub silent: bool,
    /// Gets nothing more.
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

impl State {
    /// A job without its spec, with its failures grouped by cause.
    pub fn job(&self, id: u64) -> Option<v1::Job> { unimplemented!() }
    /// The spec as it was submitted: an encoded `JobSpec` without ranges, dependencies and hold.
    pub fn spec(&self, id: u64) -> Option<Bytes> { unimplemented!() }
    /// What the coordinator needs to rebuild a spec and to grant tasks.
    pub fn submission(&self, id: u64) -> Option<JobSubmissionView> { unimplemented!() }
    /// The newest job of an owner.
    pub fn newest_job_of(&self, owner: &str) -> Option<u64> { unimplemented!() }
    /// Jobs below `before`, newest first, and where the next page goes on.
    pub fn jobs(&self, filter: &JobFilter, before: Option<u64>, limit: usize) -> (Vec<v1::Job>, Option<u64>) { unimplemented!() }
    /// One task.
    pub fn task(&self, job: u64, ordinal: u32, attempts: bool) -> Option<v1::Task> { unimplemented!() }
    /// Tasks from the ordinal `from` on, and where the next page goes on.
    pub fn tasks(&self, job: u64, selection: &[OrdinalRange], states: &[TaskState], attempts: bool, from: u32, limit: usize) -> Option<(Vec<v1::Task>, Option<u32>)> { unimplemented!() }
    /// The indexes of a job.
    pub fn ranges(&self, job: u64) -> Option<&[IndexRange]> { unimplemented!() }
    /// One queue.
    pub fn queue(&self, name: &str) -> Option<v1::Queue> { unimplemented!() }
    /// All queues, by name.
    pub fn queues(&self) -> Vec<v1::Queue> { unimplemented!() }
    /// One worker.
    pub fn worker(&self, name: &str) -> Option<v1::Worker> { unimplemented!() }
    /// All workers, by name.
    pub fn workers(&self) -> Vec<v1::Worker> { unimplemented!() }
    /// What the accepted attempt of a task published: its number, the manifest and the ETags.
    pub fn published(&self, job: u64, ordinal: u32) -> Option<(u32, Manifest, Vec<String>)> { unimplemented!() }
    /// Where the logs of an attempt are; of the latest for 0.
    pub fn logs(&self, job: u64, ordinal: u32, attempt: u32) -> Option<LogLocation> { unimplemented!() }
    /// A blob.
    pub fn blob(&self, hash: &[u8]) -> Option<Bytes> { unimplemented!() }
    /// All sessions that live, by number.
    pub fn sessions(&self) -> impl Iterator<Item = SessionView> + '_ { std::iter::empty() }
    /// One session.
    pub fn session(&self, id: u64) -> Option<SessionView> { unimplemented!() }
    /// Everything that a session is asked to do now.
    pub fn instructions_of(&self, session: u64) -> Vec<Instruction> { unimplemented!() }
    /// Whether a session holds an attempt: leased, being stopped, or to be published by it.
    pub fn holds(&self, session: u64, key: &AttemptKey) -> bool { unimplemented!() }
}
