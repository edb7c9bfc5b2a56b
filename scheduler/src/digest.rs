//! The chain of digests: what replicas compare. It covers the canonical bytes of every outcome and event.

use bytes::BufMut;

use crate::{
    Applied, Outcome, Rejection,
    job::{Job, Jobs},
    outcome::{Decided, End, Event, SessionEnd},
};

/// The digest after an entry, from the one before it.
pub(crate) fn next(
    before: &[u8; 32],
    index: u64,
    time_ms: u64,
    wall_ms: i64,
    applied: &Applied,
    jobs: &Jobs,
) -> [u8; 32] {
    let mut bytes = Vec::with_capacity(64 + 32 * applied.events.len());
    bytes.put_slice(before);
    bytes.put_u64_le(index);
    bytes.put_u64_le(time_ms);
    bytes.put_i64_le(wall_ms);
    for outcome in &applied.outcomes {
        put_outcome(&mut bytes, outcome);
    }
    for event in &applied.events {
        put_event(&mut bytes, event);
        if let Event::JobChanged { job } = event
            && let Some(job) = jobs.get(*job)
        {
            put_job(&mut bytes, job);
        }
    }
    *blake3::hash(&bytes).as_bytes()
}

/// What an entry left of a job that it changed.
fn put_job(bytes: &mut Vec<u8>, job: &Job) {
    let counts = &job.counts;
    let by_place = [counts.pending, counts.backoff, counts.leased, counts.running, counts.publishing];
    let by_end = [counts.succeeded, counts.failed, counts.cancelled, counts.skipped, job.highest_attempt];
    for count in by_place.into_iter().chain(by_end).chain([counts.blocked, counts.grown]) {
        bytes.put_u32_le(count);
    }
    bytes.put_u8(u8::from(job.held) | u8::from(job.released) << 1);
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.put_u32_le(text.len() as u32);
    bytes.put_slice(text.as_bytes());
}

fn put_outcome(bytes: &mut Vec<u8>, outcome: &Result<Outcome, Rejection>) {
    match outcome {
        // Its words may change with a release; what it means may not.
        Err(rejection) => {
            bytes.put_u8(0);
            bytes.put_u8(rejection.code as u8);
        }
        Ok(Outcome::Jobs { first, count, duplicate }) => {
            bytes.put_u8(1);
            bytes.put_u64_le(*first);
            bytes.put_u32_le(*count);
            bytes.put_u8(u8::from(*duplicate));
        }
        Ok(Outcome::Blob(hash)) => {
            bytes.put_u8(2);
            bytes.put_slice(hash);
        }
        Ok(Outcome::Cancelled { job, count, note: _ }) => {
            bytes.put_u8(3);
            bytes.put_u64_le(*job);
            bytes.put_u64_le(*count);
        }
        Ok(Outcome::Job(job)) => {
            bytes.put_u8(4);
            bytes.put_u64_le(*job);
        }
        Ok(Outcome::Session(session)) => {
            bytes.put_u8(5);
            bytes.put_u64_le(*session);
        }
        Ok(Outcome::Reported { applied_sequence, gap, verdicts }) => {
            bytes.put_u8(6);
            bytes.put_u64_le(*applied_sequence);
            bytes.put_u8(u8::from(*gap));
            for (sequence, verdict) in verdicts {
                bytes.put_u64_le(*sequence);
                bytes.put_u8(*verdict as u8);
            }
        }
        Ok(Outcome::Worker(name)) => {
            bytes.put_u8(7);
            put_text(bytes, name);
        }
        Ok(Outcome::Count(count)) => {
            bytes.put_u8(8);
            bytes.put_u32_le(*count);
        }
        Ok(Outcome::Nothing) => bytes.put_u8(9),
        Ok(Outcome::Queue(name)) => {
            bytes.put_u8(10);
            put_text(bytes, name);
        }
        Ok(Outcome::FairShare(half_life_ms)) => {
            bytes.put_u8(11);
            bytes.put_u64_le(*half_life_ms);
        }
        Ok(Outcome::Streamed { last, whole, decided }) => {
            bytes.put_u8(13);
            bytes.put_u64_le(*last);
            bytes.put_u8(u8::from(*whole));
            for one in decided {
                match one {
                    Decided::Jobs { first, count, job } => {
                        bytes.put_u64_le(*first);
                        bytes.put_u32_le(*count);
                        bytes.put_u64_le(*job);
                    }
                    Decided::Refused { sequence, refusal } => {
                        bytes.put_u64_le(*sequence);
                        bytes.put_i32_le(refusal.code);
                    }
                }
            }
        }
        Ok(Outcome::History) => bytes.put_u8(14),
        Ok(Outcome::License(name)) => {
            bytes.put_u8(12);
            put_text(bytes, name);
        }
    }
}

