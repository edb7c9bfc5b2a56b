//! A coordinator of a grid of one.

use bytes::Bytes;
use coordinator_core::{CallId, Core, Input, Output, Settings};
use proto::internal::{Caller, Refusal, WorkerConnect, call_request, call_response};
use proto::v1::{
    AttemptKey, Capacity, CoordinatorMessage, Ended, OpenSession, Report, ReportItem, Role, WatchJobsResponse,
    WorkerMessage, coordinator_message, report_item, worker_message,
};
use scheduler::State;

pub const TERM: u64 = 2;

/// One coordinator whose proposals are committed at once, as in a grid of one.
pub struct Office {
    pub core: Core,
    pub index: u64,
    pub now_ms: u64,
    pub answers: Vec<(CallId, call_response::Response)>,
    pub finished: Vec<CallId>,
    /// Those of them that were refused.
    pub refused: Vec<(CallId, Refusal)>,
    /// Everything that was proposed.
    pub log: Vec<u8>,
}

impl Office {
    /// The log is at its beginning and somebody else leads, if anybody.
    pub fn new() -> Self {
        let core = Core::new(Settings::new("c".to_owned(), 7), 0, State::new());
        Self {
            core,
            index: 0,
            now_ms: 1_000,
            answers: Vec::new(),
            finished: Vec::new(),
            refused: Vec::new(),
            log: Vec::new(),
        }
    }

    pub fn step(&mut self, input: Input) {
        self.core.step(input, self.now_ms, 0);
        loop {
            let outputs = self.core.flush(self.now_ms, 0);
            if outputs.is_empty() {
                return;
            }
            for output in outputs {
                match output {
                    Output::Propose { data, .. } => {
                        self.log.extend_from_slice(&data);
                        self.commit(data);
                    }
                    Output::Respond { call, response } => self.answers.push((call, response)),
                    Output::Finish { call, result } => {
                        self.finished.push(call);
                        self.refused.extend(result.err().map(|refusal| (call, refusal)));
                    }
                    Output::Read { context } => {
                        let index = self.index;
                        self.core.step(Input::ReadReady { context, index }, self.now_ms, 0);
                    }
                    Output::Applied { .. }
                    | Output::Snapshot { .. }
                    | Output::Digest { .. }
                    | Output::StoreSegment { .. }
                    | Output::KeepSegments { .. }
                    | Output::ReadHistory { .. }
                    | Output::Report(_)
                    | Output::Split { .. } => {}
                    Output::Halt { reason } => panic!("{reason}"),
                }
            }
        }
    }

    pub fn commit(&mut self, data: Bytes) {
        assert!(data.len() <= proto::entry::MAX_BYTES, "an entry of {} bytes", data.len());
        self.index += 1;
        self.core.step(Input::Committed { index: self.index, term: TERM, data }, self.now_ms, 0);
    }

    pub fn elect(&mut self) {
        self.step(Input::Role { term: TERM, leading: true });
    }

    /// The first entry of the term, which a leader waits for.
    pub fn take_office(&mut self) {
        self.commit(Bytes::new());
        self.step(Input::Tick);
    }

    pub fn connect_worker(&mut self, number: u64) {
        let call = CallId(number);
        let caller = Caller { name: format!("worker-{number}"), role: Role::Worker.into() };
        let request = call_request::Request::WorkerConnect(WorkerConnect {});
        self.step(Input::Open { call, caller, request });
        let capacity = Some(Capacity { cpu_milli: 1_000, ..Capacity::default() });
        let open = worker_message::Message::Open(OpenSession { capacity, ..OpenSession::default() });
        self.step(Input::Worker { call, message: WorkerMessage { message: Some(open) } });
    }

    /// Has a client make a call.
    pub fn ask(&mut self, call: u64, request: call_request::Request) {
        let caller = Caller { name: "ann".to_owned(), role: Role::Client.into() };
        self.step(Input::Open { call: CallId(call), caller, request });
    }

    /// Has worker 1 say how an attempt ended.
    pub fn report_end(&mut self, first_sequence: u64, attempt: AttemptKey, ended: Ended) {
        let items = vec![ReportItem { attempt: Some(attempt), item: Some(report_item::Item::Ended(ended)) }];
        let report = worker_message::Message::Report(Report { first_sequence, items });
        self.step(Input::Worker { call: CallId(1), message: WorkerMessage { message: Some(report) } });
    }

    /// What a watch was told.
    pub fn told(&self, call: u64) -> Vec<WatchJobsResponse> {
        let of_watch = |(to, response): &'_ (CallId, call_response::Response)| match response {
            call_response::Response::WatchJobs(news) if *to == CallId(call) => Some(news.clone()),
            _ => None,
        };
        self.answers.iter().filter_map(of_watch).collect()
    }

    pub fn sessions(&self) -> Vec<(CallId, u64)> {
        let opened = |(call, response): &(CallId, call_response::Response)| match response {
            call_response::Response::Coordinator(CoordinatorMessage {
                message: Some(coordinator_message::Message::Opened(opened)),
            }) => Some((*call, opened.session)),
            _ => None,
        };
        self.answers.iter().filter_map(opened).collect()
    }
}
