//! What each command does: the table of contents of the rules. A file for each group of commands; in each, what
//! is refused stands apart (`admit_...`, which reads) from what is done (which can't fail any more).

mod cancel;
mod deadlines;
mod dependencies;
mod ends;
mod grants;
mod hold;
mod needs;
mod publications;
mod quarantine;
mod queues;
mod reports;
mod reservations;
mod retry;
mod sessions;
mod set_job;
mod stream;
mod submit;
mod timers;

use std::collections::BTreeSet;

use proto::internal::{OrdinalRange, command::Command};

use crate::{Event, Outcome, Rejection, State};

/// The application of one entry.
pub(crate) struct Step<'s> {
    pub(crate) state: &'s mut State,
    pub(crate) events: Vec<Event>,
    /// Jobs that a command changed, before [`Step::settle`].
    touched: Vec<u64>,
    /// Changed tasks of jobs that others wait for task by task.
    twins: Vec<(u64, u32, u32)>,
    /// Jobs that the entry changed.
    changed_jobs: BTreeSet<u64>,
    /// Tasks that the entry changed: job, first, count.
    changed_tasks: Vec<(u64, u32, u32)>,
}

impl State {
    /// Whether a command repeats a request that was accepted before: it would be answered again and change nothing.
    pub fn was_answered(&self, command: &Command) -> bool {
        matches!(self.answered_before(command), Ok(Some(_)))
    }

    /// The outcome of a request that was accepted before.
    pub(crate) fn answered_before(&self, command: &Command) -> Result<Option<Outcome>, Rejection> {
        let request = match command {
            Command::SubmitJobs(submit) => submit.request.as_ref(),
            Command::CancelTasks(cancel) => cancel.request.as_ref(),
            Command::RetryTasks(retry) => retry.request.as_ref(),
            Command::SetHold(hold) => hold.request.as_ref(),
            Command::DrainWorker(drain) => drain.request.as_ref(),
            Command::SetJob(set) => set.request.as_ref(),
            Command::CreateQueue(create) => create.request.as_ref(),
            Command::SetQueue(set) => set.request.as_ref(),
            Command::DeleteQueue(delete) => delete.request.as_ref(),
            Command::SetFairShare(set) => set.request.as_ref(),
            Command::SetLicense(set) => set.request.as_ref(),
            Command::SetCordon(set) => set.request.as_ref(),
            Command::SetHistory(set) => set.request.as_ref(),
            Command::PutBlob(_)
            | Command::StreamJobs(_)
            | Command::OpenSession(_)
            | Command::ExpireSession(_)
            | Command::NoteSilence(_)
            | Command::GrantTasks(_)
            | Command::WorkerReport(_)
            | Command::AssignPublications(_)
            | Command::Reserve(_)
            | Command::CutSegment(_)
            | Command::SettleSegments(_)
            | Command::RaiseRules(_)
            | Command::Tick(_)
            | Command::Mark(_) => None,
        };
        Ok(self.requests.answered(request)?.map(|answer| answer.outcome(true)))
    }

    /// Refuses exactly what [`Step::obey`] would refuse.
    pub(crate) fn admit(&self, command: &Command) -> Result<(), Rejection> {
        if self.answered_before(command)?.is_some() {
            return Ok(());
        }
        self.admit_by_version(command)?;
        match command {
            Command::SubmitJobs(submit) => self.admit_submit(submit),
            Command::StreamJobs(stream) => self.admit_stream(stream),
            Command::PutBlob(put) => self.admit_blob(put),
            Command::CancelTasks(cancel) => self.admit_cancel(cancel),
            Command::RetryTasks(retry) => self.admit_retry(retry),
            Command::SetHold(hold) => self.admit_hold(hold),
            Command::OpenSession(open) => self.admit_session(open),
            Command::ExpireSession(expire) => self.admit_for_session(expire.session),
            Command::NoteSilence(note) => self.admit_for_session(note.session),
            Command::GrantTasks(grants) => self.admit_grants(grants),
            Command::WorkerReport(report) => self.admit_report(report),
            Command::AssignPublications(_) | Command::Reserve(_) | Command::Tick(_) | Command::Mark(_) => Ok(()),
            Command::DrainWorker(drain) => self.admit_drain(drain),
            Command::SetJob(set) => self.admit_set_job(set),
            Command::CreateQueue(create) => self.admit_create_queue(create),
            Command::SetQueue(set) => self.admit_set_queue(set),
            Command::DeleteQueue(delete) => self.admit_delete_queue(delete),
            Command::SetFairShare(set) => self.admit_fair_share(set),
            Command::SetLicense(set) => self.admit_license(set),
            Command::SetCordon(set) => self.admit_cordon(set),
            Command::SetHistory(set) => self.admit_history(set),
            Command::CutSegment(_) => self.admit_cut(),
            Command::SettleSegments(settle) => self.admit_settle(settle),
            Command::RaiseRules(raise) => self.admit_raise(raise),
        }
    }
}

impl<'s> Step<'s> {
    pub fn new(state: &'s mut State) -> Self {
        Self {
            state,
            events: Vec::new(),
            touched: Vec::new(),
            twins: Vec::new(),
            changed_jobs: BTreeSet::new(),
            changed_tasks: Vec::new(),
        }
    }

