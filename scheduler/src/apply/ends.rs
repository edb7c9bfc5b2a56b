//! The end of an attempt, and what it means for its task: the one place where tasks end or are tried again.

use std::sync::Arc;

use bytes::Bytes;
use proto::v1::{AttemptKey, Cause};

use super::Step;
use crate::{
    Event, State,
    indexes::Indexes,
    job::{Fact, Job, Lease, Phase, Place, Publication, Rule},
    limits,
    outcome::End,
};

/// An attempt that has no lease any more, and what is to be recorded of it.
pub(super) struct Ending {
    pub key: AttemptKey,
    pub fact: Fact,
    /// It had been asked to stop, for this.
    pub killed: Option<Cause>,
    /// Whether trying again could help.
    pub retryable: bool,
    /// An encoded manifest: there are outputs to publish.
    pub manifest: Option<Bytes>,
}

/// Which budget an end is charged to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Budget {
    /// The retries that were asked for.
    Own,
    /// The attempts that the infrastructure may lose.
    Infrastructure,
    /// None: it can't be tried again.
    None,
}

/// The rules of retry: those of the job, or the default ones (interfaces, section 2).
fn budget_of(rules: &[Rule], cause: Cause, exit_code: i32) -> Budget {
    let named = || rules.is_empty() || rules.iter().any(|rule| rule.holds(cause, exit_code));
    match cause {
        Cause::ExitCode | Cause::Signal | Cause::OutOfMemory | Cause::TimeLimit if named() => Budget::Own,
        Cause::ExitCode | Cause::Signal | Cause::OutOfMemory | Cause::TimeLimit => Budget::None,
        // Staging that can't succeed, as with a missing key, comes with `retryable` false.
        Cause::WorkerLost | Cause::SpotReclaimed | Cause::StageIn | Cause::StageOut => Budget::Infrastructure,
        Cause::CommandNotFound
        | Cause::CommandNotExecutable
        | Cause::Infeasible
        | Cause::Cancelled
        | Cause::Dependency
        | Cause::QueueTimeLimit
        | Cause::Unspecified => Budget::None,
    }
}

/// Whether another attempt waits first: what a lost machine did says nothing about the next.
fn backs_off(cause: Cause) -> bool {
    !matches!(cause, Cause::WorkerLost | Cause::SpotReclaimed)
}

/// How long the attempt after `number` failures waits: doubling, and spread by a hash over its second half.
fn backoff_ms(job: &Job, key: &AttemptKey, number: u16) -> u64 {
    let doublings = u32::from(number.saturating_sub(1)).min(40);
    let longest = job.terms.min_backoff_ms.saturating_mul(1 << doublings).min(job.terms.max_backoff_ms);
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&key.job_id.to_le_bytes());
    bytes[8..12].copy_from_slice(&key.ordinal.to_le_bytes());
    bytes[12..].copy_from_slice(&key.attempt.to_le_bytes());
    let hash = blake3::hash(&bytes);
    let spread =
        u64::from(u32::from_le_bytes([hash.as_bytes()[0], hash.as_bytes()[1], hash.as_bytes()[2], hash.as_bytes()[3]]));
    longest / 2 + (((longest - longest / 2) * spread) >> 32)
}

