//! Room kept for jobs that fit nowhere now: replicated, so that a new leader goes on keeping it.

use proto::internal::Reserve;

use super::Step;
use crate::{Outcome, job::Job, queue::Reservation};

impl Step<'_> {
    pub fn reserve(&mut self, reserve: &Reserve) -> Outcome {
        let mut count = 0;
        for asked in &reserve.reservations {
            let good = self.state.jobs.get(asked.job_id).is_some_and(Job::startable)
                && self.state.sessions.get(&asked.session).is_some_and(|session| session.accepts());
            let Some(queue) = self.state.queues.get_mut(asked.queue.as_str()) else { continue };
            if asked.session == 0 {
                count += u32::from(queue.reservation.take().is_some());
            } else if good {
                queue.reservation = Some(Reservation { job: asked.job_id, session: asked.session });
                count += 1;
            }
        }
        Outcome::Count(count)
    }
}
