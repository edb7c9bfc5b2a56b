//! Reading: strictly, and then everything that is derived is made anew.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use imbl::OrdMap;
use prost::Message;
use proto::{
    internal::{
        StateHeader, StateJobs, StatePiece, StateRequests, StateSessions, StateTasks, state_header, state_jobs,
        state_piece::Piece, state_requests::stored::Answer as StoredAnswer, state_sessions, state_tasks,
    },
    v1::{Cause, DependencyCondition},
};

use super::{Malformed, RULES_VERSION, fact_from};
use crate::{
    State,
    ask::Ask,
    blobs::Hash,
    job::{
        Chunk, Counts, Edge, Extra, Facts, Failures, Group, Indexed, Job, Kill, Lease, Phase, Place, Publication,
        Published, Record, Rule, Runs, Tasks, Terms,
    },
    licenses::{License, Licenses},
    queue::{Load, Queue, Reservation},
    requests::{Answer, Note, Stored},
    session::{About, Health, Holds, Session},
    shape::Shape,
    usage::Usage,
};

impl State {
    /// The state that [`Self::encode`] wrote.
    pub fn decode(pieces: impl IntoIterator<Item = Bytes>) -> Result<Self, Malformed> {
        let mut reader = Reader { state: Self::new(), jobs: Vec::new(), header: false, ended: false };
        for bytes in pieces {
            if reader.ended {
                return Err(Malformed("something stands behind its end"));
            }
            let length = bytes.len();
            let piece = StatePiece::decode(bytes).map_err(|_| Malformed("a piece isn't a message"))?;
            // The decoder drops fields that it doesn't know.
            if piece.encoded_len() != length {
                return Err(Malformed("a field that this release doesn't know"));
            }
            reader.read(piece.piece.ok_or(Malformed("an empty piece"))?)?;
        }
        reader.finish()
    }
}

struct Reader {
    state: State,
    /// Tasks come after their job; so the jobs move into the state at the end.
    jobs: Vec<Job>,
    header: bool,
    ended: bool,
}

impl Reader {
    fn read(&mut self, piece: Piece) -> Result<(), Malformed> {
        if self.header == matches!(piece, Piece::Header(_)) {
            return Err(Malformed("the header isn't the first piece"));
        }
        match piece {
            Piece::Header(header) => self.header(header),
            Piece::Sessions(sessions) => self.sessions(sessions),
            Piece::Requests(requests) => self.requests(requests),
            Piece::Blobs(blobs) => {
                for blob in blobs.blobs {
                    let hash = *blake3::hash(&blob.data).as_bytes();
                    let data = Bytes::copy_from_slice(&blob.data);
                    self.state.blobs.bytes += data.len() as u64;
                    let blob = crate::blobs::Blob { data, until_ms: blob.until_ms, uses: 0 };
                    self.state.blobs.unused.insert((blob.until_ms, hash));
                    self.state.blobs.stored.insert(hash, blob);
                }
                Ok(())
            }
            Piece::Jobs(jobs) => self.jobs(jobs),
            Piece::Tasks(tasks) => self.tasks(tasks),
            Piece::End(end) => {
                self.ended = true;
                if end.jobs == self.jobs.len() as u64 { Ok(()) } else { Err(Malformed("jobs are missing")) }
            }
        }
    }

    fn header(&mut self, header: StateHeader) -> Result<(), Malformed> {
        if header.rules_version != RULES_VERSION {
            return Err(Malformed("written by a release with other rules"));
        }
        self.header = true;
        let state = &mut self.state;
        (state.index, state.time_ms, state.wall_ms) = (header.index, header.time_ms, header.wall_ms);
        state.chain = hash_of(&header.digest)?;
        for mark in header.marks {
            state.marks.push((mark.index, hash_of(&mark.digest)?));
        }
        state.queues = header
            .queues
            .into_iter()
            .map(|queue| {
                let read = Queue {
                    weight: queue.weight,
                    paused: queue.paused,
                    max_running: queue.max_running,
                    max_cpu_milli: queue.max_cpu_milli,
                    max_memory_mib: queue.max_memory_mib,
                    max_queued: queue.max_queued,
                    draining: queue.draining,
                    guarantee: queue.guarantee.unwrap_or_default(),
                    placement: queue.placement(),
                    usage: usage_of(&queue.usage.unwrap_or_default()),
                    recent: Runs { ends: queue.ends, run_ms: queue.run_ms },
                    reservation: queue.reservation.map(|kept| Reservation { job: kept.job_id, session: kept.session }),
                    load: Load::default(),
                };
                (Arc::from(queue.name), read)
            })
            .collect();
        state.half_life_ms = header.half_life_ms;
        for license in header.licenses {
            let read = License { total: license.total, used: 0 };
            state.licenses.by_name.insert(license.name.into(), read);
        }
        Ok(())
    }

