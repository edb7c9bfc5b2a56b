//! Reads at a coordinator that follows.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use coordinator_core::{CallId, Core, Input, Output, Settings, answered_anywhere, refusal};
use proto::internal::{Caller, Refusal, call_request::Request};
use proto::v1::{CancelJobRequest, ListQueuesRequest, Role};
use scheduler::State;

const NOW_MS: u64 = 1_000;

struct Follower {
    core: Core,
    /// The context of the newest question to the leader.
    asked: Option<u64>,
    answered: Vec<CallId>,
    refused: Vec<(CallId, Refusal)>,
}

impl Follower {
    /// Somebody else leads; entries up to `applied` are in the state.
    fn new(applied: u64) -> Self {
        let core = Core::new(Settings::new("c".to_owned(), 7), 0, State::new());
        let mut follower = Self { core, asked: None, answered: Vec::new(), refused: Vec::new() };
        follower.step(Input::Led(true), NOW_MS);
        follower.apply(applied);
        follower
    }

    fn apply(&mut self, until: u64) {
        for index in self.core.applied_index() + 1..=until {
            self.step(Input::Committed { index, term: 1, data: Bytes::new() }, NOW_MS);
        }
    }

    fn step(&mut self, input: Input, now_ms: u64) {
        self.core.step(input, now_ms, 0);
        for output in self.core.flush(now_ms, 0) {
            match output {
                Output::Read { context } => self.asked = Some(context),
                Output::Respond { call, .. } => self.answered.push(call),
                Output::Finish { call, result: Err(refusal) } => self.refused.push((call, refusal)),
                Output::Finish { result: Ok(()), .. }
                | Output::Applied { .. }
                | Output::Report(_)
                | Output::KeepSegments { .. } => {}
                // The upkeep of a new leader.
                Output::Propose { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn open(&mut self, call: u64, request: Request) {
        let caller = Caller { name: "someone".to_owned(), role: Role::Client.into() };
        self.step(Input::Open { call: CallId(call), caller, request }, NOW_MS);
    }

    fn read(&mut self, call: u64) {
        self.open(call, Request::ListQueues(ListQueuesRequest::default()));
    }

    fn check_refused(&self, calls: &[u64]) {
        let refused: Vec<u64> = self.refused.iter().map(|(call, _)| call.0).collect();
        assert_eq!(refused, calls);
        assert!(self.refused.iter().all(|(_, refusal)| refusal.reason == refusal::NOT_LEADER));
    }
}

#[test]
fn a_read_is_answered_when_the_leader_has_said_how_far_and_the_state_is_there() {
    let mut follower = Follower::new(5);
    follower.read(1);
    assert!(follower.answered.is_empty());
    let first = follower.asked.take().unwrap();
    follower.read(2);
    assert_eq!(follower.asked, None, "who comes later waits for the next question");
    follower.step(Input::ReadReady { context: first, index: 7 }, NOW_MS);
    let second = follower.asked.take().unwrap();
    assert!(follower.answered.is_empty());
    follower.apply(7);
    assert_eq!(follower.answered, [CallId(1)]);
    follower.step(Input::ReadReady { context: second, index: 7 }, NOW_MS);
    assert_eq!(follower.answered, [CallId(1), CallId(2)]);
    follower.check_refused(&[]);
}

#[test]
fn what_only_a_leader_can_do_is_refused() {
    let mut follower = Follower::new(5);
    let cancel = Request::CancelJob(CancelJobRequest::default());
    assert!(!answered_anywhere(&cancel));
    follower.open(1, cancel);
    follower.check_refused(&[1]);
}

#[test]
fn without_a_leader_reads_are_refused_those_that_wait_for_the_state_too() {
    let mut follower = Follower::new(5);
    follower.read(1);
    let context = follower.asked.take().unwrap();
    follower.step(Input::ReadReady { context, index: 9 }, NOW_MS);
    follower.read(2);
    follower.step(Input::Led(false), NOW_MS);
    follower.read(3);
    follower.check_refused(&[1, 2, 3]);
    follower.apply(9);
    assert!(follower.answered.is_empty());
}

#[test]
fn a_question_that_is_lost_and_a_state_that_does_not_come_are_not_waited_for() {
    let mut follower = Follower::new(5);
    follower.read(1);
    let context = follower.asked.take().unwrap();
    follower.step(Input::ReadLost { context }, NOW_MS);
    follower.check_refused(&[1]);
    follower.read(2);
    let context = follower.asked.take().unwrap();
    follower.step(Input::ReadReady { context, index: 9 }, NOW_MS);
    follower.step(Input::Tick, NOW_MS + 150);
    follower.check_refused(&[1]);
    follower.step(Input::Tick, NOW_MS + 300);
    follower.check_refused(&[1, 2]);
}

#[test]
fn reads_that_wait_at_who_is_elected_are_answered_by_the_new_leader() {
    let mut follower = Follower::new(5);
    follower.read(1);
    let context = follower.asked.take().unwrap();
    follower.step(Input::Role { term: 2, leading: true }, NOW_MS);
    follower.step(Input::Led(false), NOW_MS);
    follower.step(Input::ReadLost { context }, NOW_MS);
    follower.step(Input::Committed { index: 6, term: 2, data: Bytes::new() }, NOW_MS + 100);
    let context = follower.asked.take().unwrap();
    follower.step(Input::ReadReady { context, index: 6 }, NOW_MS + 100);
    assert_eq!(follower.answered, [CallId(1)]);
    follower.check_refused(&[]);
}
