//! An idle grid: from the submit to the process, and to the client that watches.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, ensure};
use proto::v1::{JobState, SubmitJobRequest, WatchJobsRequest};
use tokio::time::sleep;

use super::{PATIENCE, milliseconds};
use crate::{
    figure::{Bar, Figure},
    load::{
        check,
        clients::{self, Jobs},
        grid::{Loaded, carry},
    },
};

const START: Bar = Bar::at_most("start_ms", "ms", 5.0, 2.0);
const END: Bar = Bar::at_most("end_ms", "ms", 10.0, 4.0);

/// What this measures.
pub const BARS: [Bar; 2] = [START, END];

/// Jobs of each kind, one after the other.
const ROUNDS: usize = 100;
/// Between two of them, so that the grid is idle.
const PAUSE: Duration = Duration::from_millis(20);

/// Each round submits a program that does nothing but write down when it runs, and then `/bin/true`, both through one
/// of the three coordinators in turn.
pub fn measure() -> anyhow::Result<Vec<Figure>> {
    let grid = Loaded::start(2)?;
    let program = grid.grid.folder().join("stamp");
    let source = grid.grid.folder().join("stamp.c");
    fs::write(&source, include_str!("stamp.c"))?;
    let compiled = Command::new("cc").args(["-O2", "-static", "-o"]).arg(&program).arg(&source).status();
    ensure!(compiled.context("can't run cc")?.success(), "cc failed");
    carry(run(&grid, &program))
}

async fn run(grid: &Loaded, program: &Path) -> anyhow::Result<Vec<Figure>> {
    let clients = clients::connect(grid, 3).await?;
    let (mut starts, mut ends, mut acknowledged) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS + 6 {
        let client = &clients[round % clients.len()];
        let file = grid.grid.folder().join(format!("stamp-{round}"));
        let mut spec = clients::job(format!("stamp-{round}"));
        spec.command = vec![program.display().to_string(), file.display().to_string()];
        sleep(PAUSE).await;
        let before = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let (id, _) = submit_and_watch(client, spec).await?;
        acknowledged.push((id, format!("stamp-{round}")));
        let nanoseconds: u64 = fs::read_to_string(&file).context("the program wrote nothing")?.trim().parse()?;
        let start = milliseconds(Duration::from_nanos(nanoseconds).saturating_sub(before));

        sleep(PAUSE).await;
        let name = format!("true-{round}");
        let (id, end) = submit_and_watch(client, clients::job(name.clone())).await?;
        acknowledged.push((id, name));
        // The first ones find everything cold.
        if round >= 6 {
            starts.push(start);
            ends.push(milliseconds(end));
        }
    }
    check::submits(grid, clients[0].clone(), &acknowledged).await?;
    Ok(vec![START.measured(&starts), END.measured(&ends)])
}

/// The job's number, and the time until its watch said that it succeeded.
async fn submit_and_watch(client: &Jobs, spec: proto::v1::JobSpec) -> anyhow::Result<(u64, Duration)> {
    let mut client = client.clone();
    let start = Instant::now();
    let request = SubmitJobRequest { request_id: String::new(), spec: Some(spec) };
    let job = client.submit_job(request).await.context("a submit was refused")?.into_inner();
    let watch = WatchJobsRequest { job_ids: vec![job.id], ..WatchJobsRequest::default() };
    let mut watch = client.watch_jobs(watch).await.context("a watch was refused")?.into_inner();
    while let Some(message) = tokio::time::timeout(PATIENCE, watch.message()).await?? {
        let state = message.jobs.iter().find(|seen| seen.id == job.id).map(|seen| seen.state());
        match state {
            Some(JobState::Succeeded) => return Ok((job.id, start.elapsed())),
            Some(JobState::Failed | JobState::Cancelled | JobState::Skipped) => break,
            _ => {}
        }
    }
    anyhow::bail!("job {} did not succeed", job.id)
}
