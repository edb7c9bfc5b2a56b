#![allow(clippy::unwrap_used)]

use std::fs;

use proto::{
    internal::Configuration,
    v1::{BootstrapRequest, Member},
};

use super::DataDirectory;
use crate::{Failure, LogSettings, Write};

fn member(id: u64) -> Member {
    let port = 7000 + id;
    Member {
        id,
        name: format!("c{id}"),
        peer_address: format!("127.0.0.1:{port}"),
        address: format!("https://127.0.0.1:{port}"),
        ..Member::default()
    }
}

fn request() -> BootstrapRequest {
    BootstrapRequest { cluster_id: "grid".to_owned(), members: vec![member(1), member(2), member(3)] }
}

fn bootstrapped() -> (tempfile::TempDir, DataDirectory) {
    let temporary = tempfile::tempdir().unwrap();
    let mut directory = DataDirectory::open(&temporary.path().join("c2"), "c2", 2).unwrap();
    directory.bootstrap(&request()).unwrap();
    (temporary, directory)
}

#[test]
fn an_identity_is_given_once() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("c2");
    let first = DataDirectory::open(&path, "c2", 2).unwrap();
    assert!(matches!(DataDirectory::open(&path, "c2", 2), Err(Failure::InUse { .. })));
    drop(first);
    let again = DataDirectory::open(&path, "c2", 99).unwrap();
    assert_eq!(again.identity().member_id, 2, "the number drawn now doesn't count");
    drop(again);
    assert!(matches!(DataDirectory::open(&path, "c3", 3), Err(Failure::IdentityDiffers { .. })));
}

#[test]
fn a_bootstrapped_member_recovers_an_empty_log() {
    let (_temporary, directory) = bootstrapped();
    let (_log, snapshots, recovered) = directory.recover(LogSettings::default()).unwrap();
    assert_eq!(recovered.configuration.voters, [1, 2, 3]);
    assert_eq!((recovered.hard_state.term, recovered.last_index()), (1, 0));
    assert!(snapshots.list().is_empty());
}

#[test]
fn a_repeated_bootstrap_changes_nothing_and_another_one_is_refused() {
    let (_temporary, mut directory) = bootstrapped();
    let mut same = request();
    same.members.reverse();
    same.members[0].version = "0.1.0".to_owned();
    directory.bootstrap(&same).unwrap();
    let mut other = request();
    other.members.pop();
    assert!(matches!(directory.bootstrap(&other), Err(Failure::BootstrapDiffers { .. })));
    assert_eq!(directory.bootstrap_record(), Some(&request()));
}

