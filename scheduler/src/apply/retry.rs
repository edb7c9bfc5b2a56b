//! New attempts for tasks that have ended. Their numbers count on; their budgets begin anew; jobs that waited
//! for this one are not touched.

use proto::{
    internal::RetryTasks,
    v1::{Cause, Resources},
};

use super::{
    Step,
    cancel::{admit_selection, given_back, selected},
    dependencies::state_word,
    needs::admit_resources,
};
use crate::{
    Outcome, Rejection, State,
    job::{Bearing, Edge, Fact, Job, Place},
    limits,
    requests::Answer,
    shape::Shape,
};

impl State {
    pub(crate) fn admit_retry(&self, retry: &RetryTasks) -> Result<(), Rejection> {
        let id = retry.job_id;
        let job = self.jobs.get(id).ok_or_else(|| {
            if self.jobs.gone(id).is_none() {
                return Rejection::job_not_found("job_id", id);
            }
            let message = format!("job {id} has moved to the history and can't be retried");
            Rejection::conflict("JOB_MOVED", message)
                .hint("submit it again; `millgrid cluster history` shows how long ended jobs can be retried")
        })?;
        admit_selection(job, &retry.tasks)?;
        if let Some(asked) = &retry.resources {
            admit_resources(&Resources::from(replaced(job.terms.shape(), asked)))?;
        }
        let spans = selected(job, &retry.tasks);
        let publishing =
            |(first, end): &(u32, u32)| job.records.range(*first..*end).any(|(_, one)| one.publication().is_some());
        if job.counts.publishing > 0 && spans.iter().any(publishing) {
            let message = format!("outputs of job {id} are being published: those tasks can't be retried now");
            return Err(Rejection::conflict("PUBLISHING", message).hint("retry when it has ended, or name other tasks"));
        }
        let count: u64 = places(retry.failed_only)
            .iter()
            .flat_map(|place| spans.iter().map(move |(first, end)| u64::from(job.tasks.count_in(*first, *end, *place))))
            .sum();
        if count == 0 {
            let kind = if retry.failed_only { "failed" } else { "ended" };
            return Err(Rejection::conflict("NOTHING_TO_RETRY", format!("no such task of job {id} has {kind}")));
        }
        if !self.queues.contains_key(&job.terms.queue) {
            let message = format!("the queue `{}` of job {id} was deleted", job.terms.queue);
            return Err(Rejection::conflict("QUEUE_NOT_FOUND", message)
                .hint(format!("create it again with `millgrid queue create {}`", job.terms.queue)));
        }
        if job.terms.at_most_once && self.started_once(job, &spans, retry.failed_only) {
            let message = format!("job {id} is to run at most once, and these tasks may have started");
            return Err(Rejection::conflict("AT_MOST_ONCE", message).hint("submit it as a new job"));
        }
        if self.indexes.unended_tasks + count > limits::UNENDED_TASKS {
            return Err(Rejection::exhausted("TOO_MANY_TASKS", "ranges", "the grid is full").hint("retry it later"));
        }
        self.admit_dependencies_of_retry(id, job)
    }

    /// A job that was skipped, or was cancelled while it waited, still waits.
    fn admit_dependencies_of_retry(&self, id: u64, job: &Job) -> Result<(), Rejection> {
        if job.released {
            return Ok(());
        }
        for edge in job.after().iter().filter(|edge| !edge.met && !edge.is_by_task()) {
            let state = self.state_of_job(edge.job);
            if self.bearing(edge) == Bearing::Impossible {
                let (word, other) = (edge.word(), edge.job);
                let message = format!("job {id} waits for {word} of job {other}, which {}", state_word(state));
                return Err(Rejection::conflict("DEPENDENCY", message).hint(format!("retry job {other} first")));
            }
        }
        Ok(())
    }