    /// Obeys one command, whole.
    pub fn obey(&mut self, command: &Command) -> Result<Outcome, Rejection> {
        if let Some(outcome) = self.state.answered_before(command)? {
            return Ok(outcome);
        }
        self.state.admit(command)?;
        let outcome = match command {
            Command::SubmitJobs(submit) => self.submit(submit),
            Command::StreamJobs(stream) => self.stream(stream),
            Command::PutBlob(put) => self.put_blob(put),
            Command::CancelTasks(cancel) => self.cancel(cancel),
            Command::RetryTasks(retry) => self.retry(retry),
            Command::SetHold(hold) => self.hold(hold),
            Command::OpenSession(open) => self.open_session(open),
            Command::ExpireSession(expire) => self.expire_session(expire),
            Command::NoteSilence(note) => self.note_silence(note),
            Command::GrantTasks(grants) => self.grant(grants),
            Command::WorkerReport(report) => self.report(report),
            Command::AssignPublications(assign) => self.assign_publications(assign),
            Command::DrainWorker(drain) => self.drain(drain),
            Command::SetJob(set) => self.set_job(set),
            Command::CreateQueue(create) => self.create_queue(create),
            Command::SetQueue(set) => self.set_queue(set),
            Command::DeleteQueue(delete) => self.delete_queue(delete),
            Command::SetFairShare(set) => self.set_fair_share(set),
            Command::SetLicense(set) => self.set_license(set),
            Command::SetCordon(set) => self.set_cordon(set),
            Command::SetHistory(set) => self.set_history(set),
            Command::CutSegment(_) => self.cut_segment(),
            Command::SettleSegments(settle) => self.settle_segments(settle),
            Command::RaiseRules(raise) => self.raise_rules(raise),
            Command::Reserve(reserve) => self.reserve(reserve),
            Command::Tick(_) => self.tick(),
            Command::Mark(_) => Outcome::Nothing,
        };
        self.settle();
        Ok(outcome)
    }

    /// The events of the whole entry.
    pub fn finish(mut self) -> Vec<Event> {
        self.changed_tasks.sort_unstable();
        let mut merged: Vec<(u64, u32, u32)> = Vec::with_capacity(self.changed_tasks.len());
        for (job, first, count) in self.changed_tasks {
            match merged.last_mut() {
                Some((same, start, length)) if *same == job && first <= *start + *length => {
                    *length = (*length).max(first + count - *start);
                }
                _ => merged.push((job, first, count)),
            }
        }
        for (job, first, count) in merged {
            self.events.push(Event::TasksChanged { job, tasks: OrdinalRange { first, count } });
        }
        self.events.extend(self.changed_jobs.into_iter().map(|job| Event::JobChanged { job }));
        self.events
    }

    /// Notes that a job was changed, so that it is settled after the command.
    fn touch(&mut self, job: u64) {
        if self.touched.last() != Some(&job) {
            self.touched.push(job);
        }
    }

    fn touch_tasks(&mut self, job: u64, first: u32, count: u32) {
        self.touch(job);
        if !self.state.indexes.twins.is_empty() {
            self.twins.push((job, first, count));
        }
        match self.changed_tasks.last_mut() {
            Some((same, start, length)) if *same == job && *start + *length == first => *length += count,
            _ => self.changed_tasks.push((job, first, count)),
        }
    }

    /// Brings in order what follows from the changes of a command: ends, dependents, indexes.
    fn settle(&mut self) {
        loop {
            self.settle_jobs();
            let Some((id, first, count)) = self.twins.pop() else { return };
            let waiting: Vec<u64> =
                self.state.indexes.twins.range((id, 0)..=(id, u64::MAX)).map(|(_, waiting)| *waiting).collect();
            for waiting in waiting {
                self.weigh_twins(waiting, first, first + count);
            }
        }
    }

    fn settle_jobs(&mut self) {
        while let Some(id) = self.touched.pop() {
            self.changed_jobs.insert(id);
            let State { jobs, indexes, queues, history, wall_ms, .. } = &mut *self.state;
            let job = jobs.get_mut(id).expect("a touched job exists");
            let ended = job.ended();
            let ends_now = ended && job.ended_ms.get().is_none();
            if let Some(ended_ms) = job.ended_ms.get() {
                history.void(id);
                history.free.remove(&(ended_ms, id));
            }
            job.ended_ms = if ended { job.ended_ms.get().or(Some(*wall_ms)) } else { None }.into();
            indexes.set_ready(id, job, job.ready());
            indexes.set_open(id, job, !ended);
            indexes.set_deadlines(id, job);
            let counts = job.counts;
            let before = job.indexed;
            job.indexed.queued = counts.queued();
            job.indexed.unended = counts.unended();
            job.indexed.publishing = counts.publishing;
            let now = job.indexed;
            indexes.unended_tasks = indexes.unended_tasks + u64::from(now.unended) - u64::from(before.unended);
            indexes.unpublished = indexes.unpublished + u64::from(now.publishing) - u64::from(before.publishing);
            if now.queued != before.queued {
                let queue = queues.get_mut(&job.terms.queue).expect("a job's queue exists");
                queue.load.queued = queue.load.queued + u64::from(now.queued) - u64::from(before.queued);
            }
            if ended {
                self.state.weigh_for_history(id);
            }
            if ends_now {
                self.tell_dependents(id);
            }
        }
    }
}