#[test]
fn a_bootstrap_that_cannot_be_is_refused_by_field() {
    let temporary = tempfile::tempdir().unwrap();
    let mut directory = DataDirectory::open(temporary.path(), "c2", 2).unwrap();
    type Spoil = fn(&mut BootstrapRequest);
    let cases: [(&str, Spoil); 6] = [
        ("cluster_id", |request| request.cluster_id.clear()),
        ("members", |request| request.members.clear()),
        ("members.id", |request| request.members[0].id = 0),
        ("members.id", |request| request.members[0].id = 3),
        ("members", |request| request.members[1].name = "cx".to_owned()),
        ("members.peer_address", |request| request.members[2].peer_address.clear()),
    ];
    for (expected, spoil) in cases {
        let mut spoilt = request();
        spoil(&mut spoilt);
        match directory.bootstrap(&spoilt) {
            Err(Failure::BootstrapInvalid { field, .. }) => assert_eq!(field, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
    assert!(directory.bootstrap_record().is_none());
    assert!(matches!(directory.recover(LogSettings::default()), Err(Failure::NotBootstrapped { .. })));
}

#[test]
fn a_wiped_disk_is_not_started_under_its_old_identity() {
    let (temporary, directory) = bootstrapped();
    let path = temporary.path().join("c2");
    fs::remove_dir_all(path.join("log")).unwrap();
    assert!(matches!(directory.recover(LogSettings::default()), Err(Failure::Wiped { .. })));
    fs::create_dir(path.join("log")).unwrap();
    assert!(matches!(directory.recover(LogSettings::default()), Err(Failure::Wiped { .. })));
    drop(directory);
    fs::remove_file(path.join("identity")).unwrap();
    assert!(matches!(DataDirectory::open(&path, "c2", 5), Err(Failure::IdentityMissing { .. })));
}

#[test]
fn a_crash_in_the_middle_of_a_bootstrap_can_be_repeated() {
    let (temporary, directory) = bootstrapped();
    drop(directory);
    let path = temporary.path().join("c2");
    fs::rename(path.join("bootstrap"), path.join("bootstrap.new")).unwrap();
    let mut directory = DataDirectory::open(&path, "c2", 2).unwrap();
    assert!(directory.bootstrap_record().is_none());
    directory.bootstrap(&request()).unwrap();
    directory.recover(LogSettings::default()).unwrap();
}

#[test]
fn a_damaged_record_is_refused() {
    let (temporary, directory) = bootstrapped();
    drop(directory);
    let path = temporary.path().join("c2");
    for name in ["identity", "bootstrap"] {
        let whole = fs::read(path.join(name)).unwrap();
        for position in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[position] ^= 4;
            fs::write(path.join(name), damaged).unwrap();
            assert!(matches!(DataDirectory::open(&path, "c2", 2), Err(Failure::Corrupt { .. })), "{name} {position}");
        }
        fs::write(path.join(name), whole).unwrap();
    }
}

#[test]
fn a_disk_that_failed_to_sync_is_never_opened_again() {
    let (temporary, directory) = bootstrapped();
    let path = temporary.path().join("c2");
    // Whoever finds out has it open.
    DataDirectory::condemn(&path).unwrap();
    DataDirectory::condemn(&path).unwrap();
    drop(directory);
    for _ in 0..2 {
        let failure = DataDirectory::open(&path, "c2", 2).unwrap_err();
        assert!(matches!(failure, Failure::Condemned { .. }), "{failure}");
        assert_eq!(failure.exit_code(), 70);
        let message = failure.to_string();
        assert!(message.contains("must not be used again") && message.contains("empty directory"), "{message}");
    }
    // Under another name neither.
    assert!(matches!(DataDirectory::open(&path, "c4", 4), Err(Failure::Condemned { .. })));
}

#[test]
fn a_snapshot_leaves_the_room_that_the_log_lives_on() {
    let (_temporary, mut directory) = bootstrapped();
    let members = Configuration { voters: vec![1, 2, 3], ..Configuration::default() };
    // More than any disk has free.
    directory.keep_reserve(1 << 60);
    let (mut log, mut snapshots, recovered) = directory.recover(LogSettings::default()).unwrap();
    let mut incoming = snapshots.begin(1, 1, &members).unwrap();
    let failure = snapshots.write(&mut incoming, b"state").unwrap_err();
    assert_eq!(failure.exit_code(), 1, "it is tried again later: {failure}");
    snapshots.abandon(incoming).unwrap();
    let hard_state = Some(recovered.hard_state);
    let write = Write { number: 1, hard_state, entries: Vec::new(), snapshot: None, must_sync: true };
    log.append(&write).unwrap();
    drop((log, snapshots));

    directory.keep_reserve(1);
    let (_log, mut snapshots, _) = directory.recover(LogSettings::default()).unwrap();
    snapshots.store(1, 1, &members, [b"state"]).unwrap();
}

#[test]
fn the_reserve_of_an_earlier_process_is_not_held_open() {
    let (temporary, mut directory) = bootstrapped();
    directory.keep_reserve(1 << 20);
    directory.reserve().unwrap().make().unwrap();
    drop(directory);
    let path = temporary.path().join("c2");
    let mut directory = DataDirectory::open(&path, "c2", 2).unwrap();
    directory.keep_reserve(1 << 20);
    assert!(directory.reserve().unwrap().is_held());
    let _recovered = directory.recover(LogSettings::default()).unwrap();
    // Removed while somebody has it open it would free nothing.
    let open = fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    assert_eq!(open.filter(|file| *file == path.join("reserve")).count(), 0);
}
