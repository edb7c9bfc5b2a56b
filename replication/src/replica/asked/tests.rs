#![allow(clippy::unwrap_used)]

use proto::internal::{Configuration, HardState, LogEntry, PeerMessage};

use crate::{Input, Outputs, Proposal, ReadReady, Recovered, Replica, Settings, Standing, Write};

const APPEND: u32 = 3;
const ASKED: u32 = 15;
const ANSWERED: u32 = 16;

/// Member `id` of a group of so many, with a log of nine entries.
fn replica(id: u64, voters: u64) -> Replica {
    let recovered = Recovered {
        hard_state: HardState { term: 3, vote: 0, commit: 4 },
        configuration: Configuration { voters: (1..=voters).collect(), ..Configuration::default() },
        snapshot: None,
        base_index: 0,
        base_term: 0,
        entries: (1..=9).map(|index| LogEntry { index, term: 1 + index / 5, ..LogEntry::default() }).collect(),
    };
    Replica::new(Settings::new(id, id, 1), recovered).unwrap()
}

/// Everything there is, with each write persisted at once.
fn run(replica: &mut Replica) -> Outputs {
    let mut all = Outputs::default();
    while let Some(outputs) = replica.outputs() {
        all.messages.extend(outputs.messages);
        if let Some(Write { number, .. }) = outputs.write {
            replica.step(Input::Persisted { number }).unwrap();
        }
        all.reads.extend(outputs.reads);
        all.lost_reads.extend(outputs.lost_reads);
    }
    all
}

/// What members that agree with everything say to these.
fn agree(messages: &[PeerMessage], members: &[u64]) -> Vec<PeerMessage> {
    let agree = |message: &PeerMessage| {
        let last = message.entries.last().map_or(message.index, |entry| entry.index);
        let (kind, index) = match message.kind {
            3 => (4, last),
            5 => (6, 0),
            8 => (9, 0),
            17 => (18, 0),
            _ => return None,
        };
        let (from, to, term, context) = (message.to, message.from, message.term, message.context.clone());
        Some(PeerMessage { kind, from, to, term, index, context, ..PeerMessage::default() })
    };
    messages.iter().filter(|message| members.contains(&message.to)).filter_map(agree).collect()
}

/// Makes member 1 lead with the help of these.
fn leader(voters: u64, members: &[u64]) -> Replica {
    let mut replica = replica(1, voters);
    for _ in 0..200 {
        replica.step(Input::Tick).unwrap();
        loop {
            let answers = agree(&run(&mut replica).messages, members);
            if answers.is_empty() {
                break;
            }
            answers.into_iter().for_each(|message| replica.step(Input::Message(message)).unwrap());
        }
        if replica.status().standing == Standing::Leader {
            return replica;
        }
    }
    panic!("no leader");
}

/// Member 2 of three, that member 1 leads.
fn follower() -> Replica {
    let mut replica = replica(2, 3);
    replica.step(Input::Message(PeerMessage { kind: 8, from: 1, to: 2, term: 3, ..PeerMessage::default() })).unwrap();
    run(&mut replica);
    replica
}

fn ask(from: u64, term: u64) -> Input {
    let context = vec![7; 24].into();
    Input::Message(PeerMessage { kind: ASKED, from, to: 1, term, context, ..PeerMessage::default() })
}

fn of_kind(outputs: &Outputs, kind: u32) -> Vec<&PeerMessage> {
    outputs.messages.iter().filter(|message| message.kind == kind).collect()
}

#[test]
fn a_follower_asks_its_leader_once_for_all_that_wait_and_again_until_it_is_answered() {
    let mut replica = follower();
    (0..50).for_each(|context| replica.step(Input::Read { context }).unwrap());
    let outputs = run(&mut replica);
    let asked = of_kind(&outputs, ASKED);
    assert_eq!((asked.len(), asked[0].to, asked[0].term), (1, 1, 3));
    let context = asked[0].context.clone();
    replica.step(Input::Tick).unwrap();
    assert!(of_kind(&run(&mut replica), ASKED).is_empty());
    replica.step(Input::Tick).unwrap();
    assert_eq!(of_kind(&run(&mut replica), ASKED)[0].context, context);

    let answer = |term| PeerMessage {
        kind: ANSWERED,
        from: 1,
        to: 2,
        term,
        index: 8,
        context: context.clone(),
        ..PeerMessage::default()
    };
    replica.step(Input::Message(answer(3))).unwrap();
    let outputs = run(&mut replica);
    assert_eq!(outputs.reads, (0..50).map(|context| ReadReady { context, index: 8 }).collect::<Vec<_>>());
    replica.step(Input::Message(answer(3))).unwrap();
    assert!(run(&mut replica).reads.is_empty(), "a repeated answer is nobody's");
}

