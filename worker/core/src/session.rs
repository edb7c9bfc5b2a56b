//! The session: opened, resumed, renewed, and lost.
//!
//! It alone has a deadline: `lifetime` after the last renewal that was answered was *sent*. It is entered by
//! `SessionOpened`, left by `SessionEnded` or by its deadline; a crash of the agent leaves it to the keeper, from
//! which the next agent takes it over.

use std::collections::{BTreeMap, VecDeque};

use proto::v1::{
    Acknowledged, OpenSession, Renew, SessionOpened, acknowledged::Outcome, open_session::Resume, report_item::Item,
    worker_message,
};

use crate::{
    Core, Key, Output, Standing,
    link::Stage,
    timing::{SHORT_SESSION_MS, UNANSWERED_MS},
};

/// Spans that hold until the coordinator says its own; a restarted agent needs them before it hears of it.
const RENEW_INTERVAL_MS: u64 = 3_000;
const LIFETIME_MS: u64 = 30_000;

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: u64,
    connection: u64,
    deadline_ms: u64,
    opened_ms: u64,
    renew_interval_ms: u64,
    lifetime_ms: u64,
    renew_at_ms: u64,
    /// Renewals sent on this stream and not answered: their nonces, and when they were sent.
    unanswered: VecDeque<(u64, u64)>,
    pub(crate) instructions_index: u64,
    /// Taken over from a keeper: the numbers of its reports aren't known before a stream stands.
    adopted: bool,
}

impl Session {
    pub(crate) fn adopt(standing: Standing, now_ms: u64) -> Self {
        Self {
            id: standing.session,
            connection: standing.connection,
            deadline_ms: standing.deadline_ms,
            opened_ms: now_ms,
            renew_interval_ms: RENEW_INTERVAL_MS,
            lifetime_ms: LIFETIME_MS,
            renew_at_ms: now_ms,
            unanswered: VecDeque::new(),
            instructions_index: 0,
            adopted: true,
        }
    }

    pub(crate) fn standing(&self) -> Standing {
        Standing { session: self.id, connection: self.connection, deadline_ms: self.deadline_ms }
    }

    pub(crate) fn timer_ms(&self, open: bool) -> u64 {
        let renewals = open.then(|| self.unanswered.front().map_or(u64::MAX, |(_, sent_ms)| sent_ms + UNANSWERED_MS));
        let renew = open.then_some(self.renew_at_ms);
        renewals.into_iter().chain(renew).fold(self.deadline_ms, u64::min)
    }
}

impl Core {
    /// Self-fencing: past the deadline another worker may be given what runs here, so it has to be dead before.
    pub(crate) fn fence_if_due(&mut self) {
        if self.session.as_ref().is_some_and(|session| session.deadline_ms <= self.now_ms) {
            self.lose_session("no renewal was answered for the session's lifetime", 0);
        }
    }

    /// Kills everything of the session and forgets it; a new one is opened `least_ms` from now or later.
    pub(crate) fn lose_session(&mut self, reason: &str, least_ms: u64) {
        let Some(session) = self.session.take() else { return };
        // First, so that the keeper kills what runs even if we die in the middle of this.
        self.outputs.push(Output::SetSession { session: 0, connection: 0, deadline_ms: 0 });
        for key in self.attempts.keys().collect::<Vec<_>>() {
            self.abandon(key);
        }
        for key in self.publications.keys().collect::<Vec<_>>() {
            self.drop_publication(key);
        }
        self.upstream.clear();
        self.ended.clear();
        if let Some(stream) = self.link.stream() {
            self.outputs.push(Output::Disconnect { stream });
        }
        self.link.retire(self.now_ms, false, least_ms);
        self.outputs.push(Output::SessionLost { session: session.id, reason: reason.to_owned() });
    }

    /// The grid ended the session, or won't open one.
    pub(crate) fn session_refused(&mut self, reason: &str) {
        match &self.session {
            Some(session) => {
                let short = self.now_ms < session.opened_ms + SHORT_SESSION_MS;
                self.short_sessions = if short { self.short_sessions.saturating_add(1) } else { 0 };
                let least_ms = match self.short_sessions {
                    0 => 0,
                    sessions => self.link.delay_ms(sessions),
                };
                self.lose_session(reason, least_ms);
            }
            None => self.reconnect(true),
        }
    }

    /// Says who we are: a new worker, or one that goes on.
    pub(crate) fn stream_opened(&mut self, stream: u64) {
        if !matches!(self.link.stage, Stage::Connecting { stream: newest, .. } if newest == stream) {
            return;
        }
        self.link.stage = Stage::Opening { stream, sent_ms: self.now_ms };
        let resume = self.session.as_mut().map(|session| {
            session.connection += 1;
            session.unanswered.clear();
            session.standing()
        });
        let resume = resume.map(|standing| {
            // The keeper learns the number before it is used, so that no other agent ever uses it too.
            self.tell_keeper();
            Resume {
                session: standing.session,
                connection: standing.connection,
                held: self.attempts.keys().map(Into::into).collect(),
                publishing: self.publications.keys().map(Into::into).collect(),
                instructions_index: self.session.as_ref().map_or(0, |session| session.instructions_index),
            }
        });
        let open = OpenSession {
            resume,
            pool: self.settings.pool.clone(),
            labels: self.settings.labels.iter().cloned().collect::<BTreeMap<_, _>>(),
            capacity: Some(self.settings.capacity),
            version: self.settings.version.clone(),
        };
        self.send(stream, worker_message::Message::Open(open));
    }

