//! Sessions: opened, noted as silent, drained, ended. With a session end all its leases.

use std::sync::Arc;

use proto::{
    internal::{DrainWorker, ExpireSession, NoteSilence, OpenSession, SetCordon},
    v1::{AttemptKey, Cause, Ended},
};

use super::{Step, cancel::cut, ends::Ending, reports::fact_of, submit::admit_labels};
use crate::{
    Code, Event, Outcome, Rejection, State,
    job::{Job, Phase},
    limits,
    outcome::SessionEnd,
    requests::Answer,
    session::{About, Health, Holds, Session},
    shape::Shape,
};

impl State {
    pub(crate) fn admit_session(&self, open: &OpenSession) -> Result<(), Rejection> {
        for (field, name) in [("worker", &open.worker), ("pool", &open.pool), ("version", &open.version)] {
            if name.len() > limits::NAME_BYTES || (field == "worker" && name.is_empty()) {
                let most = limits::NAME_BYTES;
                return Err(Rejection::invalid(field, format!("it has {} bytes, not 1 to {most}", name.len())));
            }
        }
        admit_labels(&open.labels)?;
        let Some(capacity) = &open.capacity else {
            return Err(Rejection::invalid("capacity", "a worker says what it has"));
        };
        let most = Shape {
            cpu_milli: limits::CPU_MILLI,
            memory_mib: limits::MEMORY_MIB,
            scratch_gib: limits::SCRATCH_GIB,
            gpus: limits::GPUS,
        };
        let shape = Shape::from(capacity);
        if shape.cpu_milli == 0 || !shape.fits(&most) {
            let message = format!("a worker with {} isn't possible", shape.describe());
            return Err(Rejection::invalid("capacity", message));
        }
        if self.sessions.len() >= limits::SESSIONS && !self.indexes.workers.contains_key(open.worker.as_str()) {
            let message = format!("{} workers have joined, the most there may be", self.sessions.len());
            return Err(Rejection::exhausted("TOO_MANY_SESSIONS", "worker", message));
        }
        Ok(())
    }

    pub(crate) fn admit_for_session(&self, session: u64) -> Result<(), Rejection> {
        if self.sessions.contains_key(&session) {
            return Ok(());
        }
        if session == 0 || session > self.session_workers.len() as u64 {
            let message = format!("there is no session {session}");
            return Err(Rejection::new(Code::NotFound, "SESSION_NOT_FOUND", "session", message));
        }
        let message = format!("session {session} has ended");
        Err(Rejection::conflict("SESSION_ENDED", message).hint("join anew"))
    }

    pub(crate) fn admit_cordon(&self, set: &SetCordon) -> Result<(), Rejection> {
        let Some(session) = self.indexes.workers.get(set.worker.as_str()).and_then(|id| self.sessions.get(id)) else {
            return Err(worker_not_found(&set.worker));
        };
        if !set.cordoned && session.draining.is_some() {
            let message = format!("worker `{}` is being drained, which isn't undone", set.worker);
            return Err(Rejection::conflict("WORKER_DRAINING", message).hint("it takes tasks again when it joins anew"));
        }
        Ok(())
    }

    pub(crate) fn admit_drain(&self, drain: &DrainWorker) -> Result<(), Rejection> {
        match self.indexes.workers.get(drain.worker.as_str()) {
            Some(session) if drain.session == 0 || drain.session == *session => Ok(()),
            Some(_) => {
                let message = format!("session {} of worker `{}` has ended", drain.session, drain.worker);
                Err(Rejection::conflict("SESSION_ENDED", message).hint("join anew"))
            }
            None => Err(worker_not_found(&drain.worker)),
        }
    }
}

fn worker_not_found(name: &str) -> Rejection {
    Rejection::new(Code::NotFound, "WORKER_NOT_FOUND", "name", format!("there is no worker `{name}`"))
        .hint("list them with `millgrid worker ls`")
}

