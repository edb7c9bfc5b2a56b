//! The leader dies under load: how long until the next write is acknowledged.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    figure::{Bar, Figure},
    load::{
        check,
        clients::{self},
        fleet::Fleet,
        grid::{Loaded, carry},
    },
};
use proto::v1::{IndexRange, SubmitJobRequest, TaskArray};

use super::PATIENCE;

const FAILOVER: Bar = Bar::at_most("failover_s", "s", 1.5, 0.6);
const WORST: Bar = Bar::at_most("failover_worst_s", "s", 5.0, 2.0);

/// What this measures.
pub const BARS: [Bar; 2] = [FAILOVER, WORST];

/// How often the leader dies.
const KILLS: usize = 20;
/// Workers that end tasks meanwhile, and their slots.
const SESSIONS: usize = 20;
const SLOTS: u64 = 10;
/// Tasks that are queued at each kill.
const TASKS: u64 = 200_000;

/// From the kill to the answer to a submit that began right after it and was repeated, under one request id, as the
/// client crate does it.
pub fn measure() -> anyhow::Result<Vec<Figure>> {
    let grid = Loaded::start(0)?;
    let seconds = carry(run(&grid))?;
    let worst = seconds.iter().copied().fold(0.0, f64::max);
    Ok(vec![FAILOVER.measured(&seconds), WORST.measured(&[worst])])
}

async fn run(grid: &Loaded) -> anyhow::Result<Vec<f64>> {
    let fleet = Fleet::start(&grid.authority, &grid.endpoints, SESSIONS, SLOTS, PATIENCE).await?;
    let client = grid.client()?;
    let (mut seconds, mut acknowledged) = (Vec::new(), Vec::new());
    // One stream of submits goes through all of it.
    let over = Arc::new(AtomicBool::new(false));
    let streamed = tokio::spawn(stream(client.clone(), Arc::clone(&over)));
    for round in 0..KILLS {
        let mut spec = clients::job(format!("load-{round}"));
        let ranges = vec![IndexRange { first: 0, last: TASKS - 1, step: 1 }];
        spec.array = Some(TaskArray { ranges, rows: None });
        let load = client.jobs().submit(SubmitJobRequest { spec: Some(spec), ..Default::default() }).await?;
        acknowledged.push((load.id, load.name));
        fleet.all_attached(PATIENCE).await?;
        ends_arrive(&fleet).await?;
        let (name, pid) = grid.leader()?;
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("the leader has no pid")?;
        let start = Instant::now();
        kill_process(pid, Signal::KILL)?;
        let spec = Some(clients::job(format!("after-{round}")));
        let job = client.jobs().submit(SubmitJobRequest { spec, ..Default::default() }).await?;
        seconds.push(start.elapsed().as_secs_f64());
        acknowledged.push((job.id, job.name));
        ends_arrive(&fleet).await?;
        grid.grid.dev("restart", &[&name]).ok();
        grid.grid.check_replicas();
    }
    over.store(true, Ordering::Relaxed);
    let streamed = streamed.await??;
    eprintln!("  {} jobs submitted in one stream meanwhile", streamed.len());
    let cancel = |id| proto::v1::CancelJobRequest { job_id: id, ..Default::default() };
    for (id, _) in &acknowledged {
        client.jobs().cancel(cancel(*id)).await?;
    }
    acknowledged.extend(streamed);
    let done = fleet.quiet(PATIENCE).await?;
    ensure!(done.lost == 0, "{} sessions were lost", done.lost);
    let own = clients::connect(grid, 1).await?.remove(0);
    check::submits(grid, own.clone(), &acknowledged).await?;
    check::ends_at_least(grid, own, done.accepted).await?;
    Ok(seconds)
}

/// Submits jobs one by one until it is told to stop; their numbers and names.
async fn stream(client: client::Grid, over: Arc<AtomicBool>) -> anyhow::Result<Vec<(u64, String)>> {
    let mut stream = client.jobs().stream();
    let mut acknowledged = Vec::new();
    while !over.load(Ordering::Relaxed) {
        for _ in 0..4 {
            let number = stream.submit(clients::job(String::new())).await?;
            ensure!(number > 0, "numbers begin at 1");
        }
        while let Some(decided) = stream.next().await? {
            let job = decided.job.map_err(|refused| anyhow::anyhow!("refused: {}", refused.message))?;
            acknowledged.push((job, String::new()));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stream.close().await?;
    Ok(acknowledged)
}

/// Waits until ends are acknowledged.
async fn ends_arrive(fleet: &Fleet) -> anyhow::Result<()> {
    let (before, start) = (fleet.now().accepted, Instant::now());
    while fleet.now().accepted == before {
        ensure!(start.elapsed() < PATIENCE, "no task ends any more");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
