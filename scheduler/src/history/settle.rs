//! Letting jobs go.

use proto::internal::{SetHistory, SettleSegments};
use proto::v1::JobState;

use super::Cut;
use crate::{Outcome, Rejection, State, apply::Step, job::Gone, limits, requests::Answer};

impl State {
    pub(crate) fn admit_settle(&self, settle: &SettleSegments) -> Result<(), Rejection> {
        if settle.through as usize > self.history.segments.len() {
            return Err(Rejection::invalid("through", format!("there is no segment {}", settle.through)));
        }
        Ok(())
    }

    pub(crate) fn admit_history(&self, set: &SetHistory) -> Result<(), Rejection> {
        if set.keep_ms.is_some_and(|keep_ms| keep_ms > limits::LONGEST_KEEP_MS) {
            return Err(Rejection::invalid("keep", "ended jobs can't be kept for more than 10 years"));
        }
        Ok(())
    }
}

impl Step<'_> {
    /// Lets go of all jobs in the segments up to this one; how many.
    pub fn settle_segments(&mut self, settle: &SettleSegments) -> Outcome {
        let history = &mut self.state.history;
        history.settled = history.settled.max(settle.through);
        let held = history.cuts.iter().filter(|(_, cut)| cut.last_segment() <= settle.through);
        let leaving: Vec<(u64, Cut)> = held.map(|(id, cut)| (*id, *cut)).collect();
        let mut count = 0;
        for (id, cut) in leaving {
            self.state.history.cuts.remove(&id);
            if self.state.is_bound(id) {
                // Somebody waits for its tasks meanwhile.
                self.state.weigh_for_history(id);
                continue;
            }
            self.leave(id, cut);
            count += 1;
        }
        self.state.indexes.drop_unused_terms();
        Outcome::Count(count)
    }

    fn leave(&mut self, id: u64, cut: Cut) {
        let State { jobs, indexes, blobs, .. } = &mut *self.state;
        let job = jobs.get(id).expect("what was written and not voided is there");
        let state = job.state();
        let exit_code = if state == JobState::Failed { job.exit_code() } else { None };
        let gone = Gone { state, exit_code, first_segment: cut.first_segment, segments: cut.segments };
        let job = jobs.leave(id, gone).expect("it was found");
        indexes.remove_job(id, &job);
        for hash in job.extra.as_deref().map_or(&[][..], |extra| &extra.blobs) {
            blobs.give_back(hash);
        }
        // Arrays that this one waited for task by task may be free now.
        for edge in job.after().iter().filter(|edge| edge.is_by_task()) {
            self.state.weigh_for_history(edge.job);
        }
    }

    pub fn set_history(&mut self, set: &SetHistory) -> Outcome {
        let history = &mut self.state.history;
        history.keep_ms = set.keep_ms.unwrap_or(history.keep_ms);
        history.keep_jobs = set.keep_jobs.unwrap_or(history.keep_jobs);
        self.state.requests.store(set.request.as_ref(), Answer::History, self.state.time_ms);
        Outcome::History
    }
}
