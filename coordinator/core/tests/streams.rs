//! Streams of submits: through a change of leader nothing is lost and nothing becomes two jobs.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use coordinator_core::{CallId, Core, Input, Output, Settings};
use proto::internal::{Caller, Refusal, StreamConnect, call_request, call_response};
use proto::v1::{JobSpec, Role, StreamJobsRequest, StreamJobsResponse};
use scheduler::State;

/// A coordinator that leads alone: what it proposes is committed when the test says so.
struct Leader {
    core: Core,
    term: u64,
    /// The whole log.
    log: Vec<Bytes>,
    proposed: Vec<Bytes>,
    answers: Vec<StreamJobsResponse>,
    finished: Vec<Result<(), Refusal>>,
}

impl Leader {
    /// Elected over this log.
    fn elect(term: u64, log: Vec<Bytes>) -> Self {
        let core = Core::new(Settings::new("c".to_owned(), term), 0, State::new());
        let mut leader =
            Self { core, term, log: Vec::new(), proposed: Vec::new(), answers: Vec::new(), finished: Vec::new() };
        log.into_iter().for_each(|data| leader.commit(data));
        leader.step(Input::Role { term, leading: true });
        leader.commit(Bytes::new());
        leader
    }

    fn step(&mut self, input: Input) {
        self.core.step(input, 1_000, 0);
        for output in self.core.flush(1_000, 0) {
            match output {
                Output::Propose { data, .. } => self.proposed.push(data),
                Output::Respond { response: call_response::Response::StreamJobs(answer), .. } => {
                    self.answers.push(answer);
                }
                Output::Finish { result, .. } => self.finished.push(result),
                Output::Halt { reason } => panic!("{reason}"),
                _ => {}
            }
        }
    }

    fn commit(&mut self, data: Bytes) {
        self.log.push(data.clone());
        self.step(Input::Committed { index: self.log.len() as u64, term: self.term, data });
    }

    fn commit_all(&mut self) {
        while !self.proposed.is_empty() {
            let data = self.proposed.remove(0);
            self.commit(data);
        }
    }

    fn connect(&mut self, call: u64) {
        let caller = Caller { name: "ann".to_owned(), role: Role::Client.into() };
        let request = call_request::Request::StreamConnect(StreamConnect {});
        self.step(Input::Open { call: CallId(call), caller, request });
    }

    fn send(&mut self, call: u64, first_sequence: u64, commands: &[&str]) {
        let spec = |command: &&str| JobSpec { command: vec![(*command).to_owned()], ..JobSpec::default() };
        let specs = commands.iter().map(spec).collect();
        let message = StreamJobsRequest { stream_id: "s".to_owned(), first_sequence, specs, ..Default::default() };
        self.step(Input::Stream { call: CallId(call), message });
    }

    /// Number in the stream, and the job or the refused field.
    fn answered(&self) -> Vec<(u64, Result<u64, String>)> {
        let mut all = Vec::new();
        for answer in &self.answers {
            for run in &answer.accepted {
                let job = |more| (run.first_sequence + more, Ok(run.first_job_id + more));
                all.extend((0..u64::from(run.count)).map(job));
            }
            all.extend(answer.refused.iter().map(|refused| (refused.sequence, Err(refused.field.clone()))));
        }
        all.sort();
        all
    }

    fn jobs(&self) -> usize {
        (1..).take_while(|id| self.core.state().job(*id).is_some()).count()
    }
}

#[test]
fn what_a_leader_took_with_it_is_sent_again_and_becomes_no_second_job() {
    let mut first = Leader::elect(1, Vec::new());
    first.connect(1);
    first.send(1, 1, &["true", "true"]);
    first.commit_all();
    first.send(1, 3, &["true", "true"]);
    first.send(1, 5, &["true"]);
    // The third message never reached the log, and the answers to the second were lost.
    let second = first.proposed.remove(0);
    let log = [first.log.clone(), vec![second]].concat();
    assert_eq!(first.answered(), [(1, Ok(1)), (2, Ok(2))]);

    let mut next = Leader::elect(2, log);
    next.connect(7);
    next.send(7, 3, &["true", "true", "true"]);
    next.commit_all();
    assert_eq!(next.answered(), [(3, Ok(3)), (4, Ok(4)), (5, Ok(5))]);
    assert_eq!((next.jobs(), next.finished.len()), (5, 0));
}

#[test]
fn a_job_that_is_none_is_refused_alone_and_again_when_it_is_sent_again() {
    let mut leader = Leader::elect(1, Vec::new());
    leader.connect(1);
    leader.send(1, 1, &["true", "", "true"]);
    leader.commit_all();
    let expected = [(1, Ok(1)), (2, Err("command".to_owned())), (3, Ok(2))];
    assert_eq!(leader.answered(), expected);

    let mut next = Leader::elect(2, leader.log);
    next.connect(1);
    next.send(1, 1, &["true", "", "true"]);
    next.commit_all();
    assert_eq!(next.answered(), expected);
    assert_eq!(next.jobs(), 2);
}

#[test]
fn numbers_that_jump_end_the_stream() {
    let mut leader = Leader::elect(1, Vec::new());
    leader.connect(1);
    leader.send(1, 1, &["true"]);
    leader.send(1, 3, &["true"]);
    leader.commit_all();
    assert_eq!(leader.finished.len(), 1);
    assert_eq!(leader.finished[0].as_ref().unwrap_err().field, "first_sequence");
    assert_eq!(leader.jobs(), 1);
}

#[test]
fn a_stream_that_the_grid_has_forgotten_is_not_begun_in_its_middle() {
    let mut leader = Leader::elect(1, Vec::new());
    leader.connect(1);
    leader.send(1, 10, &["true"]);
    leader.commit_all();
    assert_eq!(leader.finished[0].as_ref().unwrap_err().reason, "STREAM_FORGOTTEN");
    assert_eq!(leader.jobs(), 0);
}

#[test]
fn a_leader_that_is_deposed_ends_the_connection_and_decides_nothing_more() {
    let mut leader = Leader::elect(1, Vec::new());
    leader.connect(1);
    leader.send(1, 1, &["true"]);
    leader.step(Input::Role { term: 2, leading: false });
    assert_eq!(leader.finished.len(), 1);
    assert!(leader.answers.is_empty());
}
