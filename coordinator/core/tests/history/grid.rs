//! Three cores and one log, which commits what the first of them proposes at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use coordinator_core::{CallId, Core, Input, Output, Settings};
use proto::internal::{Caller, Refusal, call_request::Request, call_response::Response};
use proto::v1::{CancelJobRequest, JobSpec, Role, SetHistoryRequest, SubmitJobRequest};
use scheduler::{Archive, State};

pub const TERM: u64 = 1;

pub struct Grid {
    pub cores: Vec<Core>,
    /// Members whose disk takes segments.
    pub storing: BTreeSet<usize>,
    pub segments: Vec<BTreeMap<u32, Bytes>>,
    /// What a read of the history finds.
    pub readable: bool,
    pub log: Vec<(u64, Bytes)>,
    pub halted: BTreeMap<usize, String>,
    /// Indexes at which snapshots were asked for, by member.
    pub snapshots: Vec<Vec<u64>>,
    pub reads: usize,
    answers: BTreeMap<CallId, Vec<Result<Response, Refusal>>>,
    calls: u64,
    now_ms: u64,
    /// Digest of each member after each index.
    pub digests: Vec<BTreeMap<u64, [u8; 32]>>,
}

pub fn settings(member: u64, newest_rules: u32) -> Settings {
    Settings {
        member,
        members: vec![1, 2, 3],
        newest_rules,
        cut_pause_ms: 0,
        snapshot_commands: 5,
        ..Settings::new("c".to_owned(), member)
    }
}

impl Grid {
    pub fn new(newest_rules: [u32; 3]) -> Self {
        let core = |(member, newest)| Core::new(settings(member, newest), 0, State::new());
        let mut grid = Self {
            cores: (1..).zip(newest_rules).map(core).collect(),
            storing: BTreeSet::from([0, 1, 2]),
            segments: vec![BTreeMap::new(); 3],
            readable: true,
            log: Vec::new(),
            halted: BTreeMap::new(),
            snapshots: vec![Vec::new(); 3],
            reads: 0,
            answers: BTreeMap::new(),
            calls: 0,
            now_ms: 1,
            digests: vec![BTreeMap::new(); 3],
        };
        grid.cores[0].step(Input::Role { term: TERM, leading: true }, 1, 1);
        grid.commit(Bytes::new());
        grid.settle();
        grid
    }

    pub fn tell(&mut self, member: usize, input: Input) {
        self.cores[member].step(input, self.now_ms, self.now_ms as i64);
    }

    pub fn commit(&mut self, data: Bytes) {
        let index = self.log.len() as u64 + 1;
        self.log.push((index, data.clone()));
        for member in 0..self.cores.len() {
            self.tell(member, Input::Committed { index, term: TERM, data: data.clone() });
            self.digests[member].insert(index, self.cores[member].state().digest());
        }
    }

    /// Time passes until nothing happens any more.
    pub fn settle(&mut self) {
        for _ in 0..60 {
            self.now_ms += 500;
            for member in 0..self.cores.len() {
                self.tell(member, Input::Tick);
                for output in self.cores[member].flush(self.now_ms, self.now_ms as i64) {
                    self.carry_out(member, output);
                }
            }
        }
    }

    fn carry_out(&mut self, member: usize, output: Output) {
        match output {
            Output::Propose { data, .. } => self.commit(data),
            Output::Read { context } => {
                let index = self.log.len() as u64;
                self.tell(member, Input::ReadReady { context, index });
            }
            Output::StoreSegment { number, data } => {
                if self.storing.contains(&member) {
                    self.store(member, number, data);
                }
            }
            Output::Report(report) => {
                for other in (0..self.cores.len()).filter(|other| *other != member) {
                    self.tell(other, Input::Reported(Box::new(report.clone())));
                }
            }
            Output::ReadHistory { ticket, segments } => {
                self.reads += 1;
                let data = |number: &u32| self.segments.iter().find_map(|segments| segments.get(number));
                let read = |(number, _): &(u32, _)| Some(Arc::new(Archive::read(*number, data(number)?).unwrap()));
                let archives = if self.readable { segments.iter().map(read).collect() } else { None };
                self.tell(member, Input::HistoryRead { ticket, archives });
            }
            Output::Snapshot { index, .. } => {
                self.snapshots[member].push(index);
                self.tell(member, Input::SnapshotEnded { index, stored: true });
            }
            Output::Halt { reason } => {
                self.halted.entry(member).or_insert(reason);
            }
            Output::Respond { call, response } => self.answers.entry(call).or_default().push(Ok(response)),
            Output::Finish { call, result: Err(refused) } => {
                self.answers.entry(call).or_default().push(Err(refused));
            }
            Output::Finish { result: Ok(()), .. }
            | Output::Applied { .. }
            | Output::Digest { .. }
            | Output::KeepSegments { .. }
            | Output::Split { .. } => {}
        }
    }

    pub fn store(&mut self, member: usize, number: u32, data: Bytes) {
        self.segments[member].insert(number, data);
        self.tell(member, Input::SegmentsHeld { first: number, last: number });
    }

    /// Puts a call to the leader.
    pub fn open(&mut self, request: Request) -> CallId {
        self.calls += 1;
        let call = CallId(self.calls);
        let caller = Caller { role: Role::Client as i32, name: "ada".to_owned() };
        self.tell(0, Input::Open { call, caller, request });
        call
    }

    pub fn answers(&mut self, call: CallId) -> Vec<Result<Response, Refusal>> {
        self.settle();
        self.answers.remove(&call).unwrap_or_default()
    }

    pub fn ask(&mut self, request: Request) -> Result<Response, Refusal> {
        let call = self.open(request);
        self.answers(call).swap_remove(0)
    }

    /// A job that has ended.
    pub fn ended_job(&mut self, request_id: &str) -> u64 {
        let spec = Some(JobSpec { command: vec!["true".to_owned()], ..JobSpec::default() });
        let submit = SubmitJobRequest { spec, request_id: request_id.to_owned() };
        let Ok(Response::Job(job)) = self.ask(Request::SubmitJob(submit)) else { panic!("a job is accepted") };
        let cancel = CancelJobRequest { job_id: job.id, ..CancelJobRequest::default() };
        assert!(self.ask(Request::CancelJob(cancel)).is_ok());
        job.id
    }

    pub fn keep_nothing(&mut self) {
        let set = SetHistoryRequest { keep_jobs: Some(0), ..SetHistoryRequest::default() };
        assert!(self.ask(Request::SetHistory(set)).is_ok());
    }

    pub fn state(&self) -> &State {
        self.cores[0].state()
    }
}
