//! Huge arrays: accepted, kept, cancelled.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use proto::v1::{CancelJobRequest, GetJobRequest, IndexRange, Job, SubmitJobRequest, TaskArray, TaskCounts};

use super::milliseconds;
use crate::{
    figure::{Bar, Figure},
    load::{
        check,
        clients::{self, Jobs},
        grid::{Loaded, carry},
        process::resident_bytes,
    },
};

const ACCEPT: Bar = Bar::at_most("array_accept_ms", "ms", 100.0, 20.0);
const TASK: Bar = Bar::at_most("array_task_bytes", "B", 1.0, 0.01);
const MEMORY: Bar = Bar::at_most("array_memory_mib", "MiB", 20.0, 2.0);
const CANCEL: Bar = Bar::at_most("array_cancel_ms", "ms", 300.0, 50.0);

/// What this measures.
pub const BARS: [Bar; 4] = [ACCEPT, TASK, MEMORY, CANCEL];

/// Rounds of each; the one in the middle counts.
const ROUNDS: usize = 5;
/// Tasks of one array.
const TASKS: u64 = 10_000_000;

/// Times are of the call, from a client that is connected. The tasks stay queued: there are no workers.
pub fn measure() -> anyhow::Result<Vec<Figure>> {
    let grid = Loaded::start(0)?;
    let (leader, pid) = grid.leader()?;
    let (accepts, cancels, memories) = carry(async {
        let client = clients::connect(&grid, 1).await?.remove(0);
        // What the first one touches for the first time is no cost of an array.
        let (first, _) = submit(client.clone(), "first", 100).await?;
        let (mut accepts, mut cancels, mut memories) = (vec![], vec![], vec![]);
        let mut acknowledged = vec![(first.id, first.name)];
        for round in 0..ROUNDS {
            let name = format!("array-{round}");
            let before = resident_bytes(pid)?;
            let (job, elapsed) = submit(client.clone(), &name, TASKS).await?;
            accepts.push(milliseconds(elapsed));
            let counts = tasks(client.clone(), job.id).await?;
            ensure!(counts.queued == TASKS, "not all are queued: {counts:?}");
            memories.push(resident_bytes(pid)? - before);
            acknowledged.push((job.id, name));
            let start = Instant::now();
            let cancel = CancelJobRequest { job_id: job.id, ..CancelJobRequest::default() };
            client.clone().cancel_job(cancel).await.context("the cancel was refused")?;
            cancels.push(milliseconds(start.elapsed()));
            let counts = tasks(client.clone(), job.id).await?;
            ensure!(counts.cancelled == TASKS, "not all were cancelled: {counts:?}");
        }
        check::submits(&grid, client, &acknowledged).await?;
        Ok::<_, anyhow::Error>((accepts, cancels, memories))
    })?;
    ensure!(grid.grid.leader() == leader, "the leader changed");
    // The first is the one that grows the process; later ones may find its memory free.
    let first = memories[0];
    Ok(vec![
        ACCEPT.measured(&accepts),
        TASK.measured(&[first / TASKS as f64]),
        MEMORY.measured(&[first / 1024.0 / 1024.0]),
        CANCEL.measured(&cancels),
    ])
}

async fn submit(mut client: Jobs, name: &str, count: u64) -> anyhow::Result<(Job, Duration)> {
    let ranges = vec![IndexRange { first: 0, last: count - 1, step: 1 }];
    let mut spec = clients::job(name.to_owned());
    spec.array = Some(TaskArray { ranges, rows: None });
    let request = SubmitJobRequest { request_id: name.to_owned(), spec: Some(spec) };
    let start = Instant::now();
    let job = client.submit_job(request).await.context("the array was refused")?.into_inner();
    Ok((job, start.elapsed()))
}

async fn tasks(mut client: Jobs, job_id: u64) -> anyhow::Result<TaskCounts> {
    let job = client.get_job(GetJobRequest { job_id, last: false }).await.context("the array is gone")?.into_inner();
    job.tasks.context("a job without counts")
}
