//! Pieces of data that jobs refer to by their hash: rows of sweeps, small files that travel along.

use bytes::Bytes;
use imbl::{OrdMap, OrdSet};

use crate::limits;

pub(crate) type Hash = [u8; 32];

#[derive(Debug, Clone, Default)]
pub(crate) struct Blobs {
    pub stored: OrdMap<Hash, Blob>,
    /// Derived: those that no job refers to, by the log time at which they are forgotten.
    pub unused: OrdSet<(u64, Hash)>,
    /// Derived: bytes of all.
    pub bytes: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Blob {
    pub data: Bytes,
    /// Log time at which it is forgotten unless a job refers to it.
    pub until_ms: u64,
    /// Derived: how many jobs refer to it.
    pub uses: u64,
}

impl Blobs {
    /// Stores a blob, or lets one that is there live longer.
    pub fn put(&mut self, hash: Hash, data: &Bytes, time_ms: u64) {
        // In whole minutes, so that many are forgotten by one entry.
        let until_ms = (time_ms + limits::UNUSED_BLOB_MS).next_multiple_of(60_000);
        match self.stored.get_mut(&hash) {
            Some(blob) => {
                if blob.uses == 0 {
                    self.unused.remove(&(blob.until_ms, hash));
                    self.unused.insert((until_ms, hash));
                }
                blob.until_ms = until_ms;
            }
            None => {
                self.bytes += data.len() as u64;
                // A copy of its own: a slice would keep the whole entry in memory.
                self.stored.insert(hash, Blob { data: Bytes::copy_from_slice(data), until_ms, uses: 0 });
                self.unused.insert((until_ms, hash));
            }
        }
    }

    /// A job refers to it from now on.
    pub fn take_up(&mut self, hash: &Hash) {
        let blob = self.stored.get_mut(hash).expect("submits that refer to unknown blobs are rejected");
        if blob.uses == 0 {
            self.unused.remove(&(blob.until_ms, *hash));
        }
        blob.uses += 1;
    }

    /// A job refers to it no more.
    pub fn give_back(&mut self, hash: &Hash) {
        let blob = self.stored.get_mut(hash).expect("what a job refers to is stored");
        blob.uses -= 1;
        if blob.uses == 0 {
            self.unused.insert((blob.until_ms, *hash));
        }
    }

    pub fn next_timer_ms(&self) -> Option<u64> {
        self.unused.get_min().map(|(until_ms, _)| *until_ms)
    }

    /// Forgets what is due.
    pub fn expire(&mut self, time_ms: u64) -> Vec<Hash> {
        let mut forgotten = Vec::new();
        while let Some((until_ms, hash)) = self.unused.get_min().copied().filter(|(until_ms, _)| *until_ms <= time_ms) {
            self.unused.remove(&(until_ms, hash));
            let blob = self.stored.remove(&hash).expect("what is unused is stored");
            self.bytes -= blob.data.len() as u64;
            forgotten.push(hash);
        }
        forgotten
    }
}
