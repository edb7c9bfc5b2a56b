//! The configuration: flags, then the environment (`MILLGRID_WORKER_<KEY>`), then the file.

use std::{collections::BTreeMap, path::PathBuf};

use figment::{
    Figment,
    providers::{Env, Format, Serialized, Toml},
};
use proto::v1::Capacity;
use serde::{Deserialize, Serialize};

use crate::{machine, pythons};

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The file isn't there, or a value doesn't parse, or a key is unknown.
    #[error("{0}")]
    Unreadable(Box<figment::Error>),
    /// The file that was named can't be read.
    #[error("can't read the configuration `{path}`: {error}")]
    NoFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// A key that must be there isn't.
    #[error("the key `{0}` is missing; give it in the file, as --{flag} or as MILLGRID_WORKER_{variable}", flag = .0.replace('_', "-"), variable = .0.to_uppercase())]
    Missing(&'static str),
    /// A value that can't be.
    #[error("the value of `{key}` can't be used: {problem}")]
    Value {
        /// Which.
        key: &'static str,
        /// Why, and what would be right.
        problem: String,
    },
}

/// Flags: each overrides the key of its name.
#[derive(Debug, Default, Clone, clap::Args, Serialize)]
pub struct Flags {
    /// The configuration file (TOML).
    #[arg(long)]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// The name that the certificate gives this worker.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// The pool this worker belongs to.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pool: Option<String>,
    /// URLs of coordinators.
    #[arg(long, value_delimiter = ',')]
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoints: Option<Vec<String>>,
    /// The grid's certificate authority (PEM file).
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    ca: Option<PathBuf>,
    /// This worker's certificate (PEM file).
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    cert: Option<PathBuf>,
    /// The key of the certificate (PEM file).
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<PathBuf>,
    /// Directory of the keeper, the tasks and the caches.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    state_dir: Option<PathBuf>,
    /// Cpus for tasks; all by default.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    cpus: Option<f64>,
    /// Memory for tasks, e.g. 8G; the machine's by default.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<String>,
    /// Gpus for tasks.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    gpus: Option<u32>,
    /// Directory for the tasks' scratch space; below the state directory by default.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    scratch: Option<PathBuf>,
    /// Scratch space for tasks, e.g. 100G; what is free by default.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    scratch_size: Option<String>,
    /// URL of an S3 service other than AWS.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    s3_endpoint: Option<String>,
    /// Region of the buckets.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    s3_region: Option<String>,
    /// Format of the log on stderr.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<LogFormat>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

/// The file's keys, as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Written {
    name: Option<String>,
    pool: Option<String>,
    endpoints: Option<Vec<String>>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    cpus: Option<f64>,
    memory: Option<String>,
    gpus: Option<u32>,
    scratch: Option<PathBuf>,
    scratch_size: Option<String>,
    labels: BTreeMap<String, String>,
    s3_endpoint: Option<String>,
    s3_region: Option<String>,
    log: LogFormat,
}

/// A configuration that can be used.
#[derive(Debug, Clone)]
pub struct Config {
    /// The name in the certificate.
    pub name: String,
    /// The pool it belongs to.
    pub pool: String,
    /// URLs of coordinators, at least one.
    pub endpoints: Vec<String>,
    /// The grid's certificate authority, PEM.
    pub ca_pem: String,
    /// This worker's certificate, PEM.
    pub cert_pem: String,
    /// Its key, PEM. Never printed.
    pub key_pem: String,
    /// Directory of the keeper, the tasks and the caches; absolute.
    pub state_dir: PathBuf,
    /// Directory of the tasks' scratch space; absolute.
    pub scratch: PathBuf,
    /// What tasks may use in all.
    pub capacity: Capacity,
    /// For people and for constraints.
    pub labels: BTreeMap<String, String>,
    /// URL of an S3 service other than AWS.
    pub s3_endpoint: Option<String>,
    /// Region of the buckets.
    pub s3_region: Option<String>,
    /// Format of the log.
    pub log: LogFormat,
}

impl Config {
    /// Reads and checks everything that can be checked without the grid.
    pub fn read(flags: &Flags) -> Result<Self, Problem> {
        let mut figment = Figment::new();
        if let Some(path) = &flags.config {
            let text = std::fs::read_to_string(path).map_err(|error| Problem::NoFile { path: path.clone(), error })?;
            figment = figment.merge(Toml::string(&text));
        }
        let written: Written = figment
            .merge(Env::prefixed("MILLGRID_WORKER_").map(|key| key.as_str().to_lowercase().into()).lowercase(false))
            .merge(Serialized::defaults(flags))
            .extract()
            .map_err(|error| Problem::Unreadable(Box::new(error)))?;
        Self::check(written)
    }

    fn check(written: Written) -> Result<Self, Problem> {
        let endpoints = written.endpoints.filter(|all| !all.is_empty()).ok_or(Problem::Missing("endpoints"))?;
        if let Some(odd) = endpoints.iter().find(|url| !url.starts_with("https://")) {
            let problem = format!("`{odd}` is no https URL; write e.g. `https://127.0.0.1:7070`");
            return Err(Problem::Value { key: "endpoints", problem });
        }
        let state_dir = absolute("state_dir", written.state_dir.ok_or(Problem::Missing("state_dir"))?)?;
        make("state_dir", &state_dir)?;
        let scratch = match written.scratch {
            Some(scratch) => absolute("scratch", scratch)?,
            None => state_dir.join("scratch"),
        };
        make("scratch", &scratch)?;
        let cpus = written.cpus.unwrap_or_else(machine::cpus);
        if !(0.001..=1e6).contains(&cpus) {
            return Err(Problem::Value { key: "cpus", problem: format!("{cpus} is not between 0.001 and 1000000") });
        }
        let memory_mib = match written.memory {
            Some(text) => mib("memory", &text)?,
            None => machine::memory_mib(),
        };
        let scratch_gib = match written.scratch_size {
            Some(text) => mib("scratch_size", &text)? / 1024,
            None => machine::free_disk_gib(&scratch),
        };
        Ok(Self {
            name: written.name.ok_or(Problem::Missing("name"))?,
            pool: written.pool.unwrap_or_else(|| "local".to_owned()),
            endpoints,
            ca_pem: pem("ca", written.ca)?,
            cert_pem: pem("cert", written.cert)?,
            key_pem: pem("key", written.key)?,
            state_dir,
            scratch,
            capacity: Capacity {
                cpu_milli: (cpus * 1000.0).round() as u64,
                memory_mib,
                gpus: written.gpus.unwrap_or(0),
                scratch_gib,
            },
            labels: with_known(written.labels),
            s3_endpoint: written.s3_endpoint,
            s3_region: written.s3_region,
            log: written.log,
        })
    }