impl Step<'_> {
    /// Takes the lease of this very attempt from this very session, whose capacity is free again. The record
    /// stays, pending, until [`Step::conclude`] decides.
    pub(super) fn take_lease(&mut self, session_id: u64, key: &AttemptKey) -> Option<Lease> {
        let State { jobs, sessions, queues, licenses, time_ms, half_life_ms, .. } = &mut *self.state;
        let held = jobs.get(key.job_id)?.records.get(&key.ordinal)?;
        if held.attempt != key.attempt || held.lease()?.session != session_id {
            return None;
        }
        let job = jobs.get_mut(key.job_id)?;
        let record = job.records.get_mut(&key.ordinal)?;
        let Phase::Leased(lease) = std::mem::replace(&mut record.phase, Phase::Pending) else { return None };
        match lease.start_ms {
            Some(_) => job.counts.running -= 1,
            None => job.counts.leased -= 1,
        }
        let shape = lease.shape(job.terms.shape());
        let queue = queues.get_mut(&job.terms.queue).expect("a job's queue exists");
        queue.count_usage(*time_ms, *half_life_ms);
        queue.load.running -= 1;
        if !lease.ahead {
            queue.load.used.subtract(&shape);
        }
        licenses.give_back(&job.terms.ask.licenses);
        // Absent while the session itself is ending.
        if let Some(session) = sessions.get_mut(&session_id) {
            session.holds.leases.remove(&(key.job_id, key.ordinal));
            if lease.ahead {
                session.holds.ahead.remove(&(lease.granted_index, key.job_id, key.ordinal));
            } else {
                session.holds.used.subtract(&shape);
            }
        }
        Some(lease)
    }

    /// Lets what a session holds ahead take the capacity that came free, in the order in which it was granted:
    /// so will the worker.
    pub(super) fn promote(&mut self, session_id: u64) {
        let State { jobs, sessions, queues, time_ms, half_life_ms, .. } = &mut *self.state;
        let Some(session) = sessions.get_mut(&session_id) else { return };
        while let Some(&(granted, job_id, ordinal)) = session.holds.ahead.get_min() {
            let job = jobs.get(job_id).expect("a lease is of a job");
            let lease = job.records.get(&ordinal).and_then(|record| record.lease()).expect("a lease has a record");
            let shape = lease.shape(job.terms.shape());
            if !shape.fits(&session.free()) {
                return;
            }
            session.holds.ahead.remove(&(granted, job_id, ordinal));
            session.holds.used.add(&shape);
            let job = jobs.get_mut(job_id).expect("a lease is of a job");
            let queue = queues.get_mut(&job.terms.queue).expect("a job's queue exists");
            queue.count_usage(*time_ms, *half_life_ms);
            queue.load.used.add(&shape);
            job.records.get_mut(&ordinal).and_then(|record| record.lease_mut()).expect("a lease has a record").ahead =
                false;
        }
    }

    /// Decides what the end of an attempt means for its task.
    pub(super) fn conclude(&mut self, ending: Ending) -> End {
        let Ending { key, mut fact, killed, retryable, manifest } = ending;
        let State { jobs, sessions, queues, indexes, index, time_ms, .. } = &mut *self.state;
        let job = jobs.get_mut(key.job_id).expect("an attempt is of a job");
        let record = job.records.get_mut(&key.ordinal).expect("an attempt has a record");
        let (ran, cause, exit_code, signal, session) =
            (fact.run_ms, fact.cause, fact.exit_code, fact.signal, fact.session);
        let succeeded = cause == Cause::ExitCode && exit_code == 0;
        let end = if killed == Some(Cause::Cancelled) || cause == Cause::Cancelled {
            End::Cancelled
        } else if succeeded {
            if manifest.is_some() { End::Publishing } else { End::Succeeded }
        } else if job.terms.at_most_once || !retryable || killed.is_some() {
            End::Failed
        } else {
            match budget_of(&job.terms.rules, cause, exit_code) {
                Budget::Own if u32::from(record.failures) < job.terms.retries => {
                    record.failures = record.failures.saturating_add(1);
                    let number = record.failures;
                    if cause == Cause::OutOfMemory {
                        let memory_mib = record.memory_mib.max(job.terms.shape().memory_mib);
                        let grown = job.terms.rules.iter().map(|rule| rule.next_memory_after(cause, memory_mib)).max();
                        record.memory_mib = grown.filter(|grown| *grown > memory_mib).unwrap_or(record.memory_mib);
                    }
                    End::Retried { not_before_ms: *time_ms + backoff_ms(job, &key, number) }
                }
                Budget::Infrastructure if record.lost < limits::INFRASTRUCTURE_ATTEMPTS => {
                    record.lost += 1;
                    let number = record.lost;
                    let wait = if backs_off(cause) { backoff_ms(job, &key, number) } else { 0 };
                    End::Retried { not_before_ms: *time_ms + wait }
                }
                Budget::Own | Budget::Infrastructure | Budget::None => End::Failed,
            }
        };
        if matches!(cause, Cause::ExitCode) && end != End::Cancelled {
            job.runs.note(ran);
        }
        if fact.start_ms.is_some()
            && let Some(queue) = queues.get_mut(&job.terms.queue)
        {
            queue.recent.note(ran);
        }
        match end {
            End::Publishing => {
                fact.place = Place::Succeeded;
                let assigned = sessions.contains_key(&session).then_some((session, *index));
                let publication = Publication { assigned, fact, manifest: manifest.unwrap_or_default() };
                let record = job.records.get_mut(&key.ordinal).expect("an attempt has a record");
                record.phase = Phase::Publishing(Arc::new(publication));
                job.counts.publishing += 1;
                if let Some(session) = sessions.get_mut(&session) {
                    session.holds.publications.insert((key.job_id, key.ordinal));
                } else {
                    indexes.orphans.insert((key.job_id, key.ordinal));
                }
            }
            End::Succeeded => close(job, &key, Place::Succeeded, fact),
            End::Cancelled => {
                if killed.is_some() {
                    fact.cause = Cause::Cancelled;
                }
                close(job, &key, Place::Cancelled, fact);
            }
            End::Failed => {
                if let Some(cause) = killed {
                    fact.cause = cause;
                }
                job.extra_mut().failures.add(key.ordinal, &fact);
                close(job, &key, Place::Failed, fact);
            }
            End::Retried { not_before_ms } => {
                fact.place = Place::Failed;
                job.record_fact(key.ordinal, fact);
                let record = job.records.get_mut(&key.ordinal).expect("an attempt has a record");
                if not_before_ms > *time_ms {
                    record.phase = Phase::Backoff { until_ms: not_before_ms };
                    indexes.timers.insert((not_before_ms, key.job_id, key.ordinal));
                    job.counts.backoff += 1;
                } else {
                    record.phase = Phase::Pending;
                    requeue(job, indexes, key.job_id, key.ordinal);
                }
            }
        }
        let broken = end == End::Failed && job.terms.max_failures > 0 && job.counts.failed >= job.terms.max_failures;
        self.events.push(Event::AttemptEnded { session, key, cause, exit_code, signal, end });
        if end == End::Publishing {
            self.events.push(Event::PublicationAssigned { session, key });
        }
        self.touch_tasks(key.job_id, key.ordinal, 1);
        if broken {
            self.break_off(key.job_id);
        }
        end
    }

    /// Ends an array of which as many tasks have failed as may.
    fn break_off(&mut self, id: u64) {
        let job = self.state.jobs.get(id).expect("it was found");
        let (failed, count) = (job.counts.failed, job.tasks.count());
        if job.counts.unended() == 0 {
            return;
        }
        if self.stop(id, &[(0, count)]).count > 0 {
            let reason = format!("{failed} of its tasks failed, as many as its limit of failures allows");
            self.state.jobs.get_mut(id).expect("it was found").extra_mut().reason = Some(reason.into());
        }
    }
}

/// Lets a task be granted again: with the others of its job, or in a line of its own.
pub(super) fn requeue(job: &mut Job, indexes: &mut Indexes, id: u64, ordinal: u32) {
    match job.records.get(&ordinal).map_or(0, |record| record.memory_mib) {
        0 => {
            job.tasks.set(ordinal, Place::Pending);
            job.counts.pending += 1;
        }
        memory_mib => {
            job.tasks.set(ordinal, Place::Active);
            job.counts.grown += 1;
            indexes.set_grown(id, job, ordinal, memory_mib, true);
        }
    }
}

/// Ends a task.
fn close(job: &mut Job, key: &AttemptKey, place: Place, mut fact: Fact) {
    fact.place = place;
    job.record_fact(key.ordinal, fact);
    job.records.remove(&key.ordinal);
    job.tasks.set(key.ordinal, place);
    *job.counts.ended_mut(place) += 1;
}
