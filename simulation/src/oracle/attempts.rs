//! What must hold of each process that is started, and of each task that ends: I4, I11 and I12, by what really ran and
//! by what the log says.

use std::collections::BTreeMap;

use proto::v1::{DependencyCondition, JobState, TaskState};
use scheduler::End;
use worker_core::{Key, Task};

use super::{Oracle, is_over};

/// Attempts that the infrastructure may cost a task (`interfaces`: ten of their own).
const INFRASTRUCTURE_ATTEMPTS: usize = 10;

/// How tasks ended, for good unless a retry is asked for.
pub(super) type Ends = BTreeMap<(u64, u32), End>;

impl Oracle {
    /// A process was started.
    pub(crate) fn started(&mut self, task: &Task) {
        let key = task.key;
        if self.truths.insert(key, super::Truth { exit_code: None }).is_some() {
            self.violated("I4", format!("attempt {key} was started twice"));
        }
        // A retry gives a task, and whatever waits for it, a new life.
        if self.retried.contains(&key.job) {
            return;
        }
        let starts = self.starts(key.job, key.ordinal);
        let retries = task.job.spec.as_ref().and_then(|spec| spec.retry.as_ref()).map_or(0, |retry| retry.retries);
        if starts > 1 + retries as usize + INFRASTRUCTURE_ATTEMPTS {
            self.violated("I12", format!("attempt {key} is start number {starts} with {retries} retries"));
        }
        self.check_parents(key);
    }

    /// Whether a retry reopened a job: itself, or one that it waits for, directly or not.
    fn reopened(&self, job: u64) -> bool {
        let after = || self.state.submission(job).map(|job| job.after).unwrap_or_default();
        self.retried.contains(&job) || after().iter().any(|edge| self.reopened(edge.job_id))
    }

    /// No child runs before its parents have ended as it asks.
    fn check_parents(&mut self, key: Key) {
        let after = self.state.submission(key.job).map(|job| job.after).unwrap_or_default();
        for edge in after {
            let Some(parent) = self.state.job(edge.job_id).filter(|_| !self.reopened(edge.job_id)) else { continue };
            let met = match edge.condition() {
                DependencyCondition::Success => parent.state() == JobState::Succeeded,
                DependencyCondition::Element => {
                    let twin = self.state.task(edge.job_id, key.ordinal, false);
                    twin.is_some_and(|twin| twin.state() == TaskState::Succeeded)
                }
                DependencyCondition::Any | DependencyCondition::Failure | DependencyCondition::ExitCode => {
                    is_over(parent.state())
                }
                DependencyCondition::Unspecified => true,
            };
            if !met {
                let (on, state) = (edge.condition(), parent.state());
                self.violated("I11", format!("{key} was started, job {} before it ({on:?}) is {state:?}", edge.job_id));
            }
        }
    }

    /// How often a task was started in all.
    pub(crate) fn starts(&self, job: u64, ordinal: u32) -> usize {
        let low = Key { job, ordinal, attempt: 0 };
        let high = Key { job, ordinal, attempt: u32::MAX };
        self.truths.range(low..=high).count()
    }

    /// A task has ended for good by the end of an attempt.
    pub(super) fn task_ended(&mut self, key: Key, end: End) {
        if matches!(end, End::Retried { .. } | End::Publishing) {
            return;
        }
        if let Some(before) = self.ends.insert((key.job, key.ordinal), end)
            && !self.retried.contains(&key.job)
        {
            self.violated("I11", format!("{key} ended its task as {end:?}, which had ended as {before:?}"));
        }
    }
}
