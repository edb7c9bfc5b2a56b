//! A million one-task jobs: what they cost in memory, in a restart, and in a snapshot.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use proto::v1::{
    GetClusterStatusRequest, GetJobRequest, SubmitJobsRequest, cluster_service_client::ClusterServiceClient,
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

use super::PATIENCE;
use crate::{
    figure::{Bar, Figure},
    load::{
        check,
        clients::{self, Jobs},
        grid::{Loaded, carry},
        process::resident_bytes,
    },
};

const MEMORY: Bar = Bar::at_most("job_bytes", "B", 280.0, 200.0);
const RESTART: Bar = Bar::at_most("restart_s", "s", 8.0, 3.0);
const PAUSE: Bar = Bar::at_most("snapshot_pause_ms", "ms", 5.0, 1.0);

/// What this measures.
pub const BARS: [Bar; 3] = [MEMORY, RESTART, PAUSE];

const JOBS: u64 = 1_000_000;
/// Jobs in one call.
const BATCH: u64 = 1_000;
/// Jobs in a call while the pauses are measured: taking in a call is a pause too, and one of a thousand jobs isn't the
/// snapshot's.
const SMALL_BATCH: u64 = 100;
/// Jobs before these: what is kept of the newest changes, whatever there is in all, is full then.
const FIRST: u64 = 250_000;
/// Calls under way.
const CALLS: usize = 4;
const RESTARTS: usize = 3;

/// A grid without workers: all jobs stay queued.
pub fn measure() -> anyhow::Result<Vec<Figure>> {
    let grid = Loaded::start(0)?;
    carry(run(&grid))
}

async fn run(grid: &Loaded) -> anyhow::Result<Vec<Figure>> {
    let clients = clients::connect(grid, CALLS).await?;
    let (leader, pid) = grid.leader()?;
    let snapshots = |name: &str| grid.metric(name, "millgrid_snapshots_stored_total");
    let log_bytes = || grid.metric(&leader, "millgrid_raft_log_bytes");

    let mut acknowledged = submit(&clients, FIRST, BATCH).await?;
    let (before, log_before) = (resident_bytes(pid)?, log_bytes()?);
    let start = Instant::now();
    acknowledged += submit(&clients, JOBS, BATCH).await?;
    eprintln!("  {JOBS} jobs accepted in {:.1} s", start.elapsed().as_secs_f64());
    // Snapshots under way use memory of their own.
    let mut stored = snapshots(&leader)?;
    loop {
        sleep(Duration::from_secs(2)).await;
        let now = snapshots(&leader)?;
        if now == stored {
            break;
        }
        stored = now;
    }
    let (grown, log) = (resident_bytes(pid)? - before, log_bytes()? - log_before);
    let spec = spec_bytes(clients[0].clone()).await?;
    let job = (grown - log) / JOBS as f64 - spec;
    eprintln!(
        "  grown by {:.0} MiB, {:.0} MiB of it the log's newest entries; a spec has {spec} B",
        grown / 1024.0 / 1024.0,
        log / 1024.0 / 1024.0
    );

    // Until the next snapshot of all of them is taken, under load.
    let taken = snapshots(&leader)?;
    let start = Instant::now();
    while snapshots(&leader)? == taken {
        ensure!(start.elapsed() < PATIENCE, "no snapshot is taken");
        acknowledged += submit(&clients, 40 * BATCH, SMALL_BATCH).await?;
    }
    let pause = grid.metric(&leader, "millgrid_snapshot_apply_pause_seconds")? * 1000.0;

    ensure!(pause > 0.0, "no pause was measured, which can't be");

    let mut restarts = Vec::new();
    let followers = ["c1", "c2", "c3"].into_iter().filter(|name| *name != leader);
    for name in followers.cycle().take(RESTARTS) {
        restarts.push(restart(grid, name).await?);
    }
    // Those from before broke with what was restarted.
    let mut client = clients::connect(grid, 1).await?.remove(0);
    let last = client.get_job(GetJobRequest { job_id: acknowledged, last: false }).await;
    last.context("the newest job is lost")?;
    let beyond = client.get_job(GetJobRequest { job_id: acknowledged + 1, last: false }).await;
    ensure!(beyond.is_err(), "there are more jobs than were accepted");
    eprintln!("  {acknowledged} submits acknowledged, 0 lost; {}", check::digests(grid));
    Ok(vec![MEMORY.measured(&[job]), RESTART.measured(&restarts), PAUSE.measured(&[pause])])
}

/// Submits so many jobs, so many in a call and several calls at a time; how many were accepted.
async fn submit(clients: &[Jobs], count: u64, batch: u64) -> anyhow::Result<u64> {
    let calls = clients.iter().enumerate().map(|(number, client)| {
        let mut client = client.clone();
        let share = (number as u64..count / batch).step_by(clients.len()).count();
        async move {
            let mut accepted = 0;
            for _ in 0..share {
                let specs = (0..batch).map(|_| clients::job("true".to_owned())).collect();
                let request = SubmitJobsRequest { request_id: String::new(), specs, edges: Vec::new() };
                let answer = client.submit_jobs(request).await.context("a submit was refused")?;
                accepted += answer.into_inner().jobs.len() as u64;
            }
            Ok::<u64, anyhow::Error>(accepted)
        }
    });
    let mut set = tokio::task::JoinSet::new();
    calls.for_each(|call| {
        set.spawn(call);
    });
    let mut accepted = 0;
    while let Some(ended) = set.join_next().await {
        accepted += ended??;
    }
    Ok(accepted)
}

/// What the state keeps of each job as it was submitted.
async fn spec_bytes(mut client: Jobs) -> anyhow::Result<f64> {
    let job = client.get_job(GetJobRequest { job_id: 1, last: false }).await?.into_inner();
    let spec = job.spec.context("a job without a spec")?;
    Ok(prost::Message::encoded_len(&spec) as f64)
}

/// Kills a follower and starts it again: until it has applied what the others have, and answers.
async fn restart(grid: &Loaded, name: &str) -> anyhow::Result<f64> {
    let pid = i32::try_from(grid.pid(name)?).ok().and_then(Pid::from_raw).context("it has no pid")?;
    let number = name.trim_start_matches('c').parse::<usize>()? - 1;
    kill_process(pid, Signal::KILL)?;
    // The kernel takes a while to free what a large process had, and it has its ports until then.
    let killed = Instant::now();
    while grid.channel(number).await.is_ok() || is_there(pid) {
        ensure!(killed.elapsed() < PATIENCE, "`{name}` doesn't die");
        sleep(Duration::from_millis(10)).await;
    }
    let start = Instant::now();
    grid.grid.dev("restart", &[name]).ok();
    loop {
        if serves(grid, number, name).await.unwrap_or(false) {
            return Ok(start.elapsed().as_secs_f64());
        }
        ensure!(start.elapsed() < PATIENCE, "`{name}` doesn't come back");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Whether a process has anything left; one that nobody has waited for has nothing.
fn is_there(pid: Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z'))
}

/// Whether this coordinator answers, and has applied as far as the others at the time of the question.
async fn serves(grid: &Loaded, number: usize, name: &str) -> anyhow::Result<bool> {
    let mut client = ClusterServiceClient::new(grid.channel(number).await?);
    let status = client.get_cluster_status(GetClusterStatusRequest {}).await?.into_inner();
    Ok(status.members.iter().any(|member| member.name == name && !member.digest.is_empty()))
}
