//! A million queued tasks: accepted, kept, cancelled.

use std::fs;

use anyhow::{Context, ensure};
use e2e::{Grid, Options, until, whole};

use super::{PATIENCE, milliseconds};
use crate::figure::{Figure, median};

/// Rounds of each; the one in the middle counts.
const ROUNDS: usize = 5;

/// Times are of the whole command, its start and its connection included.
pub fn measure() -> anyhow::Result<Vec<Figure>> {
    let grid = Grid::start(Options { workers: 1, ..Options::default() });
    // The tasks stay queued: their worker takes nothing.
    grid.millgrid(["worker", "drain", "worker-1"]).ok();
    let leader = grid.leader();
    let pid = grid.process(&leader)["pid"].as_u64().context("the leader has no pid")?;
    let array = ["submit", "--array", "0-999999", "--", "true"];
    // What the first one touches for the first time is no cost of an array.
    grid.millgrid(["submit", "--array", "0-99", "--", "true"]).ok();
    let (mut accepts, mut cancels, mut memories) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let before = resident_mib(pid)?;
        let submitted = grid.millgrid(array).ok();
        let id = submitted.id();
        until("the tasks are queued", PATIENCE, || whole(&grid.job(id)["tasks"], "queued") == 1_000_000);
        memories.push(resident_mib(pid)? - before);
        let cancelled = grid.millgrid(["cancel", &id.to_string()]).ok();
        ensure!(whole(&grid.job(id)["tasks"], "cancelled") == 1_000_000, "not all were cancelled");
        accepts.push(milliseconds(submitted.elapsed));
        cancels.push(milliseconds(cancelled.elapsed));
    }
    ensure!(grid.leader() == leader, "the leader changed");
    Ok(vec![
        Figure::at_most("array_accept_ms", median(accepts), "ms", 200.0, 50.0),
        // The first is the one that grows the process; later ones may find its memory free.
        Figure::at_most("array_memory_mib", memories[0], "MiB", 20.0, 2.0),
        Figure::at_most("array_cancel_ms", median(cancels), "ms", 300.0, 50.0),
    ])
}

/// What the process has in memory.
fn resident_mib(pid: u64) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the leader is gone")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS is no number")?;
    Ok(kib / 1024.0)
}
