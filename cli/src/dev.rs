//! `millgrid dev`: a whole grid on this machine, and what one does to it.
//!
//! Each process of the grid is a process of its own, in a session of its own; this program starts them, writes down
//! who they are, and is not needed any more. Nothing restarts anything by itself.

mod bootstrap;
mod context;
mod control;
mod failure;
mod launch;
mod ports;
mod process;
mod record;
mod s3_server;
mod settings;
mod spot;
mod start;
mod state;
mod status;
mod stop;
mod tree;

use std::{path::PathBuf, time::Duration};

use clap::{Args as ClapArgs, Subcommand};

use failure::Failure;
use state::State;

/// A local grid: three coordinators, workers and an S3 endpoint.
#[derive(Debug, Clone, ClapArgs)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    start: StartArgs,
    /// Whether results and errors are JSON; the caller sets it from `--output`.
    #[arg(skip)]
    pub json: bool,
}

/// How a grid is started.
#[derive(Debug, Clone, ClapArgs)]
struct StartArgs {
    #[command(flatten)]
    state: StateArgs,
    /// Remove the state at the end; without --state it is a temporary folder
    #[arg(long)]
    ephemeral: bool,
    /// How many workers
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=64))]
    workers: u32,
    /// Cpus of each worker; all workers together have the machine's by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    worker_cpus: Option<u32>,
    /// First of the ports: gRPC here, peers at +100, HTTP at +1000, S3 at +2000; all shift together when busy
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u16).range(1024..=63000))]
    port_base: Option<u16>,
    /// Return once there is a leader and all workers have joined; `dev down` stops the grid
    #[arg(long)]
    detach: bool,
}

/// Which grid.
#[derive(Debug, Clone, Default, ClapArgs)]
struct StateArgs {
    /// The grid's folder [default: ~/.local/state/millgrid/dev]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

/// A process of the grid.
#[derive(Debug, Clone, ClapArgs)]
struct ProcessArgs {
    /// c1, c2, c3, leader, worker-1, ..., s3
    name: String,
    #[command(flatten)]
    state: StateArgs,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    /// Show the processes
    Status(StateArgs),
    /// Stop everything, tasks too
    Down(StateArgs),
    /// Print what a shell needs: eval "$(millgrid dev env)"
    Env(StateArgs),
    /// Stop everything and delete the state
    Reset(StateArgs),
    /// Kill a process without warning (SIGKILL); a worker with its keeper and tasks
    Kill {
        #[command(flatten)]
        process: ProcessArgs,
        /// The worker's agent alone: keeper and tasks go on
        #[arg(long)]
        agent_only: bool,
    },
    /// Stop what is alive of a process, and start it again on the same ports and disk
    Restart(ProcessArgs),
    /// Stop a process from running (SIGSTOP); a worker with its keeper and tasks
    Pause(ProcessArgs),
    /// Undo a pause (SIGCONT)
    Resume(ProcessArgs),
    /// Give a worker the notice that its machine is taken back, as EC2 does with a spot instance
    ///
    /// The worker gets no further tasks and returns those it hasn't started. What runs goes on, gets SIGTERM 30 s and
    /// a margin before the end, then SIGKILL, and runs again on another worker at no cost to its retries. At the end
    /// of the notice the worker is gone, with its keeper; `dev restart NAME` brings another.
    Spot {
        /// worker-1, ...
        name: String,
        /// How long the machine still lives; a short notice cuts the grace
        #[arg(long, value_name = "TIME", default_value = "120s", value_parser = spot::parse_notice)]
        notice: Duration,
        #[command(flatten)]
        state: StateArgs,
    },
    /// Serve a folder as S3
    #[command(hide = true)]
    S3Server(s3_server::ServerArgs),
}

/// The S3 endpoint of the grid in the default state.
pub struct Endpoint {
    /// e.g. `http://127.0.0.1:9070`
    pub url: String,
    /// Any would do; this is the one that it was started with.
    pub region: &'static str,
    /// Who may use it.
    pub credentials: dev_s3::Credentials,
}

/// Whether the grid that is meant where none is named was stopped, and not started again.
pub fn default_is_stopped() -> bool {
    let record = State::existing(None).and_then(|state| state.started());
    record.is_ok_and(|record| record.stopped && !record.is_alive())
}

/// Where the context `dev` keeps its objects, when such a grid was started.
pub fn s3_endpoint() -> Option<Endpoint> {
    let state = State::existing(None).ok()?;
    let record = state.started().ok()?;
    Some(Endpoint { url: record.s3_url(), region: settings::REGION, credentials: state.s3_credentials().ok()? })
}

/// Runs the command; the result is the process's exit code. What failed has been reported on stderr.
pub async fn run(args: Args) -> anyhow::Result<i32> {
    let json = args.json;
    match dispatch(args).await {
        Ok(()) => Ok(0),
        Err(failure) => {
            failure.report(json);
            Ok(failure.exit_code())
        }
    }
}

async fn dispatch(args: Args) -> Result<(), Failure> {
    let Some(command) = args.command else { return start::run(args.start).await };
    match command {
        Command::Status(state) => status::print(&State::existing(state.state)?, args.json),
        Command::Down(state) => stop::down(&State::existing(state.state)?).await,
        Command::Reset(state) => stop::reset(&State::existing(state.state)?).await,
        Command::Env(state) => status::print_env(&State::existing(state.state)?),
        Command::Kill { process, agent_only } => {
            control::kill(&State::existing(process.state.state)?, &process.name, agent_only).await
        }
        Command::Restart(process) => control::restart(&State::existing(process.state.state)?, &process.name).await,
        Command::Pause(process) => control::pause(&State::existing(process.state.state)?, &process.name).await,
        Command::Resume(process) => control::resume(&State::existing(process.state.state)?, &process.name).await,
        Command::Spot { name, notice, state } => spot::give(&State::existing(state.state)?, &name, notice),
        Command::S3Server(server) => s3_server::run(server).await,
    }
}
