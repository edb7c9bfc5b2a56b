//! Dispatch without processes: grants, ends and everything between, through the replicated log.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use proto::v1::{IndexRange, JobSpec, SubmitJobsRequest, TaskArray};
use tokio::time::sleep;

use super::PATIENCE;
use crate::{
    figure::{Bar, Figure, median},
    load::{
        check,
        clients::{self, Jobs},
        fleet::{Fleet, Snapshot},
        grid::{Loaded, carry},
        process::cpu_seconds,
    },
};

const RATE: Bar = Bar::at_least("dispatch_rate", "tasks/s", 60_000.0, 200_000.0);
const CPU: Bar = Bar::at_most("dispatch_leader_cpu_us", "us", 8.0, 3.0);
const DEPTH: Bar = Bar::at_least("dispatch_depth_ratio", "tasks/s", 0.9, 1.0);

/// What this measures.
pub const BARS: [Bar; 3] = [RATE, CPU, DEPTH];

/// Simulated workers, and tasks that each may run at once: 10,000 slots.
const SESSIONS: usize = 100;
const SLOTS: u64 = 100;
/// Tasks of one array.
const ARRAY: u64 = 10_000;
/// Arrays of one submit.
const IN_A_SUBMIT: u64 = 100;
/// Tasks that are queued when there are few, and when there are many.
const SHALLOW: u64 = 10_000;
const DEEP: u64 = 10_000_000;
/// Of each depth.
const WINDOWS: usize = 3;
const WINDOW: Duration = Duration::from_secs(3);

/// Arrays are submitted as fast as they are taken, so that the depth stays as it is; first with few tasks queued, then
/// with many.
pub fn measure() -> anyhow::Result<Vec<Figure>> {
    let grid = Loaded::start(0)?;
    carry(run(&grid))
}

async fn run(grid: &Loaded) -> anyhow::Result<Vec<Figure>> {
    let (_, leader) = grid.leader()?;
    let client = clients::connect(grid, 1).await?.remove(0);
    let fleet = Fleet::start(&grid.authority, &grid.endpoints, SESSIONS, SLOTS, PATIENCE).await?;
    let mut queue = Queue { client: client.clone(), arrays: 0 };

    let shallow = queue.windows(&fleet, leader, SHALLOW).await?;
    eprintln!("  {SHALLOW} queued: {shallow}");
    let deep = queue.windows(&fleet, leader, DEEP).await?;
    eprintln!("  {DEEP} queued: {deep}");

    // Nothing more is granted, and what was ends.
    fleet.drain(grid).await?;
    let done = fleet.quiet(PATIENCE).await?;
    ensure!(done.fenced == 0 && done.lost == 0, "sessions were lost: {done:?}");
    check::ends(grid, client, done.accepted).await?;
    let rates = [shallow.rates.clone(), deep.rates.clone()].concat();
    let cpus = [shallow.cpus, deep.cpus].concat();
    Ok(vec![RATE.measured(&rates), CPU.measured(&cpus), DEPTH.against(&deep.rates, median(shallow.rates))])
}

/// What was measured at one depth.
struct Windows {
    rates: Vec<f64>,
    cpus: Vec<f64>,
}

impl std::fmt::Display for Windows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (rate, cpu) = (median(self.rates.clone()), median(self.cpus.clone()));
        write!(f, "{rate:.0} tasks/s, {cpu:.2} us of the leader's cpu each")
    }
}

/// What is submitted.
struct Queue {
    client: Jobs,
    arrays: u64,
}

impl Queue {
    /// Keeps so many tasks queued and measures meanwhile; the first second doesn't count.
    async fn windows(&mut self, fleet: &Fleet, leader: u64, depth: u64) -> anyhow::Result<Windows> {
        let mut windows = Windows { rates: Vec::new(), cpus: Vec::new() };
        self.fill(fleet, depth).await?;
        self.keep(fleet, depth, Duration::from_secs(1)).await?;
        for _ in 0..WINDOWS {
            let (start, before, cpu) = (Instant::now(), fleet.now(), cpu_seconds(leader)?);
            self.keep(fleet, depth, WINDOW).await?;
            let ends = (fleet.now().accepted - before.accepted) as f64;
            ensure!(ends > 0.0, "no task ended");
            windows.rates.push(ends / start.elapsed().as_secs_f64());
            windows.cpus.push((cpu_seconds(leader)? - cpu) * 1e6 / ends);
        }
        Ok(windows)
    }

    async fn keep(&mut self, fleet: &Fleet, depth: u64, span: Duration) -> anyhow::Result<()> {
        let start = Instant::now();
        while start.elapsed() < span {
            self.fill(fleet, depth).await?;
            sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// Submits until at least so many tasks are queued.
    async fn fill(&mut self, fleet: &Fleet, depth: u64) -> anyhow::Result<()> {
        loop {
            let missing = depth.saturating_sub(self.queued(fleet.now())).div_ceil(ARRAY).min(IN_A_SUBMIT);
            if missing == 0 {
                return Ok(());
            }
            let specs = (0..missing).map(|_| array()).collect();
            let request = SubmitJobsRequest { request_id: String::new(), specs, edges: Vec::new() };
            let answer = self.client.submit_jobs(request).await.context("an array was refused")?;
            self.arrays += answer.into_inner().jobs.len() as u64;
        }
    }

    fn queued(&self, now: Snapshot) -> u64 {
        (self.arrays * ARRAY).saturating_sub(now.granted)
    }
}

fn array() -> JobSpec {
    let ranges = vec![IndexRange { first: 0, last: ARRAY - 1, step: 1 }];
    JobSpec { array: Some(TaskArray { ranges, rows: None }), ..clients::job(String::new()) }
}
