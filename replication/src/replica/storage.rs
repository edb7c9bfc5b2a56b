//! The log in memory, as the library reads it. It serves entries from the moment they are handed out, long before
//! they are on the disk, and never fails in a way that the library would panic at.

use std::{cell::Cell, collections::VecDeque};

use proto::internal::SnapshotMetadata;
use raft::{
    Error, GetEntriesContext, RaftState, Storage, StorageError,
    eraftpb::{ConfState, Entry, HardState, Snapshot},
};

use super::convert;
use crate::{Recovered, Trailing};

/// What an entry costs beside its data, in bytes; about what the library counts.
const ENTRY_BYTES: u64 = 24;

pub(super) struct MemoryStorage {
    hard_state: HardState,
    configuration: ConfState,
    base_index: u64,
    base_term: u64,
    entries: VecDeque<Entry>,
    bytes: u64,
    snapshot: Option<SnapshotMetadata>,
    wanted: Cell<bool>,
}

impl MemoryStorage {
    pub(super) fn new(recovered: Recovered) -> MemoryStorage {
        let mut storage = MemoryStorage {
            hard_state: convert::hard_state_to_raft(&recovered.hard_state),
            configuration: convert::configuration_to_raft(&recovered.configuration),
            base_index: recovered.base_index,
            base_term: recovered.base_term,
            entries: VecDeque::new(),
            bytes: 0,
            snapshot: recovered.snapshot,
            wanted: Cell::new(false),
        };
        storage.append(recovered.entries.into_iter().map(convert::entry_to_raft).collect());
        storage
    }

    pub(super) fn base(&self) -> (u64, u64) {
        (self.base_index, self.base_term)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn snapshot_index(&self) -> u64 {
        self.snapshot.as_ref().map_or(0, |snapshot| snapshot.index)
    }

    /// Whether a follower asked in vain since the last call.
    pub(super) fn take_wanted(&self) -> bool {
        self.wanted.take()
    }

    pub(super) fn set_snapshot(&mut self, metadata: SnapshotMetadata) {
        self.snapshot = Some(metadata);
    }

    /// A received snapshot takes the place of all entries.
    pub(super) fn install(&mut self, metadata: SnapshotMetadata) {
        self.entries.clear();
        self.bytes = 0;
        self.base_index = metadata.index;
        self.base_term = metadata.term;
        self.snapshot = Some(metadata);
    }

    pub(super) fn append(&mut self, entries: Vec<Entry>) {
        let Some(first) = entries.first() else { return };
        assert!(first.index > self.base_index && first.index <= self.last() + 1, "the log would get a gap");
        while self.last() >= first.index {
            let replaced = self.entries.pop_back().map_or(0, |entry| entry_bytes(&entry));
            self.bytes -= replaced;
        }
        self.bytes += entries.iter().map(entry_bytes).sum::<u64>();
        self.entries.extend(entries);
    }

    pub(super) fn compact(&mut self, base: u64) {
        while self.base_index < base
            && let Some(entry) = self.entries.pop_front()
        {
            self.bytes -= entry_bytes(&entry);
            self.base_index = entry.index;
            self.base_term = entry.term;
        }
    }

    /// The last entry to forget so that at most these many stay behind a snapshot.
    pub(super) fn trailing_base(&self, snapshot: u64, trailing: Trailing) -> u64 {
        let mut base = snapshot.min(self.last());
        let (mut entries, mut bytes) = (0, 0);
        while base > self.base_index
            && let Some(entry) = self.entry(base)
        {
            entries += 1;
            bytes += entry_bytes(entry);
            if entries > trailing.entries || bytes > trailing.bytes {
                break;
            }
            base -= 1;
        }
        base
    }

    fn last(&self) -> u64 {
        self.base_index + self.entries.len() as u64
    }

    fn entry(&self, index: u64) -> Option<&Entry> {
        self.entries.get(usize::try_from(index.checked_sub(self.base_index + 1)?).ok()?)
    }
}

impl Storage for MemoryStorage {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState { hard_state: self.hard_state.clone(), conf_state: self.configuration.clone() })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.base_index {
            return Err(Error::Store(StorageError::Compacted));
        }
        let max_size = max_size.into().unwrap_or(u64::MAX);
        let mut entries = Vec::new();
        let mut bytes = 0;
        for index in low..high {
            let entry = self.entry(index).ok_or(Error::Store(StorageError::Unavailable))?;
            bytes += entry_bytes(entry);
            if bytes > max_size && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.base_index {
            return Ok(self.base_term);
        }
        if index < self.base_index {
            return Err(Error::Store(StorageError::Compacted));
        }
        self.entry(index).map(|entry| entry.term).ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base_index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    /// Only the metadata: the file is sent from the disk.
    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        match &self.snapshot {
            Some(metadata) if metadata.index >= request_index.max(self.base_index) => {
                Ok(convert::snapshot_to_raft(metadata))
            }
            _ => {
                self.wanted.set(true);
                Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
            }
        }
    }
}

fn entry_bytes(entry: &Entry) -> u64 {
    entry.data.len() as u64 + entry.context.len() as u64 + ENTRY_BYTES
}
