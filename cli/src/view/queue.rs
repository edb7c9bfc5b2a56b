//! A queue.

use proto::v1;
use serde::Serialize;

use super::{Row, or_dash};

/// A queue as JSON has it.
#[derive(Debug, Serialize)]
pub struct Queue {
    name: String,
    weight: u32,
    paused: bool,
    limits: Limits,
    queued: u64,
    running: u64,
    share: f64,
}

/// Null: no limit.
#[derive(Debug, Serialize)]
struct Limits {
    max_running: Option<u64>,
    max_cpu_milli: Option<u64>,
    max_memory_mib: Option<u64>,
    max_queued: Option<u64>,
}

impl From<&v1::Queue> for Queue {
    fn from(queue: &v1::Queue) -> Self {
        let limits = queue.limits.unwrap_or_default();
        let limit = |value: u64| (value > 0).then_some(value);
        Self {
            name: queue.name.clone(),
            weight: queue.weight,
            paused: queue.paused,
            limits: Limits {
                max_running: limit(limits.max_running),
                max_cpu_milli: limit(limits.max_cpu_milli),
                max_memory_mib: limit(limits.max_memory_mib),
                max_queued: limit(limits.max_queued),
            },
            queued: queue.queued,
            running: queue.running,
            share: queue.share,
        }
    }
}

impl Row for Queue {
    fn headers(wide: bool) -> Vec<&'static str> {
        let mut headers = vec!["NAME", "STATE", "WEIGHT", "QUEUED", "RUNNING", "SHARE"];
        if wide {
            headers.extend(["MAX RUNNING", "MAX CPUS", "MAX MEM", "MAX QUEUED"]);
        }
        headers
    }

    fn cells(&self, wide: bool) -> Vec<String> {
        let mut cells = vec![
            self.name.clone(),
            if self.paused { "paused" } else { "open" }.to_owned(),
            self.weight.to_string(),
            self.queued.to_string(),
            self.running.to_string(),
            format!("{:.0}%", self.share * 100.0),
        ];
        if wide {
            cells.extend([
                or_dash(self.limits.max_running),
                or_dash(self.limits.max_cpu_milli.map(super::worker::cpus)),
                or_dash(self.limits.max_memory_mib.map(super::worker::memory)),
                or_dash(self.limits.max_queued),
            ]);
        }
        cells
    }

    fn columns() -> &'static [&'static str] {
        &[
            "name",
            "weight",
            "paused",
            "limits.max_running",
            "limits.max_cpu_milli",
            "limits.max_memory_mib",
            "limits.max_queued",
            "queued",
            "running",
            "share",
        ]
    }

    fn id(&self) -> String {
        self.name.clone()
    }
}