    fn sessions(&mut self, sessions: StateSessions) -> Result<(), Malformed> {
        for worker in sessions.workers {
            self.state.session_workers.push_back(worker.into());
        }
        for session in sessions.sessions {
            let state_sessions::Session { id, capacity, draining, .. } = &session;
            let position = usize::try_from(*id).ok().and_then(|id| id.checked_sub(1));
            let worker = position.and_then(|position| self.state.session_workers.get(position)).cloned();
            let worker = worker.ok_or(Malformed("a session without a worker"))?;
            let about = About {
                worker: worker.clone(),
                pool: session.pool.clone(),
                labels: session.labels.clone(),
                capacity: capacity.as_ref().map(Shape::from).unwrap_or_default(),
                version: session.version.clone(),
                opened_ms: session.opened_ms,
            };
            let read = Session {
                about: Arc::new(about),
                silent_since_ms: session.silent_since_ms,
                draining: draining.as_deref().map(Into::into),
                cordoned: session.cordoned.as_deref().map(Into::into),
                applied_sequence: session.applied_sequence,
                sated: session.sated,
                health: Health {
                    failed_jobs: session.failed_jobs.clone(),
                    failing_since_ms: session.failing_since_ms,
                    succeeded_ms: session.succeeded_ms,
                    quarantined: session.quarantined.as_deref().map(Into::into),
                },
                holds: Holds::default(),
            };
            self.state.indexes.workers.insert(worker, *id);
            self.state.sessions.insert(*id, read);
        }
        Ok(())
    }

    fn requests(&mut self, requests: StateRequests) -> Result<(), Malformed> {
        for stored in requests.requests {
            let answer = match stored.answer.ok_or(Malformed("a request without an answer"))? {
                StoredAnswer::Jobs(jobs) => Answer::Jobs { first: jobs.first, count: jobs.count },
                StoredAnswer::Cancelled(cancelled) => Answer::Cancelled {
                    job: cancelled.job,
                    count: cancelled.count,
                    note: Note::from_code(cancelled.note).ok_or(Malformed("an unknown note"))?,
                },
                StoredAnswer::Job(job) => Answer::Job(job),
                StoredAnswer::Worker(name) => Answer::Worker(name.into()),
                StoredAnswer::Queue(name) => Answer::Queue(name.into()),
                StoredAnswer::License(name) => Answer::License(name.into()),
                StoredAnswer::HalfLifeMs(half_life_ms) => Answer::FairShare(half_life_ms),
            };
            let short = |bytes: &Bytes| <[u8; 16]>::try_from(&bytes[..]).map_err(|_| Malformed("a key isn't 16 bytes"));
            let (key, payload) = (short(&stored.key)?, short(&stored.payload)?);
            self.state.requests.order.push_back((stored.minute, key));
            self.state.requests.answers.insert(key, Stored { payload, answer });
        }
        Ok(())
    }

    fn jobs(&mut self, piece: StateJobs) -> Result<(), Malformed> {
        let terms: Vec<Arc<Terms>> =
            piece.terms.into_iter().map(|terms| self.terms(terms)).collect::<Result<_, Malformed>>()?;
        for job in piece.jobs {
            let terms = terms.get(job.terms as usize).ok_or(Malformed("a job without terms"))?.clone();
            self.jobs.push(read_job(job, terms)?);
        }
        Ok(())
    }

    fn terms(&mut self, terms: state_jobs::Terms) -> Result<Arc<Terms>, Malformed> {
        // The queue of a job that has ended may be gone.
        let queue = self.state.queues.get_key_value(terms.queue.as_str());
        let queue = queue.map_or_else(|| terms.queue.as_str().into(), |(name, _)| name.clone());
        let owner = self.state.indexes.owner(&terms.owner);
        // Noted at once, so that all terms of an owner share the name.
        self.state.indexes.newest.entry(owner.clone()).or_insert(0);
        let first = terms.resources.as_ref().map(Shape::from).ok_or(Malformed("a job without resources"))?;
        let ask = self.state.indexes.intern_ask(Ask {
            shapes: std::iter::once(first).chain(terms.alternatives.iter().map(Shape::from)).collect(),
            constraints: terms.constraints.iter().map(Into::into).collect(),
            licenses: terms.licenses.into_iter().map(|(name, count)| (name.into(), count)).collect(),
            time_limit_ms: terms.time_limit_ms,
            has_outputs: terms.has_outputs,
        });
        Ok(self.state.indexes.intern(Terms {
            owner,
            queue,
            ask,
            priority: terms.priority,
            retries: terms.retries,
            max_running: terms.max_running,
            max_failures: terms.max_failures,
            min_backoff_ms: terms.min_backoff_ms,
            max_backoff_ms: terms.max_backoff_ms,
            at_most_once: terms.at_most_once,
            rules: terms.retry_rules.iter().map(Rule::from).collect(),
            queue_time_limit_ms: terms.queue_time_limit_ms,
            total_time_limit_ms: terms.total_time_limit_ms,
            is_array: terms.is_array,
            labels: terms.labels,
        }))
    }

