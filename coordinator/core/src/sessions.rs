//! Sessions of workers, as their leader sees them: who is connected, who renewed, who is to be given up.
//!
//! A renewal is answered only after a round of leadership that began after it arrived, from a state in which the
//! session lives, and not while its end is proposed. A session that is noted as silent is answered only after the
//! entry that clears the note. So nobody here ever promises time that another leader has already taken back.

use std::collections::{BTreeMap, BTreeSet};

use proto::internal::{DrainWorker, ExpireSession, NoteSilence, OpenSession, WorkerReport, command::Command};
use proto::v1::{
    self, Acknowledged, AttemptKey, Renewed, SessionEnded, SessionOpened, WorkerMessage, acknowledged,
    coordinator_message::Message, worker_message,
};
use scheduler::{Outcome, Rejection, State, Verdict};

use crate::{
    CallId, Settings,
    clock::Clock,
    core::Core,
    grants::SentSpecs,
    limits,
    proposals::Waiter,
    reads::Reader,
    refusal::{self, invalid},
};

/// Shown with a worker whose machine is taken back.
const RECLAIM_REASON: &str = "spot reclaim: its machine is being taken back";

/// What this leader knows of all sessions. It dies with leadership.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    standings: BTreeMap<u64, Standing>,
    /// Streams of workers, attached to a session or about to be.
    streams: BTreeMap<CallId, Stream>,
    renewals: Vec<(CallId, u64, u64)>,
    last_round_ms: u64,
    last_tended_ms: u64,
    /// The sessions that are connected and renewed within two periods in this term: no others get grants.
    heard: BTreeSet<u64>,
}

#[derive(Debug)]
struct Standing {
    /// When the session is given up unless it renews: local time.
    expires_ms: u64,
    /// When it last renewed in this term, if it did.
    renewed_ms: Option<u64>,
    silent_ms: u64,
    expiring: bool,
    noting: bool,
    /// Its drain is proposed, or in the state: its machine is taken back.
    reclaiming: bool,
    attached: Option<Attached>,
}

#[derive(Debug)]
struct Attached {
    call: CallId,
    connection: u64,
    sent: SentSpecs,
}

/// One stream of a worker.
#[derive(Debug)]
enum Stream {
    /// Opened; its first message is not here yet.
    New {
        worker: String,
    },
    /// A session is being opened or taken up.
    Opening {
        worker: String,
        resume: Option<v1::open_session::Resume>,
    },
    Attached {
        session: u64,
    },
}

impl Sessions {
    /// Every session of the state gets the time a new leader grants, from now.
    pub(crate) fn of_new_leader(state: &State, now_ms: u64, settings: &Settings) -> Self {
        let standing = || Standing {
            expires_ms: now_ms + settings.failover_expiry_ms,
            renewed_ms: None,
            silent_ms: now_ms + settings.silent_after_ms,
            expiring: false,
            noting: false,
            reclaiming: false,
            attached: None,
        };
        let standings = state.sessions().map(|session| (session.id, standing())).collect();
        Self { standings, ..Self::default() }
    }

    pub(crate) fn attached(&self) -> usize {
        self.standings.values().filter(|standing| standing.attached.is_some()).count()
    }

    /// Streams of workers, attached or not.
    pub(crate) fn streams(&self) -> usize {
        self.streams.len()
    }

    /// The sessions that may get grants.
    pub(crate) fn heard(&self) -> &BTreeSet<u64> {
        &self.heard
    }

    /// Drops those that have not renewed for two periods.
    fn forget_unheard(&mut self, now_ms: u64, settings: &Settings) {
        let since_ms = now_ms.saturating_sub(2 * settings.renew_interval_ms + limits::RENEWAL_ROUND_MS);
        let standings = &self.standings;
        self.heard.retain(|session| {
            standings.get(session).and_then(|standing| standing.renewed_ms).is_some_and(|renewed| renewed >= since_ms)
        });
    }

    pub(crate) fn opened(&mut self, session: u64, now_ms: u64) {
        let standing = Standing {
            expires_ms: now_ms,
            renewed_ms: None,
            silent_ms: now_ms,
            expiring: false,
            noting: false,
            reclaiming: false,
            attached: None,
        };
        self.standings.insert(session, standing);
    }

    /// The stream of a session and what it has had.
    pub(crate) fn attachment(&mut self, session: u64) -> Option<(CallId, &mut SentSpecs)> {
        let attached = self.standings.get_mut(&session)?.attached.as_mut()?;
        Some((attached.call, &mut attached.sent))
    }

