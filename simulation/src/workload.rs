//! What clients ask of the grid, and what goes wrong meanwhile. Most seeds have a bit of everything; in every fourth,
//! queues of different weights are kept saturated, so that their shares can be measured.

use std::collections::BTreeMap;

use proto::internal::call_request::Request;
use proto::v1::{
    CancelJobRequest, CreateQueueRequest, GetJobRequest, IndexRange, JobSpec, QueueSettings, Resources,
    SubmitJobsRequest, TaskArray,
};

use crate::{client::Known, random::Random};

/// Until then the queues stay saturated; then their jobs are cancelled.
const SATURATED_US: u64 = 170_000_000;
/// Tasks of each queue: far more than can end by then.
const TASKS: u64 = 50_000;

/// What a seed is about.
#[derive(Debug, Clone)]
pub(crate) enum Workload {
    /// Jobs of all kinds, cancelled, retried and changed at random.
    Mixed,
    /// Nothing but arrays that never run out, one in each of some queues.
    Saturated(Saturation),
}

/// Whom faults happen to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Faults {
    None,
    OfCoordinators,
    OfWorkers,
    All,
}

impl Faults {
    pub(crate) fn of_coordinators(self) -> bool {
        matches!(self, Self::OfCoordinators | Self::All)
    }
}

/// Queues that are kept saturated.
#[derive(Debug, Clone)]
pub(crate) struct Saturation {
    pub(crate) faults: Faults,
    pub(crate) loads: BTreeMap<String, Load>,
    /// Tasks are so short that workers are granted more of them ahead. What a queue has can't be counted from grants then.
    pub(crate) quick: bool,
}

/// What one queue is loaded with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) weight: u32,
    /// Of each task.
    pub(crate) cpu_milli: u64,
    /// How long each runs, from and to.
    pub(crate) run_us: (u64, u64),
}

/// What a client does next.
pub(crate) enum Next {
    Ask(Box<Request>),
    /// Look again in a while.
    Wait,
    /// It is done.
    Rest,
}

impl Workload {
    pub(crate) fn of(seed: u64, random: &mut Random) -> Self {
        if seed % 4 != 3 {
            return Self::Mixed;
        }
        let faults = [Faults::None, Faults::OfCoordinators, Faults::OfWorkers, Faults::All];
        let quick = seed / 4 % 3 == 1;
        Self::Saturated(Saturation::new(faults[(seed / 4 % 4) as usize], quick, random))
    }

    pub(crate) fn faults(&self) -> Faults {
        match self {
            Self::Mixed => Faults::All,
            Self::Saturated(saturation) => saturation.faults,
        }
    }

    pub(crate) fn saturation(&self) -> Option<&Saturation> {
        match self {
            Self::Mixed => None,
            Self::Saturated(saturation) => Some(saturation),
        }
    }
}

impl Saturation {
    fn new(faults: Faults, quick: bool, random: &mut Random) -> Self {
        // No two weights are equal: what forgets them shows.
        let weights = [[1, 2, 4], [3, 2, 1], [2, 5, 3], [4, 1, 3]][random.below(4) as usize];
        let queues = random.between(2, 3) as usize;
        let names = ["saturated-a", "saturated-b", "saturated-c"];
        let loads = names.iter().zip(weights).take(queues).map(|(name, weight)| {
            let shortest_us = random.between(150_000, 250_000);
            let run_us = (shortest_us, random.between(300_000, 700_000));
            let run_us = if quick { (run_us.0 / 6, run_us.1 / 6) } else { run_us };
            (name.to_string(), Load { weight, cpu_milli: random.between(1, 2) * 500, run_us })
        });
        Self { faults, loads: loads.collect(), quick }
    }

    /// What a client does as its `number`th operation, from 0. The first makes everything, and cancels it in the end.
    pub(crate) fn next(&self, client: usize, number: u64, known: &Known, random: &mut Random, now_us: u64) -> Next {
        let request_id = format!("saturating-{client}-{number}");
        let ask = |request| Next::Ask(Box::new(request));
        let made = self.loads.len() as u64;
        if client > 0 {
            let jobs: Vec<u64> = known.keys().copied().collect();
            return match jobs.get(random.below(jobs.len().max(1) as u64) as usize) {
                _ if now_us >= SATURATED_US => Next::Rest,
                None => Next::Wait,
                Some(job_id) => ask(Request::GetJob(GetJobRequest { job_id: *job_id, last: false })),
            };
        }
        if let Some((name, load)) = self.loads.iter().nth(number as usize) {
            let settings = Some(QueueSettings { weight: Some(load.weight), ..QueueSettings::default() });
            return ask(Request::CreateQueue(CreateQueueRequest { request_id, name: name.clone(), settings }));
        }
        if number == made {
            // At once, so that no queue has a lead.
            let specs = self.loads.iter().map(|(name, load)| spec(name, load)).collect();
            return ask(Request::SubmitJobs(SubmitJobsRequest { request_id, specs, edges: Vec::new() }));
        }
        match known.keys().nth((number - made - 1) as usize) {
            None => Next::Rest,
            Some(_) if now_us < SATURATED_US => Next::Wait,
            Some(job_id) => {
                ask(Request::CancelJob(CancelJobRequest { request_id, job_id: *job_id, ..CancelJobRequest::default() }))
            }
        }
    }
}

fn spec(queue: &str, load: &Load) -> JobSpec {
    let ranges = vec![IndexRange { first: 0, last: TASKS - 1, step: 1 }];
    JobSpec {
        name: format!("work of {queue}"),
        queue: queue.to_owned(),
        command: vec!["work".to_owned()],
        resources: Some(Resources { cpu_milli: load.cpu_milli, ..Resources::default() }),
        array: Some(TaskArray { ranges, rows: None }),
        ..JobSpec::default()
    }
}
