//! Writing: an iterator of pieces, so that a background thread encodes a clone shard by shard.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use prost::Message;
use proto::internal::{
    StateBlobs, StateEnd, StateHeader, StateJobs, StatePiece, StateRequests, StateSessions, StateStreams, StateTasks,
    state_blobs, state_header, state_jobs, state_piece::Piece, state_requests, state_sessions, state_streams,
    state_tasks,
};

use super::{PIECE_BYTES, fact_bytes};
use crate::{
    State,
    job::{Chunk, Extra, Job, Phase, Published, Record, Terms},
    licenses::License,
    requests::{Answer, Key},
    rules::HISTORY_RULES,
    streams::{self, Run, Stream},
};

/// How many small records make a piece.
const RECORDS_IN_A_PIECE: usize = 4_096;

impl State {
    /// The pieces of a snapshot, in order, about 1 MiB each.
    pub fn encode(&self) -> impl Iterator<Item = Bytes> + '_ {
        let before = [Piece::Header(self.header())].into_iter();
        let before = before.chain(self.session_pieces()).chain(self.request_pieces()).chain(self.stream_pieces());
        let before = before.chain(self.blob_pieces()).chain(self.segment_pieces()).chain(self.gone_pieces());
        let jobs = self.jobs.by_shard().flat_map(|shard| {
            let pieces = job_pieces(&shard);
            pieces.into_iter().chain(shard.into_iter().flat_map(|(id, job)| task_pieces(id, job)))
        });
        let end = [Piece::End(StateEnd { jobs: self.jobs.len() })];
        before.chain(jobs).chain(end).map(|piece| StatePiece { piece: Some(piece) }.encode_to_vec().into())
    }

    fn header(&self) -> StateHeader {
        let mark = |(index, digest): &(u64, [u8; 32])| state_header::Mark {
            index: *index,
            digest: Bytes::copy_from_slice(digest),
        };
        let queues = self.queues.iter().map(|(name, queue)| state_header::Queue {
            name: name.to_string(),
            weight: queue.weight,
            paused: queue.paused,
            max_running: queue.max_running,
            max_cpu_milli: queue.max_cpu_milli,
            max_memory_mib: queue.max_memory_mib,
            max_queued: queue.max_queued,
            draining: queue.draining,
            guarantee: Some(queue.guarantee),
            placement: queue.placement as i32,
            usage: Some(state_header::Usage {
                at_ms: queue.usage.at_ms,
                cpu: queue.usage.cpu,
                memory: queue.usage.memory,
                gpus: queue.usage.gpus,
                scratch: queue.usage.scratch,
            }),
            ends: queue.recent.ends,
            run_ms: queue.recent.run_ms,
            reservation: queue
                .reservation
                .map(|kept| state_header::Reservation { job_id: kept.job, session: kept.session }),
        });
        let license = |(name, license): (&Arc<str>, &License)| state_header::License {
            name: name.to_string(),
            total: license.total,
        };
        StateHeader {
            rules_version: self.rules,
            index: self.index,
            time_ms: self.time_ms,
            wall_ms: self.wall_ms,
            digest: Bytes::copy_from_slice(&self.chain),
            marks: self.marks.iter().map(mark).collect(),
            queues: queues.collect(),
            half_life_ms: self.half_life_ms,
            licenses: self.licenses.by_name.iter().map(license).collect(),
            history: (self.rules >= HISTORY_RULES).then(|| self.history.header()),
        }
    }

    fn session_pieces(&self) -> impl Iterator<Item = Piece> + '_ {
        let workers: Vec<String> = self.session_workers.iter().map(ToString::to_string).collect();
        let sessions: Vec<state_sessions::Session> = self
            .sessions
            .iter()
            .map(|(id, session)| state_sessions::Session {
                id: *id,
                pool: session.about.pool.clone(),
                labels: session.about.labels.clone(),
                capacity: Some(session.about.capacity.into()),
                version: session.about.version.clone(),
                opened_ms: session.about.opened_ms,
                silent_since_ms: session.silent_since_ms,
                draining: session.draining.as_deref().map(str::to_owned),
                applied_sequence: session.applied_sequence,
                sated: session.sated,
                cordoned: session.cordoned.as_deref().map(str::to_owned),
                quarantined: session.health.quarantined.as_deref().map(str::to_owned),
                failed_jobs: session.health.failed_jobs.clone(),
                failing_since_ms: session.health.failing_since_ms,
                succeeded_ms: session.health.succeeded_ms,
            })
            .collect();
        let workers = pages(workers, RECORDS_IN_A_PIECE).map(|workers| StateSessions { workers, sessions: Vec::new() });
        let sessions =
            pages(sessions, RECORDS_IN_A_PIECE).map(|sessions| StateSessions { workers: Vec::new(), sessions });
        workers.chain(sessions).map(Piece::Sessions)
    }

    fn request_pieces(&self) -> impl Iterator<Item = Piece> + '_ {
        let mut order = self.requests.order.iter();
        std::iter::from_fn(move || {
            let requests: Vec<_> = order
                .by_ref()
                .take(4 * RECORDS_IN_A_PIECE)
                .filter_map(|(minute, key)| {
                    let stored = self.requests.answers.get(key)?;
                    Some(state_requests::Stored {
                        minute: *minute,
                        key: Bytes::copy_from_slice(key),
                        payload: Bytes::copy_from_slice(&stored.payload),
                        answer: Some(answer_of(&stored.answer)),
                    })
                })
                .collect();
            (!requests.is_empty()).then_some(Piece::Requests(StateRequests { requests }))
        })
    }

    fn stream_pieces(&self) -> impl Iterator<Item = Piece> + '_ {
        let mut streams = self.streams.known.iter();
        std::iter::from_fn(move || {
            // A stream has thousands of answers at most.
            let streams: Vec<_> = streams.by_ref().take(64).map(|(key, stream)| stream_of(key, stream)).collect();
            (!streams.is_empty()).then_some(Piece::Streams(StateStreams { streams }))
        })
    }

    fn blob_pieces(&self) -> impl Iterator<Item = Piece> + '_ {
        let mut blobs = self.blobs.stored.values();
        std::iter::from_fn(move || {
            let blobs: Vec<_> = blobs
                .by_ref()
                .take(4)
                .map(|blob| state_blobs::Blob { data: blob.data.clone(), until_ms: blob.until_ms })
                .collect();
            (!blobs.is_empty()).then_some(Piece::Blobs(StateBlobs { blobs }))
        })
    }
}

