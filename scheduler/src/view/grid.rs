//! Queues, workers, sessions and blobs, as the rest of the grid sees them.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use proto::v1::{self, AttemptKey, Manifest, WorkerState};

use super::{Instruction, SessionView, timestamp};
use crate::{
    State,
    blobs::Hash,
    job::Phase,
    licenses::License,
    queue::Queue,
    session::Session,
    shape::{Resource, Shape},
    usage::memory_ms,
};

/// How much there is to do, in the whole grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Jobs that have not ended.
    pub unended_jobs: u64,
    /// Tasks that wait, for whatever reason.
    pub queued_tasks: u64,
    /// Tasks that a worker has, running or about to.
    pub leased_tasks: u64,
    /// Tasks whose outputs are being published.
    pub unpublished_outputs: u64,
}

impl State {
    /// One queue.
    pub fn queue(&self, name: &str) -> Option<v1::Queue> {
        let queue = self.queues.get(name)?;
        Some(queue_view(name, queue, self, &self.capacity()))
    }

    /// All queues, by name.
    pub fn queues(&self) -> Vec<v1::Queue> {
        let capacity = self.capacity();
        self.queues.iter().map(|(name, queue)| queue_view(name, queue, self, &capacity)).collect()
    }

    /// After how much of the grid's time use counts half, in milliseconds.
    pub fn half_life_ms(&self) -> u64 {
        self.half_life_ms
    }

    /// One license.
    pub fn license(&self, name: &str) -> Option<v1::License> {
        self.licenses.by_name.get_key_value(name).map(license_view)
    }

    /// All licenses, by name.
    pub fn licenses(&self) -> Vec<v1::License> {
        self.licenses.by_name.iter().map(license_view).collect()
    }

    /// How much there is to do.
    pub fn backlog(&self) -> Backlog {
        let loads = || self.queues.values().map(|queue| queue.load);
        Backlog {
            unended_jobs: self.indexes.open_all.len() as u64,
            queued_tasks: loads().map(|load| load.queued).sum(),
            leased_tasks: loads().map(|load| load.running).sum(),
            unpublished_outputs: self.indexes.unpublished,
        }
    }

    /// What all workers have together.
    pub(crate) fn capacity(&self) -> Shape {
        let mut total = Shape::default();
        for session in self.sessions.values() {
            total.add(&session.about.capacity);
        }
        total
    }

    /// One worker.
    pub fn worker(&self, name: &str) -> Option<v1::Worker> {
        let id = *self.indexes.workers.get(name)?;
        self.sessions.get(&id).map(|session| worker_view(id, session))
    }

    /// All workers, by name.
    pub fn workers(&self) -> Vec<v1::Worker> {
        let session = |id: &u64| self.sessions.get(id).map(|session| worker_view(*id, session));
        self.indexes.workers.values().filter_map(session).collect()
    }

    /// All sessions that live, by number.
    pub fn sessions(&self) -> impl Iterator<Item = SessionView> + '_ {
        self.sessions.iter().map(|(id, session)| session_view(*id, session))
    }

    /// One session, if it lives.
    pub fn session(&self, id: u64) -> Option<SessionView> {
        self.sessions.get(&id).map(|session| session_view(id, session))
    }

    /// Everything that a session is asked to do now: its leases, those among them that are to be stopped, and
    /// its publications. By job and task; the grant of an attempt stands before its kill.
    pub fn instructions_of(&self, session: u64) -> Vec<Instruction> {
        let Some(session) = self.sessions.get(&session) else { return Vec::new() };
        let mut instructions = Vec::with_capacity(session.holds.leases.len());
        for (job_id, ordinal) in session.holds.leases.iter().chain(&session.holds.publications) {
            let Some(record) = self.jobs.get(*job_id).and_then(|job| job.records.get(ordinal)) else { continue };
            let key = AttemptKey { job_id: *job_id, ordinal: *ordinal, attempt: record.attempt };
            match &record.phase {
                Phase::Leased(lease) => {
                    let granted_index = lease.granted_index;
                    let resources = lease.pinned.as_deref().map(|shape| (*shape).into());
                    instructions.push(Instruction::Grant { key, granted_index, ahead: lease.ahead, resources });
                    if let Some(kill) = lease.kill {
                        instructions.push(Instruction::Kill { key, cause: kill.cause, index: kill.index });
                    }
                }
                Phase::Publishing(publication) => {
                    let Some((_, index)) = publication.assigned else { continue };
                    let manifest = Manifest::decode(publication.manifest.clone()).expect("this state encoded it");
                    instructions.push(Instruction::Publish { key, manifest, index });
                }
                Phase::Pending | Phase::Backoff { .. } => {}
            }
        }
        instructions
    }

    /// Whether a session holds an attempt: leased, being stopped, or to be published by it.
    pub fn holds(&self, session: u64, key: &AttemptKey) -> bool {
        let Some(record) = self.jobs.get(key.job_id).and_then(|job| job.records.get(&key.ordinal)) else {
            return false;
        };
        record.attempt == key.attempt
            && match &record.phase {
                Phase::Leased(lease) => lease.session == session,
                Phase::Publishing(publication) => publication.assigned.is_some_and(|(assigned, _)| assigned == session),
                Phase::Pending | Phase::Backoff { .. } => false,
            }
    }

    /// A blob, by its BLAKE3.
    pub fn blob(&self, hash: &[u8]) -> Option<Bytes> {
        self.blobs.stored.get(&Hash::try_from(hash).ok()?).map(|blob| blob.data.clone())
    }
}

