//! Snapshots of the state: files that appear whole or not at all.
//!
//! ```text
//! content | metadata | magic 8 | length of the metadata 4 | crc32c over metadata, magic and length 4
//! ```
//!
//! The checksum of the content is in the metadata and travels with it, so that a receiver verifies what it wrote
//! before the file gets its name.

use prost::Message;
use proto::internal::{Configuration, SnapshotMetadata};

use crate::{
    Failure, Volume,
    volume::{failed, settle, sync_failed},
};

#[cfg(test)]
mod tests;

const MAGIC: &[u8; 8] = b"MILLGSNP";
const FOOTER_BYTES: u64 = 16;
const PIECE_BYTES: usize = 1 << 20;
const UNFINISHED: &str = ".new";
/// The newest one may be on its way to a follower while the next one is made.
const KEPT: usize = 2;

/// The snapshots on a volume of their own.
#[derive(Debug)]
pub struct Snapshots<V> {
    volume: V,
    /// By index.
    stored: Vec<SnapshotMetadata>,
    begun: u64,
}

/// A snapshot that is being written. Finish it or abandon it; what a crash leaves is removed at the next start.
#[derive(Debug)]
pub struct IncomingSnapshot {
    name: String,
    /// Size and checksum count what was written so far.
    metadata: SnapshotMetadata,
    announced: Option<SnapshotMetadata>,
}

impl IncomingSnapshot {
    /// Bytes written so far: the offset of the next chunk.
    pub fn size(&self) -> u64 {
        self.metadata.size
    }
}

impl<V: Volume> Snapshots<V> {
    /// Opens the volume, syncs it, drops the page cache, removes what is unfinished and reads the footers.
    ///
    /// # Errors
    /// [`Failure::Corrupt`] for a damaged footer; contents are verified when they are loaded.
    pub fn open(mut volume: V) -> Result<Snapshots<V>, Failure> {
        let names = settle(&mut volume)?;
        let mut snapshots = Snapshots { volume, stored: Vec::new(), begun: 0 };
        for name in &names {
            if name.ends_with(UNFINISHED) {
                snapshots.remove(name)?;
            } else if is_snapshot_name(name) {
                let metadata = snapshots.read_footer(name)?;
                snapshots.stored.push(metadata);
            }
        }
        snapshots.stored.sort_by_key(|metadata| (metadata.index, metadata.term));
        Ok(snapshots)
    }

    /// All stored ones, oldest first.
    pub fn list(&self) -> &[SnapshotMetadata] {
        &self.stored
    }

    /// Begins one of this member's own.
    pub fn begin(&mut self, index: u64, term: u64, members: &Configuration) -> Result<IncomingSnapshot, Failure> {
        let metadata = SnapshotMetadata { index, term, configuration: Some(members.clone()), size: 0, checksum: 0 };
        self.begin_file(metadata, None)
    }

    /// Begins one that a leader announced.
    pub fn receive(&mut self, announced: &SnapshotMetadata) -> Result<IncomingSnapshot, Failure> {
        let metadata = SnapshotMetadata { size: 0, checksum: 0, ..announced.clone() };
        self.begin_file(metadata, Some(announced.clone()))
    }

    /// Adds bytes at the end.
    pub fn write(&mut self, incoming: &mut IncomingSnapshot, bytes: &[u8]) -> Result<(), Failure> {
        self.volume.append(&incoming.name, bytes).map_err(failed("write", self.volume.path(&incoming.name)))?;
        incoming.metadata.size += bytes.len() as u64;
        incoming.metadata.checksum = crc32c::crc32c_append(incoming.metadata.checksum, bytes);
        Ok(())
    }

    /// Makes it durable under its name, and says what is stored.
    ///
    /// # Errors
    /// [`Failure::SnapshotDamaged`] if it isn't what was announced; it is removed then.
    pub fn finish(&mut self, incoming: IncomingSnapshot) -> Result<SnapshotMetadata, Failure> {
        let IncomingSnapshot { name, metadata, announced } = incoming;
        if let Some(announced) = announced
            && (announced.size, announced.checksum) != (metadata.size, metadata.checksum)
        {
            self.remove(&name)?;
            let reason = if announced.size == metadata.size { "its checksum is wrong" } else { "its size is wrong" };
            return Err(Failure::SnapshotDamaged { index: metadata.index, reason });
        }
        let footer = encode_footer(&metadata);
        let path = self.volume.path(&name);
        self.volume.append(&name, &footer).map_err(failed("write", path.clone()))?;
        self.volume.sync(&name).map_err(sync_failed(path.clone()))?;
        self.volume.rename(&name, &snapshot_name(&metadata)).map_err(failed("rename", path))?;
        self.volume.sync_directory().map_err(sync_failed(self.volume.path("")))?;
        self.stored.retain(|stored| (stored.index, stored.term) != (metadata.index, metadata.term));
        self.stored.push(metadata.clone());
        self.stored.sort_by_key(|metadata| (metadata.index, metadata.term));
        Ok(metadata)
    }

    /// Gives one up.
    pub fn abandon(&mut self, incoming: IncomingSnapshot) -> Result<(), Failure> {
        self.remove(&incoming.name)
    }

    /// Stores one of this member's own, chunk by chunk.
    pub fn store<C: AsRef<[u8]>>(
        &mut self,
        index: u64,
        term: u64,
        members: &Configuration,
        chunks: impl IntoIterator<Item = C>,
    ) -> Result<SnapshotMetadata, Failure> {
        let mut incoming = self.begin(index, term, members)?;
        for chunk in chunks {
            self.write(&mut incoming, chunk.as_ref())?;
        }
        self.finish(incoming)
    }