fn put_attempt(bytes: &mut Vec<u8>, kind: u8, session: u64, key: &proto::v1::AttemptKey) {
    bytes.put_u8(kind);
    bytes.put_u64_le(session);
    bytes.put_u64_le(key.job_id);
    bytes.put_u32_le(key.ordinal);
    bytes.put_u32_le(key.attempt);
}

fn put_event(bytes: &mut Vec<u8>, event: &Event) {
    match event {
        Event::JobChanged { job } => {
            bytes.put_u8(1);
            bytes.put_u64_le(*job);
        }
        Event::TasksChanged { job, tasks } => {
            bytes.put_u8(2);
            bytes.put_u64_le(*job);
            bytes.put_u32_le(tasks.first);
            bytes.put_u32_le(tasks.count);
        }
        Event::Granted { session, key, ahead, resources } => {
            put_attempt(bytes, 3, *session, key);
            bytes.put_u8(u8::from(*ahead));
            if let Some(resources) = resources {
                bytes.put_u64_le(resources.cpu_milli);
                bytes.put_u64_le(resources.memory_mib);
                bytes.put_u32_le(resources.gpus);
                bytes.put_u64_le(resources.scratch_gib);
            }
        }
        Event::AttemptStarted { session, key } => put_attempt(bytes, 4, *session, key),
        Event::AttemptReturned { session, key } => put_attempt(bytes, 5, *session, key),
        Event::AttemptEnded { session, key, cause, exit_code, signal, end } => {
            put_attempt(bytes, 6, *session, key);
            bytes.put_i32_le(*cause as i32);
            bytes.put_i32_le(*exit_code);
            bytes.put_i32_le(*signal);
            match end {
                End::Succeeded => bytes.put_u8(1),
                End::Publishing => bytes.put_u8(2),
                End::Failed => bytes.put_u8(3),
                End::Cancelled => bytes.put_u8(4),
                End::Retried { not_before_ms } => {
                    bytes.put_u8(5);
                    bytes.put_u64_le(*not_before_ms);
                }
            }
        }
        Event::KillAsked { session, key, cause } => {
            put_attempt(bytes, 7, *session, key);
            bytes.put_i32_le(*cause as i32);
        }
        Event::TimeLimitChanged { job, time_limit_ms } => {
            bytes.put_u8(15);
            bytes.put_u64_le(*job);
            bytes.put_u64_le(*time_limit_ms);
        }
        Event::PublicationAssigned { session, key } => put_attempt(bytes, 8, *session, key),
        Event::Published { session, key } => put_attempt(bytes, 9, *session, key),
        Event::SessionOpened { session, worker } => {
            bytes.put_u8(10);
            bytes.put_u64_le(*session);
            put_text(bytes, worker);
        }
        Event::SessionChanged { session, silent, draining } => {
            bytes.put_u8(11);
            bytes.put_u64_le(*session);
            bytes.put_u8(u8::from(*silent) | u8::from(*draining) << 1);
        }
        Event::SessionEnded { session, worker, reason } => {
            bytes.put_u8(12);
            bytes.put_u64_le(*session);
            put_text(bytes, worker);
            match reason {
                SessionEnd::Expired(reason) => {
                    bytes.put_u8(1);
                    put_text(bytes, reason);
                }
                SessionEnd::Replaced(by) => {
                    bytes.put_u8(2);
                    bytes.put_u64_le(*by);
                }
            }
        }
        Event::BlobStored { hash } => {
            bytes.put_u8(13);
            bytes.put_slice(hash);
        }
        Event::SegmentCut { number, checksum, data: _ } => {
            bytes.put_u8(16);
            bytes.put_u32_le(*number);
            bytes.put_slice(checksum);
        }
        Event::BlobForgotten { hash } => {
            bytes.put_u8(14);
            bytes.put_slice(hash);
        }
    }
}
