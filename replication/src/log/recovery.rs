//! Reading a log back: what is torn may be cut, what was promised must be there.

use std::collections::BTreeMap;

use prost::Message;
use proto::internal::{Configuration, HardState, LogEntry, LogState, LogWrite};

use super::{
    Log, LogContents, LogSettings, Owner, Segment,
    format::{self, Header, Kind, Record},
};
use crate::{
    Failure, Volume,
    volume::{failed, read_whole, settle, sync_failed},
};

pub(super) fn open<V: Volume>(
    mut volume: V,
    owner: &Owner,
    settings: LogSettings,
) -> Result<(Log<V>, LogContents), Failure> {
    let names = settle(&mut volume)?;
    let numbers: Vec<u64> = names.iter().filter_map(|name| format::segment_number(name)).collect();
    let headers = read_headers(&mut volume, owner, &numbers)?;
    let mut replay = Replay::default();
    let mut segments = Vec::new();
    let mut clean = false;
    let mut expected = headers[0].first_sequence;
    for (position, header) in headers.iter().enumerate() {
        let name = format::segment_name(header.number);
        let bytes = read_whole(&volume, &name)?;
        let corrupt =
            |offset: usize, reason| Failure::Corrupt { path: volume.path(&name), offset: offset as u64, reason };
        if header.first_sequence != expected {
            return Err(corrupt(24, "the segment doesn't go on where the one before ended"));
        }
        // What is behind the next segment's first sequence was cut when that segment began.
        let until = headers.get(position + 1).map(|next| next.first_sequence);
        let mut offset = format::HEADER_BYTES;
        let mut last_index = 0;
        while until.is_none_or(|until| expected < until) {
            match format::decode_record(header.number, &bytes, offset) {
                Some(record) if record.sequence == expected && record.synced < expected => {
                    let index = replay.record(&record).map_err(|reason| corrupt(offset, reason))?;
                    last_index = last_index.max(index);
                    offset = record.end;
                    expected += 1;
                }
                _ if until.is_some() => return Err(corrupt(offset, "a record is damaged or missing")),
                _ => break,
            }
        }
        if until.is_none() {
            clean = offset == bytes.len();
            if !clean && was_synced(header.number, &bytes, offset, expected) {
                return Err(corrupt(offset, "a record is damaged that had been synced"));
            }
        }
        segments.push(Segment { number: header.number, length: bytes.len() as u64, last_index });
    }
    let (state, contents) = replay.finish()?;
    let newest = headers.len() - 1;
    let mut log = Log {
        volume,
        owner: owner.clone(),
        settings,
        state,
        segments,
        next_sequence: expected,
        synced_sequence: expected - 1,
        content_sequence: expected - 1,
        marked_sequence: 0,
        poisoned: false,
    };
    if !clean {
        // Bytes behind a cut may look like records of this segment; those of the next have another seed.
        log.begin_segment(headers[newest].number + 1)?;
        log.sync()?;
    }
    Ok((log, contents))
}

fn read_headers<V: Volume>(volume: &mut V, owner: &Owner, numbers: &[u64]) -> Result<Vec<Header>, Failure> {
    let mut headers = Vec::new();
    for (position, number) in numbers.iter().enumerate() {
        let name = format::segment_name(*number);
        let path = volume.path(&name);
        let corrupt = |reason| Failure::Corrupt { path: path.clone(), offset: 0, reason };
        if position > 0 && *number != numbers[position - 1] + 1 {
            return Err(corrupt("the segment before this one is missing"));
        }
        let bytes = read_whole(volume, &name)?;
        match Header::decode(&bytes) {
            Some(header) if header.owner != *owner => return Err(corrupt("it belongs to another member or cluster")),
            Some(header) if header.number != *number => return Err(corrupt("it has the name of another segment")),
            Some(header) => headers.push(header),
            // Its head is synced before its first record: without one, the crash came while it was being made.
            None if position > 0 && position + 1 == numbers.len() && !any_record(*number, &bytes) => {
                volume.remove(&name).map_err(failed("remove", path.clone()))?;
                volume.sync_directory().map_err(sync_failed(volume.path("")))?;
            }
            None => return Err(corrupt("the head is damaged")),
        }
    }
    if headers.is_empty() {
        return Err(Failure::Wiped { path: volume.path("") });
    }
    Ok(headers)
}

