//! The write-ahead log: one file of records after another, for one group.
//!
//! A record carries the highest sequence that was synced when it was written, so that a torn tail (which may be cut:
//! nobody was told of it) can be told from damage to something that was promised (which stops the replica). Each
//! segment begins with the whole state of the log but its entries, so that whole segments can be forgotten.

use prost::Message;
use proto::internal::{Configuration, HardState, LogEntry, LogState, LogWrite, SnapshotMetadata};

use self::format::{Header, Kind};
use crate::{
    Compaction, Failure, Volume, Write,
    volume::{failed, sync_failed},
};

mod format;
mod recovery;
#[cfg(test)]
mod tests;

/// Whose log it is; stands in the head of every segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// At most 64 bytes.
    pub cluster_id: String,
    /// The member's id.
    pub member_id: u64,
}

/// How a log is cut into files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// A segment that would grow beyond this ends; one record may be larger.
    pub segment_bytes: u64,
}

impl Default for LogSettings {
    fn default() -> LogSettings {
        LogSettings { segment_bytes: 64 << 20 }
    }
}

/// What a log held when it was opened.
#[derive(Clone, Debug, PartialEq)]
pub struct LogContents {
    /// Term, vote and commit.
    pub hard_state: HardState,
    /// Who is a member, as of the base.
    pub configuration: Configuration,
    /// The last entry that is no longer in the log; 0 if it is complete.
    pub base_index: u64,
    /// Its term.
    pub base_term: u64,
    /// The newest snapshot that the log relies on.
    pub snapshot: Option<SnapshotMetadata>,
    /// All entries behind the base.
    pub entries: Vec<LogEntry>,
}

/// The write-ahead log on a volume. It takes nothing any more after a failed write or sync.
#[derive(Debug)]
pub struct Log<V> {
    volume: V,
    owner: Owner,
    settings: LogSettings,
    state: LogState,
    /// Oldest first; the last one is being written.
    segments: Vec<Segment>,
    next_sequence: u64,
    synced_sequence: u64,
    /// The newest record that isn't a mark.
    content_sequence: u64,
    /// The highest sequence that some record says was synced.
    marked_sequence: u64,
    poisoned: bool,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    number: u64,
    length: u64,
    /// The highest index of any entry in it.
    last_index: u64,
}

impl<V: Volume> Log<V> {
    /// Makes an empty log for a member of `configuration`, in place of whatever unfinished one is there. Durable when
    /// it returns.
    pub fn create(mut volume: V, owner: &Owner, configuration: &Configuration) -> Result<V, Failure> {
        for name in volume.names().map_err(failed("list", volume.path("")))? {
            volume.remove(&name).map_err(failed("remove", volume.path(&name)))?;
        }
        let mut log = Log {
            volume,
            owner: owner.clone(),
            settings: LogSettings::default(),
            state: LogState {
                // Raft can't say no to a candidate from term 0.
                hard_state: Some(HardState { term: 1, vote: 0, commit: 0 }),
                configuration: Some(configuration.clone()),
                ..LogState::default()
            },
            segments: Vec::new(),
            next_sequence: 1,
            synced_sequence: 0,
            content_sequence: 0,
            marked_sequence: 0,
            poisoned: false,
        };
        log.begin_segment(1)?;
        log.sync()?;
        Ok(log.volume)
    }

    /// Opens a log: syncs it, drops the page cache, and reads all of it. A torn tail is cut; whatever was synced is
    /// there or it fails.
    ///
    /// # Errors
    /// [`Failure::Wiped`] if there is none, [`Failure::Corrupt`] and [`Failure::Contradiction`] if it can't be
    /// trusted.
    pub fn open(volume: V, owner: &Owner, settings: LogSettings) -> Result<(Log<V>, LogContents), Failure> {
        recovery::open(volume, owner, settings)
    }

    /// Writes what one step wants on the disk; durable after the next [`Log::sync`].
    pub fn append(&mut self, write: &Write) -> Result<(), Failure> {
        self.check()?;
        let content =
            LogWrite { hard_state: write.hard_state, entries: write.entries.clone(), snapshot: write.snapshot.clone() };
        let payload = content.encode_to_vec();
        let current = self.current();
        if current.length + format::record_length(payload.len()) > self.settings.segment_bytes {
            self.sync()?;
            self.begin_segment(current.number + 1)?;
        }
        if let Some(hard_state) = write.hard_state {
            self.state.hard_state = Some(hard_state);
        }
        if let Some(snapshot) = &write.snapshot {
            self.state.base_index = snapshot.index;
            self.state.base_term = snapshot.term;
            self.state.configuration = snapshot.configuration.clone();
            self.state.snapshot = Some(snapshot.clone());
        }
        self.write_record(Kind::Write, &payload)?;
        let last_index = write.entries.last().map_or(0, |entry| entry.index);
        if let Some(segment) = self.segments.last_mut() {
            segment.last_index = segment.last_index.max(last_index);
        }
        Ok(())
    }