/// Cuts a list into pages; none for an empty one.
fn pages<T>(items: Vec<T>, size: usize) -> impl Iterator<Item = Vec<T>> {
    let mut items = items.into_iter();
    std::iter::from_fn(move || {
        let page: Vec<T> = items.by_ref().take(size).collect();
        (!page.is_empty()).then_some(page)
    })
}

fn answer_of(answer: &Answer) -> state_requests::stored::Answer {
    use state_requests::stored::Answer as Out;
    match answer {
        Answer::Jobs { first, count } => Out::Jobs(state_requests::Jobs { first: *first, count: *count }),
        Answer::Cancelled { job, count, note } => {
            Out::Cancelled(state_requests::Cancelled { job: *job, count: *count, note: *note as u32 })
        }
        Answer::Job(job) => Out::Job(*job),
        Answer::Worker(name) => Out::Worker(name.to_string()),
        Answer::Queue(name) => Out::Queue(name.to_string()),
        Answer::License(name) => Out::License(name.to_string()),
        Answer::FairShare(half_life_ms) => Out::HalfLifeMs(*half_life_ms),
        Answer::History => Out::History(true),
    }
}

fn stream_of(key: &Key, stream: &Stream) -> state_streams::Stream {
    let answer = |run: &Run| state_streams::Answer {
        first: run.first,
        count: run.count,
        answer: Some(match &run.answer {
            streams::Answer::Jobs(job) => state_streams::answer::Answer::FirstJob(*job),
            streams::Answer::Refused(refusal) => state_streams::answer::Answer::Refusal(refusal.as_ref().clone()),
        }),
    };
    state_streams::Stream {
        key: Bytes::copy_from_slice(key),
        last: stream.last,
        minute: stream.minute,
        answers: stream.answers.iter().map(answer).collect(),
    }
}

