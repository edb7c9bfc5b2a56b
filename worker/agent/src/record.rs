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
