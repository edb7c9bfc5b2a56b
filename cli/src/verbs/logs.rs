//! `millgrid logs`

use proto::v1::{ListTasksRequest, LogStream};

use crate::{
    failure::Failure,
    follow::{self, Printer, Selection},
    grammar::selector::Selector,
    scope::{self, Scope},
    tail,
};

/// Arguments of logs.
#[derive(Debug, Clone, clap::Args)]
#[command(before_help = "Examples:
  millgrid logs 42                    # both streams, each to its own
  millgrid logs -f 42.7
  millgrid logs 42 --stderr --tail 20 --attempt 1")]
pub struct Args {
    /// Jobs or tasks: 42, 42.7, 42.0-9, last
    #[arg(required = true, value_name = "JOB")]
    selectors: Vec<Selector>,
    /// Go on until the tasks have ended, through retries
    #[arg(short, long)]
    follow: bool,
    /// Standard output alone
    #[arg(long, conflicts_with = "stderr")]
    stdout: bool,
    /// Standard error alone
    #[arg(long)]
    stderr: bool,
    /// Only the last lines
    #[arg(long, value_name = "N")]
    tail: Option<usize>,
    /// Of this attempt [default: the latest]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    attempt: Option<u32>,
}

/// Shows what tasks wrote.
pub async fn run(args: Args, scope: &Scope) -> Result<u8, Failure> {
    let stream = match (args.stdout, args.stderr) {
        (true, _) => LogStream::Stdout,
        (_, true) => LogStream::Stderr,
        _ => LogStream::Unspecified,
    };
    let selection = Selection {
        stream,
        attempt: args.attempt.unwrap_or_default(),
        all_to_stderr: false,
        quiet: scope.globals.quiet,
    };
    let grid = scope.grid()?;
    let mut whole = Vec::new();
    let mut tasks = Vec::new();
    for selector in &args.selectors {
        let job = scope::job(&grid, scope::job_id(&grid, selector.job).await?).await?;
        if args.follow && selector.tasks.is_empty() && args.tail.is_none() && args.attempt.is_none() {
            whole.push(job);
            continue;
        }
        let request =
            ListTasksRequest { job_id: job.id, ranges: selector.tasks.clone(), ..ListTasksRequest::default() };
        let before = tasks.len();
        let pages = grid.jobs().each_page_of_tasks(request, |page| {
            // A task that was never given to a worker has written nothing.
            tasks.extend(
                page.iter().filter(|task| task.attempt > 0 || args.follow).map(|task| (task.job_id, task.index)),
            );
            true
        });
        pages.await?;
        if tasks.len() == before {
            scope.note(&format!("{selector} has written nothing yet; `millgrid explain {selector}` says why it waits"));
        }
        // Prefixes depend on the array, not on how much of it has started.
        if job.task_count > 1 && selector.single().is_none() && tasks.len() == before + 1 {
            tasks.push((0, 0));
        }
    }
    let several = tasks.len() + whole.len() > 1;
    tasks.retain(|(job, _)| *job != 0);
    let mut side_by_side = Vec::new();
    for (job, index) in tasks {
        let mut request = follow::request(job, index, &selection, args.follow);
        if let Some(lines) = args.tail {
            let mut printer = Printer::new(job, index, several, &selection);
            tail::print(&grid, &mut request, lines, &mut printer).await?;
        }
        if args.follow {
            side_by_side.push(request);
        } else if args.tail.is_none() {
            // One after the other, so that the order is that of the array.
            follow::tasks(&grid, vec![request], several, &selection).await?;
        }
    }
    follow::tasks(&grid, side_by_side, several, &selection).await?;
    for job in whole {
        follow::job(&grid, &job, &selection, |_| {}).await?;
    }
    Ok(0)
}
