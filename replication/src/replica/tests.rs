#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use proptest::prelude::*;
use proto::internal::{Configuration, HardState, LogEntry, PeerMessage, SnapshotMetadata};

use super::{Refused, Replica};
use crate::{Input, Outputs, Proposal, Recovered, Settings, Standing, Trailing, Write};

fn recovered(last: u64) -> Recovered {
    Recovered {
        hard_state: HardState { term: 3, vote: 0, commit: last / 2 },
        configuration: Configuration { voters: vec![1, 2, 3], ..Configuration::default() },
        snapshot: None,
        base_index: 0,
        base_term: 0,
        entries: (1..=last).map(|index| LogEntry { index, term: 1 + index / 5, ..LogEntry::default() }).collect(),
    }
}

fn replica(id: u64) -> Replica {
    Replica::new(Settings::new(id, id, 1), recovered(9)).unwrap()
}

/// Everything there is, with each write persisted at once.
fn run(replica: &mut Replica) -> (Vec<PeerMessage>, Outputs) {
    let (mut messages, mut all) = (Vec::new(), Outputs::default());
    while let Some(outputs) = replica.outputs() {
        messages.extend(outputs.messages);
        if let Some(Write { number, .. }) = outputs.write {
            replica.step(Input::Persisted { number }).unwrap();
        }
        all.committed.extend(outputs.committed);
        all.dropped.extend(outputs.dropped);
        all.lost_reads.extend(outputs.lost_reads);
        all.reads.extend(outputs.reads);
        all.role = outputs.role.or(all.role);
        all.install = outputs.install.or(all.install);
    }
    (messages, all)
}

/// Makes member 1 lead by answering for member 2.
fn leader() -> Replica {
    let mut replica = replica(1);
    lead(&mut replica);
    replica
}

fn lead(replica: &mut Replica) {
    for _ in 0..200 {
        replica.step(Input::Tick).unwrap();
        answer(replica);
        if replica.status().standing == Standing::Leader {
            return;
        }
    }
    panic!("no leader");
}

fn answer(replica: &mut Replica) {
    loop {
        let (messages, _) = run(replica);
        let answers: Vec<PeerMessage> = messages.iter().filter(|message| message.to == 2).filter_map(agree).collect();
        if answers.is_empty() {
            return;
        }
        answers.into_iter().for_each(|message| replica.step(Input::Message(message)).unwrap());
    }
}

/// What an agreeable member 2 says.
fn agree(message: &PeerMessage) -> Option<PeerMessage> {
    let last = message.entries.last().map_or(message.index, |entry| entry.index);
    let (kind, index) = match message.kind {
        3 => (4, last),
        5 => (6, 0),
        8 => (9, 0),
        17 => (18, 0),
        _ => return None,
    };
    let (term, context) = (message.term, message.context.clone());
    Some(PeerMessage { kind, from: 2, to: 1, term, index, context, ..PeerMessage::default() })
}

fn propose(replica: &mut Replica, id: u64, data: &[u8]) {
    replica.step(Input::Propose(Proposal { id, data: Bytes::copy_from_slice(data) })).unwrap();
}

#[test]
fn all_waiting_proposals_leave_in_one_message_and_come_back_committed() {
    let mut replica = leader();
    (0..100).for_each(|id| propose(&mut replica, id, b"work"));
    let outputs = replica.outputs().unwrap();
    let appends: Vec<usize> = outputs.messages.iter().filter(|m| m.kind == 3).map(|m| m.entries.len()).collect();
    assert_eq!(appends, [100], "to member 2; member 3 is silent, and its probe is under way");
    let write = outputs.write.unwrap();
    assert_eq!((write.entries.len(), write.must_sync), (100, true));
    replica.step(Input::Persisted { number: write.number }).unwrap();
    assert!(outputs.committed.is_empty() && replica.outputs().is_none(), "one disk is no majority");
    outputs.messages.iter().filter(|message| message.to == 2).filter_map(agree).for_each(|message| {
        replica.step(Input::Message(message)).unwrap();
    });
    let (_, all) = run(&mut replica);
    assert_eq!(
        all.committed.iter().filter_map(|entry| entry.proposal).collect::<Vec<_>>(),
        (0..100).collect::<Vec<_>>()
    );
}

#[test]
fn one_round_answers_all_waiting_reads() {
    let mut replica = leader();
    let commit = replica.status().commit_index;
    (0..50).for_each(|context| replica.step(Input::Read { context }).unwrap());
    let outputs = replica.outputs().unwrap();
    assert_eq!(outputs.messages.iter().filter(|message| message.kind == 8 && message.to == 2).count(), 1);
    outputs.messages.iter().filter_map(agree).filter(|message| message.from == 2).take(1).for_each(|message| {
        replica.step(Input::Message(message)).unwrap();
    });
    let (_, all) = run(&mut replica);
    assert_eq!(all.reads.len(), 50);
    assert!(all.reads.iter().all(|read| read.index == commit));
}

