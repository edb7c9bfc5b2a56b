use std::{io, path::PathBuf};

use crate::identity;

/// What a `dev` command ends with when it didn't do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("no grid was started with the state `{0}`; start one with `millgrid dev`")]
    NoState(PathBuf),
    #[error("`{0}` is not empty and no state of `millgrid dev`; choose an empty folder with --state")]
    ForeignFolder(PathBuf),
    #[error("`{0}` is a state that is kept, and --ephemeral would remove it; choose an empty folder with --state")]
    KeptState(PathBuf),
    #[error("a grid runs with the state `{0}` already; stop it with `millgrid dev down`, or choose another --state")]
    Running(PathBuf),
    #[error("the grid with the state `{0}` is being started or stopped; try again")]
    Busy(PathBuf),
    #[error("there is no process `{name}`; there are leader, {known}")]
    NoProcess { name: String, known: String },
    #[error("`{0}` is started by its worker; restart that one")]
    Keeper(String),
    #[error("`{0}` has no agent; --agent-only is for workers")]
    NotWorker(String),
    #[error("there is no worker `{name}`; there are {known}")]
    NoWorker { name: String, known: String },
    #[error("`{0}` is no worker; the notice of a spot reclaim is for {1}")]
    NotReclaimable(String, String),
    #[error("`{0}` doesn't run; start it with `millgrid dev restart {0}`")]
    Dead(String),
    #[error("there is no leader now")]
    NoLeader,
    #[error(
        "the port {port} is busy, and this state was made with it; free it, or begin anew with `millgrid dev reset`"
    )]
    PortBusy { port: u16 },
    #[error(
        "this state was made with --port-base {made}; leave the option out, or begin anew with `millgrid dev reset`"
    )]
    OtherPorts { made: u16 },
    #[error("no ten ports are free between {from} and {to}; choose others with --port-base")]
    NoPorts { from: u16, to: u16 },
    #[error("`{0}` is not beside this program; build all three binaries with `cargo build --release --bins`")]
    NoBinary(PathBuf),
    #[error("{name} ended ({how}); the end of {log}:\n{tail}")]
    Ended { name: String, how: String, log: PathBuf, tail: String },
    #[error("{what} within {seconds} s; logs are in {logs}")]
    TooLate { what: String, seconds: u64, logs: PathBuf },
    #[error("still alive: {0}")]
    Alive(String),
    #[error("interrupted")]
    Interrupted,
    #[error("{member} can't be bootstrapped: {message}")]
    Bootstrap { member: String, message: String },
    #[error(transparent)]
    Identity(#[from] identity::Problem),
    #[error(transparent)]
    S3(#[from] dev_s3::Failure),
    #[error("can't {what} `{path}`: {source}")]
    File { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{0}")]
    Other(String),
}

impl Failure {
    pub fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }

    /// As the table of interfaces, section 2.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::ForeignFolder(_) | Self::Keeper(_) | Self::NotWorker(_) | Self::NotReclaimable(..) => 2,
            Self::NoState(_) | Self::NoProcess { .. } | Self::NoWorker { .. } => 3,
            Self::NoLeader | Self::Busy(_) | Self::TooLate { .. } => 5,
            Self::Running(_) | Self::KeptState(_) | Self::OtherPorts { .. } | Self::Dead(_) => 6,
            Self::Interrupted => 130,
            _ => 1,
        }
    }

    fn code(&self) -> &'static str {
        match self.exit_code() {
            2 => "INVALID_ARGUMENT",
            3 => "NOT_FOUND",
            5 => "UNAVAILABLE",
            6 => "FAILED_PRECONDITION",
            130 => "CANCELLED",
            _ => "UNKNOWN",
        }
    }

    /// Writes it to stderr.
    pub fn report(&self, json: bool) {
        let message = self.to_string();
        if json {
            let error = serde_json::json!({
                "code": self.code(), "reason": "DEV", "message": message, "hint": null, "request_id": null,
            });
            eprintln!("{}", serde_json::json!({ "error": error }));
        } else {
            eprintln!("error: {message}");
        }
    }
}
