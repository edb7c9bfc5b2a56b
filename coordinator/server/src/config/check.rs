//! Whether each value can be used, before anything is touched.

use std::{collections::BTreeSet, time::Duration};

use proto::v1::Capacity;
use scheduler::{NEWEST_RULES, Pool};

use super::{
    Config, Election, Invalid, LogFormat,
    sources::{Raw, RawPool, socket},
};

/// A pause that is longer would be a mistake: what waits is in memory.
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 60 * 60);

/// Turns what was said into what is used.
pub(super) fn check(raw: Raw) -> Result<Config, Invalid> {
    Ok(Config {
        name: name("name", raw.name)?,
        data_dir: raw.data_dir.relative(),
        listen: socket("listen", &raw.listen)?,
        peer_listen: socket("peer_listen", &raw.peer_listen)?,
        http_listen: socket("http_listen", &raw.http_listen)?,
        address: url("address", raw.address, "https://")?,
        peer_address: host_and_port("peer_address", raw.peer_address)?,
        ca: raw.ca.relative(),
        cert: raw.cert.relative(),
        key: raw.key.relative(),
        election: match raw.election.as_str() {
            "default" => Election::Default,
            "fast" => Election::Fast,
            other => return Err(word("election", other, "write `default` or `fast`")),
        },
        grid_prefix: grid_prefix(raw.grid_prefix)?,
        s3_endpoint: match raw.s3_endpoint {
            Some(text) if !text.is_empty() => Some(url("s3_endpoint", text, "http")?),
            _ => None,
        },
        pools: pools(raw.pool)?,
        max_connections: match raw.max_connections {
            0 => return Err(word("max_connections", "0", "write at least 1")),
            count => count.min(tokio::sync::Semaphore::MAX_PERMITS),
        },
        snapshot_commands: match raw.snapshot_commands {
            0 => return Err(word("snapshot_commands", "0", "write at least 1")),
            count => count,
        },
        snapshot_bytes: match raw.snapshot_mib {
            size @ 1..=65_536 => size << 20,
            size => return Err(word("snapshot_mib", &size.to_string(), "write 1 to 65536")),
        },
        log_entries_kept: raw.log_entries_kept,
        history_pause: pause("history_pause", &raw.history_pause)?,
        newest_rules: newest_rules("newest_rules", raw.newest_rules)?,
        log: match tracing_subscriber::EnvFilter::try_new(&raw.log) {
            Ok(_) => raw.log,
            Err(_) => return Err(word("log", &raw.log, "write a level, or target=level with commas between")),
        },
        log_format: match raw.log_format.as_str() {
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            other => return Err(word("log_format", other, "write `text` or `json`")),
        },
    })
}

fn word(field: &'static str, text: &str, hint: &'static str) -> Invalid {
    Invalid::Value { field, problem: format!("`{text}` can't be used"), hint }
}

fn name(field: &'static str, text: String) -> Result<String, Invalid> {
    let good = (1..=63).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if good { Ok(text) } else { Err(word(field, &text, "write 1 to 63 letters, digits, `-`, `_` or `.`")) }
}

fn url(field: &'static str, text: String, scheme: &str) -> Result<String, Invalid> {
    let good = text.starts_with(scheme) && text.split_once("://").is_some_and(|(_, rest)| !rest.is_empty());
    if good { Ok(text) } else { Err(word(field, &text, "write it as https://HOST:PORT")) }
}

fn host_and_port(field: &'static str, text: String) -> Result<String, Invalid> {
    let good = text
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok());
    if good { Ok(text) } else { Err(word(field, &text, "write it as HOST:PORT")) }
}

fn grid_prefix(mut text: String) -> Result<String, Invalid> {
    if text.is_empty() {
        return Ok(text);
    }
    let good = text.strip_prefix("s3://").is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'));
    if !good {
        return Err(word("grid_prefix", &text, "write it as s3://BUCKET/PREFIX/"));
    }
    if !text.ends_with('/') {
        text.push('/');
    }
    Ok(text)
}

fn pause(field: &'static str, text: &str) -> Result<Duration, Invalid> {
    match humantime::parse_duration(text) {
        Ok(pause) if pause <= LONGEST_PAUSE => Ok(pause),
        _ => Err(word(field, text, "write a time of at most one day, e.g. `60s`")),
    }
}

fn newest_rules(field: &'static str, version: u32) -> Result<u32, Invalid> {
    match version {
        0 => Err(word(field, "0", "the first rules are 1")),
        1..=NEWEST_RULES => Ok(version),
        newer => Err(Invalid::Value {
            field,
            problem: format!("this release knows no rules {newer}, only up to {NEWEST_RULES}"),
            hint: "leave it out to follow the newest",
        }),
    }
}

fn pools(raw: Vec<RawPool>) -> Result<Vec<Pool>, Invalid> {
    let mut names = BTreeSet::new();
    raw.into_iter()
        .map(|pool| {
            let name = name("pool.name", pool.name)?;
            if !names.insert(name.clone()) {
                return Err(word("pool.name", &name, "write each pool once"));
            }
            if pool.cpu_milli == 0 {
                return Err(word("pool.cpu_milli", "0", "write the thousandths of a cpu that its largest worker has"));
            }
            let largest = Capacity {
                cpu_milli: pool.cpu_milli,
                memory_mib: pool.memory_mib,
                gpus: pool.gpus,
                scratch_gib: pool.scratch_gib,
            };
            Ok(Pool { name, largest })
        })
        .collect()
}