    fn started_once(&self, job: &Job, spans: &[(u32, u32)], failed_only: bool) -> bool {
        places(failed_only).iter().any(|place| {
            ordinals_in(job, spans, *place)
                .any(|ordinal| job.newest_fact(ordinal).is_some_and(|fact| fact.session != 0))
        })
    }
}

fn places(failed_only: bool) -> &'static [Place] {
    if failed_only { &[Place::Failed] } else { &Place::ENDS }
}

fn ordinals_in<'j>(job: &'j Job, spans: &'j [(u32, u32)], place: Place) -> impl Iterator<Item = u32> + 'j {
    spans.iter().flat_map(move |(first, end)| {
        let mut at = *first;
        std::iter::from_fn(move || {
            let (run, count) = job.tasks.next(at, place).filter(|(run, _)| run < end)?;
            at = (run + count).min(*end);
            Some(run..at)
        })
        .flatten()
    })
}

/// The fields that aren't zero take the place of what was asked before.
fn replaced(shape: &Shape, by: &Resources) -> Shape {
    let or = |new: u64, old: u64| if new == 0 { old } else { new };
    Shape {
        cpu_milli: or(by.cpu_milli, shape.cpu_milli),
        memory_mib: or(by.memory_mib, shape.memory_mib),
        scratch_gib: or(by.scratch_gib, shape.scratch_gib),
        gpus: if by.gpus == 0 { shape.gpus } else { by.gpus },
    }
}

impl Step<'_> {
    pub fn retry(&mut self, retry: &RetryTasks) -> Outcome {
        let (id, now_ms) = (retry.job_id, self.state.time_ms);
        let job = self.state.jobs.get_mut(id).expect("it was looked up");
        let spans = selected(job, &retry.tasks);
        forget_failures(job, &spans);
        let by_task = job.after().iter().any(Edge::is_by_task);
        let to = if by_task { Place::Blocked } else { Place::Pending };
        for place in places(retry.failed_only) {
            for (first, end) in &spans {
                let moved = job.tasks.shift(*first, *end, *place, to);
                *job.counts.ended_mut(*place) -= moved;
                *(if by_task { &mut job.counts.blocked } else { &mut job.counts.pending }) += moved;
            }
        }
        if job.released {
            job.start_limits(now_ms);
        }
        if let Some(extra) = job.extra.as_deref_mut() {
            extra.reason = None;
        }
        for (first, end) in spans {
            self.touch_tasks(id, first, end - first);
            if by_task {
                self.weigh_twins(id, first, end);
            }
        }
        if let Some(asked) = &retry.resources {
            let terms = self.state.jobs.get(id).expect("it was looked up").terms.clone();
            let terms = self.with_shapes(&terms, |shape| replaced(shape, asked));
            self.replace_terms(id, terms);
        }
        self.settle();
        self.weigh_dependencies(id);
        self.state.requests.store(retry.request.as_ref(), Answer::Job(id), self.state.time_ms);
        Outcome::Job(id)
    }
}

/// Takes the failed tasks of these spans out of their groups.
fn forget_failures(job: &mut Job, spans: &[(u32, u32)]) {
    let failed: u32 = spans.iter().map(|(first, end)| job.tasks.count_in(*first, *end, Place::Failed)).sum();
    if failed == 0 {
        return;
    }
    if failed == job.counts.failed {
        job.extra_mut().failures = crate::job::Failures::default();
        return;
    }
    let untried = job.extra.as_deref().map_or(Cause::Unspecified, |extra| extra.stopped_cause);
    let last = |ordinal| {
        let tried = job.newest_fact(ordinal).filter(|fact| fact.place == Place::Failed);
        (ordinal, tried.unwrap_or_else(|| Fact { cause: untried, ..given_back(0, 0) }))
    };
    let facts: Vec<_> = ordinals_in(job, spans, Place::Failed).map(last).collect();
    for (ordinal, fact) in facts {
        job.extra_mut().failures.remove(ordinal, &fact);
    }
}