    fn tasks(&mut self, piece: StateTasks) -> Result<(), Malformed> {
        let position = usize::try_from(piece.job).ok().and_then(|id| id.checked_sub(1));
        let job = position.and_then(|position| self.jobs.get_mut(position)).ok_or(Malformed("tasks without a job"))?;
        let count = job.tasks.count();
        let mut chunks = OrdMap::new();
        for chunk in piece.chunks {
            let number = chunk.number;
            chunks.insert(number, Arc::new(read_chunk(chunk, count)?));
        }
        job.tasks.extend(chunks);
        for record in piece.records {
            if record.ordinal >= count {
                return Err(Malformed("a record of no task"));
            }
            job.records.insert(record.ordinal, read_record(record)?);
        }
        for output in piece.outputs {
            let manifest = output.manifest.ok_or(Malformed("outputs without a manifest"))?;
            let published = Published { attempt: output.attempt, manifest, etags: output.etags };
            job.extra_mut().outputs.insert(output.ordinal, Arc::new(published));
        }
        Ok(())
    }

    /// Makes anew whatever is derived.
    fn finish(mut self) -> Result<State, Malformed> {
        if !self.ended {
            return Err(Malformed("its end is missing"));
        }
        let State { jobs, sessions, queues, blobs, licenses, indexes, .. } = &mut self.state;
        for (id, mut job) in (1..).zip(self.jobs) {
            indexes.add_job(id, &job);
            for hash in job.extra.as_deref().map_or(&[][..], |extra| &extra.blobs) {
                if !blobs.stored.contains_key(hash) {
                    return Err(Malformed("a job without its blob"));
                }
                blobs.take_up(hash);
            }
            if let Some(queue) = queues.get_mut(&job.terms.queue) {
                for (ordinal, record) in &job.records {
                    hold(id, *ordinal, record, &job, queue, sessions, licenses)?;
                }
                queue.load.queued += u64::from(job.counts.queued());
            } else if !job.ended() {
                return Err(Malformed("a job without a queue"));
            }
            let (ready, open) = (job.ready(), !job.ended());
            indexes.set_ready(id, &mut job, ready);
            indexes.set_open(id, &mut job, open);
            let counts = job.counts;
            indexes.set_deadlines(id, &mut job);
            job.indexed.queued = counts.queued();
            job.indexed.unended = counts.unended();
            job.indexed.publishing = counts.publishing;
            indexes.unended_tasks += u64::from(counts.unended());
            indexes.unpublished += u64::from(counts.publishing);
            jobs.push(job);
        }
        Ok(self.state)
    }
}

fn usage_of(usage: &state_header::Usage) -> Usage {
    Usage { at_ms: usage.at_ms, cpu: usage.cpu, memory: usage.memory, gpus: usage.gpus, scratch: usage.scratch }
}

/// Notes with its session what a record holds.
fn hold(
    id: u64,
    ordinal: u32,
    record: &Record,
    job: &Job,
    queue: &mut Queue,
    sessions: &mut OrdMap<u64, Session>,
    licenses: &mut Licenses,
) -> Result<(), Malformed> {
    match &record.phase {
        Phase::Leased(lease) => {
            let session = sessions.get_mut(&lease.session).ok_or(Malformed("a lease without a session"))?;
            let shape = lease.shape(job.terms.shape());
            licenses.take(&job.terms.ask.licenses);
            session.holds.leases.insert((id, ordinal));
            queue.load.running += 1;
            if lease.ahead {
                session.holds.ahead.insert((lease.granted_index, id, ordinal));
            } else {
                session.holds.used.add(&shape);
                queue.load.used.add(&shape);
            }
        }
        Phase::Publishing(publication) => {
            if let Some((session, _)) = publication.assigned {
                let session = sessions.get_mut(&session).ok_or(Malformed("a publication without a session"))?;
                session.holds.publications.insert((id, ordinal));
            }
        }
        Phase::Pending | Phase::Backoff { .. } => {}
    }
    Ok(())
}

fn hash_of(bytes: &Bytes) -> Result<Hash, Malformed> {
    Hash::try_from(&bytes[..]).map_err(|_| Malformed("a hash isn't 32 bytes"))
}

fn place_of(code: u32) -> Result<Place, Malformed> {
    if code <= 6 { Ok(Place::from_code(code as u8)) } else { Err(Malformed("an unknown place")) }
}

