//! The record of a job: one, whatever its size.
//!
//! A job is `waiting` until its dependencies are met, then `queued`; `running` while any of its tasks is leased,
//! runs or is being published; and ended when no task of it is left. It is failed when a task failed, else
//! cancelled when one was cancelled, else skipped when one was skipped, else succeeded. A retry opens it again.
//! All of this is computed from [`Counts`]; a crash changes nothing of it.

mod facts;
mod failures;
mod jobs;
mod moment;
mod record;
mod tasks;
mod terms;
mod text;

use std::sync::Arc;

use imbl::OrdMap;
use proto::v1::{Cause, DependencyCondition, IndexRange, JobState};

pub use self::jobs::Gone;
pub(crate) use self::{
    facts::{Fact, Facts},
    failures::{Failures, Group},
    jobs::Jobs,
    moment::Moment,
    record::{Kill, Lease, Phase, Publication, Published, Record},
    tasks::{CHUNK, Chunk, Place, Tasks},
    terms::{Rule, Terms},
    text::Text,
};

/// A plain job is an array with the index 0 alone.
static PLAIN: [IndexRange; 1] = [IndexRange { first: 0, last: 0, step: 1 }];

#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub text: Text,
    /// What many jobs have in common.
    pub terms: Arc<Terms>,
    pub tasks: Tasks,
    /// Of every task that is leased, runs, publishes, waits for its back-off, or was tried and is queued again.
    pub records: OrdMap<u32, Record>,
    pub counts: Counts,
    /// Wall clock at its submit.
    pub created_ms: i64,
    /// Start of the first attempt that is known to have started, as its worker said.
    pub started_ms: Moment,
    /// Wall clock at its end; present exactly while it is ended.
    pub ended_ms: Moment,
    /// Highest attempt number of any of its tasks.
    pub highest_attempt: u32,
    pub runs: Runs,
    pub held: bool,
    /// Its dependencies were met, once and for ever.
    pub released: bool,
    /// What most jobs haven't got.
    pub extra: Option<Box<Extra>>,
    /// Derived: what the indexes hold of it.
    pub indexed: Indexed,
}

/// How many of a job's tasks are where. Their sum is the job's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    /// Queued, or waiting for the job's dependencies.
    pub pending: u32,
    pub backoff: u32,
    pub leased: u32,
    pub running: u32,
    pub publishing: u32,
    pub succeeded: u32,
    pub failed: u32,
    pub cancelled: u32,
    pub skipped: u32,
    /// Each waits for the one at its place in another array.
    pub blocked: u32,
    /// Queued again, with more memory than the others.
    pub grown: u32,
}

impl Counts {
    /// Tasks that have not ended.
    pub fn unended(&self) -> u32 {
        self.queued() + self.active()
    }

    /// Tasks that wait, for whatever reason.
    pub fn queued(&self) -> u32 {
        self.pending + self.backoff + self.blocked + self.grown
    }

    /// Tasks that count as running for `max_running`.
    pub fn active(&self) -> u32 {
        self.leased + self.running + self.publishing
    }

    pub fn total(&self) -> u32 {
        self.unended() + self.succeeded + self.failed + self.cancelled + self.skipped
    }

    /// The count of tasks that ended in this place.
    pub fn ended_mut(&mut self, place: Place) -> &mut u32 {
        match place {
            Place::Succeeded => &mut self.succeeded,
            Place::Failed => &mut self.failed,
            Place::Cancelled => &mut self.cancelled,
            Place::Skipped => &mut self.skipped,
            Place::Pending | Place::Active | Place::Blocked => unreachable!("not an end"),
        }
    }
}

/// How long this job's tasks ran of late; decides what is granted ahead of need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
// Without four bytes of padding a queued job fits into the next smaller piece of memory.
#[repr(Rust, packed(4))]
pub(crate) struct Runs {
    pub ends: u32,
    pub run_ms: u64,
}

impl Runs {
    /// Ends after which older ones count half.
    const WINDOW: u32 = 512;

    pub fn note(&mut self, run_ms: u64) {
        if self.ends >= Self::WINDOW {
            self.ends /= 2;
            self.run_ms /= 2;
        }
        self.ends += 1;
        self.run_ms = self.run_ms.saturating_add(run_ms.min(1 << 40));
    }
}