/// Whether some record behind `offset` says that record `expected` had been synced.
fn was_synced(segment: u64, bytes: &[u8], offset: usize, expected: u64) -> bool {
    records_from(segment, bytes, offset + 8).any(|record| record.synced >= expected)
}

fn any_record(segment: u64, bytes: &[u8]) -> bool {
    records_from(segment, bytes, 0).next().is_some()
}

/// Whatever looks like a record at any multiple of 8.
fn records_from(segment: u64, bytes: &[u8], from: usize) -> impl Iterator<Item = Record<'_>> {
    let from = from.next_multiple_of(8);
    (from..bytes.len()).step_by(8).filter_map(move |offset| format::decode_record(segment, bytes, offset))
}

/// What the records say, one after the other.
#[derive(Default)]
struct Replay {
    state: Option<LogState>,
    entries: BTreeMap<u64, LogEntry>,
}

impl Replay {
    /// Returns the highest index in the record.
    fn record(&mut self, record: &Record<'_>) -> Result<u64, &'static str> {
        match record.kind {
            Kind::Mark => Ok(0),
            Kind::State => {
                let state = LogState::decode(record.payload).map_err(|_| "a record is whole but can't be read")?;
                self.entries = self.entries.split_off(&(state.base_index + 1));
                self.state = Some(state);
                Ok(0)
            }
            Kind::Write => {
                let write = LogWrite::decode(record.payload).map_err(|_| "a record is whole but can't be read")?;
                self.write(write)
            }
        }
    }

    fn write(&mut self, write: LogWrite) -> Result<u64, &'static str> {
        let state = self.state.as_mut().ok_or("a segment doesn't begin with the log's state")?;
        if let Some(hard_state) = write.hard_state {
            state.hard_state = Some(hard_state);
        }
        if let Some(snapshot) = write.snapshot {
            self.entries.clear();
            state.base_index = snapshot.index;
            state.base_term = snapshot.term;
            state.configuration = snapshot.configuration.clone();
            state.snapshot = Some(snapshot);
        }
        let last_index = write.entries.last().map_or(0, |entry| entry.index);
        if let Some(first) = write.entries.first() {
            self.entries.split_off(&first.index);
        }
        // A compaction that comes later may stand for entries whose predecessors are in no segment any more, so
        // that gaps count only at the end.
        self.entries.extend(write.entries.into_iter().map(|entry| (entry.index, entry)));
        Ok(last_index)
    }

    fn finish(self) -> Result<(LogState, LogContents), Failure> {
        let contradiction = |reason, left, right| Failure::Contradiction { reason, left, right };
        let state = self.state.ok_or(contradiction("the log holds no state", 0, 0))?;
        let entries: Vec<LogEntry> =
            self.entries.into_values().filter(|entry| entry.index > state.base_index).collect();
        let mut last = (state.base_index, state.base_term);
        for entry in &entries {
            if entry.index != last.0 + 1 {
                return Err(contradiction("the log has a gap", last.0, entry.index));
            }
            if entry.term < last.1 {
                return Err(contradiction("the log's terms fall", last.1, entry.term));
            }
            last = (entry.index, entry.term);
        }
        let hard_state: HardState = state.hard_state.unwrap_or_default();
        if hard_state.commit > last.0 {
            return Err(contradiction("more is committed than the log holds", hard_state.commit, last.0));
        }
        if last.1 > hard_state.term {
            return Err(contradiction("the log is ahead of its term", last.1, hard_state.term));
        }
        let configuration: Configuration = state.configuration.clone().unwrap_or_default();
        let contents = LogContents {
            hard_state,
            configuration,
            base_index: state.base_index,
            base_term: state.base_term,
            snapshot: state.snapshot.clone(),
            entries,
        };
        Ok((state, contents))
    }
}