#[test]
fn a_read_that_nobody_confirms_is_lost_after_an_election_timeout() {
    let mut replica = leader();
    replica.step(Input::Read { context: 7 }).unwrap();
    run(&mut replica);
    let mut lost = Vec::new();
    for _ in 0..21 {
        replica.step(Input::Tick).unwrap();
        lost.extend(run(&mut replica).1.lost_reads);
    }
    assert_eq!(lost, [7]);
}

#[test]
fn a_follower_takes_neither_proposals_nor_reads() {
    let mut replica = replica(1);
    propose(&mut replica, 5, b"work");
    replica.step(Input::Read { context: 6 }).unwrap();
    let (messages, all) = run(&mut replica);
    assert_eq!((all.dropped, all.lost_reads, messages.len()), (vec![5], vec![6], 0));
}

#[test]
fn a_follower_acknowledges_only_what_is_on_its_disk() {
    let mut replica = replica(2);
    run(&mut replica);
    let entries = vec![LogEntry { index: 10, term: 3, data: Bytes::from_static(b"x"), ..LogEntry::default() }];
    let append = PeerMessage {
        kind: 3,
        from: 1,
        to: 2,
        term: 3,
        index: 9,
        log_term: 2,
        entries,
        commit: 9,
        ..Default::default()
    };
    replica.step(Input::Message(append)).unwrap();
    let outputs = replica.outputs().unwrap();
    assert!(outputs.messages.is_empty());
    let write = outputs.write.unwrap();
    assert!(write.must_sync);
    assert!(replica.outputs().is_none());
    replica.step(Input::Persisted { number: write.number }).unwrap();
    let outputs = replica.outputs().unwrap();
    assert_eq!(outputs.messages.iter().map(|message| (message.kind, message.index)).collect::<Vec<_>>(), [(4, 10)]);
}

#[test]
fn a_change_of_leader_loses_reads_and_says_so() {
    let mut replica = leader();
    let term = replica.status().term;
    replica.step(Input::Read { context: 1 }).unwrap();
    replica.outputs();
    let heartbeat = PeerMessage { kind: 8, from: 3, to: 1, term: term + 1, ..PeerMessage::default() };
    replica.step(Input::Message(heartbeat)).unwrap();
    let (_, all) = run(&mut replica);
    let role = all.role.unwrap();
    assert_eq!((role.term, role.leader, role.leading), (term + 1, Some(3), false));
    assert_eq!(all.lost_reads, [1]);
}

#[test]
fn a_received_snapshot_comes_out_to_be_installed_once_and_the_log_goes_on_behind_it() {
    let mut replica = replica(2);
    run(&mut replica);
    let configuration = Some(Configuration { voters: vec![1, 2, 3], ..Configuration::default() });
    let metadata = SnapshotMetadata { index: 100, term: 3, configuration, size: 77, checksum: 88 };
    let message = |kind, snapshot| PeerMessage { kind, from: 1, to: 2, term: 3, snapshot, ..PeerMessage::default() };
    replica.step(Input::Message(message(7, Some(metadata.clone())))).unwrap();
    let outputs = replica.outputs().unwrap();
    assert_eq!(outputs.install.as_ref(), Some(&metadata));
    let write = outputs.write.unwrap();
    assert_eq!((write.snapshot.as_ref(), write.must_sync), (Some(&metadata), true));
    assert!(outputs.messages.is_empty(), "acknowledged only when the log knows of it");
    let busy = replica.step(Input::Message(message(14, None))).unwrap_err();
    assert_eq!(busy, Refused::Untimely { kind: 14 });
    (0..100).for_each(|_| replica.step(Input::Tick).unwrap());
    replica.step(Input::Persisted { number: write.number }).unwrap();
    replica.step(Input::Installed { metadata }).unwrap();
    let (messages, _) = run(&mut replica);
    assert_eq!((messages[0].kind, messages[0].index), (4, 100));
    assert_eq!((replica.status().first_index, replica.status().applied_index), (101, 100));
}

#[test]
fn a_stored_snapshot_compacts_the_log_but_for_what_trails_and_is_sent_to_who_needs_it() {
    let mut settings = Settings::new(1, 1, 1);
    settings.trailing = Trailing { entries: 2, bytes: 1 << 20 };
    let mut recovered = recovered(9);
    recovered.hard_state.commit = 9;
    let mut replica = Replica::new(settings, recovered).unwrap();
    let (_, all) = run(&mut replica);
    assert_eq!(all.committed.len(), 9);
    let metadata = |index| {
        let configuration = Some(Configuration { voters: vec![1, 2, 3], ..Configuration::default() });
        SnapshotMetadata { index, term: 2, configuration, size: 5, checksum: 6 }
    };
    replica.step(Input::SnapshotStored { metadata: metadata(8) }).unwrap();
    assert_eq!(replica.outputs(), None, "a snapshot of more than was applied can't be");
    replica.step(Input::Applied { index: 9 }).unwrap();
    replica.step(Input::SnapshotStored { metadata: metadata(8) }).unwrap();
    let compaction = replica.outputs().unwrap().compact.unwrap();
    assert_eq!((compaction.base_index, compaction.base_term, compaction.snapshot), (6, 2, metadata(8)));
    assert_eq!(replica.status().first_index, 7);

    lead(&mut replica);
    // Member 3 is behind all that is left of the log.
    let term = replica.status().term;
    let reject = PeerMessage { kind: 4, from: 3, to: 1, term, index: 9, reject: true, ..PeerMessage::default() };
    replica.step(Input::Message(reject)).unwrap();
    let sent = replica.outputs().unwrap().send_snapshot;
    assert_eq!((sent.len(), sent[0].to, sent[0].snapshot.clone()), (1, 3, Some(metadata(8))));
}