fn license_view((name, license): (&Arc<str>, &License)) -> v1::License {
    v1::License { name: name.to_string(), total: license.total, used: license.used }
}

fn session_view(id: u64, session: &Session) -> SessionView {
    SessionView {
        id,
        worker: session.about.worker.to_string(),
        silent_since_ms: session.silent_since_ms,
        draining: !session.accepts(),
        applied_sequence: session.applied_sequence,
    }
}

fn queue_view(name: &str, queue: &Queue, state: &State, capacity: &Shape) -> v1::Queue {
    let usage = queue.usage.until(state.time_ms, &queue.load.used, state.half_life_ms);
    let memory_ms = memory_ms(state.half_life_ms).max(1);
    let used_of_late = |resource: Resource| match capacity.amount(resource) {
        0 => 0.0,
        all => usage.amount(resource) as f64 / memory_ms as f64 / all as f64,
    };
    let share = |resource: Resource| match capacity.amount(resource) {
        0 => 0.0,
        all => queue.load.used.amount(resource) as f64 / all as f64,
    };
    v1::Queue {
        name: name.to_owned(),
        weight: queue.weight,
        paused: queue.paused,
        draining: queue.draining,
        guarantee: Some(queue.guarantee),
        placement: queue.placement as i32,
        usage: Resource::ALL.into_iter().map(used_of_late).fold(0.0, f64::max),
        limits: Some(v1::QueueLimits {
            max_running: queue.max_running,
            max_cpu_milli: queue.max_cpu_milli,
            max_memory_mib: queue.max_memory_mib,
            max_queued: queue.max_queued,
        }),
        queued: queue.load.queued,
        running: queue.load.running,
        share: Resource::ALL.into_iter().map(share).fold(0.0, f64::max),
    }
}

fn worker_view(id: u64, session: &Session) -> v1::Worker {
    let about = &session.about;
    let idle = session.holds.leases.is_empty() && session.holds.publications.is_empty();
    let quarantined = session.health.quarantined.as_ref();
    let (state, reason) = match (&session.draining, quarantined, &session.cordoned) {
        (Some(reason), ..) if idle => (WorkerState::Drained, Some(reason)),
        (Some(reason), ..) => (WorkerState::Draining, Some(reason)),
        (None, Some(reason), _) => (WorkerState::Quarantined, Some(reason)),
        (None, None, Some(reason)) => (WorkerState::Cordoned, Some(reason)),
        (None, None, None) => (WorkerState::Ready, None),
    };
    let state = if session.silent_since_ms.is_some() { WorkerState::Silent } else { state };
    v1::Worker {
        name: about.worker.to_string(),
        pool: about.pool.clone(),
        state: state as i32,
        labels: about.labels.clone(),
        capacity: Some(about.capacity.into()),
        free: Some(session.free().into()),
        // What it holds ahead has no place there yet.
        running: (session.holds.leases.len() - session.holds.ahead.len()) as u64,
        join_time: Some(timestamp(about.opened_ms)),
        reason: reason.map(ToString::to_string).unwrap_or_default(),
        session: id,
    }
}
