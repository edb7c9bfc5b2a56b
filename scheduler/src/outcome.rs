//! What comes of an entry: an outcome or a rejection for each command, and the events for all who watch.

use std::sync::Arc;

use bytes::Bytes;
use proto::{
    internal::{OrdinalRange, Refusal},
    v1::{AttemptKey, Cause},
};

use crate::Rejection;

/// What a session is told about an item of its reports.
pub use proto::v1::acknowledged::Outcome as Verdict;

/// What [`crate::State::apply`] made of one entry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Applied {
    /// One for each command, in order.
    pub outcomes: Vec<Result<Outcome, Rejection>>,
    /// What happened, in order. `JobChanged` comes last, once for each job, by number.
    pub events: Vec<Event>,
}

/// The answer to a command that was accepted, or to a repeat of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Jobs `first`, `first + 1`, ... were accepted.
    Jobs {
        /// Number of the first.
        first: u64,
        /// How many.
        count: u32,
        /// Whether this request had been accepted before.
        duplicate: bool,
    },
    /// A blob of this BLAKE3 hash is stored.
    Blob([u8; 32]),
    /// Tasks of a job were cancelled or asked to stop.
    Cancelled {
        /// Whose tasks.
        job: u64,
        /// How many this very request stopped.
        count: u64,
        /// Why it stopped none, or not all; empty when there is nothing to say.
        note: String,
    },
    /// A retry, a hold or a release of this job.
    Job(u64),
    /// A session was opened.
    Session(u64),
    /// A report was taken up, or was ahead of its turn.
    Reported {
        /// Highest sequence that was ever applied for this session.
        applied_sequence: u64,
        /// The report began above the next number: nothing of it was applied.
        gap: bool,
        /// Items of this report that were not simply accepted for the first time, by sequence.
        verdicts: Vec<(u64, Verdict)>,
    },
    /// A worker was asked to drain.
    Worker(String),
    /// A queue was made, changed or deleted.
    Queue(String),
    /// Use of the grid counts half after so many milliseconds.
    FairShare(u64),
    /// How long ended jobs stay was set.
    History,
    /// Jobs of a stream were decided, or had been before.
    Streamed {
        /// Highest number that was ever decided in this stream.
        last: u64,
        /// Everything that was asked is decided. Else it began above the next number, or the client has to take answers
        /// first.
        whole: bool,
        /// The answers to the numbers that were asked, in their order.
        decided: Vec<Decided>,
    },
    /// A license was set.
    License(String),
    /// Grants, publications and timers: how many of the parts were in order; the rest was stale and skipped.
    Count(u32),
    /// There is nothing to say.
    Nothing,
}

/// Answers to jobs of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decided {
    /// `count` jobs from this number on became `job`, `job + 1`, ...
    Jobs {
        /// Number of the first in its stream.
        first: u64,
        /// How many.
        count: u32,
        /// Number of the first in the grid.
        job: u64,
    },
    /// One was refused.
    Refused {
        /// Its number in the stream.
        sequence: u64,
        /// Why.
        refusal: Arc<Refusal>,
    },
}

/// Something that happened. Its canonical bytes go into the digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// State, counts or any other field of a job. Once an entry for each job.
    JobChanged {
        /// Its number.
        job: u64,
    },
    /// Any field of these tasks.
    TasksChanged {
        /// Whose.
        job: u64,
        /// Which.
        tasks: OrdinalRange,
    },
    /// A session got the lease of a new attempt.
    Granted {
        /// Who has it.
        session: u64,
        /// The attempt.
        key: AttemptKey,
        /// Whether it holds no capacity yet: to be started when there is room.
        ahead: bool,
        /// What it gets, where that isn't what its job asks for first.
        resources: Option<proto::v1::Resources>,
    },
    /// The process of an attempt is known to run.
    AttemptStarted {
        /// Where.
        session: u64,
        /// The attempt.
        key: AttemptKey,
    },
    /// An attempt was given back unstarted.
    AttemptReturned {
        /// By whom.
        session: u64,
        /// The attempt.
        key: AttemptKey,
    },
    /// The lease of an attempt is over.
    AttemptEnded {
        /// Whose lease it was.
        session: u64,
        /// The attempt.
        key: AttemptKey,
        /// Why.
        cause: Cause,
        /// Meaningful when the cause is an exit code.
        exit_code: i32,
        /// Meaningful when the cause is a signal.
        signal: i32,
        /// What it means for the task.
        end: End,
    },
    /// Attempts of a job, those that run too, may take so long from their start.
    TimeLimitChanged {
        /// Which.
        job: u64,
        /// Milliseconds; 0: no limit.
        time_limit_ms: u64,
    },
    /// A session is asked to stop an attempt.
    KillAsked {
        /// Who.
        session: u64,
        /// The attempt.
        key: AttemptKey,
        /// What its end will be recorded as.
        cause: Cause,
    },
    /// A session is to complete the uploads of an attempt.
    PublicationAssigned {
        /// Who.
        session: u64,
        /// The attempt.
        key: AttemptKey,
    },
    /// The outputs of an attempt stand at their names: its task succeeded.
    Published {
        /// Who completed them.
        session: u64,
        /// The attempt.
        key: AttemptKey,
    },
    /// A worker joined.
    SessionOpened {
        /// The new session.
        session: u64,
        /// The worker's name.
        worker: String,
    },
    /// A session's silence was noted or its note cleared, or it is to drain.
    SessionChanged {
        /// Which.
        session: u64,
        /// Not heard of for half its time.
        silent: bool,
        /// Gets nothing more.
        draining: bool,
    },
    /// A session is over; all its leases are.
    SessionEnded {
        /// Which.
        session: u64,
        /// The worker's name.
        worker: String,
        /// Why.
        reason: SessionEnd,
    },
    /// A blob was stored.
    BlobStored {
        /// Its BLAKE3.
        hash: [u8; 32],
    },
    /// A blob that no job refers to was dropped.
    BlobForgotten {
        /// Its BLAKE3.
        hash: [u8; 32],
    },
    /// A segment of the history was written.
    SegmentCut {
        /// Its number, from 1.
        number: u32,
        /// BLAKE3 of the bytes, which stand for them in the digest.
        checksum: [u8; 32],
        /// All of it.
        data: Bytes,
    },
}

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEnd {
    /// It didn't renew in time; with what the leader said.
    Expired(String),
    /// A worker of the same name joined anew, as this session.
    Replaced(u64),
}

impl std::fmt::Display for SessionEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Expired(reason) if reason.is_empty() => write!(f, "the session expired"),
            Self::Expired(reason) => write!(f, "the session expired: {reason}"),
            Self::Replaced(by) => write!(f, "the worker joined anew as session {by}"),
        }
    }
}

/// What the end of an attempt means for its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It succeeded.
    Succeeded,
    /// It will have succeeded when its outputs are published.
    Publishing,
    /// It failed for good.
    Failed,
    /// It was cancelled.
    Cancelled,
    /// It is queued again, from this log time on.
    Retried {
        /// Milliseconds of log time.
        not_before_ms: u64,
    },
}