/// The jobs of one shard, in pieces of bounded size, each with its own table of terms.
fn job_pieces(shard: &[(u64, &Arc<Job>)]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut known: BTreeMap<Arc<Terms>, u32> = BTreeMap::new();
    let mut piece = StateJobs::default();
    let mut bytes = 0;
    for (_, job) in shard {
        let terms = *known.entry(job.terms.clone()).or_insert_with(|| {
            piece.terms.push(terms_of(&job.terms));
            piece.terms.len() as u32 - 1
        });
        bytes += job.text.spec().len() + job.text.name().len() + 100;
        piece.jobs.push(job_of(job, terms));
        if bytes >= PIECE_BYTES {
            pieces.push(Piece::Jobs(std::mem::take(&mut piece)));
            known.clear();
            bytes = 0;
        }
    }
    if !piece.jobs.is_empty() {
        pieces.push(Piece::Jobs(piece));
    }
    pieces
}

pub(crate) fn terms_of(terms: &Terms) -> state_jobs::Terms {
    state_jobs::Terms {
        owner: terms.owner.to_string(),
        queue: terms.queue.to_string(),
        resources: Some((*terms.shape()).into()),
        priority: terms.priority,
        retries: terms.retries,
        max_running: terms.max_running,
        max_failures: terms.max_failures,
        min_backoff_ms: terms.min_backoff_ms,
        max_backoff_ms: terms.max_backoff_ms,
        at_most_once: terms.at_most_once,
        has_outputs: terms.ask.has_outputs,
        is_array: terms.is_array,
        labels: terms.labels.clone(),
        alternatives: terms.ask.shapes[1..].iter().map(|shape| (*shape).into()).collect(),
        constraints: terms.ask.constraints.iter().map(Into::into).collect(),
        licenses: terms.ask.licenses.iter().map(|(name, count)| (name.to_string(), *count)).collect(),
        time_limit_ms: terms.ask.time_limit_ms,
        queue_time_limit_ms: terms.queue_time_limit_ms,
        total_time_limit_ms: terms.total_time_limit_ms,
        retry_rules: terms.rules.iter().map(Into::into).collect(),
    }
}

pub(crate) fn job_of(job: &Job, terms: u32) -> state_jobs::Job {
    let counts = &job.counts;
    state_jobs::Job {
        spec: Bytes::copy_from_slice(job.text.spec()),
        name: job.text.name().to_owned(),
        terms,
        created_ms: job.created_ms,
        started_ms: job.started_ms.get(),
        ended_ms: job.ended_ms.get(),
        highest_attempt: job.highest_attempt,
        ends: job.runs.ends,
        run_ms: job.runs.run_ms,
        held: job.held,
        released: job.released,
        rest: job.tasks.rest() as u32,
        extra: job.extra.as_deref().map(extra_of),
        counts: Some(state_jobs::Counts {
            pending: counts.pending,
            backoff: counts.backoff,
            leased: counts.leased,
            running: counts.running,
            publishing: counts.publishing,
            succeeded: counts.succeeded,
            failed: counts.failed,
            cancelled: counts.cancelled,
            skipped: counts.skipped,
            blocked: counts.blocked,
            grown: counts.grown,
        }),
    }
}

