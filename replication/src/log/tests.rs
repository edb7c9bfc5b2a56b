#![allow(clippy::unwrap_used)]

//! One suite for both volumes: what was synced is there, what wasn't may be torn, and all else is refused.

use std::{
    cell::RefCell,
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use proto::internal::{Configuration, HardState, LogEntry, SnapshotMetadata};

use super::{Log, LogContents, LogSettings, Owner};
use crate::{Compaction, Failure, FileVolume, MemoryVolume, Volume, Write};

/// A disk whose bytes a test may look at and change.
trait Disk {
    type V: Volume;
    /// Every how many bytes to do damage: a real disk takes its time to sync.
    const STRIDE: usize;
    fn new() -> Self;
    fn volume(&self) -> Self::V;
    /// Takes back what a log wrote to.
    fn keep(&self, volume: Self::V);
    fn names(&self) -> Vec<String>;
    fn bytes(&self, name: &str) -> Vec<u8>;
    fn set(&self, name: &str, bytes: &[u8]);
    fn remove(&self, name: &str);
}

struct Files(tempfile::TempDir);

impl Files {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

impl Disk for Files {
    type V = FileVolume;
    const STRIDE: usize = 11;
    fn new() -> Files {
        Files(tempfile::tempdir().unwrap())
    }
    fn volume(&self) -> FileVolume {
        FileVolume::open(self.0.path()).unwrap()
    }
    fn keep(&self, _volume: FileVolume) {}
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
    fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }
    fn set(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }
    fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }
}

struct Memory(RefCell<MemoryVolume>);

impl Disk for Memory {
    type V = MemoryVolume;
    const STRIDE: usize = 1;
    fn new() -> Memory {
        Memory(RefCell::default())
    }
    fn volume(&self) -> MemoryVolume {
        self.0.borrow().clone()
    }
    fn keep(&self, volume: MemoryVolume) {
        *self.0.borrow_mut() = volume;
    }
    fn names(&self) -> Vec<String> {
        self.0.borrow().names().unwrap()
    }
    fn bytes(&self, name: &str) -> Vec<u8> {
        self.0.borrow().read(name, 0, usize::MAX >> 1).unwrap()
    }
    fn set(&self, name: &str, bytes: &[u8]) {
        let mut volume = self.0.borrow_mut();
        if volume.length(name).is_ok() {
            volume.remove(name).unwrap();
        }
        volume.create(name).unwrap();
        volume.append(name, bytes).unwrap();
    }
    fn remove(&self, name: &str) {
        self.0.borrow_mut().remove(name).unwrap();
    }
}

