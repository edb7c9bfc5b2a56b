//! The project's own commands, run as `cargo xtask COMMAND`.

mod demo;
mod install;
mod process;
mod python;
mod test;
mod tidy;
mod wheel;
mod workspace;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::{process::Interrupt, workspace::Workspace};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "The project's own commands")]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a replicated grid here, run a real job on it, kill its leader in the middle, show the result
    Demo(demo::Options),
    /// Run every test that CI runs; the last line is `N passed, N failed`
    Test(test::Options),
    /// Format the sources
    Fix,
    /// Measure the figures of the README
    Bench {
        /// One figure's name; all if left out. `python`, or one of its figures: calls of functions beside Ray and Dask
        name: Option<String>,
        /// `json` for one document
        #[arg(short, long, value_parser = ["table", "json"], default_value = "table")]
        output: String,
    },
    /// Run the whole grid on one thread from a seed, with faults
    Simulate {
        /// --seed S, --seeds N, --minutes M, --plant BUG, --plant list, --twice
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Build two wheels: the Python package, and the programs for `pip install`
    Wheel {
        /// Where to put them
        #[arg(long, default_value = "dist")]
        into: PathBuf,
    },
    /// Build, and put the three binaries on the PATH
    Install {
        /// They go to PREFIX/bin
        #[arg(long, default_value = "~/.local")]
        prefix: PathBuf,
    },
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(options.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    let workspace = Workspace::open()?;
    let interrupt = Interrupt::register()?;
    match command {
        Command::Demo(options) => demo::run(&workspace, &interrupt, &options),
        Command::Test(options) => test::run(&workspace, &interrupt, &options),
        Command::Fix => process::replace(workspace.cargo(["fmt", "--all"])),
        Command::Bench { name: Some(name), output } if name.starts_with("python") => {
            python::bench(&workspace, &interrupt, &name, &output)
        }
        Command::Bench { name, output } => {
            workspace.build_binaries(&interrupt)?;
            let mut bench = workspace.cargo(["run", "--release", "--locked", "--quiet", "--package", "bench", "--"]);
            bench.args(name).args(["-o", &output]);
            process::replace(bench)
        }
        Command::Simulate { arguments } => {
            let mut simulate =
                workspace.cargo(["run", "--release", "--locked", "--quiet", "--package", "simulation", "--"]);
            simulate.args(arguments);
            process::replace(simulate)
        }
        Command::Wheel { into } => wheel::run(&workspace, &interrupt, &into),
        Command::Install { prefix } => install::run(&workspace, &interrupt, &prefix),
    }
}