    /// The stream of a session, if it is connected.
    pub(crate) fn stream_of(&self, session: u64) -> Option<CallId> {
        self.standings.get(&session)?.attached.as_ref().map(|attached| attached.call)
    }

    pub(crate) fn session_of(&self, call: CallId) -> Option<u64> {
        match self.streams.get(&call) {
            Some(Stream::Attached { session }) => Some(*session),
            _ => None,
        }
    }

    pub(crate) fn detach(&mut self, call: CallId) {
        if let Some(Stream::Attached { session }) = self.streams.remove(&call)
            && let Some(standing) = self.standings.get_mut(&session)
            && standing.attached.take_if(|attached| attached.call == call).is_some()
        {
            self.heard.remove(&session);
        }
    }

    /// Whether it had not been heard of.
    fn renewed(&mut self, session: u64, now_ms: u64, settings: &Settings) -> bool {
        let Some(standing) = self.standings.get_mut(&session) else { return false };
        standing.renewed_ms = Some(now_ms);
        standing.expires_ms = now_ms + settings.session_expiry_ms;
        standing.silent_ms = now_ms + settings.silent_after_ms;
        standing.noting = false;
        standing.attached.is_some() && self.heard.insert(session)
    }
}

impl Core {
    /// A worker's stream has begun; its first message says what it wants.
    pub(crate) fn worker_connected(&mut self, call: CallId, worker: String) {
        self.sessions.streams.insert(call, Stream::New { worker });
    }

    pub(crate) fn worker_message(&mut self, call: CallId, message: WorkerMessage) {
        let Some(stream) = self.sessions.streams.get(&call) else { return };
        match (stream, message.message) {
            (Stream::New { worker }, Some(worker_message::Message::Open(open))) => {
                let worker = worker.clone();
                self.open_stream(call, worker, open);
            }
            (Stream::Attached { session }, Some(worker_message::Message::Renew(renew))) => {
                self.sessions.renewals.push((call, *session, renew.nonce));
            }
            (Stream::Attached { session }, Some(worker_message::Message::Report(mut report))) => {
                self.answers.take(&mut report);
                let report = WorkerReport { session: *session, report: Some(report) };
                self.proposals.push_urgent(Command::WorkerReport(report), Waiter::Report { call });
            }
            (Stream::Attached { .. }, Some(worker_message::Message::LogData(data))) => self.log_data(call, data),
            (Stream::Attached { session }, Some(worker_message::Message::SpotNotice(_))) => {
                let session = *session;
                self.reclaimed(session);
            }
            // What an older connection still says is void.
            (Stream::Opening { .. }, _) => {}
            (Stream::New { .. }, _) => {
                let message = "the first message of a worker's stream must be `open`";
                self.finish(call, Err(invalid("message", message, "send OpenSession first")));
            }
            (Stream::Attached { .. }, Some(worker_message::Message::Open(_)) | None) => {
                let message = "this stream is open already";
                self.finish(call, Err(invalid("message", message, "send renewals, reports and log data")));
            }
        }
    }

    fn open_stream(&mut self, call: CallId, worker: String, open: v1::OpenSession) {
        let resume = open.resume.clone();
        match &resume {
            None => {
                let Some(capacity) = open.capacity.filter(|capacity| capacity.cpu_milli > 0) else {
                    let refused = invalid("capacity.cpu_milli", "a worker needs at least 0.001 cpus", "set `cpus`");
                    return self.finish(call, Err(refused));
                };
                let command = OpenSession {
                    worker: worker.clone(),
                    pool: open.pool,
                    labels: open.labels,
                    capacity: Some(capacity),
                    version: open.version,
                };
                self.proposals.push_urgent(Command::OpenSession(command), Waiter::OpenSession(call));
            }
            Some(resume) => {
                // The entry is a barrier: when it is applied, everything that an older connection reported is decided.
                let clear = NoteSilence { session: resume.session, silent: false };
                self.proposals.push_urgent(Command::NoteSilence(clear), Waiter::Resume(call));
            }
        }
        self.sessions.streams.insert(call, Stream::Opening { worker, resume });
    }

    /// The session that a stream asked for is in the state.
    pub(crate) fn session_opened(&mut self, call: CallId, outcome: Result<Outcome, Rejection>) {
        match outcome {
            Ok(Outcome::Session(session)) => self.attach(call, session, 1, &[]),
            Ok(_) => self.finish(call, Err(refusal::leader_changed())),
            Err(rejection) => self.finish(call, Err(refusal::rejected(&rejection))),
        }
    }

