//! `cargo xtask demo`.
use crate::{process::Interrupt, workspace::Workspace};
use std::process::ExitCode;
/// Options
#[derive(clap::Args)]
pub struct Options {}
/// Runs
pub fn run(_w: &Workspace, _i: &Interrupt, _o: &Options) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not yet")
}
