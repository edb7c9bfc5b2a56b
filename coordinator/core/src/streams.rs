//! Streams of submits: what a client says on one connection becomes commands, and their outcomes its answers.
//!
//! What decides is in the state: how far a stream has come. Here is only what one connection is in the middle of; when
//! it breaks, the client sends again what it has no answer to, and the state knows what of it is a repeat.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use proto::internal::{Caller, Request, StreamJobs, call_response, command::Command, stream_jobs};
use proto::v1::{JobSpec, StreamJobsRequest, StreamJobsResponse, stream_jobs_response};
use scheduler::{Decided, Outcome, Rejection};

use crate::{
    CallId,
    core::Core,
    limits,
    proposals::Waiter,
    refusal::{self, invalid},
    submission,
};

/// The connections of all streams.
#[derive(Debug, Default)]
pub(crate) struct Streams(BTreeMap<CallId, Connection>);

/// Entered by its call; left when the call is over.
#[derive(Debug)]
struct Connection {
    owner: String,
    /// Of the stream; empty until the first message.
    id: String,
    /// Number of the next job.
    next: u64,
}

impl Streams {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn remove(&mut self, call: CallId) {
        self.0.remove(&call);
    }
}

impl Core {
    /// A stream has begun; its first message says which one it is.
    pub(crate) fn stream_connected(&mut self, call: CallId, caller: Caller) {
        self.streams.0.insert(call, Connection { owner: caller.name, id: String::new(), next: 0 });
    }

    /// The stream's next message.
    pub(crate) fn stream_message(&mut self, call: CallId, message: StreamJobsRequest) {
        let Some(connection) = self.streams.0.get_mut(&call) else { return };
        if connection.id.is_empty() {
            connection.id = message.stream_id;
            connection.next = message.first_sequence;
        }
        if message.first_sequence != connection.next {
            let text = format!("{} is not the next number, {}", message.first_sequence, connection.next);
            return self.finish(call, Err(invalid("first_sequence", text, "number the jobs one by one")));
        }
        if message.specs.len() > limits::JOBS_PER_MESSAGE {
            let text = format!("{} jobs in one message, at most {}", message.specs.len(), limits::JOBS_PER_MESSAGE);
            return self.finish(call, Err(invalid("specs", text, "split them into several messages")));
        }
        let Some(next) = connection.next.checked_add(message.specs.len() as u64) else {
            return self.finish(call, Err(invalid("first_sequence", "the number is too high", "number from 1")));
        };
        connection.next = next;
        let request =
            Request { owner: connection.owner.clone(), id: connection.id.clone(), payload_hash: Bytes::new() };
        if !message.specs.is_empty()
            && let Err(refused) = self.check_disk()
        {
            return self.finish(call, Err(refused));
        }
        let mut command = StreamJobs {
            request: Some(request),
            first_sequence: message.first_sequence,
            items: Vec::with_capacity(message.specs.len()),
            answered_sequence: message.answered_sequence,
            close: message.last,
        };
        let mut bytes = 0;
        for spec in message.specs {
            let item = self.item(spec);
            let size = item.encoded_len();
            if bytes + size > limits::STREAM_COMMAND_BYTES && !command.items.is_empty() {
                let items = std::mem::take(&mut command.items);
                let first_sequence = command.first_sequence;
                command.first_sequence += items.len() as u64;
                bytes = 0;
                let part = StreamJobs { items, first_sequence, close: false, ..command.clone() };
                if !self.propose_stream(call, part) {
                    return;
                }
            }
            bytes += size;
            command.items.push(item);
        }
        self.propose_stream(call, command);
    }

    /// A job that can't be one keeps its number: it is refused there, and nothing else is.
    fn item(&self, spec: JobSpec) -> stream_jobs::Item {
        let read = submission::read(spec).and_then(|job| {
            self.check_feasible(job.resources.as_ref(), &job.alternatives)?;
            Ok(job)
        });
        stream_jobs::Item {
            item: Some(match read {
                Ok(job) => stream_jobs::item::Item::Job(job),
                Err(refused) => stream_jobs::item::Item::Refusal(refused),
            }),
        }
    }

    fn propose_stream(&mut self, call: CallId, command: StreamJobs) -> bool {
        let waiter = Waiter::Stream { call, closing: command.close };
        let pushed = self.proposals.push(Command::StreamJobs(command), waiter);
        if pushed.is_err() {
            self.finish(call, Err(refusal::overloaded("writes")));
        }
        pushed.is_ok()
    }

    /// A message's jobs are decided.
    pub(crate) fn stream_decided(&mut self, call: CallId, closing: bool, outcome: Result<Outcome, Rejection>) {
        let (last, whole, decided) = match outcome {
            Ok(Outcome::Streamed { last, whole, decided }) => (last, whole, decided),
            Ok(_) => return self.finish(call, Err(refusal::leader_changed())),
            Err(rejection) => return self.finish(call, Err(refusal::rejected(&rejection))),
        };
        // A stream that is gone was closed before, by the same words.
        if closing && decided.is_empty() {
            return self.finish(call, Ok(()));
        }
        let none = decided.is_empty();
        if !none || whole {
            let response = call_response::Response::StreamJobs(response(last, decided));
            self.respond(call, response);
        }
        if !whole {
            let refused = if none {
                let message = format!("the grid knows this stream up to number {last} only");
                refusal::refusal(
                    refusal::Code::FailedPrecondition,
                    "STREAM_FORGOTTEN",
                    message,
                    "look which jobs were accepted, and send the others in a new stream",
                )
            } else {
                let hint = "say by `answered_sequence` how far the answers arrived, and go on from there";
                refusal::refusal(
                    refusal::Code::Unavailable,
                    "STREAM_FULL",
                    "too many jobs of this stream are unanswered",
                    hint,
                )
            };
            self.finish(call, Err(refused));
        }
    }
}

fn response(sequence: u64, decided: Vec<Decided>) -> StreamJobsResponse {
    let mut response = StreamJobsResponse { sequence, ..StreamJobsResponse::default() };
    for one in decided {
        match one {
            Decided::Jobs { first, count, job } => {
                let accepted = stream_jobs_response::Accepted { first_sequence: first, count, first_job_id: job };
                response.accepted.push(accepted);
            }
            Decided::Refused { sequence, refusal } => {
                let proto::internal::Refusal { code, reason, message, hint, field } = refusal.as_ref().clone();
                response.refused.push(stream_jobs_response::Refused { sequence, code, reason, message, hint, field });
            }
        }
    }
    response
}
