//! `millgrid`: the command line.
//!
//! A verb gets its arguments and a [`scope::Scope`], writes its results to stdout and everything else to
//! stderr, and ends with an exit code or a [`failure::Failure`].

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod config;
mod dev;
mod diagnosis;
mod failure;
mod follow;
mod globals;
mod grammar;
mod identity;
mod outcome;
mod output;
mod progress;
mod s3;
mod scope;
mod submission;
mod tail;
mod terminal;
mod verbs;
mod view;

use std::{io::IsTerminal, process::ExitCode};

use clap::{CommandFactory, FromArgMatches, error::ErrorKind};
use tracing_subscriber::EnvFilter;

use crate::{
    failure::Failure,
    globals::{Format, Globals},
    scope::Scope,
    verbs::{
        cancel, cluster, cp, explain, job, license, logs, ls, queue, retry, run, show, submit, version, wait, worker,
    },
};

/// A batch-job grid that says why
#[derive(Debug, Clone, clap::Parser)]
#[command(
    name = "millgrid",
    version,
    subcommand_required = true,
    arg_required_else_help = false,
    disable_help_subcommand = true,
    max_term_width = 120,
    before_help = "Examples:
  millgrid dev                                         # a grid on this machine
  millgrid run -- echo hello                           # run, mirror output and exit code
  millgrid submit --array 0-99 -- ./sim {index}        # prints the job's number
  millgrid ls   millgrid explain 42   millgrid logs -f 42"
)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Verb {
    /// Submit a job, and print its number
    Submit(Box<submit::Args>),
    /// Submit, show what it writes, and exit as it does
    Run(Box<run::Args>),
    /// List jobs
    Ls(ls::Args),
    /// Show jobs and tasks
    Show(show::Args),
    /// Say why a job waits, why it failed, why there
    Explain(explain::Args),
    /// Show what tasks wrote
    Logs(logs::Args),
    /// Wait for the end of jobs
    Wait(wait::Args),
    /// Cancel jobs or tasks
    Cancel(cancel::Args),
    /// Give ended tasks new attempts
    Retry(retry::Args),
    /// Hold, release, change, outputs
    Job(job::Args),
    /// Queues
    Queue(queue::Args),
    /// Licenses that tasks share
    License(license::Args),
    /// Workers
    Worker(worker::Args),
    /// Coordinators
    Cluster(cluster::Args),
    /// A whole grid on this machine
    Dev(Box<dev::Args>),
    /// Copy files to and from S3
    Cp(cp::Args),
    /// Say which release this is
    Version,
}

fn main() -> ExitCode {
    let arguments: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let command = Cli::command();
    let parsed = command.clone().try_get_matches_from(&arguments).and_then(|matches| Cli::from_arg_matches(&matches));
    let mut cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return misunderstood(&error, &command, &arguments),
    };
    if let Verb::Ls(args) = &cli.verb {
        cli.globals.quiet |= args.quiet;
    }
    log(&cli.globals);
    let json = cli.globals.output == Some(Format::Json);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let ended = match runtime {
        Ok(runtime) => {
            let ended = runtime.block_on(dispatch(cli));
            // A read of stdin may be stuck in a thread of its own.
            runtime.shutdown_background();
            ended
        }
        Err(error) => Err((Failure::local(format!("can't start threads: {error}")), json)),
    };
    match ended {
        Ok(code) => ExitCode::from(code),
        Err((failure, json)) => {
            failure.report(json);
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Runs the verb. A failure says, too, whether it is to be written as JSON.
async fn dispatch(cli: Cli) -> Result<u8, (Failure, bool)> {
    let Cli { globals, verb } = cli;
    let asked = globals.output;
    let verb = match verb {
        // It needs no configuration, and writes some.
        Verb::Dev(args) => return start_dev(*args, is_json(asked)).await.map_err(|failure| (failure, is_json(asked))),
        other => other,
    };
    let scope = Scope::new(globals).map_err(|failure| (failure, is_json(asked)))?;
    let json = is_json(scope.config.output);
    let done = match verb {
        Verb::Submit(args) => submit::run(*args, &scope).await,
        Verb::Run(args) => run::run(*args, &scope).await,
        Verb::Ls(args) => ls::run(args, &scope).await,
        Verb::Show(args) => show::run(args, &scope).await,
        Verb::Explain(args) => explain::run(args, &scope).await,
        Verb::Logs(args) => logs::run(args, &scope).await,
        Verb::Wait(args) => wait::run(args, &scope).await,
        Verb::Cancel(args) => cancel::run(args, &scope).await,
        Verb::Retry(args) => retry::run(args, &scope).await,
        Verb::Job(args) => job::run(args, &scope).await,
        Verb::Queue(args) => queue::run(args, &scope).await,
        Verb::License(args) => license::run(args, &scope).await,
        Verb::Worker(args) => worker::run(args, &scope).await,
        Verb::Cluster(args) => cluster::run(args, &scope).await,
        Verb::Cp(args) => cp::run(args, &scope).await,
        Verb::Dev(_) => unreachable!("it was dealt with above"),
        Verb::Version => version::run(scope.output),
    };
    done.map_err(|failure| (failure, json))
}

/// What fails there is told there; only its exit code comes back.
async fn start_dev(mut args: dev::Args, json: bool) -> Result<u8, Failure> {
    args.json = json;
    let code = dev::run(args).await.map_err(|error| Failure::local(error.to_string()))?;
    Ok(u8::try_from(code).unwrap_or(1))
}

fn is_json(format: Option<Format>) -> bool {
    matches!(format, Some(Format::Json | Format::Jsonl))
}

/// Help goes to stdout; a mistake becomes one line and a hint.
fn misunderstood(error: &clap::Error, command: &clap::Command, arguments: &[std::ffi::OsString]) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // Nobody reading is no error.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let words: Vec<String> = arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let (message, hint) = diagnosis::with_help(error, command, &words);
    let failure = Failure::usage("", message).hint(hint);
    failure.report(diagnosis::asks_for_json(&words));
    ExitCode::from(failure.exit_code())
}

/// Warnings of the client show by default: they are for people who wait.
fn log(globals: &Globals) {
    let level = match globals.verbose {
        _ if globals.quiet => "error",
        0 => "error,client=warn",
        1 => "warn,client=debug",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_env("MILLGRID_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .with_level(globals.verbose > 0)
        .with_target(false)
        .without_time()
        .init();
}
