//! Clients: they submit, look, cancel and retry, and repeat what wasn't answered under the same request id.

use std::collections::BTreeMap;

use coordinator_core::CallId;
use proto::internal::call_request::Request;
use proto::v1::{
    CancelJobRequest, Cause, CreateQueueRequest, Dependency, DependencyCondition, GetJobRequest, IndexRange, JobSpec,
    ListTasksRequest, Output, QueueSettings, Resources, RetryJobRequest, RetryPolicy, RetryRule, SetHistoryRequest,
    SetJobRequest, SetLicenseRequest, SetQueueRequest, SubmitJobRequest, TaskArray,
};

use crate::{
    random::Random,
    workload::{Next, Saturation},
};

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
    /// It is never given up: everything that the seed is about hangs on it.
    pub(crate) stubborn: bool,
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
        if let Some(request) = self.set_up(&id, random) {
            return self.set_about(request, false, now_us);
        }
        let request = match random.below(26) {
            24 => Request::SetHistory(SetHistoryRequest {
                request_id: id,
                keep: Some(prost_duration(random.below(30) * 1_000)),
                keep_jobs: Some(random.below(5)),
            }),
            25 if !jobs.is_empty() => Request::ListTasks(ListTasksRequest {
                job_id: pick(random),
                attempts: true,
                ..ListTasksRequest::default()
            }),
            22 if !jobs.is_empty() => Request::SetJob(SetJobRequest {
                request_id: id,
                job_id: pick(random),
                priority: Some(random.below(3) as i32),
                max_running: Some(random.below(3) as u32),
                time_limit: Some(prost_duration(random.between(1, 60) * 1_000)),
                ..SetJobRequest::default()
            }),
            23 => Request::SetQueue(SetQueueRequest {
                request_id: id,
                name: QUEUES[random.below(3) as usize].to_owned(),
                settings: Some(QueueSettings {
                    weight: Some(random.between(1, 4) as u32),
                    max_running: Some(random.below(4)),
                    guaranteed_running: Some(random.below(2)),
                    ..QueueSettings::default()
                }),
            }),
            0..4 => Request::SubmitJob(SubmitJobRequest { spec: Some(spec(&id, &jobs, random)), request_id: id }),
            _ if jobs.is_empty() => {
                Request::SubmitJob(SubmitJobRequest { spec: Some(spec(&id, &jobs, random)), request_id: id })
            }
            4..18 => Request::GetJob(GetJobRequest { job_id: pick(random), last: false }),
            18..20 => {
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
        self.set_about(request, false, now_us);
    }

    fn set_about(&mut self, request: Request, stubborn: bool, now_us: u64) {
        self.operation = Some(Operation { number: self.operations, request, begun_us: now_us, stubborn, call: None });
    }

    /// Goes on with keeping queues saturated. Whether there will be anything more to do.
    pub(crate) fn saturate(
        &mut self,
        saturation: &Saturation,
        number: usize,
        known: &Known,
        random: &mut Random,
        now_us: u64,
    ) -> bool {
        match saturation.next(number, self.operations, known, random, now_us) {
            Next::Ask(request) => {
                self.operations += 1;
                self.set_about(*request, number == 0, now_us);
                true
            }
            Next::Wait => true,
            Next::Rest => false,
        }
    }

    /// Its first operations make the queues and the license that jobs ask for; all clients try.
    fn set_up(&self, id: &str, random: &mut Random) -> Option<Request> {
        let request_id = id.to_owned();
        Some(match self.operations {
            1 | 2 => {
                let name = QUEUES[self.operations as usize].to_owned();
                Request::CreateQueue(CreateQueueRequest { request_id, name, settings: None })
            }
            3 => {
                let total = random.between(LICENSES, 5);
                Request::SetLicense(SetLicenseRequest { request_id, name: LICENSE.to_owned(), total })
            }
            _ => return None,
        })
    }
}

/// Queues that jobs are submitted to; the first is always there.
const QUEUES: [&str; 3] = ["default", "a", "b"];
/// A license, and how many of it there are at least: no task needs more.
const LICENSE: &str = "x";
const LICENSES: u64 = 2;

fn spec(id: &str, jobs: &[u64], random: &mut Random) -> JobSpec {
    let tasks = random.between(1, 6);
    let outputs = Output { glob: "*".to_owned(), prefix: "s3://dev/out/".to_owned(), optional: false };
    let after = jobs.last().filter(|_| random.chance(250)).map(|job| {
        use DependencyCondition as On;
        // Of one size by luck alone; else it is refused, which is as good.
        let condition = [On::Success, On::Any, On::Failure, On::ExitCode, On::Element][random.below(5) as usize];
        let exit_codes = if condition == On::ExitCode { vec![0, 1] } else { Vec::new() };
        Dependency { job_id: *job, condition: condition as i32, exit_codes }
    });
    let memory = RetryRule {
        cause: Cause::OutOfMemory as i32,
        memory_factor_milli: 1_500,
        max_memory_mib: 512,
        ..RetryRule::default()
    };
    let by_code = RetryRule { cause: Cause::ExitCode as i32, exit_codes: vec![1, 2], ..RetryRule::default() };
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
            rules: if random.chance(500) { vec![by_code, memory] } else { Vec::new() },
        }),
        at_most_once: random.chance(150),
        array: (tasks > 1)
            .then(|| TaskArray { ranges: vec![IndexRange { first: 0, last: tasks - 1, step: 1 }], rows: None }),
        max_running: if random.chance(200) { 2 } else { 0 },
        outputs: if random.chance(300) { vec![outputs] } else { Vec::new() },
        after: after.into_iter().collect(),
        queue: QUEUES[random.below(3) as usize].to_owned(),
        licenses: if random.chance(150) {
            [(LICENSE.to_owned(), random.between(1, LICENSES) as u32)].into()
        } else {
            Default::default()
        },
        alternatives: if random.chance(100) {
            vec![Resources { cpu_milli: 500, memory_mib: 128, ..Resources::default() }]
        } else {
            Vec::new()
        },
        time_limit: if random.chance(400) { millis(random.between(1, 30) * 1_000) } else { None },
        queue_time_limit: if random.chance(80) { millis(random.between(1, 60) * 1_000) } else { None },
        total_time_limit: if random.chance(80) { millis(random.between(1, 90) * 1_000) } else { None },
        ..JobSpec::default()
    }
}

fn prost_duration(millis: u64) -> proto::Duration {
    proto::Duration { seconds: (millis / 1_000) as i64, nanos: (millis % 1_000 * 1_000_000) as i32 }
}
