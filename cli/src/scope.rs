//! What every verb works with: the options, the configuration, and a way to the grid.

use proto::v1::GetJobRequest;
use tokio::time::Instant;

use crate::{
    config::{self, Config},
    failure::Failure,
    globals::Globals,
    grammar::selector::JobRef,
    output::Output,
};

/// The surroundings of one verb.
pub struct Scope {
    /// As given.
    pub globals: Globals,
    /// Joined from all sources.
    pub config: Config,
    /// Where results go.
    pub output: Output,
    started: Instant,
}

impl Scope {
    /// Reads the configuration; talks to nobody yet.
    pub fn new(globals: Globals) -> Result<Self, Failure> {
        let config = config::load(&globals)?;
        let output = Output::new(config.output);
        Ok(Self { globals, config, output, started: Instant::now() })
    }

    /// The grid. A given `--timeout` ends everything; else each call has the default, and streams have none.
    pub fn grid(&self) -> Result<client::Grid, Failure> {
        let settings = self.config.settings()?;
        // Waiting for it would be in vain: it starts at its user's word alone.
        if self.config.default_dev && crate::dev::default_is_stopped() {
            return Err(
                Failure::unavailable("the grid of `millgrid dev` is stopped").hint("start it with `millgrid dev`")
            );
        }
        let grid = client::Grid::connect(settings)?;
        Ok(match self.globals.timeout {
            Some(timeout) => grid.until(self.started + timeout),
            None => grid,
        })
    }

    /// A remark on stderr, unless `--quiet`.
    pub fn note(&self, text: &str) {
        crate::terminal::note(self.globals.quiet, text);
    }
}

/// The number of a job.
pub async fn job_id(grid: &client::Grid, job: JobRef) -> Result<u64, Failure> {
    match job {
        JobRef::Id(id) => Ok(id),
        JobRef::Last => Ok(grid.jobs().get(GetJobRequest { job_id: 0, last: true }).await?.id),
    }
}

/// A job by its number.
pub async fn job(grid: &client::Grid, id: u64) -> Result<proto::v1::Job, Failure> {
    Ok(grid.jobs().get(GetJobRequest { job_id: id, last: false }).await?)
}
