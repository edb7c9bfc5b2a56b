//! The leader dies under load: how long until the next write is acknowledged.

use anyhow::{Context, ensure};
use e2e::{Grid, Options, text, whole};
use rustix::process::{Pid, Signal, kill_process};

use super::PATIENCE;
use crate::figure::{Figure, median};

/// How often it dies.
const KILLS: usize = 10;
/// Tasks that run meanwhile, each time.
const TASKS: usize = 2000;

/// From the kill to the end of a `submit` that began right after it. Each task of each array must have been
/// started once.
pub fn measure() -> anyhow::Result<Vec<Figure>> {
    let grid = Grid::start(Options::default());
    let mut seconds = Vec::new();
    for round in 0..KILLS {
        let name = format!("round-{round}");
        let script = format!("echo {{index}} >> {}", grid.file(&name).display());
        let array = grid.submit_shell(&["--array", &format!("0-{}", TASKS - 1)], &script);
        grid.wait_for_lines(&name, TASKS / 20, PATIENCE);
        let leader = grid.leader();
        let pid = grid.process(&leader)["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.and_then(Pid::from_raw).context("the leader has no pid")?;
        kill_process(pid, Signal::KILL)?;
        let submitted = grid.millgrid(["submit", "--", "true"]).ok();
        seconds.push(submitted.elapsed.as_secs_f64());
        let job = grid.wait_for_end(array, PATIENCE);
        ensure!(whole(&job["tasks"], "succeeded") == TASKS as u64, "not all succeeded: {job}");
        let mut started = grid.lines(&name);
        ensure!(started.len() == TASKS, "{} starts of {TASKS} tasks", started.len());
        started.sort_unstable();
        started.dedup();
        ensure!(started.len() == TASKS, "a task was started twice");
        ensure!(text(&grid.wait_for_end(submitted.id(), PATIENCE), "state") == "succeeded", "the submit was lost");
        grid.dev("restart", &[&leader]).ok();
        grid.check_replicas();
        eprintln!("  kill {} of {KILLS}: {:.2} s", round + 1, seconds[round]);
    }
    let worst = seconds.iter().copied().fold(0.0, f64::max);
    Ok(vec![
        Figure::at_most("failover_s", median(seconds), "s", 2.0, 1.0),
        Figure::at_most("failover_worst_s", worst, "s", 5.0, 2.0),
    ])
}