/// What most jobs haven't got.
#[derive(Debug, Clone, Default)]
pub(crate) struct Extra {
    /// Absent for a plain job.
    pub ranges: Option<Arc<[IndexRange]>>,
    pub after: Vec<Edge>,
    pub blobs: Vec<[u8; 32]>,
    /// What the canceller said, why it was skipped, which limit ended it.
    pub reason: Option<Arc<str>>,
    pub failures: Failures,
    /// What its tasks published, by ordinal.
    pub outputs: OrdMap<u32, Arc<Published>>,
    /// Bytes of all details among the facts of its attempts.
    pub details_bytes: u32,
    /// Wall clock at the last cancel or skip: the end of tasks that never had an attempt.
    pub stopped_ms: Option<i64>,
    /// As what tasks failed that never had an attempt.
    pub stopped_cause: Cause,
    /// Log time from which its time limits count, if it has any.
    pub released_ms: Option<u64>,
    /// Derived: when they are over, as the timers have it.
    pub armed: [Option<u64>; 2],
    /// Which of them are over and done with.
    pub fired: [bool; 2],
}

/// One dependency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Edge {
    pub job: u64,
    pub condition: DependencyCondition,
    /// With the condition on exit codes: which.
    pub exit_codes: Box<[u32]>,
    /// Once met it stays so, also when that job is retried.
    pub met: bool,
}

/// What the end of a job means for one that waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bearing {
    Open,
    Met,
    Impossible,
}

impl Edge {
    /// Whether it is between single tasks; then what follows says nothing.
    pub fn is_by_task(&self) -> bool {
        self.condition == DependencyCondition::Element
    }

    /// What it means that the job waited for is in this state, which it reached with this exit code.
    pub fn bearing(&self, state: JobState, exit_code: Option<i32>) -> Bearing {
        use DependencyCondition as On;
        let ended = match state {
            JobState::Unspecified | JobState::Waiting | JobState::Queued | JobState::Running => return Bearing::Open,
            JobState::Succeeded | JobState::Failed | JobState::Cancelled | JobState::Skipped => state,
        };
        let by_code =
            || exit_code.and_then(|code| u32::try_from(code).ok()).is_some_and(|c| self.exit_codes.contains(&c));
        let met = match self.condition {
            On::Any => true,
            On::Success | On::Element | On::Unspecified => ended == JobState::Succeeded,
            On::Failure => ended == JobState::Failed,
            On::ExitCode => by_code(),
        };
        if met { Bearing::Met } else { Bearing::Impossible }
    }

    /// The condition as the command line names it.
    pub fn word(&self) -> String {
        match self.condition {
            DependencyCondition::Any => "the end".to_owned(),
            DependencyCondition::Failure => "the failure".to_owned(),
            DependencyCondition::ExitCode => {
                let codes: Vec<String> = self.exit_codes.iter().map(ToString::to_string).collect();
                format!("the exit code {}", codes.join(" or "))
            }
            DependencyCondition::Element => "the same task".to_owned(),
            DependencyCondition::Success | DependencyCondition::Unspecified => "the success".to_owned(),
        }
    }
}

/// Derived: where the indexes hold a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Indexed {
    /// It stands in the order of its queue.
    pub ready: bool,
    /// It is among the jobs that have not ended.
    pub open: bool,
    /// Its tasks that are counted as queued in its queue, back-offs included.
    pub queued: u32,
    /// Its tasks that are counted as not ended.
    pub unended: u32,
    /// Its tasks that are counted as unpublished.
    pub publishing: u32,
}

impl Job {
    pub fn ranges(&self) -> &[IndexRange] {
        match self.extra.as_deref() {
            Some(Extra { ranges: Some(ranges), .. }) => ranges,
            _ => &PLAIN,
        }
    }

    /// Its time limits, if it has any that count from its release, count from now.
    pub fn start_limits(&mut self, now_ms: u64) {
        if self.terms.queue_time_limit_ms > 0 || self.terms.total_time_limit_ms > 0 {
            let extra = self.extra_mut();
            (extra.released_ms, extra.fired) = (Some(now_ms), [false; 2]);
        }
    }

