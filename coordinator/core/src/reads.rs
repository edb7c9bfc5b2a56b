//! Linearizable reads: all that wait share one round that confirms leadership, and are answered from a state applied
//! at least as far as the round's index.

use proto::internal::{Caller, call_request};

use crate::CallId;

/// What is answered once leadership is confirmed.
#[derive(Debug)]
pub(crate) enum Reader {
    Query { call: CallId, caller: Caller, request: call_request::Request },
    Renewal { call: CallId, session: u64, nonce: u64 },
}

#[derive(Debug)]
struct Round {
    context: u64,
    begun_ms: u64,
    readers: Vec<Reader>,
}

/// All readers between a call and its answer.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    last_context: u64,
    waiting: Vec<Reader>,
    round: Option<Round>,
    /// The last round was lost: none before this local time.
    not_before_ms: u64,
    /// Confirmed, and waiting for the state to reach the index.
    confirmed: Vec<Confirmed>,
}

#[derive(Debug)]
struct Confirmed {
    index: u64,
    since_ms: u64,
    readers: Vec<Reader>,
}

impl Reads {
    pub(crate) fn push(&mut self, reader: Reader) {
        self.waiting.push(reader);
    }

    /// The context of a round to begin now. A round begins after its readers arrived, so that those which arrive
    /// while it is under way wait for the next.
    pub(crate) fn next_round(&mut self, now_ms: u64) -> Option<u64> {
        if let Some(round) = &self.round {
            if now_ms < round.begun_ms + crate::limits::READ_ROUND_MS {
                return None;
            }
            self.again();
        }
        if self.waiting.is_empty() || now_ms < self.not_before_ms {
            return None;
        }
        self.last_context += 1;
        let readers = std::mem::take(&mut self.waiting);
        self.round = Some(Round { context: self.last_context, begun_ms: now_ms, readers });
        Some(self.last_context)
    }

    /// The round's readers wait anew: it was not confirmed, which says nothing about leadership.
    fn again(&mut self) {
        if let Some(mut round) = self.round.take() {
            round.readers.append(&mut self.waiting);
            self.waiting = round.readers;
        }
    }

    pub(crate) fn lost(&mut self, context: u64, now_ms: u64) {
        if self.round.as_ref().is_some_and(|round| round.context == context) {
            self.not_before_ms = now_ms + crate::limits::DROPPED_PAUSE_MS;
            self.again();
        }
    }

    /// The readers of a round that is lost, if it is the present one.
    pub(crate) fn give_up(&mut self, context: u64) -> Vec<Reader> {
        self.round.take_if(|round| round.context == context).map(|round| round.readers).unwrap_or_default()
    }

    pub(crate) fn confirm(&mut self, context: u64, index: u64, now_ms: u64) {
        if let Some(round) = self.round.take_if(|round| round.context == context) {
            self.confirmed.push(Confirmed { index, since_ms: now_ms, readers: round.readers });
        }
    }

    /// Readers whose index is applied.
    pub(crate) fn ready(&mut self, applied: u64) -> Vec<Reader> {
        self.take_confirmed(|confirmed| confirmed.index <= applied)
    }

    /// Readers whose index was known by then and isn't applied yet.
    pub(crate) fn late(&mut self, since_ms: u64) -> Vec<Reader> {
        self.take_confirmed(|confirmed| confirmed.since_ms < since_ms)
    }

    fn take_confirmed(&mut self, wanted: impl Fn(&Confirmed) -> bool) -> Vec<Reader> {
        self.confirmed.extract_if(.., |confirmed| wanted(confirmed)).flat_map(|confirmed| confirmed.readers).collect()
    }

    /// Leadership is gone: everyone who still waits.
    pub(crate) fn abandon(&mut self) -> Vec<Reader> {
        self.again();
        let confirmed = self.confirmed.drain(..).flat_map(|confirmed| confirmed.readers);
        let mut readers: Vec<Reader> = confirmed.collect();
        readers.append(&mut self.waiting);
        readers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renewal(nonce: u64) -> Reader {
        Reader::Renewal { call: CallId(1), session: 1, nonce }
    }

    #[test]
    fn who_arrives_during_a_round_waits_for_the_next_and_for_the_state() {
        let mut reads = Reads::default();
        reads.push(renewal(1));
        assert_eq!(reads.next_round(0), Some(1));
        reads.push(renewal(2));
        assert_eq!(reads.next_round(10), None);
        reads.confirm(1, 50, 10);
        assert!(reads.ready(49).is_empty());
        assert!(matches!(reads.ready(50)[..], [Reader::Renewal { nonce: 1, .. }]));
        assert_eq!(reads.next_round(20), Some(2));
        reads.lost(2, 20);
        assert_eq!(reads.next_round(30), None);
        assert_eq!(reads.next_round(100), Some(3));
        reads.confirm(2, 60, 100);
        assert!(reads.ready(60).is_empty());
        reads.confirm(3, 60, 100);
        assert_eq!(reads.ready(60).len(), 1);
    }
}
