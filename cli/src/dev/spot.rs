//! The notice that a worker's machine is taken back.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use serde::Serialize;

use super::{
    failure::Failure,
    record::{Kind, Record},
    state::State,
};
use crate::grammar::duration;

/// Longest notice: far above the two minutes of EC2.
const MOST: Duration = Duration::from_secs(24 * 3600);

/// As the worker's agent reads it: what EC2's instance metadata says under `spot/instance-action`.
#[derive(Serialize)]
struct InstanceAction {
    action: &'static str,
    time: String,
}

/// `120s`, `5s`.
pub fn parse_notice(text: &str) -> Result<Duration, String> {
    let notice = duration::parse(text).map_err(|malformed| malformed.to_string())?;
    if notice > MOST { Err("more than a day".to_owned()) } else { Ok(notice) }
}

/// Puts the notice where the worker's agent looks; returns at once.
pub fn give(state: &State, name: &str, notice: Duration) -> Result<(), Failure> {
    let record = state.started()?;
    let members = record.members();
    let Some(member) = members.iter().find(|member| member.name == name) else {
        let known = record.worker_names().join(", ");
        return Err(Failure::NoWorker { name: name.to_owned(), known });
    };
    if member.kind != Kind::Worker {
        return Err(Failure::NotReclaimable(name.to_owned(), record.worker_names().join(", ")));
    }
    if !lives(&record, name) {
        return Err(Failure::Dead(name.to_owned()));
    }
    let time = (Timestamp::now() + notice).to_string();
    let action = InstanceAction { action: "terminate", time };
    let disk = state.disk(name);
    let (path, new) = (path(&disk), disk.join("spot-notice.json.new"));
    let text = serde_json::to_vec(&action).map_err(|error| Failure::file("write", &path)(error.into()))?;
    fs::write(&new, text).and_then(|()| fs::rename(&new, &path)).map_err(Failure::file("write", path))?;
    eprintln!("{name} is gone in {}", humantime::format_duration(notice));
    Ok(())
}

/// Takes back a notice that was given to a machine before.
pub fn withdraw(disk: &Path) -> Result<(), Failure> {
    let path = path(disk);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::file("delete", path)(error)),
        _ => Ok(()),
    }
}

fn path(disk: &Path) -> PathBuf {
    disk.join("spot-notice.json")
}

fn lives(record: &Record, name: &str) -> bool {
    record.processes.get(name).is_some_and(|agent| agent.is_alive())
}
