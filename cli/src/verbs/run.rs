//! `millgrid run`

use proto::v1::LogStream;

use super::submit;
use crate::{
    failure::Failure,
    follow::{self, Selection},
    scope::{self, Scope},
    submission::{
        build::{self, Words},
        options::Options,
    },
};

/// Arguments of run.
#[derive(Debug, Clone, clap::Args)]
#[command(
    next_help_heading = "Job",
    override_usage = "millgrid run [OPTIONS] -- COMMAND...\n       millgrid run [OPTIONS] SCRIPT|- [ARGUMENTS]...",
    before_help = "Examples:
  millgrid run -- make
  millgrid run --cpus 4 --mem 8G -- ./solve
  millgrid run --array 0-9 -- echo {index}"
)]
pub struct Args {
    #[command(flatten)]
    options: Options,
    /// Name of this request: the same again is the same job
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// A script that travels along (- is stdin), and its arguments
    #[arg(value_name = "SCRIPT")]
    script: Vec<String>,
    /// The command to run on a worker
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Submits, mirrors what the tasks write, and exits as they do.
pub async fn run(args: Args, scope: &Scope) -> Result<u8, Failure> {
    let words = Words { script: args.script, command: args.command };
    let mut built = build::build(args.options, words, scope.config.queue.as_deref())?;
    let spec = &mut built.spec;
    // What is staged lies in the attempt's own directory, so that a task with it starts there.
    let staged = !(spec.inputs.is_empty() && spec.files.is_empty() && spec.outputs.is_empty());
    if scope.config.dev && spec.chdir.is_empty() && !staged {
        spec.chdir = current_directory()?;
    }
    let grid = scope.grid()?;
    let job = submit::send(built, args.request_id, &grid).await?;
    if scope.globals.verbose > 0 {
        scope.note(&format!("job {}", job.id));
    }
    if job.held {
        scope.note(&format!("job {0} is held; let it go with `millgrid job release {0}`", job.id));
    }
    let selection = Selection {
        stream: LogStream::Unspecified,
        attempt: 0,
        // With a format asked for, stdout is for the job's own record.
        all_to_stderr: scope.output.asked().is_some(),
        quiet: scope.globals.quiet,
    };
    let following = async {
        let ended = follow::job(&grid, &job, &selection, |_| {}).await?;
        scope::job(&grid, ended.id).await
    };
    let ended = submit::interruptible(&job, following).await?;
    submit::finish(&ended, scope)
}

/// Tasks of a grid on this machine see the caller's files.
fn current_directory() -> Result<String, Failure> {
    let here =
        std::env::current_dir().map_err(|error| Failure::local(format!("there is no current directory: {error}")))?;
    here.into_os_string().into_string().map_err(|path| Failure::local(format!("the path {path:?} is not UTF-8")))
}
