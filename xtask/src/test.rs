//! `cargo xtask test`: everything CI runs, in one order, with one count at the end.

pub mod leftovers;
mod python;
mod steps;

use std::{
    fs,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

use crate::{process::Interrupt, workspace::Workspace};

/// What to run.
#[derive(clap::Args)]
pub struct Options {
    /// Run this step alone; may be given several times
    #[arg(long, value_name = "STEP")]
    only: Vec<String>,
    /// Only tests with this in their name (steps `units`, `e2e` and `python`)
    filter: Option<String>,
}

/// What a step came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tests and checks that held.
    pub passed: u64,
    /// Those that did not.
    pub failed: u64,
}

/// Runs the steps; the last line is `N passed, N failed`.
pub fn run(workspace: &Workspace, interrupt: &Interrupt, options: &Options) -> anyhow::Result<ExitCode> {
    for name in &options.only {
        if !steps::STEPS.iter().any(|step| step.name == name) {
            let names: Vec<&str> = steps::STEPS.iter().map(|step| step.name).collect();
            bail!("there is no step `{name}`; there are: {}", names.join(", "));
        }
    }
    let logs = workspace.target.join("xtask");
    fs::create_dir_all(&logs).with_context(|| format!("can't make {}", logs.display()))?;
    let context = steps::Surroundings { workspace, interrupt, logs: &logs, filter: options.filter.as_deref() };
    let mut total = Tally::default();
    let start = Instant::now();
    for step in &steps::STEPS {
        if !options.only.is_empty() && !options.only.iter().any(|name| name == step.name) {
            continue;
        }
        println!("== {:<10} {}", step.name, step.about);
        let begun = Instant::now();
        // A step that can't even run is a failure like any other: the rest still tells something.
        let tally = (step.run)(&context).unwrap_or_else(|error| {
            println!("   error: {error:#}");
            Tally { passed: 0, failed: 1 }
        });
        interrupt.check()?;
        total.passed += tally.passed;
        total.failed += tally.failed;
        println!("   {} passed, {} failed in {}", tally.passed, tally.failed, seconds(begun.elapsed()));
    }
    println!("all steps in {}", seconds(start.elapsed()));
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(if total.failed == 0 && total.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