impl Step<'_> {
    pub fn open_session(&mut self, open: &OpenSession) -> Outcome {
        let id = self.state.session_workers.len() as u64 + 1;
        if let Some(old) = self.state.indexes.workers.get(open.worker.as_str()).copied() {
            self.end_session(old, SessionEnd::Replaced(id));
        }
        let worker: Arc<str> = open.worker.as_str().into();
        let about = About {
            worker: worker.clone(),
            pool: open.pool.clone(),
            labels: open.labels.clone(),
            capacity: open.capacity.as_ref().map(Shape::from).unwrap_or_default(),
            version: open.version.clone(),
            opened_ms: self.state.wall_ms,
        };
        let session = Session {
            about: Arc::new(about),
            silent_since_ms: None,
            draining: None,
            cordoned: None,
            applied_sequence: 0,
            sated: false,
            health: Health::default(),
            holds: Holds::default(),
        };
        self.state.sessions.insert(id, session);
        self.state.session_workers.push_back(worker.clone());
        self.state.indexes.workers.insert(worker, id);
        self.events.push(Event::SessionOpened { session: id, worker: open.worker.clone() });
        Outcome::Session(id)
    }

    pub fn expire_session(&mut self, expire: &ExpireSession) -> Outcome {
        let reason = cut(&expire.reason, limits::REASON_BYTES).to_owned();
        self.end_session(expire.session, SessionEnd::Expired(reason));
        Outcome::Nothing
    }

    fn end_session(&mut self, id: u64, reason: SessionEnd) {
        let Some(session) = self.state.sessions.remove(&id) else { return };
        let worker = session.about.worker.clone();
        self.state.indexes.workers.remove(&worker);
        let detail: Box<str> = cut(&format!("worker `{worker}`: {reason}"), limits::DETAIL_BYTES).into();
        self.events.push(Event::SessionEnded { session: id, worker: worker.to_string(), reason });
        for (job_id, ordinal) in session.holds.leases {
            let attempt = self.state.jobs.get(job_id).map_or(0, |job: &Job| job.attempt_of(ordinal));
            let key = AttemptKey { job_id, ordinal, attempt };
            let lease = self.take_lease(id, &key).expect("a session holds its leases");
            let lost = Ended { cause: Cause::WorkerLost as i32, ..Ended::default() };
            let mut fact = fact_of(&lease, &key, &lost, self.state.wall_ms);
            fact.detail = detail.clone();
            self.conclude(Ending {
                key,
                fact,
                killed: lease.kill.map(|kill| kill.cause),
                retryable: true,
                manifest: None,
            });
        }
        for (job_id, ordinal) in session.holds.publications {
            let job = self.state.jobs.get_mut(job_id).expect("a publication is of a job");
            let record = job.records.get_mut(&ordinal).expect("a publication has a record");
            if let Phase::Publishing(publication) = &mut record.phase {
                Arc::make_mut(publication).assigned = None;
                self.state.indexes.orphans.insert((job_id, ordinal));
            }
        }
    }

    pub fn note_silence(&mut self, note: &NoteSilence) -> Outcome {
        let session = self.state.sessions.get_mut(&note.session).expect("it was looked up");
        if session.silent_since_ms.is_some() != note.silent {
            session.silent_since_ms = note.silent.then_some(self.state.time_ms);
            let draining = !session.accepts();
            self.events.push(Event::SessionChanged { session: note.session, silent: note.silent, draining });
        }
        Outcome::Nothing
    }

    /// Cordons a worker; or ends that, and a quarantine.
    pub fn set_cordon(&mut self, set: &SetCordon) -> Outcome {
        let id = *self.state.indexes.workers.get(set.worker.as_str()).expect("it was looked up");
        let session = self.state.sessions.get_mut(&id).expect("a worker's session lives");
        if set.cordoned {
            session.cordoned.get_or_insert_with(|| cut(&set.reason, limits::REASON_BYTES).into());
        } else {
            (session.cordoned, session.health) = (None, Health::default());
        }
        let (silent, draining) = (session.silent_since_ms.is_some(), !session.accepts());
        self.events.push(Event::SessionChanged { session: id, silent, draining });
        let worker = session.about.worker.clone();
        self.state.requests.store(set.request.as_ref(), Answer::Worker(worker.clone()), self.state.time_ms);
        Outcome::Worker(worker.to_string())
    }

    pub fn drain(&mut self, drain: &DrainWorker) -> Outcome {
        let id = *self.state.indexes.workers.get(drain.worker.as_str()).expect("it was looked up");
        let session = self.state.sessions.get_mut(&id).expect("a worker's session lives");
        let reason = cut(&drain.reason, limits::REASON_BYTES);
        let new = match session.draining.as_deref() {
            None => true,
            // That its machine goes is more than that somebody wants to do something to it.
            Some(old) => drain.session != 0 && old != reason,
        };
        if new {
            session.draining = Some(reason.into());
            self.events.push(Event::SessionChanged {
                session: id,
                silent: session.silent_since_ms.is_some(),
                draining: true,
            });
        }
        let worker = session.about.worker.clone();
        self.state.requests.store(drain.request.as_ref(), Answer::Worker(worker.clone()), self.state.time_ms);
        Outcome::Worker(worker.to_string())
    }
}