    /// The whole content, verified.
    pub fn load(&self, metadata: &SnapshotMetadata) -> Result<Vec<u8>, Failure> {
        let mut content = Vec::with_capacity(metadata.size as usize);
        while (content.len() as u64) < metadata.size {
            let piece = self.read(metadata, content.len() as u64, PIECE_BYTES)?;
            if piece.is_empty() {
                break;
            }
            content.extend_from_slice(&piece);
        }
        if content.len() as u64 != metadata.size || crc32c::crc32c(&content) != metadata.checksum {
            let path = self.volume.path(&snapshot_name(metadata));
            return Err(Failure::Corrupt { path, offset: 0, reason: "the content doesn't fit its checksum" });
        }
        Ok(content)
    }

    /// Up to `length` bytes of the content from `offset` on, to send; empty at its end. Not verified: the receiver
    /// does that.
    ///
    /// # Errors
    /// [`Failure::SnapshotMissing`] once it was pruned.
    pub fn read(&self, metadata: &SnapshotMetadata, offset: u64, length: usize) -> Result<Vec<u8>, Failure> {
        if !self.stored.iter().any(|stored| (stored.index, stored.term) == (metadata.index, metadata.term)) {
            return Err(Failure::SnapshotMissing { index: metadata.index });
        }
        let length = length.min(usize::try_from(metadata.size.saturating_sub(offset)).unwrap_or(usize::MAX));
        let name = snapshot_name(metadata);
        self.volume.read(&name, offset, length).map_err(failed("read", self.volume.path(&name)))
    }

    /// Keeps the newest two that the log relies on (up to `durable_index`, whose mention in the log is durable) and
    /// whatever is newer: that may still have to be installed.
    pub fn prune(&mut self, durable_index: u64) -> Result<(), Failure> {
        let relied = self.stored.iter().filter(|metadata| metadata.index <= durable_index).count();
        let old: Vec<SnapshotMetadata> = self.stored.drain(..relied.saturating_sub(KEPT)).collect();
        for metadata in old {
            self.remove(&snapshot_name(&metadata))?;
        }
        Ok(())
    }

    /// Removes one that the log doesn't know.
    pub(crate) fn discard(&mut self, metadata: &SnapshotMetadata) -> Result<(), Failure> {
        self.stored.retain(|stored| stored != metadata);
        self.remove(&snapshot_name(metadata))
    }

    /// Gives the volume back, as a crash does.
    pub fn into_volume(self) -> V {
        self.volume
    }

    /// The volume, to fail it.
    pub fn volume_mut(&mut self) -> &mut V {
        &mut self.volume
    }

    fn begin_file(
        &mut self,
        metadata: SnapshotMetadata,
        announced: Option<SnapshotMetadata>,
    ) -> Result<IncomingSnapshot, Failure> {
        self.begun += 1;
        let name = format!("incoming-{}{UNFINISHED}", self.begun);
        self.volume.create(&name).map_err(failed("create", self.volume.path(&name)))?;
        Ok(IncomingSnapshot { name, metadata, announced })
    }

    fn remove(&mut self, name: &str) -> Result<(), Failure> {
        self.volume.remove(name).map_err(failed("remove", self.volume.path(name)))
    }

    fn read_footer(&self, name: &str) -> Result<SnapshotMetadata, Failure> {
        let path = self.volume.path(name);
        let length = self.volume.length(name).map_err(failed("measure", path.clone()))?;
        let read = |offset, bytes| self.volume.read(name, offset, bytes).map_err(failed("read", path.clone()));
        let corrupt = |offset, reason| Failure::Corrupt { path: path.clone(), offset, reason };
        let at = length.checked_sub(FOOTER_BYTES).ok_or(corrupt(0, "it is too short for a snapshot"))?;
        let footer = read(at, FOOTER_BYTES as usize)?;
        let damaged = || corrupt(at, "the footer is damaged");
        let number = |range: std::ops::Range<usize>| {
            footer.get(range).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes)
        };
        let size = u64::from(number(8..12).ok_or_else(damaged)?);
        let start = at.checked_sub(size).ok_or_else(damaged)?;
        let encoded = read(start, size as usize)?;
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&encoded), &footer[..12]);
        if footer[..8] != MAGIC[..] || number(12..16) != Some(checksum) {
            return Err(damaged());
        }
        let metadata = SnapshotMetadata::decode(&*encoded).map_err(|_| damaged())?;
        if metadata.size != start || snapshot_name(&metadata) != name {
            return Err(corrupt(start, "the metadata is another snapshot's"));
        }
        Ok(metadata)
    }
}

fn snapshot_name(metadata: &SnapshotMetadata) -> String {
    format!("snapshot-{:016x}-{:016x}", metadata.index, metadata.term)
}

fn is_snapshot_name(name: &str) -> bool {
    name.starts_with("snapshot-")
}

fn encode_footer(metadata: &SnapshotMetadata) -> Vec<u8> {
    let mut footer = metadata.encode_to_vec();
    let size = footer.len() as u32;
    footer.extend_from_slice(MAGIC);
    footer.extend_from_slice(&size.to_le_bytes());
    let checksum = crc32c::crc32c(&footer);
    footer.extend_from_slice(&checksum.to_le_bytes());
    footer
}
