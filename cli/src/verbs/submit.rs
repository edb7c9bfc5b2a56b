//! `millgrid submit`

use clap::builder::FalseyValueParser;
use proto::v1::{Dependency, Job, JobSpec, LogStream, PlanJobsRequest, SubmitJobRequest};

use super::wait;
use crate::{
    failure::Failure,
    follow::{self, Selection},
    globals::Format,
    grammar::selector::JobRef,
    outcome::Outcome,
    output,
    progress::Progress,
    scope::{self, Scope},
    submission::{
        build::{self, Built, Words},
        options::Options,
        upload,
    },
    view,
};

/// Arguments of submit.
#[derive(Debug, Clone, clap::Args)]
#[command(
    next_help_heading = "Job",
    override_usage = "millgrid submit [OPTIONS] -- COMMAND...\n       millgrid submit [OPTIONS] SCRIPT|- [ARGUMENTS]...",
    before_help = "Examples:
  millgrid submit -- python train.py --lr 0.1
  millgrid submit --cpus 4 --mem 8G --time 1h --retries 3 script.sh
  millgrid submit --array 0-999%50 -- ./sim --seed {index}
  millgrid submit --each-line urls.txt -- ./get {line}
  millgrid submit --in s3://b/in/{index}.fq:reads.fq --out 'res/*.bam=s3://b/out/{job}/{index}/' -- ./align reads.fq
  millgrid submit --after 41,42 -- ./merge
  millgrid submit --retries 3 --retry-on exit_code=75,signal --mem 8G --mem-growth 1.5..32G -- ./fit
  millgrid submit --constraint architecture=x86_64 --prefer lifecycle=spot --license matlab -- ./solve"
)]
pub struct Args {
    #[command(flatten)]
    options: Options,
    /// Name of this request: the same again is the same job
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// Submit nothing: check, and say what fits where
    #[arg(long)]
    plan: bool,
    /// Wait for the end, and exit as the job does
    #[arg(long, env = "MILLGRID_SUBMIT_WAIT", hide_env = true, value_parser = FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    wait: bool,
    /// Wait, and show what the tasks write
    #[arg(long, env = "MILLGRID_SUBMIT_FOLLOW", hide_env = true, value_parser = FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    follow: bool,
    /// A script that travels along (- is stdin), and its arguments
    #[arg(value_name = "SCRIPT")]
    script: Vec<String>,
    /// The command to run on a worker
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Submits, and waits if asked to.
pub async fn run(args: Args, scope: &Scope) -> Result<u8, Failure> {
    let words = Words { script: args.script, command: args.command };
    let built = build::build(args.options, words, scope.config.queue.as_deref())?;
    let grid = scope.grid()?;
    if args.plan {
        return plan(built, &grid, scope).await;
    }
    let job = send(built, args.request_id, &grid).await?;
    if job.duplicate {
        scope.note(&format!("this request was accepted before, as job {}", job.id));
    }
    if !args.wait && !args.follow {
        announce(&job, scope)?;
        return Ok(0);
    }
    match scope.output.asked() {
        Some(Format::Json | Format::Jsonl | Format::Csv) => {}
        _ if args.follow => scope.note(&format!("job {}", job.id)),
        _ => announce(&job, scope)?,
    }
    let ended = if args.follow {
        let selection = Selection {
            stream: LogStream::Unspecified,
            attempt: 0,
            all_to_stderr: scope.output.asked().is_some(),
            quiet: scope.globals.quiet,
        };
        interruptible(&job, async {
            let ended = follow::job(&grid, &job, &selection, |_| {}).await?;
            scope::job(&grid, ended.id).await
        })
        .await?
    } else {
        let mut progress = Progress::new(!scope.globals.quiet);
        interruptible(&job, wait::for_job(&grid, job.id, |job| progress.see(job))).await?
    };
    finish(&ended, scope)
}

/// Resolves what only the grid knows, stores what the job refers to, and submits it.
pub async fn send(built: Built, request_id: Option<String>, grid: &client::Grid) -> Result<Job, Failure> {
    if request_id.as_deref() == Some("") {
        return Err(Failure::usage("request-id", "it is empty").hint("leave it out, and one is drawn"));
    }
    let Built { spec, chunks, after_last } = built;
    let spec = with_last(spec, after_last, grid).await?;
    upload::upload(grid, chunks).await?;
    let request_id = request_id.unwrap_or_else(client::request_id);
    Ok(grid.jobs().submit(SubmitJobRequest { request_id, spec: Some(spec) }).await?)
}

async fn with_last(mut spec: JobSpec, dependencies: Vec<Dependency>, grid: &client::Grid) -> Result<JobSpec, Failure> {
    if !dependencies.is_empty() {
        let job_id = scope::job_id(grid, JobRef::Last).await?;
        spec.after.extend(dependencies.into_iter().map(|dependency| Dependency { job_id, ..dependency }));
    }
    Ok(spec)
}

/// The job's number alone where programs read; for people what to do next.
fn announce(job: &Job, scope: &Scope) -> Result<(), Failure> {
    let out = scope.output;
    let human = out.asked().is_none_or(|format| format == Format::Table) && out.on_terminal();
    match out.asked() {
        _ if human => {
            let tasks = if job.task_count == 1 { "1 task".to_owned() } else { format!("{} tasks", job.task_count) };
            output::line(&format!("job {} ({tasks}, queue {})", job.id, job.queue))?;
            scope.note(&format!("next: millgrid logs -f {0}   millgrid explain {0}   millgrid wait {0}", job.id));
            Ok(())
        }
        None | Some(Format::Id) => output::line(&job.id.to_string()),
        Some(_) => out.row(&view::job::Job::from(job), || view::job::screen(job)),
    }
}

/// Shows an ended job to programs that asked for it, says to people why it failed, and exits as it does.
pub fn finish(job: &Job, scope: &Scope) -> Result<u8, Failure> {
    let outcome = Outcome::of_job(job);
    match scope.output.asked() {
        Some(Format::Json | Format::Jsonl | Format::Csv) => {
            scope.output.row(&view::job::Job::from(job), String::new)?;
        }
        _ => {
            if let Some(why) = wait::why(job) {
                eprintln!("error: {}", crate::terminal::one_line(&why));
            }
        }
    }
    Ok(outcome.exit_code())
}

/// Waits for the end; Ctrl-C ends the waiting alone.
pub async fn interruptible<T>(job: &Job, waiting: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::select! {
        ended = waiting => ended.map_err(|failure| wait::still_going(failure, &[job.id])),
        () = wait::interrupt() => Err(wait::interrupted(&[job.id])),
    }
}

async fn plan(built: Built, grid: &client::Grid, scope: &Scope) -> Result<u8, Failure> {
    let spec = with_last(built.spec, built.after_last, grid).await?;
    let mut answer = grid.jobs().plan(PlanJobsRequest { specs: vec![spec] }).await?;
    let plan = answer.plans.pop().ok_or_else(|| Failure::local("the grid sent an empty plan"))?;
    if !plan.infeasible.is_empty() {
        return Err(Failure::infeasible(plan.infeasible));
    }
    let view = view::plan::Plan::from(&plan);
    scope.output.one(&view, "", || view.screen())?;
    Ok(0)
}
