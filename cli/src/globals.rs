//! Options that may stand anywhere before `--`.

use std::{path::PathBuf, time::Duration};

use crate::grammar::duration;

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    Table,
    /// For people with wide windows.
    Wide,
    /// One document.
    Json,
    /// One document a line.
    Jsonl,
    /// With a header.
    Csv,
    /// Identifiers alone, one a line.
    Id,
}

/// The global options, as flags or environment gave them.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Globals {
    /// How to write results
    #[arg(short, long, global = true, value_enum, env = "MILLGRID_OUTPUT", hide_env = true, value_name = "FORMAT")]
    pub output: Option<Format>,
    /// How long to try in all; 30s, and no limit for wait, run and logs -f
    #[arg(long, global = true, env = "MILLGRID_TIMEOUT", hide_env = true, value_parser = duration::parse, value_name = "TIME", allow_hyphen_values = true)]
    pub timeout: Option<Duration>,
    /// Which grid of the configuration to use
    #[arg(long, global = true, env = "MILLGRID_CONTEXT", hide_env = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Coordinators, comma-separated https URLs
    #[arg(long, global = true, env = "MILLGRID_ENDPOINT", hide_env = true, value_name = "URL,...")]
    pub endpoint: Option<String>,
    /// The grid's certificate authority, PEM
    #[arg(long, global = true, env = "MILLGRID_CA", hide_env = true, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Your certificate, PEM
    #[arg(long, global = true, env = "MILLGRID_CERT", hide_env = true, value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// The key to it, PEM
    #[arg(long, global = true, env = "MILLGRID_KEY", hide_env = true, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Say more on stderr; twice: everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count, env = "MILLGRID_VERBOSE", hide_env = true)]
    pub verbose: u8,
    /// Say nothing on stderr but errors
    #[arg(short, long, global = true, env = "MILLGRID_QUIET", hide_env = true, value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub quiet: bool,
}

/// A value of the environment that is set but empty counts as none.
pub fn given<T: AsRef<std::ffi::OsStr>>(value: &Option<T>) -> Option<&T> {
    value.as_ref().filter(|value| !value.as_ref().is_empty())
}
