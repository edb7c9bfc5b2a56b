//! Ten thousand workers that do nothing but keep their sessions, and what a change of leader costs them.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

use crate::{
    figure::{Bar, Figure},
    load::{
        check,
        fleet::Fleet,
        grid::{Loaded, carry},
        process::cpu_seconds,
    },
};

const CPU: Bar = Bar::at_most("sessions_cpu", "cores", 0.3, 0.1);
const BACK: Bar = Bar::at_most("sessions_back_s", "s", 30.0, 10.0);

/// What this measures.
pub const BARS: [Bar; 2] = [CPU, BACK];

const SESSIONS: u64 = 10_000;
/// Ten thousand handshakes with certificates on both sides take a while on a small machine.
const PATIENCE: Duration = Duration::from_secs(180);
const WINDOWS: usize = 3;
/// Three of the renewals' own.
const WINDOW: Duration = Duration::from_secs(9);

/// Each worker has a certificate, a connection and a session of its own, and renews it every 3 s.
pub fn measure() -> anyhow::Result<Vec<Figure>> {
    let grid = Loaded::start(0)?;
    carry(run(&grid))
}

async fn run(grid: &Loaded) -> anyhow::Result<Vec<Figure>> {
    let start = Instant::now();
    let fleet = Fleet::start(&grid.authority, &grid.endpoints, SESSIONS as usize, 1, PATIENCE).await?;
    eprintln!("  {SESSIONS} sessions opened in {:.1} s", start.elapsed().as_secs_f64());
    let (name, leader) = grid.leader()?;
    // Until each has renewed once.
    sleep(Duration::from_secs(4)).await;
    let mut cores = Vec::new();
    for _ in 0..WINDOWS {
        let (start, before, cpu) = (Instant::now(), fleet.now(), cpu_seconds(leader)?);
        sleep(WINDOW).await;
        let span = start.elapsed().as_secs_f64();
        cores.push((cpu_seconds(leader)? - cpu) / span);
        let renewed = (fleet.now().renewed - before.renewed) as f64;
        let due = SESSIONS as f64 * span / 3.0;
        ensure!(renewed > 0.9 * due, "only {renewed} of {due:.0} renewals were answered");
    }
    let pid = i32::try_from(leader).ok().and_then(Pid::from_raw).context("the leader has no pid")?;
    kill_process(pid, Signal::KILL)?;
    let back = fleet.all_renewed(PATIENCE).await?.as_secs_f64();
    let lost = fleet.now().lost;
    ensure!(lost == 0, "{lost} sessions were lost with the leader");
    grid.grid.dev("restart", &[&name]).ok();
    eprintln!("  {SESSIONS} sessions kept through a change of leader, 0 lost; {}", check::digests(grid));
    let back = BACK.measured(&[back]);
    Ok(vec![CPU.measured(&cores).only_if(back.ok), back])
}
