//! What sessions report, numbered without gap: only the next number is applied, a higher one is a gap, and a
//! lower one is a repeat, which is answered from state.

use prost::Message;
use proto::{
    internal::WorkerReport,
    v1::{AttemptKey, Cause, Ended, Manifest, ReportItem, report_item::Item},
};

use super::{
    Step,
    cancel::cut,
    ends::{Ending, requeue},
};
use crate::{
    Event, Outcome, Rejection, State, Verdict,
    job::{Fact, Lease, Phase, Place},
    limits,
};

impl State {
    pub(crate) fn admit_report(&self, report: &WorkerReport) -> Result<(), Rejection> {
        self.admit_for_session(report.session)?;
        let Some(items) = &report.report else { return Ok(()) };
        if items.first_sequence == 0 {
            return Err(Rejection::invalid("report.first_sequence", "reports are numbered from 1"));
        }
        let oversize = |item: &ReportItem| match &item.item {
            Some(Item::Ended(Ended { manifest: Some(manifest), .. })) => {
                manifest.encoded_len() > limits::MANIFEST_BYTES
            }
            _ => false,
        };
        if items.items.iter().any(oversize) {
            let message = format!("an inline manifest has more than {} bytes", limits::MANIFEST_BYTES);
            return Err(Rejection::invalid("report.items", message).hint("store it and name it by its hash"));
        }
        Ok(())
    }

    /// What a session is told about an item that was applied before: what became of the attempt.
    fn verdict_of(&self, session: u64, key: &AttemptKey) -> Verdict {
        let Some(job) = self.jobs.get(key.job_id) else { return Verdict::Fenced };
        if let Some(record) = job.records.get(&key.ordinal).filter(|record| record.attempt == key.attempt) {
            match &record.phase {
                Phase::Leased(lease) if lease.session == session => return Verdict::Accepted,
                Phase::Publishing(publication) => {
                    let assigned = publication.assigned.is_some_and(|(assigned, _)| assigned == session);
                    let ran_it = publication.fact.session == session;
                    return if assigned || ran_it { Verdict::Accepted } else { Verdict::Fenced };
                }
                Phase::Leased(_) | Phase::Pending | Phase::Backoff { .. } => {}
            }
        }
        let outputs = job.extra.as_deref().and_then(|extra| extra.outputs.get(&key.ordinal));
        if outputs.is_some_and(|published| published.attempt == key.attempt) {
            return Verdict::Published;
        }
        if key.ordinal >= job.tasks.count() {
            return Verdict::Fenced;
        }
        let by_this = |fact: &Fact| fact.attempt == key.attempt && fact.session == session;
        if job.facts(key.ordinal).iter().any(by_this) { Verdict::Accepted } else { Verdict::Fenced }
    }
}

