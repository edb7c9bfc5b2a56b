//! What the core is told.

use bytes::Bytes;
use proto::v1::{Capacity, CoordinatorMessage, Manifest, Resources};

use crate::Key;

/// What a worker is, for as long as its agent lives.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The pool it belongs to.
    pub pool: String,
    /// For people and for constraints.
    pub labels: Vec<(String, String)>,
    /// What its tasks may use in all.
    pub capacity: Capacity,
    /// The release, e.g. `0.1.0`.
    pub version: String,
    /// Any number that other workers don't have: it spreads reconnections.
    pub jitter: u64,
}

/// Something that happened. Everything that waits may be stepped before the outputs are taken: that is what makes
/// batches.
#[derive(Debug, Clone)]
pub enum Input {
    /// Time has passed; due when [`crate::Core::next_timer_ms`] says so, harmless at any other time.
    Tick,
    /// The connection to the keeper stands. Nothing is done before the first one.
    KeeperConnected {
        /// The standing that the keeper holds; `None` when it has none.
        standing: Option<Standing>,
        /// Every process that the keeper hasn't been told to forget.
        processes: Vec<Adopted>,
        /// Whether the keeper knows how to start one process after another.
        follows: bool,
    },
    /// The connection to the keeper broke; another `KeeperConnected` follows.
    KeeperLost,
    /// A process runs. One that was to start after another isn't told of before that one's `Exited`.
    Started {
        /// Whose.
        key: Key,
        /// Milliseconds since the Unix epoch, for people.
        start_time_ms: i64,
    },
    /// A process has ended, or was never started.
    Exited {
        /// Whose.
        key: Key,
        /// How.
        exit: Exit,
    },
    /// The keeper's own timer fired and it has killed everything.
    Expired,
    /// The stream asked for by `Output::Connect` can carry messages now.
    StreamOpened {
        /// The number in `Connect`.
        stream: u64,
    },
    /// That stream broke, or was never opened.
    StreamClosed {
        /// The number in `Connect`.
        stream: u64,
        /// Whether another coordinator may do better; not so when this one only says that the leader changed.
        elsewhere: bool,
    },
    /// A message from a coordinator.
    Received {
        /// On which stream; messages of any but the newest are ignored.
        stream: u64,
        /// What it said.
        message: CoordinatorMessage,
    },
    /// `Output::Prepare` is done.
    Prepared {
        /// Whose.
        key: Key,
        /// `Err`: the attempt ends with what it says.
        result: Result<(), Failure>,
    },
    /// `Output::StageOut` is done.
    StagedOut {
        /// Whose.
        key: Key,
        /// The uploads, or why there are none.
        result: Result<Manifest, Failure>,
    },
    /// `Output::Publish` is done.
    PublishEnded {
        /// Whose.
        key: Key,
        /// ETags in the manifest's order, or what went wrong.
        result: Result<Vec<String>, PublishFailure>,
    },
    /// The machine is taken back. A repeat changes nothing; a restarted agent needs one again.
    SpotNotice {
        /// When it is gone: `CLOCK_BOOTTIME`, milliseconds.
        ends_ms: u64,
    },
    /// How much memory the machine has free, for people.
    FreeMemory {
        /// In MiB.
        mib: u64,
    },
}

/// What the keeper holds of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The session, from 1.
    pub session: u64,
    /// The newest connection number used.
    pub connection: u64,
    /// `CLOCK_BOOTTIME`, milliseconds.
    pub deadline_ms: u64,
}

/// A process that the keeper has, as far as a new agent must know it.
#[derive(Debug, Clone)]
pub struct Adopted {
    /// Whose.
    pub key: Key,
    /// What it occupies.
    pub resources: Resources,
    /// Whether a success is followed by a stage-out.
    pub outputs: bool,
    /// Milliseconds since the Unix epoch; 0 when it isn't known.
    pub start_time_ms: i64,
    /// Present when it waits for that one to end.
    pub after: Option<Key>,
    /// Present when it has ended.
    pub exit: Option<Exit>,
}

/// How a process ended, and what it used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exit {
    /// The kind of end.
    pub end: End,
    /// Of `End::ExitCode`.
    pub exit_code: i32,
    /// The signal that ended it, or 0.
    pub signal: i32,
    /// Milliseconds since the Unix epoch; 0: never started.
    pub start_time_ms: i64,
    /// Milliseconds since the Unix epoch.
    pub end_time_ms: i64,
    /// By the keeper's clock.
    pub run_ms: u64,
    /// User and system time of the process and its children.
    pub cpu_ms: u64,
    /// The largest resident set.
    pub max_memory_kib: u64,
    /// For people.
    pub detail: String,
    /// Length of its standard output.
    pub stdout_bytes: u64,
    /// Length of its standard error.
    pub stderr_bytes: u64,
    /// The bundle that its logs will be in; 0: objects of their own, or none.
    pub log_bundle: u32,
    /// Its standard output, of a job that wants it told.
    pub answer: Option<Bytes>,
}

/// The kinds of end that a keeper tells apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum End {
    /// It ended by itself.
    #[default]
    ExitCode,
    /// A signal that we didn't send.
    Signal,
    /// Its time limit.
    TimeLimit,
    /// The machine or its limit ran out of memory.
    OutOfMemory,
    /// No such program.
    CommandNotFound,
    /// A program that can't be executed.
    CommandNotExecutable,
    /// We stopped it.
    Stopped,
    /// The session's deadline passed.
    Expired,
    /// It was not started, for a reason of the machine.
    NotStarted,
}

/// Why an attempt could not be prepared, or its outputs not be uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What it is reported as.
    pub cause: proto::v1::Cause,
    /// One line for people that names the thing, e.g. the key that was missing.
    pub detail: String,
    /// Whether another attempt may go better.
    pub retryable: bool,
}

/// Why uploads could not be completed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishFailure {
    /// S3 doesn't answer, or asks for patience: the core tries again later.
    Passing {
        /// For people.
        detail: String,
    },
    /// It will never work: the attempt ends with `stage_out`.
    Final {
        /// For people; names the key.
        detail: String,
        /// Whether another attempt may go better.
        retryable: bool,
    },
}
