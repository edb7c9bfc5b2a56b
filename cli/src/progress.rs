//! A bar on stderr while something is waited for, when people look at it.

use std::{collections::BTreeMap, io::IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use proto::v1::Job;

/// Tasks of all jobs that are waited for, and how many have ended.
pub struct Progress {
    bar: ProgressBar,
    jobs: BTreeMap<u64, [u64; 4]>,
}

impl Progress {
    /// Hidden when stderr is no terminal, or when nobody wants it.
    pub fn new(wanted: bool) -> Self {
        let calm = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let shown = wanted && !calm && std::io::stderr().is_terminal();
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} tasks  {msg}  {elapsed}") {
            bar.set_style(style);
        }
        Self { bar, jobs: BTreeMap::new() }
    }

    /// A job has changed.
    pub fn see(&mut self, job: &Job) {
        let counts = job.tasks.unwrap_or_default();
        let ended = counts.succeeded + counts.failed + counts.cancelled + counts.skipped;
        self.jobs.insert(job.id, [job.task_count, ended, counts.running + counts.leased, counts.failed]);
        let sum = |column: usize| self.jobs.values().map(|job| job[column]).sum::<u64>();
        self.bar.set_length(sum(0));
        self.bar.set_position(sum(1));
        self.bar.set_message(format!("{} running, {} failed", sum(2), sum(3)));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
