//! What the agent knows of an attempt beside what its core does, and what the keeper gives back of it after a restart.

use std::path::PathBuf;

use bytes::Bytes;
use prost::Message;
use proto::v1;
use tokio::task::AbortHandle;

use crate::launch::Launch;

/// One attempt.
#[derive(Debug)]
pub struct Record {
    /// `STATE_DIR/tasks/JOB.ORDINAL.ATTEMPT`.
    pub directory: PathBuf,
    /// What a restarted agent must know; goes to the keeper with the process.
    pub memo: Memo,
    /// Made by the preparation, taken by the start.
    pub launch: Option<Launch>,
    /// The preparation or the stage-out that is under way.
    pub working: Option<AbortHandle>,
    /// Where its logs are.
    pub logs: Logs,
    /// The bundle they go into; 0: none.
    pub bundle: u32,
    /// It has a scratch directory.
    pub scratch: bool,
    /// What it wrote to standard output is told with its end.
    pub answers: bool,
}

impl Record {
    /// Of an attempt for which nothing was done yet.
    pub fn new(directory: PathBuf, memo: Memo) -> Self {
        let scratch = memo.resources.is_some_and(|resources| resources.scratch_gib > 0);
        Self { directory, memo, launch: None, working: None, logs: Logs::Spooled, bundle: 0, scratch, answers: false }
    }
}

/// The way of an attempt's logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logs {
    /// In the spools alone.
    Spooled,
    /// To be uploaded; the spools must stay.
    Leaving,
    /// On S3, or there is nothing of them: the spools may go.
    Safe,
}

/// Kept by the keeper beside the process.
#[derive(Clone, PartialEq, Message)]
pub struct Memo {
    /// What it occupies.
    #[prost(message, optional, tag = "1")]
    pub resources: Option<v1::Resources>,
    /// The task's index.
    #[prost(uint64, tag = "2")]
    pub index: u64,
    /// With their placeholders replaced.
    #[prost(message, repeated, tag = "3")]
    pub outputs: Vec<v1::Output>,
}

impl Memo {
    /// Reads what the keeper gave back. What can't be read is from another release: its task goes on, and is
    /// reported without outputs.
    pub fn read(bytes: &Bytes) -> Self {
        Self::decode(bytes.clone()).unwrap_or_default()
    }
}
