//! Changes of a job that has not ended: its priority and its limits, which hold at once, also for what runs.

use std::sync::Arc;

use proto::internal::SetJob;

use super::{Step, needs::admit_time_limit};
use crate::{
    Event, Outcome, Rejection, State,
    ask::Ask,
    job::{Phase, Terms},
    limits,
    requests::Answer,
};

impl State {
    pub(crate) fn admit_set_job(&self, set: &SetJob) -> Result<(), Rejection> {
        if self.has_ended("job_id", set.job_id)? {
            let message = format!("job {} has ended and can't be changed", set.job_id);
            return Err(Rejection::conflict("JOB_ENDED", message));
        }
        if let Some(priority) = set.priority.filter(|priority| !limits::PRIORITY.contains(priority)) {
            let (low, high) = (limits::PRIORITY.start(), limits::PRIORITY.end());
            let message = format!("the priority {priority} isn't between {low} and {high}");
            return Err(Rejection::invalid("priority", message));
        }
        let limits = [
            ("time_limit", set.time_limit_ms),
            ("queue_time_limit", set.queue_time_limit_ms),
            ("total_time_limit", set.total_time_limit_ms),
        ];
        limits.into_iter().try_for_each(|(field, limit)| limit.map_or(Ok(()), |limit| admit_time_limit(field, limit)))
    }
}

impl Step<'_> {
    pub fn set_job(&mut self, set: &SetJob) -> Outcome {
        let id = set.job_id;
        let before = self.state.jobs.get(id).expect("it was looked up").terms.clone();
        let time_limit_ms = set.time_limit_ms.unwrap_or(before.ask.time_limit_ms);
        let ask = self.state.indexes.intern_ask(Ask { time_limit_ms, ..Ask::clone(&before.ask) });
        let terms = Terms {
            ask,
            priority: set.priority.unwrap_or(before.priority),
            max_running: set.max_running.unwrap_or(before.max_running),
            max_failures: set.max_failures.unwrap_or(before.max_failures),
            queue_time_limit_ms: set.queue_time_limit_ms.unwrap_or(before.queue_time_limit_ms),
            total_time_limit_ms: set.total_time_limit_ms.unwrap_or(before.total_time_limit_ms),
            ..Terms::clone(&before)
        };
        let limits_changed = (terms.queue_time_limit_ms, terms.total_time_limit_ms)
            != (before.queue_time_limit_ms, before.total_time_limit_ms);
        self.replace_terms(id, terms);
        let now_ms = self.state.time_ms;
        let job = self.state.jobs.get_mut(id).expect("it was looked up");
        if limits_changed && job.released {
            // What had no such limit until now counts from now.
            let since = job.extra.as_deref().and_then(|extra| extra.released_ms);
            job.start_limits(since.unwrap_or(now_ms));
        }
        if time_limit_ms != before.ask.time_limit_ms {
            self.events.push(Event::TimeLimitChanged { job: id, time_limit_ms });
        }
        self.touch(id);
        self.state.requests.store(set.request.as_ref(), Answer::Job(id), now_ms);
        Outcome::Job(id)
    }

    /// Gives a job other terms: takes it out of every line it stands in, and puts it into the new ones.
    pub(super) fn replace_terms(&mut self, id: u64, terms: Terms) {
        let State { jobs, indexes, .. } = &mut *self.state;
        let job = jobs.get_mut(id).expect("it was looked up");
        if *job.terms == terms {
            return;
        }
        let grown: Vec<(u32, u64)> = job
            .records
            .iter()
            .filter(|(_, record)| matches!(record.phase, Phase::Pending) && record.memory_mib > 0)
            .map(|(ordinal, record)| (*ordinal, record.memory_mib))
            .collect();
        indexes.set_ready(id, job, false);
        for (ordinal, memory_mib) in &grown {
            indexes.set_grown(id, job, *ordinal, *memory_mib, false);
        }
        let before = *job.terms.shape();
        if *terms.shape() != before {
            let leased: Vec<u32> =
                job.records.iter().filter(|(_, one)| one.lease().is_some()).map(|(at, _)| *at).collect();
            for ordinal in leased {
                if let Some(lease) = job.records.get_mut(&ordinal).and_then(|record| record.lease_mut()) {
                    // What it gives back is what it took.
                    lease.pinned.get_or_insert_with(|| Box::new(before));
                }
            }
        }
        job.terms = indexes.intern(terms);
        for (ordinal, memory_mib) in grown {
            indexes.set_grown(id, job, ordinal, memory_mib, true);
        }
        // Lines, limits and counts follow.
        self.touch(id);
    }

    /// The same terms with other resources.
    pub(super) fn with_shapes(
        &mut self,
        terms: &Arc<Terms>,
        shape: impl Fn(&crate::shape::Shape) -> crate::shape::Shape,
    ) -> Terms {
        let ask = Ask { shapes: terms.ask.shapes.iter().map(shape).collect(), ..Ask::clone(&terms.ask) };
        Terms { ask: self.state.indexes.intern_ask(ask), ..Terms::clone(terms) }
    }
}
