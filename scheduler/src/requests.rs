//! Request ids, and what came of them: a timeout at a client never makes a second job.

use std::sync::Arc;

use imbl::{OrdMap, Vector};
use proto::internal::Request;

use crate::{Code, Outcome, Rejection, limits};

/// BLAKE3 of owner and id, cut to 16 bytes: a collision is out of the question.
pub(crate) type Key = [u8; 16];

/// Time is kept in minutes, so that many ids are forgotten by one entry.
const MINUTE_MS: u64 = 60_000;

#[derive(Debug, Clone, Default)]
pub(crate) struct Requests {
    pub answers: OrdMap<Key, Stored>,
    /// In the order of their arrival: the minute at which each may be forgotten.
    pub order: Vector<(u64, Key)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Of the content, cut to 16 bytes.
    pub payload: Key,
    pub answer: Answer,
}

/// An [`Outcome`] in as few bytes as it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Jobs { first: u64, count: u32 },
    Cancelled { job: u64, count: u32, note: Note },
    Job(u64),
    Worker(Arc<str>),
    Queue(Arc<str>),
    License(Arc<str>),
    FairShare(u64),
    History,
}

/// Why a cancel stopped nothing, or not all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Note {
    None = 0,
    JobEnded = 1,
    TasksEnded = 2,
    Publishing = 3,
    AskedBefore = 4,
}

impl Note {
    pub fn from_code(code: u32) -> Option<Self> {
        [Self::None, Self::JobEnded, Self::TasksEnded, Self::Publishing, Self::AskedBefore]
            .into_iter()
            .find(|note| *note as u32 == code)
    }

    pub fn text(self, job: u64) -> String {
        match self {
            Self::None => String::new(),
            Self::JobEnded => format!("job {job} had ended before"),
            Self::TasksEnded => format!("these tasks of job {job} had ended before"),
            Self::Publishing => format!("outputs of job {job} are being published: those tasks end by themselves"),
            Self::AskedBefore => format!("what runs of job {job} was asked to stop before"),
        }
    }
}

impl Answer {
    pub fn outcome(&self, duplicate: bool) -> Outcome {
        match self {
            Self::Jobs { first, count } => Outcome::Jobs { first: *first, count: *count, duplicate },
            Self::Cancelled { job, count, note } => {
                Outcome::Cancelled { job: *job, count: u64::from(*count), note: note.text(*job) }
            }
            Self::Job(job) => Outcome::Job(*job),
            Self::Worker(name) => Outcome::Worker(name.to_string()),
            Self::Queue(name) => Outcome::Queue(name.to_string()),
            Self::License(name) => Outcome::License(name.to_string()),
            Self::FairShare(half_life_ms) => Outcome::FairShare(*half_life_ms),
            Self::History => Outcome::History,
        }
    }
}

pub(crate) fn key_of(request: &Request) -> Key {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(request.owner.len() as u64).to_le_bytes());
    hasher.update(request.owner.as_bytes());
    hasher.update(request.id.as_bytes());
    let mut key = Key::default();
    key.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    key
}

fn payload_of(request: &Request) -> Key {
    let mut payload = Key::default();
    let length = request.payload_hash.len().min(16);
    payload[..length].copy_from_slice(&request.payload_hash[..length]);
    payload
}

impl Requests {
    /// What came of a request before; a conflict when its id was used for another content.
    pub fn answered(&self, request: Option<&Request>) -> Result<Option<&Answer>, Rejection> {
        let Some(request) = request.filter(|request| !request.id.is_empty()) else { return Ok(None) };
        if request.id.len() > limits::REQUEST_ID_BYTES {
            let message =
                format!("the request id has {} bytes, {} at most", request.id.len(), limits::REQUEST_ID_BYTES);
            return Err(Rejection::invalid("request_id", message));
        }
        match self.answers.get(&key_of(request)) {
            None => Ok(None),
            Some(stored) if stored.payload == payload_of(request) => Ok(Some(&stored.answer)),
            Some(_) => {
                let message = format!("the request id `{}` was used for another request", request.id);
                Err(Rejection::new(Code::AlreadyExists, "REQUEST_ID_CONFLICT", "request_id", message)
                    .hint("use a new id, or none, for a request with other content"))
            }
        }
    }

    pub fn store(&mut self, request: Option<&Request>, answer: Answer, time_ms: u64) {
        let Some(request) = request.filter(|request| !request.id.is_empty()) else { return };
        let key = key_of(request);
        self.answers.insert(key, Stored { payload: payload_of(request), answer });
        self.order.push_back(((time_ms + limits::REQUEST_ID_MS).div_ceil(MINUTE_MS), key));
        while self.order.len() > limits::REQUEST_IDS {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((_, key)) = self.order.pop_front() {
            self.answers.remove(&key);
        }
    }

    pub fn next_timer_ms(&self) -> Option<u64> {
        self.order.front().map(|(minute, _)| minute * MINUTE_MS)
    }

    /// Forgets what is due; how many these were.
    pub fn expire(&mut self, time_ms: u64) -> u32 {
        let mut count = 0;
        while self.next_timer_ms().is_some_and(|due| due <= time_ms) {
            self.forget_first();
            count += 1;
        }
        count
    }
}
