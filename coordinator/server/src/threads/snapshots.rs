//! The thread that turns states into files and back, at a pace that leaves the disk to the log.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread::{JoinHandle, sleep},
    time::{Duration, Instant},
};

use bytes::Bytes;
use coordinator_core::Input as CoreInput;
use replication::{Configuration, Failure, Input, SnapshotFiles, SnapshotMetadata};
use scheduler::State;
use tracing::{info, warn};

use super::{queue, replica};
use crate::{ending::Ending, inbox::Inbox, metrics::Metrics};

/// Bytes a second that are written.
const PACE: f64 = (64 << 20) as f64;
/// A piece is never larger, whatever the file says.
const PIECE_BYTES: usize = 256 << 20;

/// One thing for the snapshot thread to do.
pub enum Message {
    /// Store this state.
    Store { index: u64, term: u64, state: Box<State> },
    /// Load a snapshot that was received, into the core.
    Load(SnapshotMetadata),
}

/// What the snapshot thread needs.
pub struct Parts {
    /// The files.
    pub files: Arc<Mutex<SnapshotFiles>>,
    /// Who the members are; part of each snapshot.
    pub members: Configuration,
    /// The core thread's inbox.
    pub core: Arc<Inbox>,
    /// The replica thread.
    pub replica: queue::Sender<replica::Message>,
    /// Who can end the process.
    pub ending: Ending,
    /// Where durations are noted.
    pub metrics: Arc<Metrics>,
}

/// Starts the thread. It ends when its senders are gone.
pub fn start(parts: Parts) -> std::io::Result<(Sender<Message>, JoinHandle<()>)> {
    let (sender, inbox): (_, Receiver<Message>) = channel();
    let handle = super::spawn_in_background("snapshots", move || {
        for message in inbox {
            match message {
                Message::Store { index, term, state } => parts.store(index, term, *state),
                Message::Load(metadata) => parts.load(metadata),
            }
        }
    })?;
    Ok((sender, handle))
}

/// Why a snapshot can't be loaded.
#[derive(Debug, thiserror::Error)]
pub enum Unloadable {
    /// The file is damaged.
    #[error(transparent)]
    Failure(#[from] Failure),
    /// It is whole, but isn't what this release writes.
    #[error("snapshot {index} can't be read: {reason}")]
    Malformed { index: u64, reason: String },
}

/// Reads a snapshot's state.
pub fn load(files: &Mutex<SnapshotFiles>, metadata: &SnapshotMetadata) -> Result<State, Unloadable> {
    let content = files.lock().unwrap_or_else(PoisonError::into_inner).load(metadata)?;
    let malformed = |reason: String| Unloadable::Malformed { index: metadata.index, reason };
    let pieces = expand(&content.into()).map_err(|reason| malformed(reason.to_owned()))?;
    State::decode(pieces).map_err(|error| malformed(error.to_string()))
}

impl Parts {
    fn store(&self, index: u64, term: u64, state: State) {
        let begun = Instant::now();
        let result = self.write(index, term, &state);
        drop(state);
        let stored = result.is_ok();
        match result {
            Ok(metadata) => {
                self.metrics.snapshot_stored(begun.elapsed());
                info!(index, bytes = metadata.size, seconds = begun.elapsed().as_secs_f64(), "snapshot stored");
                // Gone: the process is ending.
                let _ = self.replica.send(replica::Message::Step(Input::SnapshotStored { metadata }));
            }
            Err(failure) if failure.exit_code() == 1 => warn!(index, %failure, "can't store a snapshot; the log grows"),
            Err(failure) => self.ending.fail(&failure),
        }
        self.core.push(CoreInput::SnapshotEnded { index, stored });
    }

    /// The files are locked for one piece at a time, so that a follower can be sent another one meanwhile.
    fn write(&self, index: u64, term: u64, state: &State) -> Result<SnapshotMetadata, Failure> {
        let files = || self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let mut incoming = files().begin(index, term, &self.members)?;
        for piece in state.encode() {
            let begun = Instant::now();
            let compressed = compress(&piece);
            if let Err(failure) = files().write(&mut incoming, &compressed) {
                // What failed to be written may well fail to be removed; the next start does it.
                let _ = files().abandon(incoming);
                return Err(failure);
            }
            let due = Duration::from_secs_f64(compressed.len() as f64 / PACE);
            sleep(due.saturating_sub(begun.elapsed()));
        }
        files().finish(incoming)
    }

    fn load(&self, metadata: SnapshotMetadata) {
        let begun = Instant::now();
        match load(&self.files, &metadata) {
            Ok(state) => {
                info!(index = metadata.index, seconds = begun.elapsed().as_secs_f64(), "snapshot loaded");
                self.core.push(CoreInput::Restored { index: metadata.index, state: Box::new(state) });
                let _ = self.replica.send(replica::Message::Loaded(metadata));
            }
            Err(Unloadable::Failure(failure)) => self.ending.fail(&failure),
            Err(malformed) => {
                tracing::error!(%malformed, "this coordinator can't go on");
                self.ending.end(crate::ending::Exit::Corrupt);
            }
        }
    }
}

fn compress(piece: &[u8]) -> Vec<u8> {
    let compressed = lz4_flex::block::compress_prepend_size(piece);
    let mut framed = Vec::with_capacity(4 + compressed.len());
    framed.extend_from_slice(&(compressed.len() as u32).to_le_bytes());
    framed.extend_from_slice(&compressed);
    framed
}

fn expand(content: &Bytes) -> Result<Vec<Bytes>, &'static str> {
    let mut pieces = Vec::new();
    let mut rest = content.clone();
    while !rest.is_empty() {
        let length =
            rest.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes) as usize).ok_or("a piece is cut")?;
        let end = length.checked_add(4).filter(|end| *end <= rest.len()).ok_or("a piece is cut")?;
        let compressed = rest.slice(4..end);
        let size = compressed.first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize);
        if size > PIECE_BYTES {
            return Err("a piece is too large");
        }
        let piece = lz4_flex::block::decompress_size_prepended(&compressed).map_err(|_| "a piece can't be expanded")?;
        pieces.push(piece.into());
        rest = rest.slice(end..);
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn pieces_come_back_as_they_were() {
        let pieces = [vec![7u8; 100_000], Vec::new(), b"state".to_vec()];
        let content: Vec<u8> = pieces.iter().flat_map(|piece| compress(piece)).collect();
        assert!(content.len() < 2_000);
        assert_eq!(expand(&content.clone().into()).unwrap(), pieces.map(Bytes::from));
        assert!(expand(&Bytes::from(content[..content.len() - 1].to_vec())).is_err());
    }
}
