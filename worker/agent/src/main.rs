//! `millgrid-worker`: the agent of one worker, and, as `millgrid-worker keeper`, the parent of its tasks.

#![deny(missing_docs)]

mod blobs;
mod config;
mod connection;
mod core_loop;
mod fork_server;
mod job_outputs;
mod keeper;
mod launch;
mod machine;
mod prepare;
mod pythons;
mod record;
mod spools;
mod spot;
mod stage;
mod standing;
mod stream;
mod sweeper;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use config::{Config, Flags, LogFormat};

/// Configuration that can't be used.
const EXIT_CONFIG: u8 = 2;

/// Runs the tasks of a Millgrid grid on this machine.
#[derive(Parser)]
#[command(name = "millgrid-worker", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Subcommand)]
enum Command {
    /// Be the parent of the tasks of the worker whose state is in a directory. Started by the agent.
    Keeper {
        /// The worker's state directory.
        #[arg(long)]
        dir: PathBuf,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.command {
        Some(Command::Keeper { dir }) => match worker_keeper::run(&dir) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                eprintln!("millgrid-worker keeper: {failure}");
                ExitCode::FAILURE
            }
        },
        None => match Config::read(&arguments.flags) {
            Ok(config) => run(config),
            Err(problem) => {
                eprintln!("millgrid-worker: {problem}");
                ExitCode::from(EXIT_CONFIG)
            }
        },
    }
}

fn run(config: Config) -> ExitCode {
    let filter = EnvFilter::try_from_env("MILLGRID_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    match config.log {
        LogFormat::Text => subscriber.init(),
        LogFormat::Json => subscriber.json().init(),
    }
    tracing::info!(config = %config.redacted(), "starts");
    match serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(config: Config) -> anyhow::Result<()> {
    // One thread decides and carries the streams: on its way through it a short task never waits for a wake-up.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Others move data; more would take cpus from the tasks.
    let staging =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("staging").enable_all().build()?;
    let served = runtime.block_on(async {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            served = core_loop::run(config, staging.handle().clone()) => served.context("the agent can't go on"),
            _ = terminate.recv() => Ok(()),
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    });
    // Tasks and their keeper go on without an agent; uploads that are cut here begin anew with the next one.
    staging.shutdown_background();
    served
}
