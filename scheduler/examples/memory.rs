//! What the rules keep of a queued job of one task: resident bytes, less the encoded spec.
#![allow(clippy::unwrap_used)]

use prost::Message;
use proto::internal::{Command, Entry, JobSubmission, Request, SubmitJobs, command};
use proto::v1::{IndexRange, JobSpec, Resources};
use scheduler::State;

const JOBS: u64 = 1_000_000;
const BATCH: u64 = 1_000;

fn main() {
    let resources = Resources { cpu_milli: 1_000, ..Resources::default() };
    let spec = JobSpec {
        name: "true".to_owned(),
        command: vec!["/bin/true".to_owned()],
        queue: "default".to_owned(),
        resources: Some(resources),
        ..JobSpec::default()
    };
    let spec = spec.encode_to_vec();
    let job = JobSubmission {
        spec: spec.clone().into(),
        name: "true".to_owned(),
        queue: "default".to_owned(),
        resources: Some(resources),
        ranges: vec![IndexRange { first: 0, last: 0, step: 1 }],
        ..JobSubmission::default()
    };
    let mut state = State::new();
    let mut index = 0;
    let mut submit = |state: &mut State| {
        index += 1;
        let request = Some(Request { owner: "ann".to_owned(), ..Request::default() });
        let jobs = (0..BATCH).map(|_| job.clone()).collect();
        let submit = command::Command::SubmitJobs(SubmitJobs { request, jobs, parts: Vec::new() });
        let commands = vec![Command { command: Some(submit) }];
        let entry = Entry { proposer: 1, sequence: index, time_ms: index, wall_ms: 1, commands };
        state.apply(index, &entry);
    };
    submit(&mut state);
    let before = resident();
    for _ in 0..JOBS / BATCH {
        submit(&mut state);
    }
    println!("{:.1} B a job, less {} B of spec", (resident() - before) / JOBS as f64 - spec.len() as f64, spec.len());
    let snapshot: usize = state.encode().map(|piece| piece.len()).sum();
    println!("{:.1} B after a snapshot of {} B", (resident() - before) / JOBS as f64 - spec.len() as f64, snapshot);
}

fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0
}
