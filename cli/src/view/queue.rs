//! A queue.

use proto::v1;
use serde::Serialize;

use super::{Row, or_dash};
use crate::grammar::{duration, words::Word};

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
    draining: bool,
    guarantee: Guarantee,
    placement: Option<String>,
    usage: f64,
}

/// Null: nothing is guaranteed.
#[derive(Debug, Serialize)]
struct Guarantee {
    running: Option<u64>,
    cpu_milli: Option<u64>,
    memory_mib: Option<u64>,
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
        let (limits, guarantee) = (queue.limits.unwrap_or_default(), queue.guarantee.unwrap_or_default());
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
            draining: queue.draining,
            guarantee: Guarantee {
                running: limit(guarantee.running),
                cpu_milli: limit(guarantee.cpu_milli),
                memory_mib: limit(guarantee.memory_mib),
            },
            placement: queue.placement().word().or_else(|| v1::Placement::Spread.word()),
            usage: queue.usage,
        }
    }
}

impl Queue {
    fn state(&self) -> &'static str {
        match (self.paused, self.draining) {
            (false, false) => "open",
            (true, false) => "paused",
            (false, true) => "draining",
            (true, true) => "paused, draining",
        }
    }
}

/// A queue that is gone, as JSON has it.
#[derive(Debug, Serialize)]
pub struct Deleted {
    /// As it was.
    pub name: String,
}

impl Row for Deleted {
    fn headers(_wide: bool) -> Vec<&'static str> {
        vec!["DELETED"]
    }

    fn cells(&self, _wide: bool) -> Vec<String> {
        vec![self.name.clone()]
    }

    fn columns() -> &'static [&'static str] {
        &["name"]
    }

    fn id(&self) -> String {
        self.name.clone()
    }
}

/// How the grid is shared among queues, as JSON has it.
#[derive(Debug, Serialize)]
pub struct FairShare {
    /// In seconds; 0: only what is in use now counts.
    pub half_life: f64,
}

impl From<&v1::FairShare> for FairShare {
    fn from(fair_share: &v1::FairShare) -> Self {
        Self { half_life: super::times::seconds(fair_share.half_life.as_ref()).unwrap_or_default() }
    }
}

impl FairShare {
    /// For people.
    pub fn screen(&self) -> String {
        if self.half_life == 0.0 {
            return "only what is in use now counts".to_owned();
        }
        let span = duration::exact(std::time::Duration::from_secs_f64(self.half_life));
        format!("half-life {span}: use of the grid counts half after so long")
    }
}

impl Row for Queue {
    fn headers(wide: bool) -> Vec<&'static str> {
        let mut headers = vec!["NAME", "STATE", "WEIGHT", "QUEUED", "RUNNING", "SHARE", "USAGE"];
        if wide {
            headers.extend(["MAX RUNNING", "MAX CPUS", "MAX MEM", "MAX QUEUED"]);
            headers.extend(["GUARANTEED RUNNING", "GUARANTEED CPUS", "GUARANTEED MEM", "PLACEMENT"]);
        }
        headers
    }

    fn cells(&self, wide: bool) -> Vec<String> {
        let mut cells = vec![
            self.name.clone(),
            self.state().to_owned(),
            self.weight.to_string(),
            self.queued.to_string(),
            self.running.to_string(),
            format!("{:.0}%", self.share * 100.0),
            format!("{:.0}%", self.usage * 100.0),
        ];
        if wide {
            cells.extend([
                or_dash(self.limits.max_running),
                or_dash(self.limits.max_cpu_milli.map(super::worker::cpus)),
                or_dash(self.limits.max_memory_mib.map(super::worker::memory)),
                or_dash(self.limits.max_queued),
                or_dash(self.guarantee.running),
                or_dash(self.guarantee.cpu_milli.map(super::worker::cpus)),
                or_dash(self.guarantee.memory_mib.map(super::worker::memory)),
                or_dash(self.placement.as_ref()),
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
            "draining",
            "guarantee.running",
            "guarantee.cpu_milli",
            "guarantee.memory_mib",
            "placement",
            "usage",
        ]
    }

    fn id(&self) -> String {
        self.name.clone()
    }
}
