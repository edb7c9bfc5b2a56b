//! `cargo xtask wheel`: the Python package, and the programs as a second wheel beside it.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::bail;

use crate::{
    process::{self, Interrupt},
    python::Environment,
    workspace::Workspace,
};

/// Builds both into a folder.
pub fn run(workspace: &Workspace, interrupt: &Interrupt, into: &Path) -> anyhow::Result<ExitCode> {
    workspace.build_binaries(interrupt)?;
    let environment = Environment::open(&workspace.target.join("xtask/python"), interrupt)?;
    let into = env::current_dir()?.join(into);
    if !process::run(&mut build(workspace, &environment, &into), interrupt)? {
        bail!("pip can't build the wheels");
    }
    println!("{}", into.display());
    Ok(ExitCode::SUCCESS)
}

/// The command that builds both of programs that are there already.
pub fn build(workspace: &Workspace, environment: &Environment, into: &Path) -> Command {
    let mut build = environment.pip(["wheel", "--no-deps", "--wheel-dir"]);
    build.arg(into).args(packages(workspace));
    build.env("MILLGRID_BINARIES", workspace.target.join("release"));
    build
}

fn packages(workspace: &Workspace) -> [PathBuf; 2] {
    ["python", "python/programs"].map(|folder| workspace.root.join(folder))
}
