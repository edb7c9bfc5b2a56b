//! `millgrid ls`

use std::time::{Duration, SystemTime};

use proto::v1::{JobState, ListJobsRequest};

use crate::{
    failure::Failure,
    globals::Format,
    grammar::{duration, pairs, words},
    output::Part,
    scope::Scope,
    view,
};

/// Rows of a table, unless more are asked for.
const TABLE_ROWS: usize = 50;

/// Arguments of ls.
#[derive(Debug, Clone, clap::Args)]
#[command(before_help = "Examples:
  millgrid ls                         # mine that have not ended
  millgrid ls --all --since 2d        # everyone's, ended ones too
  millgrid ls -s running,failed -q gpu -l team=ml -o json")]
pub struct Args {
    /// Only jobs in these states
    #[arg(short, long, value_name = "STATE,...", value_delimiter = ',', value_parser = words::job_state)]
    state: Vec<JobState>,
    /// Only jobs of this queue
    #[arg(short, long)]
    queue: Option<String>,
    /// Only jobs with this label; may be repeated
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = pairs::label)]
    label: Vec<(String, String)>,
    /// Only jobs submitted since, e.g. 2d
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    since: Option<Duration>,
    /// At most so many [default: 50 in a table, all elsewhere]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Everyone's jobs, ended ones too
    #[arg(long)]
    all: bool,
    /// Say nothing on stderr but errors
    // The global `-q` gives way to the queue here.
    #[arg(long)]
    pub quiet: bool,
}

/// Lists jobs, newest first.
pub async fn run(args: Args, scope: &Scope) -> Result<u8, Failure> {
    let since = args.since.map(|since| SystemTime::now().checked_sub(since).unwrap_or(SystemTime::UNIX_EPOCH));
    let request = ListJobsRequest {
        all: args.all,
        states: args.state.iter().map(|state| i32::from(*state)).collect(),
        queue: args.queue.unwrap_or_default(),
        labels: args.label.into_iter().collect(),
        created_after: since.map(Into::into),
        ..ListJobsRequest::default()
    };
    let grid = scope.grid()?;
    let table = matches!(scope.output.format(), Format::Table | Format::Wide);
    let limit = args.limit.map(|limit| limit as usize);
    if table {
        // One more than is shown tells whether there are more.
        let shown = limit.unwrap_or(TABLE_ROWS);
        let mut jobs = grid.jobs().list_up_to(request, Some(shown + usize::from(limit.is_none()))).await?;
        let more = jobs.len() > shown;
        jobs.truncate(shown);
        let rows: Vec<view::job::Job> = jobs.iter().map(view::job::Job::from).collect();
        if rows.is_empty() {
            let all = if args.all { "" } else { "; `millgrid ls --all` shows ended ones and everyone's" };
            scope.note(&format!("no jobs{all}"));
            return Ok(0);
        }
        scope.output.rows(&rows)?;
        if more {
            scope.note(&format!("the newest {shown}; `--limit N` shows more"));
        }
        return Ok(0);
    }
    if scope.output.format() == Format::Json {
        let jobs = grid.jobs().list_up_to(request, limit).await?;
        scope.output.rows(&jobs.iter().map(view::job::Job::from).collect::<Vec<_>>())?;
        return Ok(0);
    }
    // Page by page: a million jobs need not be here at once.
    let (mut request, mut left, mut part) = (request, limit.unwrap_or(usize::MAX), Part::new(scope.output));
    loop {
        request.page_size = left.min(1000) as u32;
        let page = grid.jobs().list(request.clone()).await?;
        let rows: Vec<view::job::Job> = page.jobs.iter().take(left).map(view::job::Job::from).collect();
        part.add(&rows)?;
        left -= rows.len();
        if left == 0 || page.next_page_token.is_empty() {
            return Ok(0);
        }
        request.page_token = page.next_page_token;
    }
}