fn extra_of(extra: &Extra) -> state_jobs::Extra {
    let groups = extra.failures.groups.iter();
    state_jobs::Extra {
        ranges: extra.ranges.as_deref().unwrap_or_default().to_vec(),
        after: extra
            .after
            .iter()
            .map(|edge| state_jobs::Edge {
                job: edge.job,
                condition: edge.condition as i32,
                met: edge.met,
                exit_codes: edge.exit_codes.to_vec(),
            })
            .collect(),
        blobs: extra.blobs.iter().map(|hash| Bytes::copy_from_slice(hash)).collect(),
        reason: extra.reason.as_deref().map(str::to_owned),
        failures: groups
            .map(|((cause, exit_code, signal), group)| state_jobs::Group {
                cause: *cause,
                exit_code: *exit_code,
                signal: *signal,
                count: group.count,
                ordinals: group.ordinals.clone(),
                detail: group.detail.to_string(),
            })
            .collect(),
        details_bytes: extra.details_bytes,
        stopped_ms: extra.stopped_ms,
        stopped_cause: extra.stopped_cause as i32,
        released_ms: extra.released_ms,
        fired_limits: u32::from(extra.fired[0]) | u32::from(extra.fired[1]) << 1,
    }
}

/// Whatever a job has beside its own record, in pieces of bounded size.
fn task_pieces(id: u64, job: &Job) -> impl Iterator<Item = Piece> + '_ {
    let mut chunks = job.tasks.chunks_from(0).map(|(number, chunk)| chunk_of(number, chunk)).peekable();
    let mut records = job.records.iter().peekable();
    let mut outputs = job.extra.as_deref().into_iter().flat_map(|extra| extra.outputs.iter()).peekable();
    std::iter::from_fn(move || {
        let mut piece = StateTasks { job: id, ..StateTasks::default() };
        let mut bytes = 0;
        while bytes < PIECE_BYTES {
            if let Some(chunk) = chunks.next() {
                bytes += 120 + 3 * chunk.newest.len() + chunk.entries.len();
                piece.chunks.push(chunk);
            } else if let Some((ordinal, record)) = records.next() {
                let record = record_of(*ordinal, record);
                bytes += record.encoded_len();
                piece.records.push(record);
            } else if let Some((ordinal, published)) = outputs.next() {
                let published = published_of(*ordinal, published);
                bytes += published.encoded_len();
                piece.outputs.push(published);
            } else {
                break;
            }
        }
        (bytes > 0).then_some(Piece::Tasks(piece))
    })
}

pub(crate) fn chunk_of(number: u32, chunk: &Chunk) -> state_tasks::Chunk {
    let (newest, entries) = match &chunk.facts {
        None => (Vec::new(), Bytes::new()),
        Some(facts) => (facts.newest.to_vec(), Bytes::copy_from_slice(&facts.entries)),
    };
    state_tasks::Chunk { number, planes: chunk.planes.concat(), newest, entries }
}

pub(crate) fn published_of(ordinal: u32, published: &Published) -> state_tasks::Published {
    state_tasks::Published {
        ordinal,
        attempt: published.attempt,
        manifest: Some(published.manifest.clone()),
        etags: published.etags.clone(),
    }
}

fn record_of(ordinal: u32, record: &Record) -> state_tasks::Record {
    use state_tasks::record::Phase as Out;
    let phase = match &record.phase {
        Phase::Pending => None,
        Phase::Backoff { until_ms } => Some(Out::BackoffUntilMs(*until_ms)),
        Phase::Leased(lease) => Some(Out::Lease(state_tasks::Lease {
            session: lease.session,
            granted_index: lease.granted_index,
            granted_wall_ms: lease.granted_wall_ms,
            kill_index: lease.kill.map(|kill| kill.index),
            kill_cause: lease.kill.map_or(0, |kill| kill.cause as i32),
            granted_ms: lease.granted_ms,
            start_ms: lease.start_ms,
            ahead: lease.ahead,
            pinned: lease.pinned.as_deref().map(|shape| (*shape).into()),
        })),
        Phase::Publishing(publication) => Some(Out::Publication(state_tasks::Publication {
            session: publication.assigned.map(|(session, _)| session),
            assigned_index: publication.assigned.map_or(0, |(_, index)| index),
            fact: fact_bytes(&publication.fact).into(),
            manifest: publication.manifest.clone(),
        })),
    };
    state_tasks::Record {
        ordinal,
        attempt: record.attempt,
        failures: u32::from(record.failures),
        lost: u32::from(record.lost),
        memory_mib: record.memory_mib,
        phase,
    }
}
