//! Clients: they submit, look, cancel and retry, and repeat what wasn't answered under the same request id.

use std::collections::BTreeMap;

use coordinator_core::CallId;
use proto::internal::call_request::Request;
use proto::v1::{
    CancelJobRequest, Dependency, DependencyCondition, GetJobRequest, IndexRange, JobSpec, Output, Resources,
    RetryJobRequest, RetryPolicy, SubmitJobRequest, TaskArray,
};

use crate::random::Random;

/// Longest time that a client goes on with one operation, microseconds.
pub(crate) const PATIENCE_US: u64 = 20_000_000;
/// So long it waits for an answer before it asks elsewhere.
pub(crate) const ANSWER_US: u64 = 4_000_000;

/// One client and what it is about.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) name: String,
    pub(crate) coordinator: usize,
    pub(crate) operation: Option<Operation>,
    pub(crate) operations: u64,
}

/// Something a client wants, with all its repeats.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) number: u64,
    pub(crate) request: Request,
    pub(crate) begun_us: u64,
    pub(crate) call: Option<CallId>,
}

/// What clients have been told of a job, and when.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// Ended, said an answer at that time.
    pub(crate) over_us: Option<u64>,
    /// Cancelled as a whole, said an answer at that time.
    pub(crate) cancelled_us: Option<u64>,
    /// A retry was asked for: it may have come back to life.
    pub(crate) retried: bool,
    pub(crate) at_most_once: bool,
}

/// Jobs whose submits were acknowledged.
pub(crate) type Known = BTreeMap<u64, Facts>;

impl Client {
    pub(crate) fn new(number: usize) -> Self {
        Self { name: format!("client-{number}"), coordinator: number % 3, operation: None, operations: 0 }
    }

    /// Makes up what to do next.
    pub(crate) fn begin(&mut self, known: &Known, random: &mut Random, now_us: u64) {
        self.operations += 1;
        let jobs: Vec<u64> = known.keys().copied().collect();
        let pick = |random: &mut Random| jobs[random.below(jobs.len() as u64) as usize];
        let id = format!("{}-{}", self.name, self.operations);
        let request = match random.below(10) {
            0..2 => Request::SubmitJob(SubmitJobRequest { spec: Some(spec(&id, &jobs, random)), request_id: id }),
            _ if jobs.is_empty() => {
                Request::SubmitJob(SubmitJobRequest { spec: Some(spec(&id, &jobs, random)), request_id: id })
            }
            2..8 => Request::GetJob(GetJobRequest { job_id: pick(random), last: false }),
            8 => {
                let ranges = Vec::new();
                Request::CancelJob(CancelJobRequest {
                    request_id: id,
                    job_id: pick(random),
                    ranges,
                    reason: String::new(),
                    cascade: random.chance(300),
                })
            }
            _ => Request::RetryJob(RetryJobRequest {
                request_id: id,
                job_id: pick(random),
                failed_only: true,
                ..RetryJobRequest::default()
            }),
        };
        self.operation = Some(Operation { number: self.operations, request, begun_us: now_us, call: None });
    }
}

fn spec(id: &str, jobs: &[u64], random: &mut Random) -> JobSpec {
    let tasks = random.between(1, 6);
    let outputs = Output { glob: "*".to_owned(), prefix: "s3://dev/out/".to_owned(), optional: false };
    let after = jobs.last().filter(|_| random.chance(150)).map(|job| Dependency {
        job_id: *job,
        condition: [DependencyCondition::Success, DependencyCondition::Any, DependencyCondition::Failure]
            [random.below(3) as usize] as i32,
        exit_codes: Vec::new(),
    });
    let millis = |millis: u64| Some(prost_duration(millis));
    JobSpec {
        name: id.to_owned(),
        priority: random.below(3) as i32,
        command: vec!["work".to_owned()],
        resources: Some(Resources { cpu_milli: random.between(1, 4) * 500, memory_mib: 256, ..Resources::default() }),
        retry: Some(RetryPolicy {
            retries: random.below(3) as u32,
            min_backoff: millis(100),
            max_backoff: millis(3_000),
            rules: Vec::new(),
        }),
        at_most_once: random.chance(150),
        array: (tasks > 1)
            .then(|| TaskArray { ranges: vec![IndexRange { first: 0, last: tasks - 1, step: 1 }], rows: None }),
        max_running: if random.chance(200) { 2 } else { 0 },
        outputs: if random.chance(300) { vec![outputs] } else { Vec::new() },
        after: after.into_iter().collect(),
        ..JobSpec::default()
    }
}

fn prost_duration(millis: u64) -> proto::Duration {
    proto::Duration { seconds: (millis / 1_000) as i64, nanos: (millis % 1_000 * 1_000_000) as i32 }
}