/// Runs each test on both disks.
macro_rules! conformance {
    ($($name:ident)*) => {
        mod files { $(#[test] fn $name() { super::$name::<super::Files>(); })* }
        mod memory { $(#[test] fn $name() { super::$name::<super::Memory>(); })* }
    };
}

conformance! {
    what_was_appended_is_read_back
    later_entries_replace_earlier_ones
    a_received_snapshot_voids_what_was_before
    segments_rotate_and_are_forgotten_after_a_compaction
    every_cut_of_an_unsynced_record_loses_only_that_record
    every_flip_in_an_unsynced_record_loses_only_that_record
    every_flip_in_what_was_synced_is_refused
    every_flip_in_an_older_segment_is_refused
    what_was_cut_does_not_come_back
    a_segment_torn_while_it_was_made_is_made_again
    a_missing_segment_is_refused
    another_members_log_is_refused
    a_commit_index_beyond_the_log_is_refused
    an_idle_log_leaves_one_mark
}

const SMALL: LogSettings = LogSettings { segment_bytes: 600 };
const LARGE: LogSettings = LogSettings { segment_bytes: 1 << 20 };

fn owner() -> Owner {
    Owner { cluster_id: "grid".to_owned(), member_id: 3 }
}

fn entry(index: u64, term: u64) -> LogEntry {
    let data = Bytes::from(format!("entry {index} of term {term}"));
    LogEntry { kind: 0, term, index, data, context: Bytes::new() }
}

fn write(number: u64, commit: u64, term: u64, indexes: std::ops::RangeInclusive<u64>) -> Write {
    let entries = indexes.map(|index| entry(index, term)).collect();
    Write { number, hard_state: Some(HardState { term, vote: 1, commit }), entries, snapshot: None, must_sync: true }
}

fn snapshot(index: u64, term: u64) -> SnapshotMetadata {
    let configuration = Some(Configuration { voters: vec![1, 2, 3], ..Configuration::default() });
    SnapshotMetadata { index, term, configuration, size: 10, checksum: 20 }
}

fn create<D: Disk>() -> D {
    let disk = D::new();
    disk.keep(Log::create(disk.volume(), &owner(), &snapshot(0, 0).configuration.unwrap()).unwrap());
    disk
}

fn try_open<D: Disk>(disk: &D, settings: LogSettings) -> Result<(Log<D::V>, LogContents), Failure> {
    Log::open(disk.volume(), &owner(), settings)
}

fn open<D: Disk>(disk: &D, settings: LogSettings) -> (Log<D::V>, LogContents) {
    try_open(disk, settings).unwrap()
}

/// Appends and syncs each write, then stops.
fn fill<D: Disk>(disk: &D, settings: LogSettings, writes: &[Write]) {
    let (mut log, _) = open(disk, settings);
    for write in writes {
        log.append(write).unwrap();
        log.sync().unwrap();
    }
    disk.keep(log.into_volume());
}

fn terms(contents: &LogContents) -> Vec<(u64, u64)> {
    contents.entries.iter().map(|entry| (entry.index, entry.term)).collect()
}

fn last_name<D: Disk>(disk: &D) -> String {
    disk.names().pop().unwrap()
}

fn what_was_appended_is_read_back<D: Disk>() {
    let disk = create::<D>();
    fill(&disk, LARGE, &[write(1, 0, 1, 1..=3), write(2, 2, 2, 4..=5)]);
    let (_, contents) = open(&disk, LARGE);
    assert_eq!(contents.hard_state, HardState { term: 2, vote: 1, commit: 2 });
    assert_eq!(contents.configuration.voters, [1, 2, 3]);
    assert_eq!(contents.entries, [entry(1, 1), entry(2, 1), entry(3, 1), entry(4, 2), entry(5, 2)]);
}

fn later_entries_replace_earlier_ones<D: Disk>() {
    let disk = create::<D>();
    fill(&disk, LARGE, &[write(1, 0, 1, 1..=5), write(2, 0, 2, 3..=3)]);
    assert_eq!(terms(&open(&disk, LARGE).1), [(1, 1), (2, 1), (3, 2)]);
}

fn a_received_snapshot_voids_what_was_before<D: Disk>() {
    let disk = create::<D>();
    let installed = Write { snapshot: Some(snapshot(50, 2)), ..write(2, 51, 2, 51..=51) };
    fill(&disk, LARGE, &[write(1, 0, 1, 1..=90), installed]);
    let (_, contents) = open(&disk, LARGE);
    assert_eq!((contents.base_index, contents.base_term), (50, 2));
    assert_eq!(contents.snapshot, Some(snapshot(50, 2)));
    assert_eq!(terms(&contents), [(51, 2)]);
}

fn segments_rotate_and_are_forgotten_after_a_compaction<D: Disk>() {
    let disk = create::<D>();
    let writes: Vec<Write> = (1..=40).map(|index| write(index, index, 1, index..=index)).collect();
    fill(&disk, SMALL, &writes);
    let before = disk.names().len();
    assert!(before > 5);
    assert_eq!(open(&disk, SMALL).1.entries.len(), 40);
    let (mut log, _) = open(&disk, SMALL);
    let compaction = Compaction { snapshot: snapshot(30, 1), base_index: 20, base_term: 1 };
    log.compact(&compaction).unwrap();
    disk.keep(log.into_volume());
    assert!(disk.names().len() < before - 1, "{} of {before} are left", disk.names().len());
    let (_, contents) = open(&disk, SMALL);
    assert_eq!((contents.base_index, contents.base_term, contents.snapshot.clone()), (20, 1, Some(snapshot(30, 1))));
    assert_eq!(terms(&contents), (21..=40).map(|index| (index, 1)).collect::<Vec<_>>());
}

/// Two synced writes and a third that wasn't; returns where the third begins.
fn with_unsynced_tail<D: Disk>() -> (D, usize) {
    let disk = create::<D>();
    let (mut log, _) = open(&disk, LARGE);
    log.append(&write(1, 0, 1, 1..=2)).unwrap();
    log.append(&write(2, 1, 1, 3..=3)).unwrap();
    log.sync().unwrap();
    let start = log.size() as usize;
    log.append(&write(3, 2, 2, 4..=6)).unwrap();
    disk.keep(log.into_volume());
    (disk, start)
}

/// The first two writes are there and the log goes on behind them.
fn check_cut<D: Disk>(disk: &D) {
    let name = last_name(disk);
    let torn = disk.bytes(&name);
    let (mut log, contents) = open(disk, LARGE);
    assert_eq!(terms(&contents), [(1, 1), (2, 1), (3, 1)]);
    assert_eq!(contents.hard_state.commit, 1);
    log.append(&write(4, 3, 3, 4..=4)).unwrap();
    log.sync().unwrap();
    disk.keep(log.into_volume());
    let (log, contents) = open(disk, LARGE);
    assert_eq!(terms(&contents), [(1, 1), (2, 1), (3, 1), (4, 3)]);
    disk.keep(log.into_volume());
    for added in disk.names().into_iter().filter(|added| *added > name) {
        disk.remove(&added);
    }
    disk.set(&name, &torn);
}

fn every_cut_of_an_unsynced_record_loses_only_that_record<D: Disk>() {
    let (disk, start) = with_unsynced_tail::<D>();
    let name = last_name(&disk);
    let whole = disk.bytes(&name);
    for length in (start..whole.len()).step_by(D::STRIDE) {
        disk.set(&name, &whole[..length]);
        check_cut(&disk);
        // The file may have grown before its bytes arrived.
        let mut holes = whole[..length].to_vec();
        holes.resize(whole.len() + 64, 0);
        disk.set(&name, &holes);
        if length < whole.len() - 8 {
            check_cut(&disk);
        }
    }
}

fn every_flip_in_an_unsynced_record_loses_only_that_record<D: Disk>() {
    let (disk, start) = with_unsynced_tail::<D>();
    let name = last_name(&disk);
    let whole = disk.bytes(&name);
    for position in (start..whole.len()).step_by(D::STRIDE) {
        let mut flipped = whole.clone();
        flipped[position] ^= 1 << (position % 8);
        disk.set(&name, &flipped);
        check_cut(&disk);
    }
}

fn check_corrupt<D: Disk>(disk: &D, name: &str, position: usize) {
    match try_open(disk, LARGE) {
        Err(Failure::Corrupt { path, offset, .. }) => {
            assert_eq!(path.file_name(), Path::new(name).file_name());
            assert!(offset <= position as u64, "byte {position} is damaged, and {offset} was named");
        }
        other => panic!("byte {position} of {name} is damaged: {:?}", other.map(|(_, contents)| contents)),
    }
}

fn every_flip_in_what_was_synced_is_refused<D: Disk>() {
    let disk = create::<D>();
    let (mut log, _) = open(&disk, LARGE);
    log.append(&write(1, 0, 1, 1..=2)).unwrap();
    log.append(&write(2, 1, 1, 3..=3)).unwrap();
    log.sync().unwrap();
    let synced = log.size() as usize;
    log.idle().unwrap();
    disk.keep(log.into_volume());
    let name = last_name(&disk);
    let whole = disk.bytes(&name);
    for position in (0..synced).step_by(D::STRIDE) {
        let mut flipped = whole.clone();
        flipped[position] ^= 1 << (position % 8);
        disk.set(&name, &flipped);
        check_corrupt(&disk, &name, position);
    }
    for position in (synced..whole.len()).step_by(D::STRIDE) {
        let mut flipped = whole.clone();
        flipped[position] ^= 1 << (position % 8);
        disk.set(&name, &flipped);
        let (log, contents) = open(&disk, LARGE);
        assert_eq!(terms(&contents), [(1, 1), (2, 1), (3, 1)], "the mark holds nothing else");
        disk.keep(log.into_volume());
        for added in disk.names().into_iter().filter(|added| *added > name) {
            disk.remove(&added);
        }
    }
}

fn every_flip_in_an_older_segment_is_refused<D: Disk>() {
    let disk = create::<D>();
    let writes: Vec<Write> = (1..=20).map(|index| write(index, 0, 1, index..=index)).collect();
    fill(&disk, SMALL, &writes);
    let names = disk.names();
    assert!(names.len() >= 3);
    for name in &names[..2] {
        let whole = disk.bytes(name);
        for position in (0..whole.len()).step_by(D::STRIDE) {
            let mut flipped = whole.clone();
            flipped[position] ^= 1 << (position % 8);
            disk.set(name, &flipped);
            check_corrupt(&disk, name, position);
        }
        disk.set(name, &whole);
    }
    assert_eq!(open(&disk, SMALL).1.entries.len(), 20);
}

fn what_was_cut_does_not_come_back<D: Disk>() {
    let (disk, start) = with_unsynced_tail::<D>();
    let (mut log, _) = open(&disk, LARGE);
    log.append(&write(4, 3, 3, 7..=7)).unwrap();
    disk.keep(log.into_volume());
    // The third record is torn; the whole fourth one behind it, of the same segment, never was acknowledged.
    let name = last_name(&disk);
    let mut torn = disk.bytes(&name);
    torn[start + 40] ^= 1;
    disk.set(&name, &torn);
    // That the log was opened in between synced the third one, and the fourth says so.
    check_corrupt(&disk, &name, start + 40);
    let (disk, start) = with_unsynced_tail::<D>();
    let mut torn = disk.bytes(&name);
    torn[start + 40] ^= 1;
    disk.set(&name, &torn);
    for _ in 0..3 {
        let (mut log, contents) = open(&disk, LARGE);
        let next = contents.entries.last().unwrap().index + 1;
        assert!(contents.entries.iter().all(|entry| entry.term != 2));
        log.append(&write(next, 0, 5, next..=next)).unwrap();
        log.sync().unwrap();
        disk.keep(log.into_volume());
    }
    assert_eq!(terms(&open(&disk, LARGE).1), [(1, 1), (2, 1), (3, 1), (4, 5), (5, 5), (6, 5)]);
}

fn a_segment_torn_while_it_was_made_is_made_again<D: Disk>() {
    let disk = create::<D>();
    fill(&disk, LARGE, &[write(1, 1, 1, 1..=2)]);
    let second = "segment-0000000000000002.log";
    for length in [0, 5, 100, 128] {
        disk.set(second, &vec![0; length]);
        let (mut log, contents) = open(&disk, SMALL);
        assert_eq!(terms(&contents), [(1, 1), (2, 1)]);
        log.append(&write(2, 1, 1, 3..=30)).unwrap();
        log.sync().unwrap();
        disk.keep(log.into_volume());
        assert_eq!(open(&disk, SMALL).1.entries.len(), 30);
        disk.remove(second);
    }
}

fn a_missing_segment_is_refused<D: Disk>() {
    let disk = create::<D>();
    let writes: Vec<Write> = (1..=20).map(|index| write(index, 0, 1, index..=index)).collect();
    fill(&disk, SMALL, &writes);
    let names = disk.names();
    disk.remove(&names[1]);
    assert!(matches!(try_open(&disk, SMALL), Err(Failure::Corrupt { .. })));
    names.iter().filter(|name| **name != names[1]).for_each(|name| disk.remove(name));
    assert!(matches!(try_open(&disk, SMALL), Err(Failure::Wiped { .. })));
}

fn another_members_log_is_refused<D: Disk>() {
    let disk = create::<D>();
    for (cluster_id, member_id) in [("grid", 4), ("gird", 3)] {
        let other = Owner { cluster_id: cluster_id.to_owned(), member_id };
        assert!(matches!(Log::open(disk.volume(), &other, LARGE), Err(Failure::Corrupt { .. })));
    }
}

fn a_commit_index_beyond_the_log_is_refused<D: Disk>() {
    let disk = create::<D>();
    fill(&disk, LARGE, &[write(1, 9, 1, 1..=8)]);
    assert!(matches!(try_open(&disk, LARGE), Err(Failure::Contradiction { left: 9, right: 8, .. })));
}

fn an_idle_log_leaves_one_mark<D: Disk>() {
    let disk = create::<D>();
    let (mut log, _) = open(&disk, LARGE);
    log.append(&write(1, 0, 1, 1..=1)).unwrap();
    log.idle().unwrap();
    let unsynced = log.size();
    log.sync().unwrap();
    log.idle().unwrap();
    let marked = log.size();
    assert!(marked > unsynced, "a synced log is marked");
    for _ in 0..3 {
        log.sync().unwrap();
        log.idle().unwrap();
    }
    assert_eq!(log.size(), marked);
}

#[test]
fn a_failed_sync_poisons_the_log() {
    let disk = create::<Memory>();
    let (mut log, _) = open(&disk, LARGE);
    log.append(&write(1, 0, 1, 1..=1)).unwrap();
    log.volume_mut().fail_next_sync();
    let failure = log.sync().unwrap_err();
    assert!(matches!(failure, Failure::Sync { .. }));
    assert_eq!(failure.exit_code(), 70);
    assert!(matches!(log.sync(), Err(Failure::Poisoned { .. })));
    assert!(matches!(log.append(&write(2, 0, 1, 2..=2)), Err(Failure::Poisoned { .. })));
}

#[test]
fn a_failed_sync_at_the_start_is_no_start() {
    let disk = create::<Memory>();
    let mut volume = disk.volume();
    volume.fail_next_sync();
    assert!(matches!(Log::open(volume, &owner(), LARGE), Err(Failure::Sync { .. })));
}
