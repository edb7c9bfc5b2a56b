#![allow(clippy::unwrap_used)]

use proto::internal::{Configuration, SnapshotMetadata};

use super::Snapshots;
use crate::{Crash, Failure, FileVolume, MemoryVolume, Volume};

fn members() -> Configuration {
    Configuration { voters: vec![1, 2, 3], ..Configuration::default() }
}

fn store<V: Volume>(snapshots: &mut Snapshots<V>, index: u64) -> SnapshotMetadata {
    snapshots.store(index, 2, &members(), [vec![index as u8; 1000], vec![7; 500]]).unwrap()
}

fn indexes<V: Volume>(snapshots: &Snapshots<V>) -> Vec<u64> {
    snapshots.list().iter().map(|metadata| metadata.index).collect()
}

fn check_stored_is_read_back<V: Volume>(reopen: impl Fn(Option<V>) -> V) {
    let mut snapshots = Snapshots::open(reopen(None)).unwrap();
    let stored = store(&mut snapshots, 5);
    assert_eq!((stored.index, stored.term, stored.size), (5, 2, 1500));
    let unfinished = snapshots.begin(9, 2, &members()).unwrap();
    drop(unfinished);
    let snapshots = Snapshots::open(reopen(Some(snapshots.into_volume()))).unwrap();
    assert_eq!(snapshots.list(), std::slice::from_ref(&stored));
    let content = snapshots.load(&stored).unwrap();
    assert_eq!((content.len(), content[0], content[1499]), (1500, 5, 7));
    assert_eq!(snapshots.read(&stored, 1400, 200).unwrap().len(), 100);
    assert_eq!(snapshots.read(&stored, 1500, 200).unwrap().len(), 0);
    assert_eq!(snapshots.into_volume().names().unwrap().len(), 1, "what was unfinished is removed");
}

#[test]
fn what_was_stored_is_read_back() {
    check_stored_is_read_back(|volume: Option<MemoryVolume>| volume.unwrap_or_default());
    let directory = tempfile::tempdir().unwrap();
    check_stored_is_read_back(|volume: Option<FileVolume>| {
        drop(volume);
        FileVolume::open(directory.path()).unwrap()
    });
}

#[test]
fn the_newest_two_that_the_log_knows_are_kept_and_all_newer_ones() {
    let mut snapshots = Snapshots::open(MemoryVolume::new()).unwrap();
    for index in [10, 20, 30, 40] {
        store(&mut snapshots, index);
    }
    snapshots.prune(30).unwrap();
    assert_eq!(indexes(&snapshots), [20, 30, 40]);
    snapshots.prune(40).unwrap();
    assert_eq!(indexes(&snapshots), [30, 40]);
    let pruned = SnapshotMetadata { index: 20, term: 2, size: 1500, ..SnapshotMetadata::default() };
    assert!(matches!(snapshots.read(&pruned, 0, 10), Err(Failure::SnapshotMissing { index: 20 })));
}

#[test]
fn every_flip_in_a_snapshot_is_found_when_it_is_read() {
    let mut snapshots = Snapshots::open(MemoryVolume::new()).unwrap();
    let metadata = store(&mut snapshots, 5);
    let volume = snapshots.into_volume();
    let name = volume.names().unwrap().remove(0);
    for position in 0..volume.length(&name).unwrap() {
        let mut damaged = volume.clone();
        damaged.flip(&name, position, 1 << (position % 8));
        let found = Snapshots::open(damaged).and_then(|snapshots| snapshots.load(&metadata));
        assert!(matches!(found, Err(Failure::Corrupt { .. })), "byte {position}");
    }
}

#[test]
fn a_received_snapshot_that_is_not_what_was_announced_is_removed() {
    let mut snapshots = Snapshots::open(MemoryVolume::new()).unwrap();
    let announced = store(&mut snapshots, 5);
    let content = snapshots.load(&announced).unwrap();
    let mut damaged = content.clone();
    damaged[77] ^= 1;
    for received in [&damaged[..], &content[..1499]] {
        let mut other = Snapshots::open(MemoryVolume::new()).unwrap();
        let mut incoming = other.receive(&announced).unwrap();
        other.write(&mut incoming, received).unwrap();
        assert_eq!(incoming.size(), received.len() as u64);
        assert!(matches!(other.finish(incoming), Err(Failure::SnapshotDamaged { index: 5, .. })));
        assert!(other.into_volume().names().unwrap().is_empty());
    }
}

#[test]
fn after_a_power_loss_a_snapshot_is_there_whole_or_not_at_all() {
    let mut snapshots = Snapshots::open(MemoryVolume::new()).unwrap();
    let first = store(&mut snapshots, 5);
    for seed in 0..200 {
        let mut torn = Snapshots::open(snapshots.volume_mut().clone()).unwrap();
        let second = if seed % 2 == 0 {
            let mut incoming = torn.begin(9, 2, &members()).unwrap();
            torn.write(&mut incoming, &[3; 700]).unwrap();
            None
        } else {
            Some(store(&mut torn, 9))
        };
        let mut volume = torn.into_volume();
        volume.crash(Crash::Power { seed });
        let torn = Snapshots::open(volume).unwrap();
        let expected: Vec<u64> = [5].into_iter().chain(second.iter().map(|metadata| metadata.index)).collect();
        assert_eq!(indexes(&torn), expected, "what was finished is durable");
        for metadata in [Some(&first), second.as_ref()].into_iter().flatten() {
            torn.load(metadata).unwrap();
        }
    }
}