#[test]
fn a_replica_can_be_given_to_a_thread() {
    fn check<T: Send>() {}
    check::<Replica>();
    check::<crate::FileLog>();
    check::<crate::SnapshotFiles>();
}

#[test]
fn garbage_is_refused_by_name() {
    let good = PeerMessage { kind: 3, from: 1, to: 2, term: 3, index: 9, log_term: 2, ..PeerMessage::default() };
    let entry = |index, term, kind| LogEntry { index, term, kind, ..LogEntry::default() };
    let cases = [
        (PeerMessage { kind: 2, ..good.clone() }, Refused::Kind { kind: 2 }),
        (PeerMessage { kind: 77, ..good.clone() }, Refused::Kind { kind: 77 }),
        (PeerMessage { to: 3, ..good.clone() }, Refused::Receiver { to: 3 }),
        (PeerMessage { from: 9, ..good.clone() }, Refused::Sender { from: 9 }),
        (PeerMessage { from: 2, ..good.clone() }, Refused::Sender { from: 2 }),
        (PeerMessage { term: 0, ..good.clone() }, Refused::Field { field: "term", value: 0 }),
        (PeerMessage { log_term: 0, ..good.clone() }, Refused::Field { field: "log_term", value: 0 }),
        (PeerMessage { entries: vec![entry(11, 3, 0)], ..good.clone() }, Refused::Entries { index: 11 }),
        (PeerMessage { entries: vec![entry(10, 1, 0)], ..good.clone() }, Refused::Entries { index: 10 }),
        (PeerMessage { entries: vec![entry(10, 3, 2)], ..good.clone() }, Refused::Entries { index: 10 }),
        (PeerMessage { kind: 7, ..good.clone() }, Refused::Field { field: "snapshot", value: 0 }),
        (PeerMessage { kind: 8, commit: 50, ..good.clone() }, Refused::Lost { index: 50, last: 9 }),
    ];
    let mut replica = replica(2);
    for (message, expected) in cases {
        assert_eq!(replica.step(Input::Message(message)), Err(expected));
    }
    replica.step(Input::Message(good)).unwrap();
}

fn small() -> impl Strategy<Value = u64> {
    prop_oneof![0..16_u64, Just(u64::MAX), Just(1 << 62)]
}

prop_compose! {
    fn entries()(found in prop::collection::vec((0..3_u32, small(), small()), 0..4)) -> Vec<LogEntry> {
        found.into_iter().map(|(kind, term, index)| LogEntry { kind, term, index, ..LogEntry::default() }).collect()
    }
}

prop_compose! {
    fn snapshots()(index in small(), term in small(), voters in prop::collection::vec(0..5_u64, 0..4)) -> SnapshotMetadata {
        let configuration = Some(Configuration { voters, ..Configuration::default() });
        SnapshotMetadata { index, term, configuration, size: 1, checksum: 1 }
    }
}

prop_compose! {
    fn message()(
        kind in 0..20_u32, from in 1..4_u64, term in 2..8_u64, log_term in small(), index in small(), commit in small(),
        commit_term in small(), reject in any::<bool>(), reject_hint in small(), contiguous in any::<bool>(),
        mut entries in entries(), snapshot in snapshots(),
    ) -> PeerMessage {
        if contiguous {
            let numbered = entries.iter_mut().zip(index.wrapping_add(1)..);
            numbered.for_each(|(entry, index)| (entry.index, entry.kind, entry.term) = (index, 0, log_term.max(1)));
        }
        let snapshot = (kind == 7).then_some(snapshot);
        let entries = if kind == 3 { entries } else { Vec::new() };
        let message = PeerMessage { kind, from, to: 1, term, log_term, index, entries, commit, commit_term, ..Default::default() };
        PeerMessage { snapshot, reject, reject_hint, ..message }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::default())]

    /// Whatever a member says, in whatever order, nothing panics. (It may win elections with it.)
    #[test]
    fn no_sequence_of_messages_panics(messages in prop::collection::vec((message(), 0..4_u8), 1..60), lead in any::<bool>()) {
        let mut replica = if lead { leader() } else { replica(1) };
        for (message, then) in messages {
            let _ = replica.step(Input::Message(message));
            match then {
                0 => replica.step(Input::Tick).unwrap(),
                1 => { replica.outputs(); }
                2 => { run(&mut replica); }
                _ => propose(&mut replica, 1, b"x"),
            }
        }
    }
}
