//! How long attempts may run, which may change while they do. Their keeper counts; an agent that is restarted finds the
//! limits there, and asks the grid for nothing.

use proto::v1::TimeLimit;

use crate::{Core, Key, Output};

/// What an attempt may take from its start.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Limit {
    /// 0: for ever.
    pub(super) milliseconds: u64,
    /// Since it was granted; what the keeper was told of it may have got lost.
    changed: bool,
}

impl Limit {
    pub(super) fn granted(milliseconds: u64) -> Self {
        Self { milliseconds, changed: false }
    }
}

impl Core {
    /// Holds for all attempts of the job from now on: those that run, those that wait, and those to come.
    pub(super) fn set_time_limit(&mut self, limit: TimeLimit) {
        let TimeLimit { job_id: job, time_limit_ms } = limit;
        self.specs.set_time_limit(job, time_limit_ms);
        let of_the_job = Key { job, ordinal: 0, attempt: 0 }..=Key { job, ordinal: u32::MAX, attempt: u32::MAX };
        for (key, attempt) in self.attempts.all.range_mut(of_the_job) {
            attempt.limit = Limit { milliseconds: time_limit_ms, changed: true };
            if attempt.stage.has_process() {
                self.outputs.push(Output::SetTimeLimit { key: *key, time_limit_ms });
            }
        }
    }

    /// What was said on a connection to the keeper that broke may not have been heard.
    pub(crate) fn repeat_time_limit(&mut self, key: Key) {
        if let Some(Limit { milliseconds, changed: true }) = self.attempts.all.get(&key).map(|attempt| attempt.limit) {
            self.outputs.push(Output::SetTimeLimit { key, time_limit_ms: milliseconds });
        }
    }
}