fn read_job(job: state_jobs::Job, terms: Arc<Terms>) -> Result<Job, Malformed> {
    let counts = job.counts.unwrap_or_default();
    let counts = Counts {
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
    };
    Ok(Job {
        spec: Bytes::copy_from_slice(&job.spec),
        name: job.name.into(),
        terms,
        tasks: Tasks::restore(counts.total(), place_of(job.rest)?),
        records: OrdMap::new(),
        counts,
        created_ms: job.created_ms,
        started_ms: job.started_ms,
        ended_ms: job.ended_ms,
        highest_attempt: job.highest_attempt,
        runs: Runs { ends: job.ends, run_ms: job.run_ms },
        held: job.held,
        released: job.released,
        extra: job.extra.map(read_extra).transpose()?.map(Box::new),
        indexed: Indexed::default(),
    })
}

fn read_extra(extra: state_jobs::Extra) -> Result<Extra, Malformed> {
    let groups: BTreeMap<_, _> = extra
        .failures
        .into_iter()
        .map(|group| {
            let kind = (group.cause, group.exit_code, group.signal);
            (kind, Group { count: group.count, ordinals: group.ordinals, detail: group.detail.into() })
        })
        .collect();
    Ok(Extra {
        ranges: (!extra.ranges.is_empty()).then(|| extra.ranges.into()),
        after: extra
            .after
            .into_iter()
            .map(|edge| Edge {
                job: edge.job,
                condition: DependencyCondition::try_from(edge.condition).unwrap_or_default(),
                exit_codes: edge.exit_codes.into(),
                met: edge.met,
            })
            .collect(),
        blobs: extra.blobs.iter().map(hash_of).collect::<Result<_, Malformed>>()?,
        reason: extra.reason.map(Into::into),
        failures: Failures { groups },
        outputs: OrdMap::new(),
        details_bytes: extra.details_bytes,
        stopped_ms: extra.stopped_ms,
        stopped_cause: Cause::try_from(extra.stopped_cause).unwrap_or_default(),
        released_ms: extra.released_ms,
        armed: [None; 2],
        fired: [extra.fired_limits & 1 != 0, extra.fired_limits & 2 != 0],
    })
}

fn read_chunk(chunk: state_tasks::Chunk, count: u32) -> Result<Chunk, Malformed> {
    let first = u64::from(chunk.number) * u64::from(crate::job::CHUNK);
    if first >= u64::from(count) {
        return Err(Malformed("a chunk of no tasks"));
    }
    let words: [u64; 12] = chunk.planes.try_into().map_err(|_| Malformed("a chunk has twelve words"))?;
    let [a, b, c, d, e, f, g, h, i, j, k, l] = words;
    let planes = [[a, b, c, d], [e, f, g, h], [i, j, k, l]];
    // There is no code 7.
    if (0..4).any(|word| planes.iter().fold(u64::MAX, |all, plane| all & plane[word]) != 0) {
        return Err(Malformed("an unknown place"));
    }
    if chunk.newest.is_empty() {
        return Ok(Chunk { planes, facts: None });
    }
    let length = (u64::from(count) - first).min(u64::from(crate::job::CHUNK)) as usize;
    let facts = Facts { newest: chunk.newest.into(), entries: chunk.entries.to_vec() };
    if facts.newest.len() != length || !facts.readable() {
        return Err(Malformed("facts that can't be read"));
    }
    Ok(Chunk { planes, facts: Some(Box::new(facts)) })
}

fn read_record(record: state_tasks::Record) -> Result<Record, Malformed> {
    use state_tasks::record::Phase as In;
    let small = |count: u32| u16::try_from(count).map_err(|_| Malformed("a count that is too high"));
    let phase = match record.phase {
        None => Phase::Pending,
        Some(In::BackoffUntilMs(until_ms)) => Phase::Backoff { until_ms },
        Some(In::Lease(lease)) => Phase::Leased(Lease {
            session: lease.session,
            granted_index: lease.granted_index,
            granted_wall_ms: lease.granted_wall_ms,
            granted_ms: lease.granted_ms,
            kill: lease
                .kill_index
                .map(|index| Kill { index, cause: Cause::try_from(lease.kill_cause).unwrap_or_default() }),
            start_ms: lease.start_ms,
            ahead: lease.ahead,
            pinned: lease.pinned.as_ref().map(|shape| Box::new(Shape::from(shape))),
        }),
        Some(In::Publication(publication)) => Phase::Publishing(Arc::new(Publication {
            assigned: publication.session.map(|session| (session, publication.assigned_index)),
            fact: fact_from(&publication.fact).ok_or(Malformed("a fact that can't be read"))?,
            manifest: Bytes::copy_from_slice(&publication.manifest),
        })),
    };
    Ok(Record {
        attempt: record.attempt,
        failures: small(record.failures)?,
        lost: small(record.lost)?,
        memory_mib: record.memory_mib,
        phase,
    })
}
