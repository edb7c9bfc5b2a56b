//! `millgrid wait`

use std::collections::BTreeMap;

use proto::v1::{Job, ListTasksRequest, Task, WatchJobsRequest};

use crate::{
    failure::Failure,
    globals::Format,
    grammar::selector::Selector,
    grammar::words::Word,
    outcome::{self, Outcome},
    progress::Progress,
    scope::{self, Scope},
    view,
};

/// Jobs that one watch may name.
const MAX_JOBS: usize = 1000;

/// Arguments of wait.
#[derive(Debug, Clone, clap::Args)]
#[command(before_help = "Examples:
  millgrid wait 42 43
  millgrid wait --timeout 1h last
  millgrid wait --any 42 43           # the first that ends
  millgrid wait --any-outcome 42      # 0 once it has ended, however")]
pub struct Args {
    /// Jobs or tasks: 42, 42.7, 42.0-9, last
    #[arg(required = true, value_name = "JOB")]
    selectors: Vec<Selector>,
    /// End with the first that ends
    #[arg(long)]
    any: bool,
    /// Exit with 0 once all have ended, however
    #[arg(long)]
    any_outcome: bool,
}

/// Something that is waited for: a job, or some of its tasks.
struct Awaited {
    selector: Selector,
    job: u64,
    ended: Option<Outcome>,
}

/// Waits for the end of jobs and tasks.
pub async fn run(args: Args, scope: &Scope) -> Result<u8, Failure> {
    let grid = scope.grid()?;
    let mut awaited = Vec::new();
    for selector in args.selectors {
        let job = scope::job_id(&grid, selector.job).await?;
        awaited.push(Awaited { selector, job, ended: None });
    }
    let mut ids: Vec<u64> = awaited.iter().map(|one| one.job).collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.len() > MAX_JOBS {
        return Err(Failure::usage("", format!("{} jobs, {MAX_JOBS} at most at once", ids.len())));
    }
    let mut newest = BTreeMap::new();
    for id in &ids {
        let job = scope::job(&grid, *id).await?;
        if job.held && !outcome::job_ended(&job) {
            scope.note(&format!("job {id} is held; let it go with `millgrid job release {id}`"));
        }
        newest.insert(*id, job);
    }
    let waiting = wait(&grid, &mut awaited, &mut newest, args.any, scope);
    tokio::select! {
        waited = waiting => waited.map_err(|failure| still_going(failure, &ids))?,
        () = interrupt() => return Err(interrupted(&ids)),
    }
    show(&awaited, &newest, args.any, scope)?;
    if args.any_outcome {
        return Ok(0);
    }
    let outcomes = awaited.iter().filter_map(|one| one.ended);
    let decisive = if args.any { outcomes.min() } else { outcomes.max() };
    Ok(decisive.unwrap_or(Outcome::Succeeded).exit_code())
}

async fn wait(
    grid: &client::Grid,
    awaited: &mut [Awaited],
    newest: &mut BTreeMap<u64, Job>,
    any: bool,
    scope: &Scope,
) -> Result<(), Failure> {
    let mut progress = Progress::new(!scope.globals.quiet);
    newest.values().for_each(|job| progress.see(job));
    let job_ids: Vec<u64> = newest.keys().copied().collect();
    let tasks = awaited.iter().any(|one| !one.selector.tasks.is_empty());
    let mut watch = grid.jobs().watch(WatchJobsRequest { job_ids: job_ids.clone(), tasks, ..Default::default() });
    let mut changed = job_ids;
    loop {
        for one in awaited.iter_mut().filter(|one| one.ended.is_none() && changed.contains(&one.job)) {
            one.ended = outcome_of(grid, &one.selector, newest.get(&one.job)).await?;
            if one.ended.is_some() && one.selector.tasks.is_empty() {
                // The watch doesn't carry what failed.
                let job = scope::job(grid, one.job).await?;
                one.ended = Some(Outcome::of_job(&job));
                newest.insert(one.job, job);
            }
            if any && one.ended.is_some() {
                return Ok(());
            }
        }
        if awaited.iter().all(|one| one.ended.is_some()) {
            return Ok(());
        }
        let message = watch.next().await?;
        changed = message.jobs.iter().map(|job| job.id).chain(message.tasks.iter().map(|task| task.job_id)).collect();
        for job in message.jobs {
            progress.see(&job);
            newest.insert(job.id, job);
        }
    }
}