    /// Everything in front of a worker's return is decided: it goes on from here.
    pub(crate) fn session_resumed(&mut self, call: CallId) {
        let Some(Stream::Opening { worker, resume: Some(resume) }) = self.sessions.streams.get(&call) else { return };
        let resume = resume.clone();
        let lives = self.state.session(resume.session).is_some_and(|session| session.worker == *worker);
        let newest = self
            .sessions
            .standings
            .get(&resume.session)
            .and_then(|standing| standing.attached.as_ref())
            .is_none_or(|attached| attached.connection < resume.connection);
        if !lives {
            self.end_stream(call, "the session is over");
        } else if !newest {
            self.end_stream_as_old(call);
        } else {
            let mine = |key: &&AttemptKey| !self.state.holds(resume.session, key);
            let unknown: Vec<AttemptKey> = resume.held.iter().chain(&resume.publishing).filter(mine).copied().collect();
            self.attach(call, resume.session, resume.connection, &unknown);
            self.instruct_anew(resume.session, &resume.held, &resume.publishing);
        }
    }

    fn attach(&mut self, call: CallId, session: u64, connection: u64, unknown: &[AttemptKey]) {
        if !self.calls.contains(call) {
            return;
        }
        let (Some(view), Some(standing)) = (self.state.session(session), self.sessions.standings.get_mut(&session))
        else {
            return self.end_stream(call, "the session is over");
        };
        let older = standing.attached.replace(Attached { call, connection, sent: SentSpecs::default() });
        let opened = SessionOpened {
            session,
            connection,
            renew_interval_ms: self.settings.renew_interval_ms,
            lifetime_ms: self.settings.session_lifetime_ms,
            applied_sequence: view.applied_sequence,
            cluster_id: self.settings.cluster_id.clone(),
            worker: view.worker,
            grid_prefix: self.settings.grid_prefix.clone(),
            unknown: unknown.to_vec(),
        };
        self.sessions.streams.insert(call, Stream::Attached { session });
        self.sessions.renewed(session, self.now_ms, &self.settings);
        if let Some(older) = older {
            self.end_stream_as_old(older.call);
        }
        self.planning.state_changed();
        self.send_worker(call, Message::Opened(opened));
        self.logs.attached(session);
    }

    fn end_stream_as_old(&mut self, call: CallId) {
        let refused =
            refusal::refusal(refusal::Code::FailedPrecondition, "OLD_CONNECTION", "a newer connection took over", "");
        self.finish(call, Err(refused));
    }

    fn end_stream(&mut self, call: CallId, reason: &str) {
        self.send_worker(call, Message::Ended(SessionEnded { reason: reason.to_owned() }));
        self.finish(call, Ok(()));
    }

    /// An entry ended a session.
    pub(crate) fn session_ended(&mut self, session: u64, reason: &str) {
        let standing = self.sessions.standings.remove(&session);
        self.sessions.heard.remove(&session);
        if let Some(attached) = standing.and_then(|standing| standing.attached) {
            self.end_stream(attached.call, reason);
        }
        self.logs.session_ended(session);
    }

    pub(crate) fn answer_renewal(&mut self, call: CallId, session: u64, nonce: u64) {
        if self.sessions.session_of(call) != Some(session) {
            return;
        }
        let Some(view) = self.state.session(session) else {
            return self.end_stream(call, "the session is over");
        };
        if self.sessions.standings.get(&session).is_none_or(|standing| standing.expiring) {
            return;
        }
        if view.silent_since_ms.is_some() {
            let clear = NoteSilence { session, silent: false };
            self.proposals.push_urgent(Command::NoteSilence(clear), Waiter::Renewal { call, session, nonce });
        } else {
            self.renew(call, session, nonce);
        }
    }

    /// The note of a session's silence is cleared, so that its renewal may be answered.
    pub(crate) fn silence_cleared(&mut self, call: CallId, session: u64, nonce: u64) {
        if self.sessions.session_of(call) == Some(session) && self.state.session(session).is_some() {
            self.renew(call, session, nonce);
        }
    }

    fn renew(&mut self, call: CallId, session: u64, nonce: u64) {
        if self.sessions.renewed(session, self.now_ms, &self.settings) {
            self.planning.state_changed();
        }
        self.send_worker(call, Message::Renewed(Renewed { nonce }));
    }

