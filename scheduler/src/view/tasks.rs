//! Tasks and attempts, as the public API shows them, and where what they made is found.

use proto::{
    internal::OrdinalRange,
    ranges,
    v1::{self, AttemptKey, Cause, Manifest, TaskState},
};

use super::{LogLocation, timestamp};
use crate::{
    State,
    job::{Fact, Job, Lease, Phase, Place, Publication, Record},
    limits,
};

impl State {
    /// Whether a task has ended, or is in the state no more.
    pub fn task_has_ended(&self, job: u64, ordinal: u32) -> bool {
        self.jobs.get(job).is_none_or(|job| match job.tasks.place(ordinal) {
            Place::Pending | Place::Blocked | Place::Active => false,
            Place::Succeeded | Place::Failed | Place::Cancelled | Place::Skipped => true,
        })
    }

    /// One task; with `attempts` also all of its attempts that are still known.
    pub fn task(&self, job: u64, ordinal: u32, attempts: bool) -> Option<v1::Task> {
        let record = self.jobs.get(job)?;
        (ordinal < record.tasks.count()).then(|| self.task_of(job, record, ordinal, attempts))
    }

    /// Tasks from the ordinal `from` on, and where the next page begins, if there may be more. `selection` are
    /// ascending runs, all when empty; of `states` any, all when empty. A page looks at [`limits::LIST_SCAN`]
    /// tasks at most, so that it may be short.
    pub fn tasks(
        &self,
        job: u64,
        selection: &[OrdinalRange],
        states: &[TaskState],
        attempts: bool,
        from: u32,
        limit: usize,
    ) -> Option<(Vec<v1::Task>, Option<u32>)> {
        let record = self.jobs.get(job)?;
        let everything = [OrdinalRange { first: 0, count: record.tasks.count() }];
        let selection = if selection.is_empty() { &everything } else { selection };
        let mut page = Vec::new();
        let mut looked_at = 0;
        for run in selection {
            let end = run.first.saturating_add(run.count).min(record.tasks.count());
            for ordinal in run.first.max(from)..end {
                if page.len() >= limit || looked_at >= limits::LIST_SCAN {
                    return Some((page, Some(ordinal)));
                }
                looked_at += 1;
                if states.is_empty() || states.contains(&state_of(record, ordinal)) {
                    page.push(self.task_of(job, record, ordinal, attempts));
                }
            }
        }
        Some((page, None))
    }

    /// What the accepted attempt of a task published: its number, the manifest and the ETags.
    pub fn published(&self, job: u64, ordinal: u32) -> Option<(u32, Manifest, Vec<String>)> {
        let published = self.jobs.get(job)?.extra.as_deref()?.outputs.get(&ordinal)?;
        Some((published.attempt, published.manifest.clone(), published.etags.clone()))
    }

    /// Where the logs of an attempt are; of the latest for 0.
    pub fn logs(&self, job: u64, ordinal: u32, attempt: u32) -> Option<LogLocation> {
        let record = self.jobs.get(job).filter(|record| ordinal < record.tasks.count())?;
        let attempt = if attempt == 0 { record.attempt_of(ordinal) } else { attempt };
        let key = AttemptKey { job_id: job, ordinal, attempt };
        let of_fact = |fact: &Fact| LogLocation {
            key,
            session: fact.session,
            worker: self.worker_of(fact.session),
            bundle: fact.log_bundle,
            stdout_bytes: fact.stdout_bytes,
            stderr_bytes: fact.stderr_bytes,
            ended: true,
        };
        match record.records.get(&ordinal).filter(|held| held.attempt == attempt).map(|held| &held.phase) {
            Some(Phase::Leased(lease)) => {
                let (session, worker) = (lease.session, self.worker_of(lease.session));
                Some(LogLocation { key, session, worker, bundle: 0, stdout_bytes: 0, stderr_bytes: 0, ended: false })
            }
            Some(Phase::Publishing(publication)) => Some(of_fact(&publication.fact)),
            Some(Phase::Pending | Phase::Backoff { .. }) | None => {
                record.facts(ordinal).iter().rev().find(|fact| fact.attempt == attempt).map(of_fact)
            }
        }
    }

    /// Name of the worker that a session is or was of; empty for none.
    pub(crate) fn worker_of(&self, session: u64) -> String {
        let position = usize::try_from(session).ok().and_then(|session| session.checked_sub(1));
        position.and_then(|position| self.session_workers.get(position)).map(ToString::to_string).unwrap_or_default()
    }

    fn task_of(&self, id: u64, job: &Job, ordinal: u32, attempts: bool) -> v1::Task {
        let mut task = v1::Task {
            job_id: id,
            index: ranges::index_of(job.ranges(), ordinal).unwrap_or_default(),
            state: state_of(job, ordinal) as i32,
            attempt: job.attempt_of(ordinal),
            create_time: Some(timestamp(job.created_ms)),
            ..v1::Task::default()
        };
        let record = job.records.get(&ordinal);
        match (job.tasks.place(ordinal), record.map(|record| &record.phase)) {
            (_, Some(Phase::Leased(lease))) => {
                task.worker = self.worker_of(lease.session);
                task.start_time = lease.start_ms.map(timestamp);
            }
            (_, Some(Phase::Publishing(publication))) => {
                task.worker = self.worker_of(publication.fact.session);
                task.start_time = publication.fact.start_ms.map(timestamp);
                task.publishing = true;
            }
            (place @ (Place::Succeeded | Place::Failed | Place::Cancelled | Place::Skipped), _) => {
                self.describe_end(&mut task, job, ordinal, place);
            }
            (Place::Pending | Place::Active | Place::Blocked, _) => {}
        }
        if attempts {
            task.attempts = job.facts(ordinal).iter().map(|fact| self.attempt_of(fact)).collect();
            task.attempts.extend(record.and_then(|record| self.open_attempt(record)));
        }
        task
    }

