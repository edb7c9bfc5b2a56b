//! `spawn_ratio`: tiny tasks against the bare loop that does nothing but start and wait.

use std::{fs, path::Path, process::Command, time::Instant};

use anyhow::{Context, ensure};
use e2e::{Grid, Options};

use crate::figure::{Bar, Figure};

/// What this measures.
pub const RATIO: Bar = Bar::at_least("spawn_ratio", "tasks/s", 0.6, 0.85);

/// Tasks, and processes of the bare loop.
const TASKS: u32 = 10_000;

/// The bare loop before and after the grid: the machine may have changed meanwhile.
pub fn measure() -> anyhow::Result<Vec<Figure>> {
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("spawn");
    let source = folder.path().join("spawn.c");
    fs::write(&source, include_str!("spawn.c"))?;
    let compiled = Command::new("cc").args(["-O2", "-pthread", "-o"]).arg(&program).arg(&source).status();
    ensure!(compiled.context("can't run cc")?.success(), "cc failed");

    let before = bare(&program)?;
    let grid = grid()?;
    let after = bare(&program)?;
    eprintln!("  bare {before:.0}/s, grid {grid:.0}/s, bare again {after:.0}/s");
    Ok(vec![RATIO.against(&[grid], (before + after) / 2.0)])
}

/// Processes a second.
fn bare(program: &Path) -> anyhow::Result<f64> {
    let output = Command::new(program).arg(TASKS.to_string()).output().context("can't run the bare loop")?;
    ensure!(output.status.success(), "the bare loop failed");
    let seconds: f64 = String::from_utf8_lossy(&output.stdout).trim().parse().context("it prints no seconds")?;
    Ok(f64::from(TASKS) / seconds)
}

/// Tasks a second, from the start of `submit` to the end of `wait`.
fn grid() -> anyhow::Result<f64> {
    let grid = Grid::start(Options { workers: 2, cpus: 1, ..Options::default() });
    let array = format!("0-{}", TASKS - 1);
    let start = Instant::now();
    grid.millgrid(["submit", "--wait", "--array", &array, "--", "/bin/true"]).ok();
    Ok(f64::from(TASKS) / start.elapsed().as_secs_f64())
}
