//! Hold and release: whether a job's queued tasks may be granted. What runs goes on.

use proto::internal::SetHold;

use super::Step;
use crate::{Outcome, Rejection, State, requests::Answer};

impl State {
    pub(crate) fn admit_hold(&self, hold: &SetHold) -> Result<(), Rejection> {
        if self.has_ended("job_id", hold.job_id)? {
            let verb = if hold.hold { "held" } else { "released" };
            return Err(Rejection::conflict("JOB_ENDED", format!("job {} has ended and can't be {verb}", hold.job_id)));
        }
        Ok(())
    }
}

impl State {
    /// Whether a job has ended, whether it has left or not.
    pub(super) fn has_ended(&self, field: &'static str, id: u64) -> Result<bool, Rejection> {
        match self.jobs.get(id) {
            Some(job) => Ok(job.ended()),
            None if self.jobs.gone(id).is_some() => Ok(true),
            None => Err(Rejection::job_not_found(field, id)),
        }
    }
}

impl Step<'_> {
    pub fn hold(&mut self, hold: &SetHold) -> Outcome {
        let id = hold.job_id;
        let job = self.state.jobs.get_mut(id).expect("it was looked up");
        if job.held != hold.hold {
            job.held = hold.hold;
            self.touch(id);
        }
        self.state.requests.store(hold.request.as_ref(), Answer::Job(id), self.state.time_ms);
        Outcome::Job(id)
    }
}
