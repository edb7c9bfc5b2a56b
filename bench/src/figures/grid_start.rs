//! `grid_start_ms`: from nothing to an accepted job.

use std::{process::Command, time::Instant};

use anyhow::{Context, ensure};
use e2e::{Environment, Running, bare_millgrid, eventually};
use rustix::process::Signal;

use super::{PATIENCE, milliseconds};
use crate::figure::{Bar, Figure};

/// What this measures.
pub const START: Bar = Bar::at_most("grid_start_ms", "ms", 1500.0, 800.0);

/// The one in the middle counts.
const ROUNDS: usize = 5;

/// From the start of `millgrid dev --ephemeral` to the end of the first `submit` that is accepted.
pub fn measure() -> anyhow::Result<Vec<Figure>> {
    let rounds = (0..ROUNDS).map(|_| once()).collect::<anyhow::Result<Vec<f64>>>()?;
    Ok(vec![START.measured(&rounds)])
}

fn once() -> anyhow::Result<f64> {
    let folder = tempfile::tempdir().context("can't make a folder")?;
    let state = folder.path().join("state").display().to_string();
    let command = |arguments: &[&str]| -> Command {
        let mut command = bare_millgrid(folder.path());
        command.args(arguments);
        command
    };
    let start = Instant::now();
    let mut dev = Running::start(&mut command(&["dev", "--ephemeral", "--state", &state]));
    let environment = eventually("`dev env` knows the grid", PATIENCE, || {
        let output = Running::start(&mut command(&["dev", "env", "--state", &state])).output();
        (output.code == 0).then(|| Environment::parse(&output.stdout))
    });
    Running::start(command(&["submit", "--", "true"]).envs(environment.variables())).output().ok();
    let elapsed = milliseconds(start.elapsed());
    ensure!(dev.is_running(), "`millgrid dev` ended by itself");
    dev.signal(Signal::INT);
    dev.ends_within(PATIENCE);
    Ok(elapsed)
}