/// None while it hasn't ended.
async fn outcome_of(grid: &client::Grid, selector: &Selector, job: Option<&Job>) -> Result<Option<Outcome>, Failure> {
    let Some(job) = job else { return Ok(None) };
    if selector.tasks.is_empty() {
        return Ok(outcome::job_ended(job).then(|| Outcome::of_job(job)));
    }
    let request = ListTasksRequest { job_id: job.id, ranges: selector.tasks.clone(), ..ListTasksRequest::default() };
    let mut outcome = Some(Outcome::Succeeded);
    let pages = grid.jobs().each_page_of_tasks(request, |tasks: Vec<Task>| {
        for task in &tasks {
            let ended = outcome::task_ended(task).then(|| Outcome::of_task(task));
            outcome = outcome.and_then(|sofar| ended.map(|ended| sofar.max(ended)));
        }
        outcome.is_some()
    });
    pages.await?;
    Ok(outcome)
}

fn show(awaited: &[Awaited], jobs: &BTreeMap<u64, Job>, any: bool, scope: &Scope) -> Result<(), Failure> {
    let ended = |one: &&Awaited| !any || one.ended.is_some();
    let rows: Vec<view::job::Job> =
        awaited.iter().filter(ended).filter_map(|one| jobs.get(&one.job)).map(view::job::Job::from).collect();
    match (scope.output.asked(), rows.as_slice()) {
        (None, _) => {}
        (Some(Format::Json), [only]) if awaited.len() == 1 => scope.output.row(only, String::new)?,
        (Some(_), _) => scope.output.rows(&rows)?,
    }
    let remarks = scope.output.asked().is_none_or(|format| matches!(format, Format::Table | Format::Wide | Format::Id));
    for job in awaited.iter().filter(ended).filter_map(|one| jobs.get(&one.job)).filter(|job| outcome::job_ended(job)) {
        if let Some(why) = why(job).filter(|_| remarks) {
            scope.note(&why);
        }
    }
    Ok(())
}

/// Waits for the end of one job, and gets it with what failed.
pub async fn for_job(grid: &client::Grid, id: u64, mut changed: impl FnMut(&Job)) -> Result<Job, Failure> {
    let request = WatchJobsRequest { job_ids: vec![id], ..Default::default() };
    let mut watch = grid.jobs().watch(request);
    loop {
        let message = watch.next().await?;
        message.jobs.iter().for_each(&mut changed);
        if message.jobs.last().is_some_and(outcome::job_ended) {
            return scope::job(grid, id).await;
        }
    }
}

/// One line on why a job didn't succeed; none where the task has said all by its exit code.
pub fn why(job: &Job) -> Option<String> {
    let outcome = Outcome::of_job(job);
    let own_code = job.task_count == 1 && job.cause() == proto::v1::Cause::ExitCode;
    if outcome == Outcome::Succeeded || own_code {
        return None;
    }
    let state = job.state().word().unwrap_or_default();
    let failure = job.failures.first();
    let (cause, signal) = failure.map_or((job.cause(), job.signal), |failure| (failure.cause(), failure.signal));
    let signal = if signal == 0 { String::new() } else { format!(" {signal}") };
    let cause = cause.word().unwrap_or_default();
    let detail = failure.map(|failure| failure.detail.as_str()).filter(|detail| !detail.is_empty());
    let detail = detail.or(Some(job.reason.as_str()).filter(|reason| !reason.is_empty()));
    let detail = detail.map(|detail| format!(": {detail}")).unwrap_or_default();
    let cause = if cause.is_empty() || cause == state { String::new() } else { format!(" ({cause}{signal})") };
    let count = job.tasks.unwrap_or_default().failed;
    let of =
        if job.task_count > 1 && count > 0 { format!(", {count} of {} tasks", job.task_count) } else { String::new() };
    Some(format!("job {} {state}{cause}{of}{detail}", job.id))
}

/// Ends when the user presses Ctrl-C, or somebody asks this process to end.
pub async fn interrupt() {
    let terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
    match terminate {
        Ok(mut terminate) => {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        }
        Err(_) => {
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}

/// The end of `--timeout` is told as what it means for a job.
pub fn still_going(failure: Failure, ids: &[u64]) -> Failure {
    match failure {
        Failure::Grid(client::Error::TimedOut { .. }) => {
            let list: Vec<String> = ids.iter().map(u64::to_string).collect();
            let (what, have, go) = if ids.len() == 1 { ("job", "has", "it goes") } else { ("jobs", "have", "they go") };
            let message = format!("{what} {} {have} not ended within `--timeout`", list.join(", "));
            Failure::timed_out(message).hint(format!("{go} on; see `millgrid explain {}`", list[0]))
        }
        other => other,
    }
}

/// The job goes on, and how to stop it.
pub fn interrupted(ids: &[u64]) -> Failure {
    let list: Vec<String> = ids.iter().map(u64::to_string).collect();
    let (what, go) = if ids.len() == 1 { ("job", "goes") } else { ("jobs", "go") };
    let hint = format!("{what} {} {go} on; cancel with `millgrid cancel {}`", list.join(", "), list.join(" "));
    Failure::Interrupted { hint }
}
