//! File, then environment, then flags: the later wins.

use std::{net::SocketAddr, path::Path, path::PathBuf};

use clap::Parser;
use figment::{
    Figment,
    providers::{Env, Format, Serialized, Toml},
    value::magic::RelativePathBuf,
};
use serde::{Deserialize, Serialize};

use super::{Config, Invalid, check};

const ENVIRONMENT: &str = "MILLGRID_COORDINATOR_";

/// One of the grid's replicated coordinators.
#[derive(Parser, Debug, Clone, Default, Serialize)]
#[command(name = "millgrid-coordinator", version, about, max_term_width = 110)]
pub struct Arguments {
    /// TOML file with the keys below, written with `_`; also [[pool]].
    #[arg(long, value_name = "FILE", env = "MILLGRID_COORDINATOR_CONFIG")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// The member's name, the common name of its certificate.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The folder for identity, log, snapshots and history; one per member.
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// Where clients and workers are served [default: 127.0.0.1:7070].
    #[arg(long, value_name = "IP:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// Where the other coordinators are served [default: 127.0.0.1:7170].
    #[arg(long, value_name = "IP:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_listen: Option<String>,
    /// Where health and metrics are served [default: 127.0.0.1:8070].
    #[arg(long, value_name = "IP:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_listen: Option<String>,
    /// The URL by which clients and workers reach this member.
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// By which the other members reach this one.
    #[arg(long, value_name = "HOST:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_address: Option<String>,
    /// PEM file of the certificate authority.
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// PEM file of this member's certificate.
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// PEM file of its private key.
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// `default` (1 to 2 s) or `fast` (0.5 to 1 s).
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub election: Option<String>,
    /// Bucket and prefix of the grid's own objects, e.g. s3://bucket/.millgrid/
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grid_prefix: Option<String>,
    /// Where S3 is, if it isn't AWS.
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s3_endpoint: Option<String>,
    /// Connections served at one time on each port [default: 20000].
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<usize>,
    /// Applied commands between two snapshots [default: 500000].
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_commands: Option<u64>,
    /// Applied mebibytes between two snapshots [default: 64].
    #[arg(long, value_name = "MIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_mib: Option<u64>,
    /// Entries of the log kept behind a snapshot, for followers that were away [default: 50000].
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_entries_kept: Option<u64>,
    /// Ended jobs that are to move to the history wait so long for company [default: 60s].
    #[arg(long, value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history_pause: Option<String>,
    /// Stay at these rules, so that the release before can still take over [default: the newest].
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newest_rules: Option<u32>,
    /// What is logged, e.g. info or coordinator=debug [default: info].
    #[arg(long, value_name = "FILTER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// `text` or `json` [default: text].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_format: Option<String>,
}

/// What the sources say, before it is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub name: String,
    pub data_dir: RelativePathBuf,
    #[serde(default = "listen")]
    pub listen: String,
    #[serde(default = "peer_listen")]
    pub peer_listen: String,
    #[serde(default = "http_listen")]
    pub http_listen: String,
    pub address: String,
    pub peer_address: String,
    pub ca: RelativePathBuf,
    pub cert: RelativePathBuf,
    pub key: RelativePathBuf,
    #[serde(default = "default_word")]
    pub election: String,
    #[serde(default)]
    pub grid_prefix: String,
    #[serde(default)]
    pub s3_endpoint: Option<String>,
    #[serde(default)]
    pub pool: Vec<RawPool>,
    #[serde(default = "max_connections")]
    pub max_connections: usize,
    #[serde(default = "snapshot_commands")]
    pub snapshot_commands: u64,
    #[serde(default = "snapshot_mib")]
    pub snapshot_mib: u64,
    #[serde(default = "log_entries_kept")]
    pub log_entries_kept: u64,
    #[serde(default = "history_pause")]
    pub history_pause: String,
    #[serde(default = "newest_rules")]
    pub newest_rules: u32,
    #[serde(default = "info_word")]
    pub log: String,
    #[serde(default = "text_word")]
    pub log_format: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPool {
    pub name: String,
    pub cpu_milli: u64,
    #[serde(default)]
    pub memory_mib: u64,
    #[serde(default)]
    pub gpus: u32,
    #[serde(default)]
    pub scratch_gib: u64,
}