    pub(crate) fn session_opened(&mut self, stream: u64, sent_ms: u64, opened: SessionOpened) {
        let now_ms = self.now_ms;
        match &mut self.session {
            Some(session) if session.id == opened.session => {
                session.renew_interval_ms = opened.renew_interval_ms.max(1);
                session.lifetime_ms = opened.lifetime_ms;
                // That we may go on is no renewal: only an answer to one proves that nobody expired us meanwhile.
                session.renew_at_ms = now_ms;
                if !std::mem::take(&mut session.adopted) {
                    self.settle(opened.applied_sequence, &BTreeMap::new());
                }
                self.upstream.restart(opened.applied_sequence, now_ms);
            }
            Some(session) => {
                let reason = format!("the grid answered for session {} instead of {}", opened.session, session.id);
                self.lose_session(&reason, self.link.delay_ms(0));
                return;
            }
            None => {
                self.upstream.clear();
                self.upstream.restart(opened.applied_sequence, now_ms);
                self.session = Some(Session {
                    id: opened.session,
                    connection: opened.connection,
                    deadline_ms: sent_ms + opened.lifetime_ms,
                    opened_ms: now_ms,
                    renew_interval_ms: opened.renew_interval_ms.max(1),
                    lifetime_ms: opened.lifetime_ms,
                    renew_at_ms: sent_ms + opened.renew_interval_ms,
                    unanswered: VecDeque::new(),
                    instructions_index: 0,
                    adopted: false,
                });
                self.tell_keeper();
            }
        }
        self.link.opened(stream);
        let unknown: Vec<Key> = opened.unknown.iter().copied().map(Key::from).collect();
        for key in &unknown {
            self.abandon(*key);
            self.drop_publication(*key);
        }
        if !unknown.is_empty() {
            self.upstream.retain(|item| item.attempt.is_none_or(|key| !unknown.contains(&Key::from(key))));
        }
        self.outputs.push(Output::SessionOpened {
            session: opened.session,
            cluster_id: opened.cluster_id,
            grid_prefix: opened.grid_prefix,
            worker: opened.worker,
        });
    }

    pub(crate) fn renew_if_due(&mut self) {
        let (Some(stream), Some(session)) = (self.link.open(), &mut self.session) else { return };
        if session.unanswered.front().is_some_and(|(_, sent_ms)| sent_ms + UNANSWERED_MS <= self.now_ms) {
            self.reconnect(true);
            self.tend_link();
            return;
        }
        if self.now_ms < session.renew_at_ms {
            return;
        }
        self.nonce += 1;
        session.unanswered.push_back((self.nonce, self.now_ms));
        session.renew_at_ms = self.now_ms + session.renew_interval_ms;
        let renew = Renew {
            nonce: self.nonce,
            instructions_index: session.instructions_index,
            free_memory_mib: self.free_memory_mib,
        };
        self.send(stream, worker_message::Message::Renew(renew));
        self.tell_of_reclaim();
    }

    /// A good renewal: the time begins anew, counted from when it was sent.
    pub(crate) fn renewed(&mut self, nonce: u64) {
        let Some(session) = &mut self.session else { return };
        let Some(position) = session.unanswered.iter().position(|(sent, _)| *sent == nonce) else { return };
        if let Some((_, sent_ms)) = session.unanswered.drain(..=position).next_back() {
            session.deadline_ms = session.deadline_ms.max(sent_ms + session.lifetime_ms);
        }
        if session.opened_ms + SHORT_SESSION_MS <= self.now_ms {
            self.short_sessions = 0;
        }
        self.tell_keeper();
    }

    pub(crate) fn acknowledged(&mut self, acknowledged: Acknowledged) {
        let verdicts = acknowledged.verdicts.iter().map(|verdict| (verdict.sequence, verdict.outcome())).collect();
        self.settle(acknowledged.sequence, &verdicts);
        if acknowledged.gap {
            self.upstream.send_again(self.now_ms);
        }
    }

    /// Everything up to `sequence` was applied.
    fn settle(&mut self, sequence: u64, verdicts: &BTreeMap<u64, Outcome>) {
        for (number, item) in self.upstream.acknowledge(sequence, self.now_ms) {
            let Some(key) = item.attempt.map(Key::from) else { continue };
            let fenced = verdicts.get(&number) == Some(&Outcome::Fenced);
            match item.item {
                Some(Item::Started(_)) if fenced => self.abandon(key),
                Some(Item::Started(_)) | None => {}
                Some(Item::Returned(_) | Item::Ended(_)) => self.let_go(key, !fenced),
                Some(Item::Published(_) | Item::PublicationFailed(_)) => self.publications.remove(key),
            }
        }
    }

    /// The keeper holds what a restarted agent needs, and kills by itself when the deadline passes.
    pub(crate) fn tell_keeper(&mut self) {
        if let Some(Standing { session, connection, deadline_ms }) = self.standing() {
            self.outputs.push(Output::SetSession { session, connection, deadline_ms });
        }
    }
}
