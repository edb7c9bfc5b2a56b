//! `millgrid cancel`

use proto::v1::CancelJobRequest;

use crate::{
    failure::Failure,
    globals::Format,
    grammar::selector::Selector,
    scope::{self, Scope},
    view::job::Job,
};

/// Arguments of cancel.
#[derive(Debug, Clone, clap::Args)]
#[command(before_help = "Examples:
  millgrid cancel 42
  millgrid cancel 42 --cascade        # and all that waits for it
  millgrid cancel 42.0-9 43 --reason 'wrong reference'")]
pub struct Args {
    /// Jobs or tasks: 42, 42.7, 42.0-9, last
    #[arg(required = true, value_name = "JOB")]
    selectors: Vec<Selector>,
    /// Why; shown with the job
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Also all jobs that wait for these, whatever for, and those that wait for them
    #[arg(long)]
    cascade: bool,
}

/// Cancels jobs and tasks; what had ended stays as it is.
pub async fn run(args: Args, scope: &Scope) -> Result<u8, Failure> {
    if let Some(part) = args.selectors.iter().find(|selector| args.cascade && !selector.tasks.is_empty()) {
        return Err(Failure::usage("cascade", format!("`{part}` names tasks, and jobs wait for whole jobs"))
            .hint("cancel the job, or leave `--cascade` out"));
    }
    let grid = scope.grid()?;
    let reason = args.reason.unwrap_or_default();
    let mut rows = Vec::new();
    for selector in &args.selectors {
        let request = CancelJobRequest {
            request_id: String::new(),
            job_id: scope::job_id(&grid, selector.job).await?,
            ranges: selector.tasks.clone(),
            reason: reason.clone(),
            cascade: args.cascade,
        };
        let answer = grid.jobs().cancel(request).await?;
        let job = answer.job.unwrap_or_default();
        if !answer.note.is_empty() {
            scope.note(&answer.note);
        } else if scope.output.asked().is_none() {
            let tasks = if answer.cancelled == 1 { "1 task" } else { &format!("{} tasks", answer.cancelled) };
            scope.note(&format!("job {}: {tasks} cancelled", job.id));
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
