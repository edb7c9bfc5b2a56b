//! Cancels. What is queued is cancelled at once; what has a lease is asked to stop and keeps its capacity until
//! its end is reported, whatever that end is.

use std::{collections::BTreeSet, sync::Arc};

use proto::{
    internal::{CancelTasks, OrdinalRange},
    v1::{AttemptKey, Cause},
};

use super::Step;
use crate::{
    Event, Outcome, Rejection, State,
    job::{Fact, Job, Kill, Phase, Place},
    limits,
    requests::{Answer, Note},
};

/// What a cancel, or the limit of failures, did.
#[derive(Debug, Default)]
pub(super) struct Stopped {
    /// Tasks cancelled, or asked to stop.
    pub count: u32,
    pub publishing: u32,
    pub asked_before: u32,
}

impl State {
    pub(crate) fn admit_cancel(&self, cancel: &CancelTasks) -> Result<(), Rejection> {
        match self.jobs.get(cancel.job_id) {
            Some(job) => admit_selection(job, &cancel.tasks),
            None if self.jobs.gone(cancel.job_id).is_some() => Ok(()),
            None => Err(Rejection::job_not_found("job_id", cancel.job_id)),
        }
    }
}

/// Refuses tasks that the job doesn't have.
pub(super) fn admit_selection(job: &Job, selection: &[OrdinalRange]) -> Result<(), Rejection> {
    let count = u64::from(job.tasks.count());
    let outside = |run: &&OrdinalRange| run.count == 0 || u64::from(run.first) + u64::from(run.count) > count;
    match selection.iter().find(outside) {
        None => Ok(()),
        Some(run) => {
            let position = u64::from(run.first).max(count);
            let message = format!("the job has {count} tasks, none at position {position}");
            Err(Rejection::new(crate::Code::NotFound, "TASK_NOT_FOUND", "ranges", message))
        }
    }
}

/// The selected tasks as (first, end); all when nothing is selected.
pub(super) fn selected(job: &Job, selection: &[OrdinalRange]) -> Vec<(u32, u32)> {
    if selection.is_empty() {
        return vec![(0, job.tasks.count())];
    }
    selection.iter().map(|run| (run.first, run.first + run.count)).collect()
}

/// Cuts a text off at a boundary of its letters.
pub(super) fn cut(text: &str, bytes: usize) -> &str {
    if text.len() <= bytes {
        return text;
    }
    let end = (0..=bytes).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}

