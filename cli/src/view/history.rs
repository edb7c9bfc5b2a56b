//! How long ended jobs stay at hand, and what has moved to the history.

use std::time::Duration;

use proto::v1;
use serde::Serialize;

use super::times;
use crate::grammar::duration;

/// Rules that know no history.
const WITHOUT_HISTORY: u32 = 1;

/// The history as JSON has it.
#[derive(Debug, Serialize)]
pub struct History {
    keep_seconds: f64,
    keep_jobs: u64,
    moved_jobs: u64,
    segments: u64,
    settled_segments: u64,
    /// What the entries of the log mean.
    pub rules_version: u32,
}

impl From<&v1::History> for History {
    fn from(history: &v1::History) -> Self {
        Self {
            keep_seconds: times::seconds(history.keep.as_ref()).unwrap_or_default(),
            keep_jobs: history.keep_jobs,
            moved_jobs: history.moved_jobs,
            segments: history.segments,
            settled_segments: history.settled_segments,
            rules_version: history.rules_version,
        }
    }
}

impl History {
    /// For people.
    pub fn screen(&self) -> String {
        let Self { keep_jobs, settled_segments, rules_version, .. } = self;
        let span = duration::exact(Duration::from_secs_f64(self.keep_seconds));
        let kept = match (self.keep_seconds > 0.0, keep_jobs) {
            (true, 1..) => format!("ended jobs stay at hand for {span}, {keep_jobs} of them at most"),
            _ => "ended jobs don't stay at hand".to_owned(),
        };
        let moved = format!(
            "in the history: {} in {}, {settled_segments} of them on the disks of most coordinators",
            counted(self.moved_jobs, "job"),
            counted(self.segments, "segment"),
        );
        let mut rules = format!("rules of the log: version {rules_version}");
        if *rules_version <= WITHOUT_HISTORY {
            rules += "; nothing moves before version 2, which each coordinator has to know";
        }
        format!("{kept}\n{moved}\n{rules}")
    }
}

fn counted(count: u64, thing: &str) -> String {
    if count == 1 { format!("1 {thing}") } else { format!("{count} {thing}s") }
}