    /// The log time at which its `queue_time_limit` and its `total_time_limit` are over, as far as they still matter.
    pub fn deadlines(&self) -> [Option<u64>; 2] {
        let Some((extra, since)) = self.extra.as_deref().and_then(|extra| Some((extra, extra.released_ms?))) else {
            return [None; 2];
        };
        let limits = [self.terms.queue_time_limit_ms, self.terms.total_time_limit_ms];
        [0, 1].map(|at| (limits[at] > 0 && !extra.fired[at] && !self.ended()).then(|| since.saturating_add(limits[at])))
    }

    pub fn extra_mut(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    pub fn after(&self) -> &[Edge] {
        self.extra.as_deref().map_or(&[], |extra| &extra.after)
    }

    pub fn failures(&self) -> Option<&Failures> {
        self.extra.as_deref().map(|extra| &extra.failures)
    }

    pub fn state(&self) -> JobState {
        let counts = &self.counts;
        if counts.active() > 0 {
            JobState::Running
        } else if counts.unended() > 0 {
            if self.released && counts.blocked < counts.unended() { JobState::Queued } else { JobState::Waiting }
        } else if counts.failed > 0 {
            JobState::Failed
        } else if counts.cancelled > 0 {
            JobState::Cancelled
        } else if counts.skipped > 0 {
            JobState::Skipped
        } else {
            JobState::Succeeded
        }
    }

    pub fn ended(&self) -> bool {
        self.counts.unended() == 0
    }

    /// How many more of its tasks may run at once.
    pub fn room(&self) -> u32 {
        match self.terms.max_running {
            0 => u32::MAX,
            most => most.saturating_sub(self.counts.active()),
        }
    }

    /// Whether queued tasks of it may be granted, if it has any.
    pub fn startable(&self) -> bool {
        self.released && !self.held && self.room() > 0
    }

    /// Whether it stands in its queue. (Tasks with memory of their own stand for themselves.)
    pub fn ready(&self) -> bool {
        self.counts.pending > 0 && self.startable()
    }

    /// The number of a task's latest attempt; 0: none yet.
    pub fn attempt_of(&self, ordinal: u32) -> u32 {
        let recorded = self.records.get(&ordinal).map_or(0, |record| record.attempt);
        recorded.max(self.tasks.newest_attempt(ordinal))
    }

    /// Writes down the end of an attempt. Its detail is dropped when the job has used up its share.
    pub fn record_fact(&mut self, ordinal: u32, mut fact: Fact) {
        if !fact.detail.is_empty() {
            let extra = self.extra_mut();
            let bytes = fact.detail.len() as u32;
            if extra.details_bytes + bytes > crate::limits::DETAILS_BYTES {
                fact.detail = "".into();
            } else {
                extra.details_bytes += bytes;
            }
        }
        let created = self.created_ms;
        self.tasks.append_fact(ordinal, created, &fact);
    }

    pub fn newest_fact(&self, ordinal: u32) -> Option<Fact> {
        self.tasks.newest_fact(ordinal, self.created_ms)
    }

    pub fn facts(&self, ordinal: u32) -> Vec<Fact> {
        self.tasks.facts(ordinal, self.created_ms)
    }

    /// The exit code that those who wait for it look at.
    pub fn exit_code(&self) -> Option<i32> {
        self.verdict().1
    }

    /// The cause, exit code and signal by which a job ended.
    pub fn verdict(&self) -> (Cause, Option<i32>, i32) {
        match self.state() {
            JobState::Succeeded => (Cause::ExitCode, Some(0), 0),
            JobState::Failed => self.failures().map_or((Cause::Unspecified, None, 0), Failures::verdict),
            JobState::Cancelled => (Cause::Cancelled, None, 0),
            JobState::Skipped => (Cause::Dependency, None, 0),
            JobState::Unspecified | JobState::Waiting | JobState::Queued | JobState::Running => {
                (Cause::Unspecified, None, 0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_of_one_task_is_small() {
        // A million of these are queued at once; their names, specs and index entries come on top.
        assert!(size_of::<Job>() <= 200, "{} bytes", size_of::<Job>());
    }
}
