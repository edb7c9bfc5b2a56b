//! `millgrid retry`

use proto::v1::{Resources, RetryJobRequest};

use crate::{
    failure::Failure,
    globals::Format,
    grammar::{resources, selector::Selector},
    scope::{self, Scope},
    view::job::Job,
};

/// Arguments of retry.
#[derive(Debug, Clone, clap::Args)]
#[command(before_help = "Examples:
  millgrid retry 42 --failed          # new attempts of what failed
  millgrid retry 42.7 --mem 16G")]
pub struct Args {
    /// Jobs or tasks: 42, 42.7, 42.0-9, last
    #[arg(required = true, value_name = "JOB")]
    selectors: Vec<Selector>,
    /// Only tasks that failed
    #[arg(long)]
    failed: bool,
    /// Cpus of one task from now on
    #[arg(long, value_parser = resources::cpu_milli, value_name = "N", allow_hyphen_values = true)]
    cpus: Option<u64>,
    /// Memory of one task from now on
    #[arg(long, value_parser = resources::mib, value_name = "SIZE", allow_hyphen_values = true)]
    mem: Option<u64>,
    /// Gpus of one task from now on
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    gpus: Option<u32>,
    /// Scratch space of one task from now on
    #[arg(long, value_parser = resources::gib, value_name = "SIZE", allow_hyphen_values = true)]
    scratch: Option<u64>,
}

/// Gives ended tasks new attempts.
pub async fn run(args: Args, scope: &Scope) -> Result<u8, Failure> {
    let grid = scope.grid()?;
    let changed = args.cpus.is_some() || args.mem.is_some() || args.gpus.is_some() || args.scratch.is_some();
    let resources = changed.then(|| Resources {
        cpu_milli: args.cpus.unwrap_or_default(),
        memory_mib: args.mem.unwrap_or_default(),
        gpus: args.gpus.unwrap_or_default(),
        scratch_gib: args.scratch.unwrap_or_default(),
    });
    let mut rows = Vec::new();
    for selector in &args.selectors {
        let request = RetryJobRequest {
            request_id: String::new(),
            job_id: scope::job_id(&grid, selector.job).await?,
            ranges: selector.tasks.clone(),
            failed_only: args.failed,
            resources,
        };
        let job = grid.jobs().retry(request).await?;
        if scope.output.asked().is_none() {
            let queued = job.tasks.unwrap_or_default().queued;
            scope.note(&format!("job {}: {queued} of {} tasks queued", job.id, job.task_count));
        }
        rows.push(Job::from(&job));
    }
    match (scope.output.asked(), rows.as_slice()) {
        (None, _) => {}
        (Some(Format::Json), [only]) => scope.output.row(only, String::new)?,
        (Some(_), many) => scope.output.rows(many)?,
    }
    Ok(0)
}