impl Step<'_> {
    pub fn report(&mut self, report: &WorkerReport) -> Outcome {
        let id = report.session;
        let applied = |step: &Self| step.state.sessions.get(&id).map_or(0, |session| session.applied_sequence);
        let before = applied(self);
        let Some(items) = &report.report else {
            return Outcome::Reported { applied_sequence: before, gap: false, verdicts: Vec::new() };
        };
        if items.first_sequence > before + 1 {
            return Outcome::Reported { applied_sequence: before, gap: true, verdicts: Vec::new() };
        }
        let mut verdicts = Vec::new();
        for (sequence, item) in (items.first_sequence..).zip(&items.items) {
            let key = item.attempt.unwrap_or_default();
            if sequence <= before {
                verdicts.push((sequence, self.state.verdict_of(id, &key)));
                continue;
            }
            // A refused item takes its number too: else everything behind it would wait for ever.
            self.state.sessions.get_mut(&id).expect("it was looked up").applied_sequence = sequence;
            if !self.take_up(id, &key, item) {
                verdicts.push((sequence, self.state.verdict_of(id, &key)));
            }
        }
        self.promote(id);
        Outcome::Reported { applied_sequence: applied(self), gap: false, verdicts }
    }

    /// Whether an item was this session's to say.
    fn take_up(&mut self, session: u64, key: &AttemptKey, item: &ReportItem) -> bool {
        match &item.item {
            None => false,
            Some(Item::Started(started)) => self.started(session, key, started.start_time_ms),
            Some(Item::Returned(_)) => self.returned(session, key),
            Some(Item::Ended(ended)) => self.ended(session, key, ended),
            Some(Item::Published(published)) => self.published(session, key, &published.etags),
            Some(Item::PublicationFailed(failed)) => {
                self.publication_failed(session, key, &failed.detail, failed.retryable)
            }
        }
    }

    fn started(&mut self, session: u64, key: &AttemptKey, start_ms: i64) -> bool {
        let Some(held) = self.state.jobs.get(key.job_id).and_then(|job| job.records.get(&key.ordinal)) else {
            return false;
        };
        let mine = held.attempt == key.attempt && held.lease().is_some_and(|lease| lease.session == session);
        if !mine {
            return false;
        }
        let job = self.state.jobs.get_mut(key.job_id).expect("it was found");
        let lease = job.records.get_mut(&key.ordinal).and_then(|record| record.lease_mut()).expect("it was found");
        if lease.start_ms.is_some() {
            return true;
        }
        lease.start_ms = Some(start_ms);
        let ahead = lease.ahead;
        job.counts.leased -= 1;
        job.counts.running += 1;
        job.started_ms.get_or_insert(start_ms);
        if ahead {
            self.count_start(session, key);
        }
        self.events.push(Event::AttemptStarted { session, key: *key });
        self.touch_tasks(key.job_id, key.ordinal, 1);
        true
    }

    /// What was granted ahead runs: it holds the capacity from now on. If it seems to have overtaken another
    /// task, which holds it by the accounts but hasn't started, they change places; a task that runs at most once
    /// keeps its own.
    fn count_start(&mut self, session_id: u64, key: &AttemptKey) {
        self.promote(session_id);
        let State { jobs, sessions, queues, time_ms, half_life_ms, .. } = &mut *self.state;
        let session = sessions.get_mut(&session_id).expect("it was looked up");
        let place = |jobs: &crate::job::Jobs, at: (u64, u32)| {
            let job = jobs.get(at.0)?;
            let lease = job.records.get(&at.1)?.lease()?;
            let idle = !lease.ahead && lease.start_ms.is_none() && !job.terms.at_most_once;
            Some((lease.ahead, idle, lease.granted_index, lease.shape(job.terms.shape())))
        };
        let me = (key.job_id, key.ordinal);
        let Some((true, _, granted, shape)) = place(jobs, me) else { return };
        let mut leases = session.holds.leases.iter().copied();
        let overtaken =
            leases.find(|other| place(jobs, *other).is_some_and(|(_, idle, _, theirs)| idle && theirs == shape));
        let Some(other) = overtaken else { return };
        let Some((_, _, granted_other, _)) = place(jobs, other) else { return };
        session.holds.ahead.remove(&(granted, me.0, me.1));
        session.holds.ahead.insert((granted_other, other.0, other.1));
        for (at, ahead) in [(me, false), (other, true)] {
            let job = jobs.get_mut(at.0).expect("it was found");
            let lease = job.records.get_mut(&at.1).and_then(|record| record.lease_mut()).expect("it was found");
            lease.ahead = ahead;
            let queue = queues.get_mut(&job.terms.queue).expect("a job's queue exists");
            queue.count_usage(*time_ms, *half_life_ms);
            let used = &mut queue.load.used;
            if ahead { used.subtract(&shape) } else { used.add(&shape) }
        }
    }

    /// An attempt that was never started: its task is queued again, at the cost of a number alone.
    fn returned(&mut self, session_id: u64, key: &AttemptKey) -> bool {
        let Some(lease) = self.take_lease(session_id, key) else { return false };
        if let Some(session) = self.state.sessions.get_mut(&session_id) {
            session.sated = true;
        }
        self.events.push(Event::AttemptReturned { session: session_id, key: *key });
        if let Some(kill) = lease.kill {
            let ended = Ended { cause: kill.cause as i32, ..Ended::default() };
            let fact = fact_of(&lease, key, &ended, self.state.wall_ms);
            self.conclude(Ending { key: *key, fact, killed: Some(kill.cause), retryable: false, manifest: None });
            return true;
        }
        let State { jobs, indexes, .. } = &mut *self.state;
        let job = jobs.get_mut(key.job_id).expect("it was found");
        // `take_lease` left the record as it is to be.
        requeue(job, indexes, key.job_id, key.ordinal);
        self.touch_tasks(key.job_id, key.ordinal, 1);
        true
    }

    fn ended(&mut self, session_id: u64, key: &AttemptKey, ended: &Ended) -> bool {
        let Some(lease) = self.take_lease(session_id, key) else { return false };
        if let Some(session) = self.state.sessions.get_mut(&session_id) {
            session.sated = false;
        }
        let fact = fact_of(&lease, key, ended, self.state.wall_ms);
        if let Some(start_ms) = fact.start_ms {
            let job = self.state.jobs.get_mut(key.job_id).expect("it was found");
            job.started_ms.get_or_insert(start_ms);
        }
        let manifest = ended.manifest.as_ref().filter(|manifest| !is_empty(manifest));
        let (cause, good) = (fact.cause, fact.cause == Cause::ExitCode && fact.exit_code == 0);
        let killed = lease.kill.map(|kill| kill.cause);
        if killed.is_none() {
            self.note_health(session_id, key.job_id, cause, good);
        }
        self.conclude(Ending {
            key: *key,
            fact,
            killed,
            retryable: ended.retryable,
            manifest: manifest.map(|manifest| manifest.encode_to_vec().into()),
        });
        true
    }
}

/// A manifest of no outputs at all: there is nothing to publish.
fn is_empty(manifest: &Manifest) -> bool {
    manifest.entries.is_empty() && manifest.hash.is_empty()
}

/// What is to be recorded of an attempt that a session reported.
pub(super) fn fact_of(lease: &Lease, key: &AttemptKey, ended: &Ended, wall_ms: i64) -> Fact {
    let reported = (ended.start_time_ms != 0).then_some(ended.start_time_ms);
    Fact {
        attempt: key.attempt,
        session: lease.session,
        place: Place::Failed,
        cause: Cause::try_from(ended.cause).unwrap_or(Cause::Unspecified),
        exit_code: ended.exit_code,
        signal: ended.signal,
        granted_wall_ms: lease.granted_wall_ms,
        start_ms: reported.or(lease.start_ms),
        end_ms: if ended.end_time_ms == 0 { wall_ms } else { ended.end_time_ms },
        run_ms: ended.run_ms,
        cpu_ms: ended.cpu_ms,
        max_memory_kib: ended.max_memory_kib,
        stdout_bytes: ended.stdout_bytes,
        stderr_bytes: ended.stderr_bytes,
        log_bundle: ended.log_bundle,
        detail: cut(&ended.detail, limits::DETAIL_BYTES).into(),
    }
}
