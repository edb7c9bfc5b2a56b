//! Digests of three members, compared by each of them.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use coordinator_core::{CallId, Core, Input, Output, Settings};
use proto::internal::{Caller, Command, Entry, Mark, MarkDigests, MemberReport, call_request, command};
use proto::v1::{JobSpec, Role, SubmitJobRequest};
use scheduler::State;

/// Member 1 of three, which leads, with a mark of the whole state at index 2.
fn leader() -> (Core, MarkDigests) {
    let settings = Settings { member: 1, members: vec![1, 2, 3], ..Settings::new("c".to_owned(), 7) };
    let mut core = Core::new(settings, 0, State::new());
    core.step(Input::Role { term: 1, leading: true }, 0, 0);
    core.step(Input::Committed { index: 1, term: 1, data: Bytes::new() }, 0, 0);
    let digest = mark(&mut core, 2);
    (core, digest)
}

/// Applies a mark and has its digests computed: what this member says of it.
fn mark(core: &mut Core, index: u64) -> MarkDigests {
    let commands = vec![Command { command: Some(command::Command::Mark(Mark { whole: true })) }];
    let data = proto::entry::encode(&Entry { proposer: 7, sequence: index, time_ms: 0, wall_ms: 0, commands });
    core.step(Input::Committed { index, term: 1, data }, 0, 0);
    let asked = core.flush(0, 0).into_iter().find_map(|output| match output {
        Output::Digest { index, state } => Some((index, state.digest_of_all(|| {}))),
        _ => None,
    });
    let (index, digest) = asked.expect("a mark of the whole state asks for its digest");
    core.step(Input::Digested { index, digest, took_ms: 1 }, 0, 0);
    let told = core.flush(0, 0).into_iter().find_map(|output| match output {
        Output::Report(report) => report.marks.iter().find(|mark| mark.index == index).cloned(),
        _ => None,
    });
    told.expect("what was computed is told")
}

/// What the core does when another member says this; whether it stops.
fn hear(core: &mut Core, from: u64, said: &MarkDigests) -> bool {
    let report = MemberReport {
        cluster_id: "c".to_owned(),
        from,
        boot: from,
        marks: vec![said.clone()],
        ..MemberReport::default()
    };
    core.step(Input::Reported(Box::new(report)), 0, 0);
    core.flush(0, 0).iter().any(|output| matches!(output, Output::Halt { .. }))
}

fn submit(core: &mut Core) -> Result<(), String> {
    let caller = Caller { role: Role::Client as i32, name: "ada".to_owned() };
    let spec = Some(JobSpec { command: vec!["true".to_owned()], ..JobSpec::default() });
    let request = call_request::Request::SubmitJob(SubmitJobRequest { spec, request_id: String::new() });
    core.step(Input::Open { call: CallId(1), caller, request }, 0, 0);
    let refused = core.flush(0, 0).into_iter().find_map(|output| match output {
        Output::Finish { result: Err(refused), .. } => Some(refused.reason),
        _ => None,
    });
    refused.map_or(Ok(()), Err)
}

fn differing(digests: &MarkDigests) -> MarkDigests {
    MarkDigests { whole: vec![9; 32].into(), ..digests.clone() }
}

#[test]
fn members_that_agree_go_on() {
    let (mut core, digests) = leader();
    assert!(!hear(&mut core, 2, &digests) && !hear(&mut core, 3, &digests));
    assert!(!core.is_split());
    assert_eq!(submit(&mut core), Ok(()));
}

#[test]
fn who_differs_from_two_that_agree_stops() {
    let (mut core, digests) = leader();
    assert!(!hear(&mut core, 2, &differing(&digests)));
    assert!(hear(&mut core, 3, &differing(&digests)));
}

#[test]
fn who_agrees_with_one_goes_on_whatever_the_third_says() {
    let (mut core, digests) = leader();
    assert!(!hear(&mut core, 2, &differing(&digests)));
    assert!(core.is_split());
    assert!(!hear(&mut core, 3, &digests));
    assert!(!core.is_split());
    assert_eq!(submit(&mut core), Ok(()));
}

#[test]
fn at_one_to_one_new_jobs_are_refused_until_a_later_mark_is_agreed_on() {
    let (mut core, digests) = leader();
    hear(&mut core, 2, &differing(&digests));
    assert_eq!(submit(&mut core), Err("DIVERGED".to_owned()));
    let later = mark(&mut core, 3);
    assert_eq!(submit(&mut core), Err("DIVERGED".to_owned()), "nobody has agreed yet");
    hear(&mut core, 3, &later);
    assert_eq!(submit(&mut core), Ok(()));
}

#[test]
fn a_digest_of_events_that_differs_counts_alike() {
    let (mut core, digests) = leader();
    let other = MarkDigests { chain: vec![9; 32].into(), ..digests };
    assert!(!hear(&mut core, 2, &other));
    assert!(core.is_split());
    assert!(hear(&mut core, 3, &other));
}

#[test]
fn what_a_stranger_says_counts_for_nothing() {
    let (mut core, digests) = leader();
    assert!(!hear(&mut core, 2, &differing(&digests)) && !hear(&mut core, 4, &differing(&digests)));
}

#[test]
fn what_is_heard_is_not_answered_with_a_report() {
    let (mut core, digests) = leader();
    let report =
        MemberReport { cluster_id: "c".to_owned(), from: 2, boot: 2, marks: vec![digests], ..MemberReport::default() };
    core.step(Input::Reported(Box::new(report)), 0, 0);
    let outputs = core.flush(0, 0);
    assert!(!outputs.iter().any(|output| matches!(output, Output::Report(_))), "{outputs:?}");
}