/// The same keys, none of them needed: so that a mistake in the file is told with its line.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct FileKeys {
    name: Option<String>,
    data_dir: Option<PathBuf>,
    listen: Option<String>,
    peer_listen: Option<String>,
    http_listen: Option<String>,
    address: Option<String>,
    peer_address: Option<String>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    election: Option<String>,
    grid_prefix: Option<String>,
    s3_endpoint: Option<String>,
    pool: Option<Vec<RawPool>>,
    max_connections: Option<usize>,
    snapshot_commands: Option<u64>,
    snapshot_mib: Option<u64>,
    log_entries_kept: Option<u64>,
    history_pause: Option<String>,
    newest_rules: Option<u32>,
    log: Option<String>,
    log_format: Option<String>,
}

/// Reads and checks the configuration: `arguments` over the process's environment over the file they name.
pub fn load(arguments: &Arguments) -> Result<Config, Invalid> {
    let mut figment = Figment::new();
    if let Some(path) = &arguments.config {
        read_file(path)?;
        figment = figment.merge(Toml::file_exact(path));
    }
    let raw: Raw = figment
        .merge(Env::prefixed(ENVIRONMENT).ignore(&["config"]))
        .merge(Serialized::defaults(arguments))
        .extract()
        .map_err(|error| Invalid::Unreadable(told(&error)))?;
    check::check(raw)
}

fn read_file(path: &Path) -> Result<(), Invalid> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Invalid::Unreadable(format!(
            "`config`: can't read {}: {error}; give the file's path with --config",
            path.display()
        ))
    })?;
    let _: FileKeys =
        toml::from_str(&text).map_err(|error| Invalid::Unreadable(format!("{}: {error}", path.display())))?;
    Ok(())
}

/// One line that names the key, and the variable or the file where it stands.
fn told(error: &figment::Error) -> String {
    use figment::error::Kind;
    match &error.kind {
        Kind::UnknownField(key, known) => {
            let source = match error.metadata.as_ref() {
                Some(metadata) if metadata.name.contains("environment") => {
                    format!("the environment variable {ENVIRONMENT}{}", key.to_uppercase())
                }
                Some(metadata) => metadata.name.to_string(),
                None => "the configuration".to_owned(),
            };
            format!("unknown key `{key}` in {source}; known are {}", known.join(", "))
        }
        Kind::MissingField(key) => format!(
            "`{key}` is missing; set it in the file, as {ENVIRONMENT}{} or with --{}",
            key.to_uppercase(),
            key.replace('_', "-")
        ),
        _ => {
            let key = error.path.join(".");
            if key.is_empty() { error.to_string() } else { format!("`{key}`: {}", error.kind) }
        }
    }
}

pub(super) fn socket(field: &'static str, text: &str) -> Result<SocketAddr, Invalid> {
    text.parse().map_err(|_| Invalid::Value {
        field,
        problem: format!("`{text}` is no IP:PORT"),
        hint: "write it as 127.0.0.1:7070",
    })
}

fn listen() -> String {
    "127.0.0.1:7070".to_owned()
}

fn peer_listen() -> String {
    "127.0.0.1:7170".to_owned()
}

fn http_listen() -> String {
    "127.0.0.1:8070".to_owned()
}

fn default_word() -> String {
    "default".to_owned()
}

fn info_word() -> String {
    "info".to_owned()
}

fn text_word() -> String {
    "text".to_owned()
}

fn max_connections() -> usize {
    20_000
}

fn snapshot_commands() -> u64 {
    500_000
}

fn snapshot_mib() -> u64 {
    64
}

fn log_entries_kept() -> u64 {
    50_000
}

fn history_pause() -> String {
    "60s".to_owned()
}

fn newest_rules() -> u32 {
    scheduler::NEWEST_RULES
}
