//! Streams of submits: each job for itself, under a number that is decided once.

use std::sync::Arc;

use proto::internal::{Refusal, StreamJobs, stream_jobs::item::Item};

use super::Step;
use crate::{Outcome, Rejection, State, limits, requests, streams::Answer};

impl State {
    pub(crate) fn admit_stream(&self, stream: &StreamJobs) -> Result<(), Rejection> {
        let request = stream.request.as_ref().filter(|request| !request.id.is_empty());
        let Some(request) = request else { return Err(Rejection::invalid("stream_id", "the stream has no id")) };
        if request.id.len() > limits::REQUEST_ID_BYTES {
            let message =
                format!("the stream's id has {} bytes, {} at most", request.id.len(), limits::REQUEST_ID_BYTES);
            return Err(Rejection::invalid("stream_id", message));
        }
        if stream.first_sequence == 0 || stream.first_sequence > u64::MAX / 2 {
            return Err(Rejection::invalid("first_sequence", "jobs of a stream are numbered from 1"));
        }
        if stream.items.len() > limits::JOBS_IN_A_MESSAGE {
            let message = format!("{} jobs in one message, {} at most", stream.items.len(), limits::JOBS_IN_A_MESSAGE);
            return Err(Rejection::invalid("specs", message));
        }
        let known = self.streams.known.contains_key(&requests::key_of(request));
        if !known && self.streams.known.len() >= limits::STREAMS {
            let message = format!("there are {} streams of submits that were not closed", limits::STREAMS);
            return Err(Rejection::exhausted("TOO_MANY_STREAMS", "stream_id", message)
                .hint("submit without a stream, or later: one that isn't used is forgotten after a day"));
        }
        Ok(())
    }
}

impl Step<'_> {
    pub fn stream(&mut self, asked: &StreamJobs) -> Outcome {
        let request = asked.request.as_ref().expect("the request was looked at");
        let key = requests::key_of(request);
        let mut stream = self.state.streams.known.get(&key).cloned().unwrap_or_default();
        let (first, end) = (asked.first_sequence, asked.first_sequence + asked.items.len() as u64);
        if first > stream.last + 1 {
            return Outcome::Streamed { last: stream.last, whole: false, decided: Vec::new() };
        }
        stream.answered(asked.answered_sequence.min(stream.last));
        if asked.close && asked.answered_sequence >= stream.last && asked.items.is_empty() {
            self.state.streams.remove(&key);
            return Outcome::Streamed { last: stream.last, whole: true, decided: Vec::new() };
        }
        let owner = self.state.indexes.owner(&request.owner);
        // Numbers below were decided before, whatever is sent under them now.
        let repeated = (stream.last + 1 - first) as usize;
        for item in asked.items.iter().skip(repeated) {
            if stream.is_full() {
                break;
            }
            let refusal = match &item.item {
                Some(Item::Job(job)) => {
                    let jobs = std::slice::from_ref(job);
                    match self.state.admit_jobs(&request.owner, jobs) {
                        Ok(()) => {
                            let id = self.state.jobs.len() + 1;
                            self.accept(owner.clone(), id, job);
                            self.settle();
                            stream.decide(Answer::Jobs(id));
                            continue;
                        }
                        Err(rejection) => refusal_of(rejection),
                    }
                }
                Some(Item::Refusal(refusal)) => refusal.clone(),
                None => refusal_of(Rejection::invalid("specs", "there is no job under this number")),
            };
            stream.decide(Answer::Refused(Arc::new(refusal)));
        }
        let (last, decided) = (stream.last, stream.answers(first, end));
        self.state.streams.put(key, stream, self.state.time_ms);
        Outcome::Streamed { last, whole: last + 1 >= end, decided }
    }
}

fn refusal_of(rejection: Rejection) -> Refusal {
    Refusal {
        code: rejection.code as i32,
        reason: rejection.reason.to_owned(),
        message: rejection.message,
        hint: rejection.hint,
        field: rejection.field.to_owned(),
    }
}
