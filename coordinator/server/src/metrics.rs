//! What is measured, as OpenMetrics. Base units; no job, task or worker is a label.

use std::{
    sync::{Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::member::Running;

/// The measurements of one process.
pub struct Metrics {
    registry: Mutex<Registry>,
    log_sync: Histogram,
    snapshot: Histogram,
    snapshot_pause: Gauge<f64, AtomicU64>,
    scraped: Vec<Scraped>,
}

type Value = fn(&Running) -> u64;

/// A number that is read when somebody asks.
enum Scraped {
    Gauge(Gauge<u64, AtomicU64>, Value),
    Counter(Counter<u64, AtomicU64>, Value),
}

/// Name, help, value.
const GAUGES: &[(&str, &str, Value)] = &[
    ("raft_leading", "1 while this coordinator leads", |member| u64::from(member.leadership().borrow().leading)),
    ("raft_term", "The present term", |member| member.replica_status().term),
    ("raft_commit_index", "The highest committed index", |member| member.replica_status().commit_index),
    ("raft_applied_index", "The highest applied index", Running::applied_index),
    ("raft_last_index", "The last entry of the log", |member| member.replica_status().last_index),
    ("raft_persisted_index", "The last entry on this disk", |member| member.replica_status().persisted_index),
    ("raft_snapshot_index", "The newest stored snapshot", |member| member.replica_status().snapshot_index),
    ("raft_log_bytes", "Bytes of all entries in memory", |member| member.replica_status().log_bytes),
    ("raft_uncommitted_bytes", "Bytes proposed and not yet committed", |member| {
        member.replica_status().uncommitted_bytes
    }),
    ("disk_free_bytes", "Bytes free on the disk of the log, its reserve not counted", |member| {
        member.disk().free_bytes()
    }),
    ("replicas_differ", "1 while replicas differ and none has a majority: no new jobs", |member| {
        member.figures().split
    }),
    ("disk_low", "1 while new jobs are refused because the disk is almost full", |member| {
        u64::from(member.disk().is_low())
    }),
    ("disk_reserve_held", "1 while the log has its reserve", |member| u64::from(member.disk().reserve_is_held())),
    ("history_segments", "Segments of the history of ended jobs", |member| member.history().segments()),
    ("history_held", "Those of them that are on this disk", |member| member.history().held()),
    ("members", "Members of the cluster", |member| member.members().len() as u64),
    ("calls_open", "Calls under way at this leader", |member| member.figures().open_calls),
    ("watches", "Watches under way at this leader", |member| member.figures().watches),
    ("jobs_unended", "Jobs that have not ended", |member| member.figures().backlog.unended_jobs),
    ("tasks_queued", "Tasks that wait, for whatever reason", |member| member.figures().backlog.queued_tasks),
    ("tasks_leased", "Tasks that a worker has, running or about to", |member| member.figures().backlog.leased_tasks),
    ("outputs_unpublished", "Tasks whose outputs are being published", |member| {
        member.figures().backlog.unpublished_outputs
    }),
    ("sessions", "Sessions of workers", |member| member.figures().sessions),
    ("sessions_attached", "Sessions whose worker is connected", |member| member.figures().attached_sessions),
    ("commands_waiting_bytes", "Bytes of commands that wait for an entry", |member| member.figures().waiting_bytes),
];

const COUNTERS: &[(&str, &str, Value)] = &[
    ("entries_applied", "Entries applied since the start", |member| member.figures().applied_entries),
    ("entries_proposed", "Entries proposed since the start", |member| member.figures().proposed_entries),
    ("commands_applied", "Commands applied since the start", |member| member.figures().applied_commands),
    ("commands_rejected", "Commands that the rules rejected", |member| member.figures().rejected_commands),
    ("read_rounds", "Rounds that confirmed leadership for reads", |member| member.figures().read_rounds),
    ("tasks_granted", "Tasks granted to workers by this leader", |member| member.figures().granted_tasks),
    ("snapshots_stored", "Snapshots stored since the start", |member| member.figures().snapshots),
];

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("millgrid");
        // From a good NVMe to a disk in trouble.
        let log_sync =
            Histogram::new([0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0]);
        registry.register_with_unit("log_sync", "Time of one fsync of the log", Unit::Seconds, log_sync.clone());
        let snapshot = Histogram::new([0.01, 0.05, 0.25, 1.0, 5.0, 30.0, 120.0]);
        registry.register_with_unit("snapshot", "Time to store one snapshot", Unit::Seconds, snapshot.clone());
        let snapshot_pause = Gauge::default();
        registry.register_with_unit(
            "snapshot_apply_pause",
            "Longest processor time in which the core applied nothing while the newest snapshot was taken",
            Unit::Seconds,
            snapshot_pause.clone(),
        );
        let mut scraped = Vec::new();
        for (name, help, value) in GAUGES {
            let gauge = Gauge::default();
            registry.register(*name, *help, gauge.clone());
            scraped.push(Scraped::Gauge(gauge, *value));
        }
        for (name, help, value) in COUNTERS {
            let counter = Counter::default();
            registry.register(*name, *help, counter.clone());
            scraped.push(Scraped::Counter(counter, *value));
        }
        Self { registry: Mutex::new(registry), log_sync, snapshot, snapshot_pause, scraped }
    }
}

impl Metrics {
    /// One fsync of the log.
    pub fn synced(&self, took: Duration) {
        self.log_sync.observe(took.as_secs_f64());
    }

    /// One snapshot.
    pub fn snapshot_stored(&self, took: Duration) {
        self.snapshot.observe(took.as_secs_f64());
    }

    /// The longest pause of apply while a snapshot was taken.
    pub fn snapshot_paused(&self, longest: Duration) {
        self.snapshot_pause.set(longest.as_secs_f64());
    }

    /// The text that is scraped.
    pub fn render(&self, running: Option<&Running>) -> String {
        if let Some(running) = running {
            for one in &self.scraped {
                match one {
                    Scraped::Gauge(gauge, value) => {
                        gauge.set(value(running));
                    }
                    Scraped::Counter(counter, value) => {
                        counter.inner().store(value(running), std::sync::atomic::Ordering::Relaxed);
                    }
                }
            }
        }
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        encode(&mut text, &registry).expect("a String grows");
        text
    }
}