    pub(crate) fn report_decided(&mut self, call: CallId, outcome: Result<Outcome, Rejection>) {
        match outcome {
            Ok(Outcome::Reported { applied_sequence, gap, verdicts }) => {
                let verdict =
                    |(sequence, verdict): (u64, Verdict)| acknowledged::Verdict { sequence, outcome: verdict as i32 };
                let verdicts = verdicts.into_iter().map(verdict).collect();
                self.send_worker(
                    call,
                    Message::Acknowledged(Acknowledged { sequence: applied_sequence, gap, verdicts }),
                );
            }
            Ok(_) => {}
            // The session is over: its stream is told by the event that ended it.
            Err(_) => {}
        }
    }

    /// Proposes what is due: notes of silence, ends of sessions; and lets renewals join the next round.
    pub(crate) fn tend_sessions(&mut self, clock: Clock) {
        let log_ms = clock.at(self.now_ms);
        let now_ms = self.now_ms;
        self.begin_renewal_round();
        if now_ms < self.sessions.last_tended_ms + limits::RENEWAL_ROUND_MS {
            return;
        }
        self.sessions.last_tended_ms = now_ms;
        self.sessions.forget_unheard(now_ms, &self.settings);
        // Noted by an earlier leader, it has had no answer since: its time goes on through quick changes of leader.
        let grace_ms = self.settings.session_expiry_ms.saturating_sub(self.settings.silent_after_ms);
        let mut commands = Vec::new();
        for (session, standing) in &mut self.sessions.standings {
            let Some(view) = self.state.session(*session).filter(|_| !standing.expiring) else { continue };
            let noted_too_long = view.silent_since_ms.is_some_and(|since| log_ms >= since + grace_ms);
            if now_ms >= standing.expires_ms || noted_too_long {
                standing.expiring = true;
                let reason = "the worker was not heard of in time".to_owned();
                let expire = Command::ExpireSession(ExpireSession { session: *session, reason });
                commands.push((expire, Waiter::Expiry(*session)));
            } else if now_ms >= standing.silent_ms && view.silent_since_ms.is_none() && !standing.noting {
                standing.noting = true;
                let note = Command::NoteSilence(NoteSilence { session: *session, silent: true });
                commands.push((note, Waiter::Nobody));
            }
        }
        for (command, waiter) in commands {
            self.proposals.push_urgent(command, waiter);
        }
    }

    /// The entry that was to end a session will never be applied: it may renew, or is ended by another.
    pub(crate) fn expiry_lost(&mut self, session: u64) {
        if let Some(standing) = self.sessions.standings.get_mut(&session) {
            standing.expiring = false;
        }
    }

    /// A worker says that its machine is taken back: it drains. The worker repeats it, so that a leader needs to
    /// remember no more than that it has proposed it.
    fn reclaimed(&mut self, session: u64) {
        let (Some(view), Some(standing)) = (self.state.session(session), self.sessions.standings.get_mut(&session))
        else {
            return;
        };
        if !std::mem::replace(&mut standing.reclaiming, true) {
            let reason = RECLAIM_REASON.to_owned();
            let drain = DrainWorker { request: None, worker: view.worker, reason, session };
            self.proposals.push_urgent(Command::DrainWorker(drain), Waiter::Reclaim(session));
        }
    }

    /// The entry that was to drain a session will never be applied: the next repeat proposes it again.
    pub(crate) fn reclaim_lost(&mut self, session: u64) {
        if let Some(standing) = self.sessions.standings.get_mut(&session) {
            standing.reclaiming = false;
        }
    }

    fn begin_renewal_round(&mut self) {
        let due = self.now_ms >= self.sessions.last_round_ms + limits::RENEWAL_ROUND_MS;
        if due && !self.sessions.renewals.is_empty() {
            self.sessions.last_round_ms = self.now_ms;
            for (call, session, nonce) in std::mem::take(&mut self.sessions.renewals) {
                self.reads.push(Reader::Renewal { call, session, nonce });
            }
        }
    }

    /// A worker asks for a blob of a job.
    pub(crate) fn fetch_blob(&mut self, call: CallId, request: &v1::FetchBlobRequest) {
        match self.state.blob(&request.hash) {
            Some(data) => {
                let response = v1::FetchBlobResponse { data };
                self.reply(call, proto::internal::call_response::Response::FetchBlob(response));
            }
            None => {
                let refused = refusal::not_found("hash", "no such blob", "upload it again with the job");
                self.finish(call, Err(refused));
            }
        }
    }
}
