//! What a `Tick` does: everything that is due at the entry's time.

use super::{Step, ends::requeue};
use crate::{Event, Outcome, State, job::Phase};

impl Step<'_> {
    pub fn tick(&mut self) -> Outcome {
        let mut count = 0;
        while let Some((until_ms, id, ordinal)) = self.due() {
            let State { jobs, indexes, .. } = &mut *self.state;
            indexes.timers.remove(&(until_ms, id, ordinal));
            let job = jobs.get_mut(id).expect("a back-off is of a job");
            job.records.get_mut(&ordinal).expect("a back-off has a record").phase = Phase::Pending;
            job.counts.backoff -= 1;
            requeue(job, indexes, id, ordinal);
            self.touch_tasks(id, ordinal, 1);
            count += 1;
        }
        count += self.end_limits();
        let time_ms = self.state.time_ms;
        count += self.state.requests.expire(time_ms);
        for hash in self.state.blobs.expire(time_ms) {
            self.events.push(Event::BlobForgotten { hash });
            count += 1;
        }
        Outcome::Count(count)
    }

    fn due(&self) -> Option<(u64, u64, u32)> {
        self.state.indexes.timers.get_min().copied().filter(|(until_ms, ..)| *until_ms <= self.state.time_ms)
    }
}
