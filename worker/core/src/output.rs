//! What the core wants done.

use std::sync::Arc;

use proto::v1::{GrantedJob, Manifest, ReadLog, Resources, WorkerMessage};

use crate::Key;

/// An order to the driver, to be carried out in the order given. Nothing is answered in the same call.
#[derive(Debug, Clone)]
pub enum Output {
    /// Open a stream to a coordinator, answered by `StreamOpened` or `StreamClosed`.
    Connect {
        /// Names the stream; rising.
        stream: u64,
        /// Whether to take another coordinator than the last time: that one didn't answer.
        elsewhere: bool,
    },
    /// Close the stream, and give up opening it.
    Disconnect {
        /// The number in `Connect`.
        stream: u64,
    },
    /// Send a message to the coordinator.
    Send {
        /// The number in `Connect`.
        stream: u64,
        /// The message.
        message: WorkerMessage,
    },
    /// Tell the keeper the standing. A session of 0: nothing may run, kill what does.
    SetSession {
        /// The session.
        session: u64,
        /// The newest connection number.
        connection: u64,
        /// `CLOCK_BOOTTIME`, milliseconds.
        deadline_ms: u64,
    },
    /// Make the attempt's directory with its files and inputs; answered by `Prepared`.
    Prepare {
        /// What is to be started.
        task: Arc<Task>,
    },
    /// Have the keeper start the process; answered by `Started` and `Exited`, or by `Exited` alone.
    Spawn {
        /// What to start.
        task: Arc<Task>,
        /// The session that holds the attempt.
        session: u64,
        /// How long it may run from its start; 0: for ever.
        time_limit_ms: u64,
        /// Start it when this one has ended, or now if the keeper doesn't know that one any more.
        after: Option<Key>,
    },
    /// Have the keeper start now what it was to start when another has ended; nothing if it was started already.
    SpawnNow {
        /// What.
        key: Key,
        /// The session that holds the attempt.
        session: u64,
    },
    /// Have the keeper not start what it was to start when another has ended: answered by `Exited` with
    /// `End::NotStarted`. Nothing if it was started already.
    Withdraw {
        /// What.
        key: Key,
    },
    /// Have the keeper end the process when it has run so long from its start, which may be over already.
    SetTimeLimit {
        /// Whose.
        key: Key,
        /// 0: for ever.
        time_limit_ms: u64,
    },
    /// Have the keeper stop the process; answered by `Exited`.
    Stop {
        /// Whose.
        key: Key,
        /// SIGKILL at once, instead of SIGTERM, grace and SIGKILL.
        immediately: bool,
    },
    /// Upload the outputs without completing the uploads; answered by `StagedOut`.
    StageOut {
        /// Whose.
        key: Key,
    },
    /// Break off `Prepare` or `StageOut`; no answer is wanted any more, a late one is ignored.
    BreakOff {
        /// Whose.
        key: Key,
    },
    /// Complete the uploads; answered by `PublishEnded`.
    Publish {
        /// Whose.
        key: Key,
        /// The uploads.
        manifest: Manifest,
        /// The task's index.
        index: u64,
    },
    /// Break off `Publish`: it is somebody else's now.
    BreakOffPublish {
        /// Whose.
        key: Key,
    },
    /// Have the keeper forget these: their ends were acknowledged, or are nobody's concern any more.
    Forget {
        /// Whose.
        keys: Vec<Key>,
    },
    /// The attempt is over: its directory may be deleted, its logs as soon as they are on S3.
    Discard {
        /// Whose.
        key: Key,
        /// Whether its logs are worth being uploaded: false when it wasn't this session's any more.
        logs: bool,
    },
    /// Answer a request for bytes of a spooled log, on this stream.
    ReadLog {
        /// On which stream.
        stream: u64,
        /// What is asked.
        request: ReadLog,
    },
    /// A session stands, new or resumed.
    SessionOpened {
        /// Its number.
        session: u64,
        /// Of the grid.
        cluster_id: String,
        /// Bucket and prefix of the grid's own objects, e.g. `s3://dev/.millgrid/`.
        grid_prefix: String,
        /// The name that the certificate gives this worker.
        worker: String,
    },
    /// The session is over and everything of it was ordered to be killed.
    SessionLost {
        /// Its number.
        session: u64,
        /// For people.
        reason: String,
    },
    /// The machine is taken back now: have the keeper kill what is left and end, and end too. The last output.
    Leave,
}

/// What a grant asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// The attempt.
    pub key: Key,
    /// The task's index, as its submitter wrote it.
    pub index: u64,
    /// Its row of the sweep, JSON; empty when there is none.
    pub row: String,
    /// What it occupies: its job's resources, an alternative of these, or with more memory.
    pub resources: Resources,
    /// Its job.
    pub job: Arc<GrantedJob>,
}
