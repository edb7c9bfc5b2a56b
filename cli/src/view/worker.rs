//! A worker.

use std::collections::BTreeMap;

use proto::v1;
use serde::Serialize;

use super::{
    Row, or_dash, pairs, text,
    times::{Moment, age, local, moment},
};
use crate::grammar::words::Word;

/// A worker as JSON has it.
#[derive(Debug, Serialize)]
pub struct Worker {
    name: String,
    pool: String,
    state: Option<String>,
    labels: BTreeMap<String, String>,
    capacity: Capacity,
    free: Capacity,
    running: u64,
    join_time: Moment,
    reason: Option<String>,
}

#[derive(Debug, Serialize)]
struct Capacity {
    cpu_milli: u64,
    memory_mib: u64,
    gpus: u32,
    scratch_gib: u64,
}

impl From<v1::Capacity> for Capacity {
    fn from(capacity: v1::Capacity) -> Self {
        let v1::Capacity { cpu_milli, memory_mib, gpus, scratch_gib } = capacity;
        Self { cpu_milli, memory_mib, gpus, scratch_gib }
    }
}

impl From<&v1::Worker> for Worker {
    fn from(worker: &v1::Worker) -> Self {
        Self {
            name: worker.name.clone(),
            pool: worker.pool.clone(),
            state: worker.state().word(),
            labels: worker.labels.clone(),
            capacity: worker.capacity.unwrap_or_default().into(),
            free: worker.free.unwrap_or_default().into(),
            running: worker.running,
            join_time: moment(worker.join_time),
            reason: text(&worker.reason),
        }
    }
}

/// `2` or `0.5`.
pub fn cpus(milli: u64) -> String {
    if milli.is_multiple_of(1000) { (milli / 1000).to_string() } else { format!("{}", milli as f64 / 1000.0) }
}

/// `15.6G` or `512M`.
pub fn memory(mib: u64) -> String {
    if mib < 1024 { format!("{mib}M") } else { format!("{:.1}G", mib as f64 / 1024.0).replace(".0G", "G") }
}

impl Row for Worker {
    fn headers(wide: bool) -> Vec<&'static str> {
        let mut headers = vec!["NAME", "POOL", "STATE", "CPUS FREE", "MEMORY FREE", "RUNNING", "JOINED", "REASON"];
        if wide {
            headers.extend(["GPUS FREE", "SCRATCH FREE", "LABELS", "SINCE"]);
        }
        headers
    }

    fn cells(&self, wide: bool) -> Vec<String> {
        let (free, capacity) = (&self.free, &self.capacity);
        let mut cells = vec![
            self.name.clone(),
            self.pool.clone(),
            or_dash(self.state.as_ref()),
            format!("{}/{}", cpus(free.cpu_milli), cpus(capacity.cpu_milli)),
            format!("{}/{}", memory(free.memory_mib), memory(capacity.memory_mib)),
            self.running.to_string(),
            format!("{} ago", age(self.join_time)),
            or_dash(self.reason.as_ref()),
        ];
        if wide {
            cells.extend([
                format!("{}/{}", free.gpus, capacity.gpus),
                format!("{}G/{}G", free.scratch_gib, capacity.scratch_gib),
                pairs(&self.labels),
                local(self.join_time),
            ]);
        }
        cells
    }

    fn columns() -> &'static [&'static str] {
        &[
            "name",
            "pool",
            "state",
            "labels",
            "capacity.cpu_milli",
            "capacity.memory_mib",
            "capacity.gpus",
            "capacity.scratch_gib",
            "free.cpu_milli",
            "free.memory_mib",
            "free.gpus",
            "free.scratch_gib",
            "running",
            "join_time",
            "reason",
        ]
    }

    fn id(&self) -> String {
        self.name.clone()
    }
}
