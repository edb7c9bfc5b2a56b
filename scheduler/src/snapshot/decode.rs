//! Reading: strictly, and then everything that is derived is made anew.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use imbl::OrdMap;
use prost::Message;
use proto::internal::{
    StateHeader, StateJobs, StatePiece, StateRequests, StateSessions, StateStreams, StateTasks, state_header,
    state_jobs, state_piece::Piece, state_requests::stored::Answer as StoredAnswer, state_sessions, state_streams,
};

use super::{
    Malformed,
    history::read_history,
    records::{hash_of, read_chunk, read_job, read_published, read_record, read_terms},
};
use crate::{
    NEWEST_RULES, OLDEST_RULES, State,
    ask::Ask,
    job::{Gone, Job, Jobs, Phase, Record, Runs, Terms},
    licenses::{License, Licenses},
    queue::{Load, Queue, Reservation},
    requests::{Answer, Note, Stored},
    rules::HISTORY_RULES,
    session::{About, Health, Holds, Session},
    shape::Shape,
    streams::{self, Run, Stream},
    usage::Usage,
};

impl State {
    /// The state that [`Self::encode`] wrote.
    pub fn decode(pieces: impl IntoIterator<Item = Bytes>) -> Result<Self, Malformed> {
        let mut reader = Reader {
            state: Self::new(),
            jobs: BTreeMap::new(),
            gone: Vec::new(),
            passed: 0,
            next_id: 1,
            header: false,
            ended: false,
        };
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

pub(super) struct Reader {
    pub(super) state: State,
    /// Tasks come after their job; so the jobs move into the state at the end.
    jobs: BTreeMap<u64, Job>,
    /// Those that have left: first, count, what is left of each.
    pub(super) gone: Vec<(u64, u32, Gone)>,
    /// How many of these are below the next job.
    pub(super) passed: usize,
    /// Number of the next job.
    pub(super) next_id: u64,
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
            Piece::Streams(streams) => self.streams(streams),
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
            Piece::Segments(segments) => self.segments(segments),
            Piece::Gone(gone) => self.gone(gone),
            Piece::Jobs(jobs) => self.jobs(jobs),
            Piece::Tasks(tasks) => self.tasks(tasks),
            Piece::End(end) => {
                self.ended = true;
                self.skip_gone();
                if end.jobs + 1 == self.next_id { Ok(()) } else { Err(Malformed("jobs are missing")) }
            }
        }
    }

    fn header(&mut self, header: StateHeader) -> Result<(), Malformed> {
        if !(OLDEST_RULES..=NEWEST_RULES).contains(&header.rules_version) {
            return Err(Malformed("written by a release with other rules"));
        }
        self.header = true;
        let state = &mut self.state;
        state.rules = header.rules_version;
        if header.history.is_some() != (state.rules >= HISTORY_RULES) {
            return Err(Malformed("a history doesn't go with these rules"));
        }
        state.history = header.history.map(read_history).transpose()?.unwrap_or_default();
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
                StoredAnswer::History(_) => Answer::History,
            };
            let short = |bytes: &Bytes| <[u8; 16]>::try_from(&bytes[..]).map_err(|_| Malformed("a key isn't 16 bytes"));
            let (key, payload) = (short(&stored.key)?, short(&stored.payload)?);
            self.state.requests.order.push_back((stored.minute, key));
            self.state.requests.answers.insert(key, Stored { payload, answer });
        }
        Ok(())
    }

    fn streams(&mut self, streams: StateStreams) -> Result<(), Malformed> {
        for stored in streams.streams {
            let key = <[u8; 16]>::try_from(&stored.key[..]).map_err(|_| Malformed("a key isn't 16 bytes"))?;
            let answers = stored.answers.into_iter().map(|run| {
                let answer = match run.answer.ok_or(Malformed("a run without an answer"))? {
                    state_streams::answer::Answer::FirstJob(job) => streams::Answer::Jobs(job),
                    state_streams::answer::Answer::Refusal(refusal) => streams::Answer::Refused(Arc::new(refusal)),
                };
                Ok(Run { first: run.first, count: run.count, answer })
            });
            let answers = answers.collect::<Result<_, Malformed>>()?;
            self.state.streams.order.insert((stored.minute, key));
            let stream = Stream { last: stored.last, answers, minute: stored.minute };
            self.state.streams.known.insert(key, stream);
        }
        Ok(())
    }

    fn jobs(&mut self, piece: StateJobs) -> Result<(), Malformed> {
        let terms: Vec<Arc<Terms>> =
            piece.terms.into_iter().map(|terms| self.terms(terms)).collect::<Result<_, Malformed>>()?;
        for job in piece.jobs {
            let terms = terms.get(job.terms as usize).ok_or(Malformed("a job without terms"))?.clone();
            self.skip_gone();
            self.jobs.insert(self.next_id, read_job(job, terms)?);
            self.next_id += 1;
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
        let read = read_terms(terms)?;
        let ask = self.state.indexes.intern_ask(Ask::clone(&read.ask));
        Ok(self.state.indexes.intern(Terms { owner, queue, ask, ..read }))
    }

    fn tasks(&mut self, piece: StateTasks) -> Result<(), Malformed> {
        let job = self.jobs.get_mut(&piece.job).ok_or(Malformed("tasks without a job"))?;
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
            let (ordinal, published) = read_published(output)?;
            job.extra_mut().outputs.insert(ordinal, published);
        }
        Ok(())
    }

    /// Makes anew whatever is derived.
    fn finish(mut self) -> Result<State, Malformed> {
        if !self.ended {
            return Err(Malformed("its end is missing"));
        }
        let State { jobs, sessions, queues, blobs, licenses, indexes, .. } = &mut self.state;
        let mut gone = self.gone.into_iter().peekable();
        let mut pass = |jobs: &mut Jobs| {
            while let Some((_, count, left)) = gone.next_if(|(first, ..)| *first == jobs.len() + 1) {
                jobs.push_gone(count, left);
            }
        };
        for (id, mut job) in self.jobs {
            pass(jobs);
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
        pass(jobs);
        let ended: Vec<u64> = jobs.iter().filter(|(_, job)| job.ended()).map(|(id, _)| id).collect();
        for id in ended {
            self.state.weigh_for_history(id);
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
