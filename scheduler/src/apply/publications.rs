//! Publications: an accepted success whose outputs are uploaded but not completed yet. Only `published` makes
//! its task succeed.

use std::sync::Arc;

use prost::Message;
use proto::{
    internal::AssignPublications,
    v1::{AttemptKey, Cause, Manifest},
};

use super::{Step, cancel::cut, ends::Ending};
use crate::{
    Event, Outcome, State,
    job::{Fact, Phase, Place, Publication, Published},
    limits,
};

impl Step<'_> {
    pub fn assign_publications(&mut self, assign: &AssignPublications) -> Outcome {
        let mut count = 0;
        for assignment in &assign.assignments {
            let State { jobs, sessions, indexes, index, .. } = &mut *self.state;
            let Some(key) = assignment.attempt else { continue };
            let Some(session) = sessions.get_mut(&assignment.session) else { continue };
            if !indexes.orphans.contains(&(key.job_id, key.ordinal)) {
                continue;
            }
            let job = jobs.get_mut(key.job_id).expect("a publication is of a job");
            let record = job.records.get_mut(&key.ordinal).expect("a publication has a record");
            let Phase::Publishing(publication) = &mut record.phase else { continue };
            if record.attempt != key.attempt {
                continue;
            }
            Arc::make_mut(publication).assigned = Some((assignment.session, *index));
            session.holds.publications.insert((key.job_id, key.ordinal));
            indexes.orphans.remove(&(key.job_id, key.ordinal));
            self.events.push(Event::PublicationAssigned { session: assignment.session, key });
            count += 1;
        }
        Outcome::Count(count)
    }

    /// Takes a publication from the session that it is assigned to. The record stays until it is decided.
    fn take_publication(&mut self, session_id: u64, key: &AttemptKey) -> Option<Publication> {
        let State { jobs, sessions, .. } = &mut *self.state;
        let record = jobs.get(key.job_id)?.records.get(&key.ordinal)?;
        let (assigned, _) = record.publication()?.assigned?;
        if record.attempt != key.attempt || assigned != session_id {
            return None;
        }
        let job = jobs.get_mut(key.job_id)?;
        let record = job.records.get_mut(&key.ordinal)?;
        let Phase::Publishing(publication) = std::mem::replace(&mut record.phase, Phase::Pending) else { return None };
        job.counts.publishing -= 1;
        if let Some(session) = sessions.get_mut(&session_id) {
            session.holds.publications.remove(&(key.job_id, key.ordinal));
        }
        Some(Arc::unwrap_or_clone(publication))
    }

    pub(super) fn published(&mut self, session_id: u64, key: &AttemptKey, etags: &[String]) -> bool {
        let Some(publication) = self.take_publication(session_id, key) else { return false };
        let mut manifest = Manifest::decode(publication.manifest).expect("it was encoded by this state");
        for entry in &mut manifest.entries {
            entry.upload_id = String::new();
            entry.part_etags = Vec::new();
        }
        let wall_ms = self.state.wall_ms;
        let job = self.state.jobs.get_mut(key.job_id).expect("a publication is of a job");
        let published = Published { attempt: key.attempt, manifest, etags: etags.to_vec() };
        job.extra_mut().outputs.insert(key.ordinal, Arc::new(published));
        // The task has ended when its outputs stand at their names, not before.
        let end_ms = publication.fact.end_ms.max(wall_ms);
        job.record_fact(key.ordinal, Fact { end_ms, ..publication.fact });
        job.records.remove(&key.ordinal);
        job.tasks.set(key.ordinal, Place::Succeeded);
        job.counts.succeeded += 1;
        self.events.push(Event::Published { session: session_id, key: *key });
        self.touch_tasks(key.job_id, key.ordinal, 1);
        true
    }

    pub(super) fn publication_failed(&mut self, session: u64, key: &AttemptKey, detail: &str, retryable: bool) -> bool {
        let Some(publication) = self.take_publication(session, key) else { return false };
        let detail = cut(detail, limits::DETAIL_BYTES).into();
        let fact = Fact { cause: Cause::StageOut, exit_code: 0, detail, place: Place::Failed, ..publication.fact };
        self.conclude(Ending { key: *key, fact, killed: None, retryable, manifest: None });
        true
    }
}