impl Step<'_> {
    pub fn cancel(&mut self, cancel: &CancelTasks) -> Outcome {
        let id = cancel.job_id;
        let open = self.state.jobs.get(id).filter(|job| !job.ended());
        let (stopped, note) = match open.map(|job| selected(job, &cancel.tasks)) {
            None => (Stopped::default(), Note::JobEnded),
            Some(spans) => {
                let stopped = self.stop(id, &spans);
                let whole = cancel.tasks.is_empty();
                if cancel.cascade && whole {
                    self.cancel_dependents(id);
                }
                if whole && stopped.count > 0 && !cancel.reason.is_empty() {
                    let reason: Arc<str> = cut(&cancel.reason, limits::REASON_BYTES).into();
                    self.state.jobs.get_mut(id).expect("it was looked up").extra_mut().reason = Some(reason);
                }
                let note = match &stopped {
                    Stopped { publishing: 1.., .. } => Note::Publishing,
                    Stopped { count: 1.., .. } => Note::None,
                    Stopped { asked_before: 1.., .. } => Note::AskedBefore,
                    Stopped { .. } => Note::TasksEnded,
                };
                (stopped, note)
            }
        };
        let answer = Answer::Cancelled { job: id, count: stopped.count, note };
        let outcome = answer.outcome(false);
        self.state.requests.store(cancel.request.as_ref(), answer, self.state.time_ms);
        outcome
    }

    /// Cancels all jobs that wait for this one, and those that wait for them.
    fn cancel_dependents(&mut self, id: u64) {
        let mut reached = BTreeSet::from([id]);
        let mut next = vec![id];
        while let Some(of) = next.pop() {
            let waiting: Vec<u64> =
                self.state.indexes.dependents.range((of, 0)..=(of, u64::MAX)).map(|(_, waiting)| *waiting).collect();
            for waiting in waiting {
                if !reached.insert(waiting) {
                    continue;
                }
                next.push(waiting);
                let job = self.state.jobs.get(waiting).expect("what waits is a job");
                let count = job.tasks.count();
                if job.ended() {
                    continue;
                }
                let reason: Arc<str> =
                    format!("job {id}, for which it waited, was cancelled with all behind it").into();
                self.stop(waiting, &[(0, count)]);
                self.state.jobs.get_mut(waiting).expect("it was found").extra_mut().reason = Some(reason);
            }
        }
    }

    /// Stops the tasks of a job that lie in these spans.
    pub(super) fn stop(&mut self, id: u64, spans: &[(u32, u32)]) -> Stopped {
        let mut stopped = Stopped::default();
        for (first, end) in spans {
            self.stop_records(id, *first, *end, &mut stopped);
            let wall_ms = self.state.wall_ms;
            let job = self.state.jobs.get_mut(id).expect("it was looked up");
            let moved = job.tasks.shift(*first, *end, Place::Pending, Place::Cancelled);
            job.counts.pending -= moved;
            let blocked = job.tasks.shift(*first, *end, Place::Blocked, Place::Cancelled);
            job.counts.blocked -= blocked;
            job.counts.cancelled += moved + blocked;
            stopped.count += moved + blocked;
            job.extra_mut().stopped_ms = Some(wall_ms);
            self.touch_tasks(id, *first, end - first);
        }
        stopped
    }

    /// Stops those tasks of a span that have records. Those that are queued again keep their place for now.
    fn stop_records(&mut self, id: u64, first: u32, end: u32, stopped: &mut Stopped) {
        let State { jobs, indexes, index, wall_ms, .. } = &mut *self.state;
        let job = jobs.get_mut(id).expect("it was looked up");
        let ordinals: Vec<u32> = job.records.range(first..end).map(|(ordinal, _)| *ordinal).collect();
        for ordinal in ordinals {
            let record = job.records.get_mut(&ordinal).expect("it was listed");
            let attempt = record.attempt;
            match &mut record.phase {
                Phase::Leased(lease) if lease.kill.is_some() => stopped.asked_before += 1,
                Phase::Leased(lease) => {
                    lease.kill = Some(Kill { index: *index, cause: Cause::Cancelled });
                    let key = AttemptKey { job_id: id, ordinal, attempt };
                    self.events.push(Event::KillAsked { session: lease.session, key, cause: Cause::Cancelled });
                    stopped.count += 1;
                }
                Phase::Publishing(_) => stopped.publishing += 1,
                Phase::Backoff { until_ms } => {
                    indexes.timers.remove(&(*until_ms, id, ordinal));
                    job.records.remove(&ordinal);
                    job.tasks.set(ordinal, Place::Cancelled);
                    job.counts.backoff -= 1;
                    job.counts.cancelled += 1;
                    stopped.count += 1;
                }
                Phase::Pending => {
                    let memory_mib = record.memory_mib;
                    if memory_mib > 0 {
                        indexes.set_grown(id, job, ordinal, memory_mib, false);
                        job.tasks.set(ordinal, Place::Cancelled);
                        job.counts.grown -= 1;
                        job.counts.cancelled += 1;
                        stopped.count += 1;
                    }
                    job.records.remove(&ordinal);
                    // Its attempts were given back; their number must not be used again by a retry.
                    if attempt > job.tasks.newest_attempt(ordinal) {
                        job.record_fact(ordinal, given_back(attempt, *wall_ms));
                    }
                }
            }
        }
    }
}

/// The fact of an attempt that never started and whose task was cancelled after.
pub(super) fn given_back(attempt: u32, wall_ms: i64) -> Fact {
    Fact {
        attempt,
        session: 0,
        place: Place::Cancelled,
        cause: Cause::Cancelled,
        exit_code: 0,
        signal: 0,
        granted_wall_ms: wall_ms,
        start_ms: None,
        end_ms: wall_ms,
        run_ms: 0,
        cpu_ms: 0,
        max_memory_kib: 0,
        stdout_bytes: 0,
        stderr_bytes: 0,
        log_bundle: 0,
        detail: "".into(),
    }
}
