//! Streams of submits: how far each has come, and the answers that its client may not have yet.
//!
//! A stream costs the same however many jobs go through it: its last number, and answers in runs, of which the client
//! says how far it has them.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use proto::internal::Refusal;

use crate::{limits, outcome::Decided, requests::Key};

/// Time is kept in minutes, so that a busy stream doesn't change its place all the time.
const MINUTE_MS: u64 = 60_000;

#[derive(Debug, Clone, Default)]
pub(crate) struct Streams {
    pub known: OrdMap<Key, Stream>,
    /// Derived: the minute at which each may be forgotten.
    pub order: OrdSet<(u64, Key)>,
}

/// Entered by the first jobs of a stream; left when its client closes it, or a day after it was last used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stream {
    /// The highest number that was decided.
    pub last: u64,
    /// To the numbers that the client may have no answer to, ascending, without gap, up to `last`.
    pub answers: Vec<Run>,
    /// When it may be forgotten.
    pub minute: u64,
}

/// The answer to numbers that follow one another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub first: u64,
    pub count: u32,
    pub answer: Answer,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// They became this job and those behind it.
    Jobs(u64),
    Refused(Arc<Refusal>),
}

impl Run {
    fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }

    /// The part of it within these numbers, if there is one.
    fn within(&self, from: u64, end: u64) -> Option<Decided> {
        let (first, end) = (self.first.max(from), self.end().min(end));
        let count = u32::try_from(end.checked_sub(first)?).ok().filter(|count| *count > 0)?;
        Some(match &self.answer {
            Answer::Jobs(job) => Decided::Jobs { first, count, job: job + (first - self.first) },
            Answer::Refused(refusal) => Decided::Refused { sequence: first, refusal: Arc::clone(refusal) },
        })
    }
}

impl Stream {
    /// Forgets the answers that the client has.
    pub fn answered(&mut self, sequence: u64) {
        self.answers.retain(|run| run.end() > sequence + 1);
        if let Some(run) = self.answers.first_mut()
            && run.first <= sequence
            && let Answer::Jobs(job) = &mut run.answer
        {
            let gone = sequence + 1 - run.first;
            *job += gone;
            run.first += gone;
            run.count -= u32::try_from(gone).expect("it is less than its count");
        }
    }

    /// Whether the client must take answers before more of its jobs are decided.
    pub fn is_full(&self) -> bool {
        let waiting = self.answers.first().map_or(0, |run| self.last + 1 - run.first);
        let refused = self.answers.iter().filter(|run| matches!(run.answer, Answer::Refused(_))).count();
        waiting >= limits::STREAM_UNANSWERED || refused >= limits::STREAM_REFUSALS
    }

    /// Decides the next number.
    pub fn decide(&mut self, answer: Answer) {
        self.last += 1;
        if let (Some(Run { first, count, answer: Answer::Jobs(job) }), Answer::Jobs(next)) =
            (self.answers.last_mut(), &answer)
            && *first + u64::from(*count) == self.last
            && *job + u64::from(*count) == *next
        {
            *count += 1;
        } else {
            self.answers.push(Run { first: self.last, count: 1, answer });
        }
    }

    /// The answers to these numbers, as far as they are decided and kept.
    pub fn answers(&self, first: u64, end: u64) -> Vec<Decided> {
        self.answers.iter().filter_map(|run| run.within(first, end)).collect()
    }
}

impl Streams {
    pub fn put(&mut self, key: Key, stream: Stream, time_ms: u64) {
        let minute = (time_ms + limits::REQUEST_ID_MS).div_ceil(MINUTE_MS);
        if let Some(before) = self.known.get(&key).map(|known| known.minute).filter(|before| *before != minute) {
            self.order.remove(&(before, key));
        }
        self.order.insert((minute, key));
        self.known.insert(key, Stream { minute, ..stream });
    }

    pub fn remove(&mut self, key: &Key) {
        if let Some(stream) = self.known.remove(key) {
            self.order.remove(&(stream.minute, *key));
        }
    }

    pub fn next_timer_ms(&self) -> Option<u64> {
        self.order.get_min().map(|(minute, _)| minute * MINUTE_MS)
    }

    /// Forgets what is due; how many these were.
    pub fn expire(&mut self, time_ms: u64) -> u32 {
        let mut count = 0;
        while let Some((minute, key)) = self.order.get_min().copied().filter(|(due, _)| due * MINUTE_MS <= time_ms) {
            self.order.remove(&(minute, key));
            self.known.remove(&key);
            count += 1;
        }
        count
    }
}