    /// What may be printed of it.
    pub fn redacted(&self) -> String {
        format!(
            "name={} pool={} endpoints={} state_dir={} scratch={} cpu_milli={} memory_mib={} gpus={} scratch_gib={} \
             labels={:?} s3_endpoint={} s3_region={} key=(hidden)",
            self.name,
            self.pool,
            self.endpoints.join(","),
            self.state_dir.display(),
            self.scratch.display(),
            self.capacity.cpu_milli,
            self.capacity.memory_mib,
            self.capacity.gpus,
            self.capacity.scratch_gib,
            self.labels,
            self.s3_endpoint.as_deref().unwrap_or("(AWS)"),
            self.s3_region.as_deref().unwrap_or("(default)"),
        )
    }
}

/// The labels given, and those that every worker knows of itself.
fn with_known(mut labels: BTreeMap<String, String>) -> BTreeMap<String, String> {
    labels.entry("architecture".to_owned()).or_insert_with(|| std::env::consts::ARCH.to_owned());
    if let Some(versions) = std::env::var_os("PATH").as_deref().and_then(pythons::on_path) {
        labels.entry("python".to_owned()).or_insert(versions);
    }
    labels
}

fn absolute(key: &'static str, path: PathBuf) -> Result<PathBuf, Problem> {
    std::path::absolute(&path).map_err(|error| Problem::Value { key, problem: format!("{}: {error}", path.display()) })
}

fn make(key: &'static str, path: &std::path::Path) -> Result<(), Problem> {
    std::fs::create_dir_all(path)
        .map_err(|error| Problem::Value { key, problem: format!("can't make `{}`: {error}", path.display()) })
}

fn pem(key: &'static str, path: Option<PathBuf>) -> Result<String, Problem> {
    let path = path.ok_or(Problem::Missing(key))?;
    std::fs::read_to_string(&path)
        .map_err(|error| Problem::Value { key, problem: format!("can't read `{}`: {error}", path.display()) })
}

/// A size such as `8G` or `1.5Ti`, in MiB, rounded down; powers of 1024 (interfaces, section 2).
fn mib(key: &'static str, text: &str) -> Result<u64, Problem> {
    let number_len = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(number_len);
    let kib = match unit.trim().trim_end_matches('B').trim_end_matches('i') {
        "K" => 1.0,
        "M" => 1024.0,
        "G" => 1024.0 * 1024.0,
        "T" => 1024.0 * 1024.0 * 1024.0,
        _ => {
            return Err(Problem::Value { key, problem: format!("`{text}` has no unit K, M, G or T; write e.g. `8G`") });
        }
    };
    match number.parse::<f64>() {
        Ok(number) if number > 0.0 => Ok((number * kib / 1024.0) as u64),
        _ => Err(Problem::Value { key, problem: format!("`{text}` is no size; write e.g. `8G`") }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in ["ca.pem", "w.pem", "w.key"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        folder
    }

    fn read(folder: &std::path::Path, extra: &str, flags: Flags) -> Result<Config, String> {
        let path = folder.join("worker.toml");
        let at = folder.display();
        let text = format!(
            "name = 'w1'\nendpoints = ['https://127.0.0.1:7070']\nca = '{at}/ca.pem'\ncert = '{at}/w.pem'\n\
             key = '{at}/w.key'\nstate_dir = '{at}/state'\n{extra}"
        );
        std::fs::write(&path, text).unwrap();
        Config::read(&Flags { config: Some(path), ..flags }).map_err(|problem| problem.to_string())
    }

    #[test]
    fn a_file_is_read_and_flags_go_before_it() {
        let folder = folder();
        let flags = Flags { cpus: Some(1.5), ..Flags::default() };
        let config = read(folder.path(), "cpus = 4\nmemory = '1.5G'\nlabels = { zone = 'a' }", flags).unwrap();
        assert_eq!((config.capacity.cpu_milli, config.capacity.memory_mib), (1500, 1536));
        assert_eq!(config.labels["zone"], "a");
        assert_eq!(config.labels["architecture"], std::env::consts::ARCH);
        assert!(!config.redacted().contains("w.key"), "the key is never printed");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let folder = folder();
        for (extra, named) in [
            ("memry = '8G'", "memry"),
            ("memory = '8'", "memory"),
            ("cpus = 0", "cpus"),
            ("gpus = 'many'", "gpus"),
            ("cpus = -1.0", "cpus"),
        ] {
            let problem = read(folder.path(), extra, Flags::default()).unwrap_err();
            assert!(problem.contains(named), "{extra}: {problem}");
        }
        let problem = Config::read(&Flags::default()).unwrap_err().to_string();
        assert!(problem.contains("endpoints") && problem.contains("MILLGRID_WORKER_ENDPOINTS"), "{problem}");
    }
}
