//! The name of an attempt.

use std::fmt;

use proto::v1::AttemptKey;

/// One execution of a task, in the order (job, ordinal, attempt).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Number of the job, from 1.
    pub job: u64,
    /// Position of the task in its array, from 0.
    pub ordinal: u32,
    /// Number of the attempt, from 1.
    pub attempt: u32,
}

impl fmt::Display for Key {
    /// `JOB.ORDINAL.ATTEMPT`, which is also the name of its directory.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.job, self.ordinal, self.attempt)
    }
}

impl From<AttemptKey> for Key {
    fn from(key: AttemptKey) -> Self {
        Self { job: key.job_id, ordinal: key.ordinal, attempt: key.attempt }
    }
}

impl From<Key> for AttemptKey {
    fn from(key: Key) -> Self {
        Self { job_id: key.job, ordinal: key.ordinal, attempt: key.attempt }
    }
}