    /// Makes everything appended so far durable.
    ///
    /// # Errors
    /// After [`Failure::Sync`] the process has to end: a second sync would say that all is well.
    pub fn sync(&mut self) -> Result<(), Failure> {
        self.check()?;
        let name = format::segment_name(self.current().number);
        if let Err(error) = self.volume.sync(&name) {
            self.poisoned = true;
            return Err(sync_failed(self.volume.path(&name))(error));
        }
        self.synced_sequence = self.next_sequence - 1;
        Ok(())
    }

    /// To be called when nothing was written for a moment (100 ms will do): leaves a mark which says that all before
    /// it was synced, so that damage to the last record can't pass for a torn tail. Not synced itself.
    pub fn idle(&mut self) -> Result<(), Failure> {
        self.check()?;
        if self.marked_sequence < self.content_sequence && self.content_sequence <= self.synced_sequence {
            self.write_record(Kind::Mark, &[])?;
        }
        Ok(())
    }

    /// Forgets entries that a durable snapshot stands for, and removes the segments that hold nothing else.
    pub fn compact(&mut self, compaction: &Compaction) -> Result<(), Failure> {
        self.check()?;
        if compaction.base_index > self.state.base_index {
            self.state.base_index = compaction.base_index;
            self.state.base_term = compaction.base_term;
        }
        let newest = self.state.snapshot.as_ref().map_or(0, |snapshot| snapshot.index);
        if compaction.snapshot.index > newest {
            self.state.snapshot = Some(compaction.snapshot.clone());
        }
        let payload = self.state.encode_to_vec();
        self.write_record(Kind::State, &payload)?;
        self.sync()?;
        self.remove_segments()
    }

    /// Gives the volume back, as a crash does.
    pub fn into_volume(self) -> V {
        self.volume
    }

    /// The volume, to fail it.
    pub fn volume_mut(&mut self) -> &mut V {
        &mut self.volume
    }

    /// The log's size on the disk, in bytes.
    pub fn size(&self) -> u64 {
        self.segments.iter().map(|segment| segment.length).sum()
    }

    fn check(&self) -> Result<(), Failure> {
        if self.poisoned { Err(Failure::Poisoned { path: self.volume.path("") }) } else { Ok(()) }
    }

    fn current(&self) -> Segment {
        *self.segments.last().expect("a log is always in some segment")
    }

    /// The file exists, durably, with its head, before its first record does.
    fn begin_segment(&mut self, number: u64) -> Result<(), Failure> {
        let name = format::segment_name(number);
        let path = self.volume.path(&name);
        let header = Header { number, first_sequence: self.next_sequence, owner: self.owner.clone() }.encode();
        self.poisoned = true;
        self.volume.create(&name).map_err(failed("create", path.clone()))?;
        self.volume.append(&name, &header).map_err(failed("write", path.clone()))?;
        self.volume.sync(&name).map_err(sync_failed(path))?;
        self.volume.sync_directory().map_err(sync_failed(self.volume.path("")))?;
        self.poisoned = false;
        self.segments.push(Segment { number, length: header.len() as u64, last_index: 0 });
        let payload = self.state.encode_to_vec();
        self.write_record(Kind::State, &payload)
    }

    fn write_record(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Failure> {
        let current = self.current();
        let sequence = self.next_sequence;
        let record = format::encode_record(current.number, sequence, self.synced_sequence, kind, payload);
        let name = format::segment_name(current.number);
        if let Err(error) = self.volume.append(&name, &record) {
            // Some of it may be in the file, and what comes behind would look like damage.
            self.poisoned = true;
            return Err(failed("write", self.volume.path(&name))(error));
        }
        self.next_sequence += 1;
        self.marked_sequence = self.synced_sequence;
        if kind != Kind::Mark {
            self.content_sequence = sequence;
        }
        if let Some(segment) = self.segments.last_mut() {
            segment.length += record.len() as u64;
        }
        Ok(())
    }

    fn remove_segments(&mut self) -> Result<(), Failure> {
        let base = self.state.base_index;
        let old = self.segments.len() - 1;
        let count = self.segments[..old].iter().take_while(|segment| segment.last_index <= base).count();
        if count == 0 {
            return Ok(());
        }
        for segment in self.segments.drain(..count) {
            let name = format::segment_name(segment.number);
            self.volume.remove(&name).map_err(failed("remove", self.volume.path(&name)))?;
        }
        self.volume.sync_directory().map_err(|error| {
            self.poisoned = true;
            sync_failed(self.volume.path(""))(error)
        })
    }
}
