//! What an operator says: by file, environment and flags; each value checked at start.

mod check;
mod sources;

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use scheduler::Pool;

pub use sources::{Arguments, load};

/// The configuration of one coordinator, checked.
#[derive(Clone)]
pub struct Config {
    /// The member's name; the common name of its certificate is the same.
    pub name: String,
    /// The folder that this member alone writes: identity, log, snapshots, history.
    pub data_dir: PathBuf,
    /// Where clients and workers are served.
    pub listen: SocketAddr,
    /// Where the other coordinators are served.
    pub peer_listen: SocketAddr,
    /// Where `/livez`, `/readyz`, `/leaderz` and `/metrics` are served.
    pub http_listen: SocketAddr,
    /// The URL by which clients and workers reach this member.
    pub address: String,
    /// `host:port` by which the other members reach this one.
    pub peer_address: String,
    /// PEM file of the grid's own certificate authority.
    pub ca: PathBuf,
    /// PEM file of this member's certificate.
    pub cert: PathBuf,
    /// PEM file of its private key.
    pub key: PathBuf,
    /// How soon a silent leader is replaced.
    pub election: Election,
    /// Bucket and prefix of the grid's own objects, e.g. `s3://dev/.millgrid/`. Empty: none, then logs of ended
    /// tasks can't be read.
    pub grid_prefix: String,
    /// Where S3 is; absent: AWS.
    pub s3_endpoint: Option<String>,
    /// The largest workers that could ever be launched; a job that fits none is refused. Empty: nothing is refused.
    pub pools: Vec<Pool>,
    /// Connections served at one time on each port.
    pub max_connections: usize,
    /// Applied commands between two snapshots, so that a restart is bounded.
    pub snapshot_commands: u64,
    /// Applied bytes between two snapshots.
    pub snapshot_bytes: u64,
    /// Entries of the log that are kept behind a snapshot, so that a follower that was away catches up by them.
    pub log_entries_kept: u64,
    /// Ended jobs that are to move to the history wait so long for company: few large segments are read sooner than many
    /// small ones.
    pub history_pause: Duration,
    /// The newest rules that this member follows. Older ones than this release knows keep the way back to the release
    /// before open: the grid stays at them as long as one member does.
    pub newest_rules: u32,
    /// What is logged, e.g. `info` or `coordinator=debug`.
    pub log: String,
    /// How it is logged.
    pub log_format: LogFormat,
}

/// How soon a silent leader is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Election {
    /// 1 to 2 s.
    Default,
    /// 0.5 to 1 s, for members on one machine.
    Fast,
}

/// How the process logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// A line for people.
    Text,
    /// An object a line, for machines.
    Json,
}

/// Why a configuration isn't one. The message names the key and the way out.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// A file, a variable or a flag that can't be read, an unknown or a missing key.
    #[error("{0}")]
    Unreadable(String),
    /// A value that can't be used.
    #[error("`{field}`: {problem}; {hint}")]
    Value {
        /// The key.
        field: &'static str,
        /// What is wrong.
        problem: String,
        /// The way out.
        hint: &'static str,
    },
}

/// As it is logged: the private key's content is nowhere in here, and addresses lose what may be a password.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("name", &self.name)
            .field("data_dir", &self.data_dir)
            .field("listen", &self.listen)
            .field("peer_listen", &self.peer_listen)
            .field("http_listen", &self.http_listen)
            .field("address", &self.address)
            .field("peer_address", &self.peer_address)
            .field("ca", &self.ca)
            .field("cert", &self.cert)
            .field("key", &"(redacted)")
            .field("election", &self.election)
            .field("grid_prefix", &self.grid_prefix)
            .field("s3_endpoint", &self.s3_endpoint.as_deref().map(redacted))
            .field("pools", &self.pools.len())
            .field("max_connections", &self.max_connections)
            .field("snapshot_commands", &self.snapshot_commands)
            .field("snapshot_bytes", &self.snapshot_bytes)
            .field("log_entries_kept", &self.log_entries_kept)
            .field("history_pause", &self.history_pause)
            .field("newest_rules", &self.newest_rules)
            .field("log", &self.log)
            .field("log_format", &self.log_format)
            .finish()
    }
}

fn redacted(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}://(redacted)@{}", &url[..scheme], &url[at + 1..]),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests;