#[test]
fn a_read_that_the_leader_does_not_answer_is_lost() {
    let mut replica = follower();
    replica.step(Input::Read { context: 1 }).unwrap();
    let mut lost = Vec::new();
    for _ in 0..100 {
        replica.step(Input::Tick).unwrap();
        lost.append(&mut run(&mut replica).lost_reads);
    }
    assert_eq!(lost, [1]);
}

#[test]
fn of_three_a_leader_answers_whoever_follows_it_at_once() {
    let mut replica = leader(3, &[2]);
    let status = replica.status();
    replica.step(ask(3, status.term)).unwrap();
    let outputs = run(&mut replica);
    let answered = of_kind(&outputs, ANSWERED);
    assert_eq!((answered.len(), answered[0].to, answered[0].index), (1, 3, status.commit_index));
    assert_eq!(answered[0].context, vec![7; 24]);
    assert!(of_kind(&outputs, 8).is_empty(), "nobody else is asked");
}

#[test]
fn who_asks_hears_of_the_commit_that_it_waits_for_unless_it_has() {
    let mut replica = leader(3, &[2, 3]);
    let term = replica.status().term;
    // A configuration may be changed below this; of that followers hear at once.
    replica.step(Input::Applied { index: replica.status().commit_index }).unwrap();
    replica.step(Input::Propose(Proposal { id: 1, data: vec![1].into() })).unwrap();
    let appended = run(&mut replica).messages;
    agree(&appended, &[2, 3]).into_iter().for_each(|message| replica.step(Input::Message(message)).unwrap());
    let outputs = run(&mut replica);
    assert!(outputs.messages.is_empty(), "a commit is no message of its own: {:?}", outputs.messages);
    let commit = replica.status().commit_index;
    replica.step(ask(3, term)).unwrap();
    let outputs = run(&mut replica);
    assert_eq!(of_kind(&outputs, ANSWERED)[0].index, commit);
    let told: Vec<(u64, u64)> = of_kind(&outputs, APPEND).iter().map(|message| (message.to, message.commit)).collect();
    assert_eq!(told, [(3, commit)]);
    replica.step(ask(3, term)).unwrap();
    let outputs = run(&mut replica);
    assert_eq!((of_kind(&outputs, ANSWERED).len(), of_kind(&outputs, APPEND).len()), (1, 0), "it has heard of it");
}

#[test]
fn nobody_is_answered_in_another_term_or_by_who_does_not_lead() {
    let mut replica = leader(3, &[2]);
    let term = replica.status().term;
    for other in [term - 1, term + 1] {
        replica.step(ask(3, other)).unwrap();
        assert!(of_kind(&run(&mut replica), ANSWERED).is_empty());
    }
    let next = PeerMessage { kind: 8, from: 3, to: 1, term: term + 1, ..PeerMessage::default() };
    replica.step(Input::Message(next)).unwrap();
    replica.step(ask(2, term + 1)).unwrap();
    replica.step(ask(2, term)).unwrap();
    assert!(of_kind(&run(&mut replica), ANSWERED).is_empty());
}

#[test]
fn of_five_the_question_shares_the_leaders_own_round() {
    let mut replica = leader(5, &[2, 3]);
    let status = replica.status();
    replica.step(ask(4, status.term)).unwrap();
    replica.step(Input::Read { context: 9 }).unwrap();
    let outputs = run(&mut replica);
    assert!(of_kind(&outputs, ANSWERED).is_empty(), "two of five are no majority");
    let rounds = agree(&outputs.messages, &[2, 3]);
    let mut all = Outputs::default();
    for message in rounds.into_iter().filter(|message| message.kind == 9 && !message.context.is_empty()) {
        replica.step(Input::Message(message)).unwrap();
        let outputs = run(&mut replica);
        all.messages.extend(outputs.messages);
        all.reads.extend(outputs.reads);
    }
    let answered = of_kind(&all, ANSWERED);
    assert_eq!((answered.len(), answered[0].to, answered[0].index), (1, 4, status.commit_index));
    assert_eq!(all.reads, [ReadReady { context: 9, index: status.commit_index }]);
}