    /// How a task ended. Where it ended without an attempt, earlier attempts say nothing about it.
    fn describe_end(&self, task: &mut v1::Task, job: &Job, ordinal: u32, place: Place) {
        match job.newest_fact(ordinal).filter(|fact| fact.place == place) {
            Some(fact) => {
                let attempt = self.attempt_of(&fact);
                task.exit_code = attempt.exit_code;
                task.signal = attempt.signal;
                task.cause = attempt.cause;
                task.detail = attempt.detail;
                task.worker = attempt.worker;
                task.start_time = attempt.start_time;
                task.end_time = attempt.end_time;
                task.seconds = attempt.seconds;
                task.cpu_seconds = attempt.cpu_seconds;
                task.max_memory_mib = attempt.max_memory_mib;
            }
            None => {
                let cause = match place {
                    Place::Skipped => Cause::Dependency,
                    Place::Failed => job.extra.as_deref().map_or(Cause::Unspecified, |extra| extra.stopped_cause),
                    Place::Succeeded | Place::Cancelled | Place::Pending | Place::Active | Place::Blocked => {
                        Cause::Cancelled
                    }
                };
                task.cause = cause as i32;
                task.end_time = job.extra.as_deref().and_then(|extra| extra.stopped_ms).map(timestamp);
            }
        }
    }

    fn attempt_of(&self, fact: &Fact) -> v1::Attempt {
        let state = match fact.place {
            Place::Succeeded => TaskState::Succeeded,
            Place::Cancelled => TaskState::Cancelled,
            Place::Failed | Place::Pending | Place::Active | Place::Blocked | Place::Skipped => TaskState::Failed,
        };
        v1::Attempt {
            number: fact.attempt,
            state: state as i32,
            exit_code: (fact.cause == Cause::ExitCode).then_some(fact.exit_code),
            signal: fact.signal,
            cause: fact.cause as i32,
            detail: fact.detail.to_string(),
            worker: self.worker_of(fact.session),
            create_time: Some(timestamp(fact.granted_wall_ms)),
            start_time: fact.start_ms.map(timestamp),
            end_time: Some(timestamp(fact.end_ms)),
            seconds: fact.run_ms as f64 / 1000.0,
            cpu_seconds: fact.cpu_ms as f64 / 1000.0,
            max_memory_mib: fact.max_memory_kib.div_ceil(1024),
            stdout_bytes: fact.stdout_bytes,
            stderr_bytes: fact.stderr_bytes,
        }
    }

    /// The attempt that has not ended.
    fn open_attempt(&self, record: &Record) -> Option<v1::Attempt> {
        match &record.phase {
            Phase::Pending | Phase::Backoff { .. } => None,
            Phase::Leased(lease) => Some(self.leased_attempt(record.attempt, lease)),
            Phase::Publishing(publication) => Some(v1::Attempt {
                state: TaskState::Running as i32,
                end_time: None,
                ..self.publishing_attempt(publication)
            }),
        }
    }

    fn leased_attempt(&self, number: u32, lease: &Lease) -> v1::Attempt {
        v1::Attempt {
            number,
            state: lease_state(lease) as i32,
            worker: self.worker_of(lease.session),
            create_time: Some(timestamp(lease.granted_wall_ms)),
            start_time: lease.start_ms.map(timestamp),
            ..v1::Attempt::default()
        }
    }

    fn publishing_attempt(&self, publication: &Publication) -> v1::Attempt {
        v1::Attempt { exit_code: None, cause: Cause::Unspecified as i32, ..self.attempt_of(&publication.fact) }
    }
}

fn lease_state(lease: &Lease) -> TaskState {
    if lease.start_ms.is_some() { TaskState::Running } else { TaskState::Leased }
}

/// The state of a task.
pub(crate) fn state_of(job: &Job, ordinal: u32) -> TaskState {
    match job.tasks.place(ordinal) {
        Place::Pending if job.released => TaskState::Queued,
        Place::Pending | Place::Blocked => TaskState::Waiting,
        Place::Active => match job.records.get(&ordinal).map(|record| &record.phase) {
            Some(Phase::Leased(lease)) => lease_state(lease),
            Some(Phase::Publishing(_)) => TaskState::Running,
            Some(Phase::Pending | Phase::Backoff { .. }) | None => TaskState::Queued,
        },
        Place::Succeeded => TaskState::Succeeded,
        Place::Failed => TaskState::Failed,
        Place::Cancelled => TaskState::Cancelled,
        Place::Skipped => TaskState::Skipped,
    }
}
