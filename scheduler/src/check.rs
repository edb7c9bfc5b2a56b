//! Every invariant that can be stated of one state, stated: what is derived is computed again from the records,
//! slowly and plainly, and compared.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    State,
    indexes::{Bucket, Turn, turn_of},
    job::{Job, Phase, Place},
    limits,
    queue::Load,
    session::Holds,
    shape::Shape,
};

/// An invariant that doesn't hold: a bug.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{invariant}: {detail}")]
pub struct Violation {
    /// Which, in a few words.
    pub invariant: &'static str,
    /// What was found.
    pub detail: String,
}

/// Fails with a violation unless the two are equal.
fn equal<T: PartialEq + std::fmt::Debug>(invariant: &'static str, found: &T, expected: &T) -> Result<(), Violation> {
    if found == expected {
        return Ok(());
    }
    Err(Violation { invariant, detail: format!("found {found:?}, expected {expected:?}") })
}

fn holds(invariant: &'static str, condition: bool, detail: impl Fn() -> String) -> Result<(), Violation> {
    if condition { Ok(()) } else { Err(Violation { invariant, detail: detail() }) }
}

/// What the records say, gathered job by job.
#[derive(Default)]
struct Census {
    sessions: BTreeMap<u64, Holds>,
    loads: BTreeMap<Arc<str>, Load>,
    timers: BTreeSet<(u64, u64, u32)>,
    deadlines: BTreeSet<(u64, u64, u8)>,
    grown: BTreeMap<Bucket, BTreeSet<(Turn, u32)>>,
    twins: BTreeSet<(u64, u64)>,
    licenses: BTreeMap<Arc<str>, u64>,
    orphans: BTreeSet<(u64, u32)>,
    ready: BTreeMap<Bucket, BTreeSet<Turn>>,
    open_by_owner: BTreeSet<(Arc<str>, u64)>,
    dependents: BTreeSet<(u64, u64)>,
    newest: BTreeMap<Arc<str>, u64>,
    jobs: u64,
    /// By the wall clock at their end.
    ended: BTreeSet<(i64, u64)>,
    blob_uses: BTreeMap<[u8; 32], u64>,
    unended: u64,
    unpublished: u64,
    spec_bytes: u64,
}

impl State {
    /// Checks every invariant, in time proportional to the state: for tests, simulations and doubts.
    pub fn check(&self) -> Result<(), Violation> {
        let mut census = Census::default();
        for (id, job) in self.jobs.iter() {
            self.check_job(id, job, &mut census)?;
        }
        self.check_sessions(&census)?;
        self.check_indexes(&census)?;
        self.check_history(&census)?;
        self.check_tables(&census)
    }

    fn check_job(&self, id: u64, job: &Job, census: &mut Census) -> Result<(), Violation> {
        let counts = &job.counts;
        let at = |what: &str| format!("job {id}: {what}: {counts:?}");
        equal("a job's counts add up to its size", &counts.total(), &job.tasks.count())?;
        let places = job.tasks.census();
        let by_counts = [
            counts.pending,
            counts.backoff + counts.grown + counts.active(),
            counts.succeeded,
            counts.failed,
            counts.cancelled,
            counts.skipped,
            counts.blocked,
        ];
        holds("counts agree with the tasks' places", places == by_counts, || at(&format!("{places:?}")))?;
        equal("a job has an end time exactly when it has ended", &job.ended_ms.get().is_some(), &job.ended())?;
        let ranges: u64 = job.ranges().iter().map(proto::v1::IndexRange::count).sum();
        equal("a job has a task for each index", &ranges, &u64::from(job.tasks.count()))?;
        let failed = job.failures().map_or(0, |failures| failures.groups.values().map(|group| group.count).sum());
        equal("every failed task is in a group", &failed, &counts.failed)?;
        let (mut backoff, mut leased, mut running, mut publishing) = (0, 0, 0, 0);
        let load = census.loads.entry(job.terms.queue.clone()).or_default();
        load.queued += u64::from(counts.queued());
        let mut grown = 0;
        for (due, which) in job.deadlines().into_iter().zip(0u8..) {
            census.deadlines.extend(due.map(|due| (due, id, which)));
        }
        for (ordinal, record) in &job.records {
            let place = job.tasks.place(*ordinal);
            let newest = job.tasks.newest_attempt(*ordinal);
            let which = || format!("task {id}/{ordinal}: {record:?}, place {place:?}, newest end of attempt {newest}");
            holds("attempt numbers rise", record.attempt >= 1 && record.attempt <= job.highest_attempt, which)?;
            let in_line = matches!(record.phase, Phase::Pending) && record.memory_mib == 0;
            let expected = if in_line { Place::Pending } else { Place::Active };
            holds("records agree with places", place == expected, which)?;
            holds(
                "attempts are within their budgets",
                u32::from(record.failures) <= job.terms.retries && record.lost <= limits::INFRASTRUCTURE_ATTEMPTS,
                which,
            )?;
            match &record.phase {
                Phase::Pending if record.memory_mib > 0 => {
                    grown += 1;
                    let ask = Arc::new(job.terms.ask.grown(record.memory_mib));
                    let bucket = Bucket { queue: job.terms.queue.clone(), ask };
                    census.grown.entry(bucket).or_default().insert((turn_of(&job.terms, id), *ordinal));
                }
                Phase::Pending => {}
                Phase::Backoff { until_ms } => {
                    backoff += 1;
                    census.timers.insert((*until_ms, id, *ordinal));
                }
                Phase::Leased(lease) => {
                    *if lease.start_ms.is_some() { &mut running } else { &mut leased } += 1;
                    holds("a leased attempt has not ended", record.attempt > newest, which)?;
                    let once = !job.terms.at_most_once
                        || (!lease.ahead && job.facts(*ordinal).iter().all(|one| one.session == 0));
                    holds("a task to run at most once is neither leased ahead nor twice", once, which)?;
                    let shape = lease.shape(job.terms.shape());
                    let session = census.sessions.entry(lease.session).or_default();
                    session.leases.insert((id, *ordinal));
                    load.running += 1;
                    for (name, count) in &job.terms.ask.licenses {
                        *census.licenses.entry((&**name).into()).or_default() += u64::from(*count);
                    }
                    if lease.ahead {
                        session.ahead.insert((lease.granted_index, id, *ordinal));
                    } else {
                        session.used.add(&shape);
                        load.used.add(&shape);
                    }
                }
                Phase::Publishing(publication) => {
                    publishing += 1;
                    holds("a publishing attempt has not ended", record.attempt > newest, which)?;
                    match publication.assigned {
                        None => {
                            census.orphans.insert((id, *ordinal));
                        }
                        Some((session, _)) => {
                            let session = census.sessions.entry(session).or_default();
                            session.publications.insert((id, *ordinal));
                        }
                    }
                }
            }
        }
        let by_records = [backoff, leased, running, publishing, grown];
        let expected = [counts.backoff, counts.leased, counts.running, counts.publishing, counts.grown];
        equal("counts agree with records", &by_records, &expected)?;
        for edge in job.after() {
            holds("a job waits for older ones", edge.job < id, || format!("job {id} waits for {}", edge.job))?;
            census.dependents.insert((edge.job, id));
            if edge.is_by_task() {
                census.twins.insert((edge.job, id));
            }
        }
        let by_task = job.after().iter().any(|edge| edge.is_by_task());
        holds("only tasks with twins wait for them", by_task || counts.blocked == 0, || at("blocked"))?;
        holds("no child runs before its parents", job.released || counts.active() == 0, || at("not released"))?;
        holds(
            "a job is released when all it waits for is met",
            job.released == job.after().iter().all(|one| one.met || one.is_by_task()),
            || at("released"),
        )?;
        if job.ready() {
            census.ready.entry(Bucket::of(&job.terms)).or_default().insert(turn_of(&job.terms, id));
        }
        census.jobs += 1;
        census.ended.extend(job.ended_ms.get().map(|ended_ms| (ended_ms, id)));
        if !job.ended() {
            census.open_by_owner.insert((job.terms.owner.clone(), id));
        }
        census.newest.insert(job.terms.owner.clone(), id);
        for hash in job.extra.as_deref().map_or(&[][..], |extra| &extra.blobs) {
            *census.blob_uses.entry(*hash).or_default() += 1;
        }
        census.unended += u64::from(counts.unended());
        census.unpublished += u64::from(counts.publishing);
        census.spec_bytes += job.text.spec().len() as u64;
        Ok(())
    }

    fn check_sessions(&self, census: &Census) -> Result<(), Violation> {
        for (id, session) in &self.sessions {
            let expected = census.sessions.get(id).cloned().unwrap_or_default();
            equal("a session's holdings agree with the records", &session.holds, &expected)?;
            let capacity = &session.about.capacity;
            holds("no worker is over its capacity", session.holds.used.fits(capacity), || {
                format!("session {id}: {:?} of {capacity:?}", session.holds.used)
            })?;
            holds("what is held ahead is bounded", session.holds.ahead.len() <= limits::AHEAD, || {
                format!("session {id}")
            })?;
            equal("a worker's name leads to its session", &self.indexes.workers.get(&session.about.worker), &Some(id))?;
        }
        equal("each live session has a worker", &self.indexes.workers.len(), &self.sessions.len())?;
        let dead = census.sessions.keys().find(|id| !self.sessions.contains_key(*id));
        holds("no lease outlives its session", dead.is_none(), || format!("session {dead:?}"))
    }

    fn check_indexes(&self, census: &Census) -> Result<(), Violation> {
        let indexes = &self.indexes;
        let ready: BTreeMap<Bucket, BTreeSet<Turn>> =
            indexes.ready.iter().map(|(bucket, line)| (bucket.clone(), line.iter().collect())).collect();
        equal("the order of the queues agrees with the jobs", &ready, &census.ready)?;
        let owned: BTreeSet<(Arc<str>, u64)> =
            indexes.open.iter().flat_map(|(owner, jobs)| jobs.iter().map(|(_, job)| (owner.clone(), job))).collect();
        equal("unended jobs are listed by owner", &owned, &census.open_by_owner)?;
        equal("timers agree with back-offs", &indexes.timers.iter().copied().collect(), &census.timers)?;
        equal("deadlines agree with time limits", &indexes.deadlines.iter().copied().collect(), &census.deadlines)?;
        let grown: BTreeMap<_, BTreeSet<_>> =
            indexes.grown.iter().map(|(bucket, line)| (bucket.clone(), line.iter().copied().collect())).collect();
        equal("tasks whose memory grew stand in their lines", &grown, &census.grown)?;
        equal("twins agree with edges", &indexes.twins.iter().copied().collect(), &census.twins)?;
        equal("orphans agree with publications", &indexes.orphans.iter().copied().collect(), &census.orphans)?;
        equal("dependents agree with edges", &indexes.dependents.iter().copied().collect(), &census.dependents)?;
        let newest = indexes.newest.iter().map(|(owner, job)| (owner.clone(), *job)).collect();
        equal("the newest job of each owner is known", &newest, &census.newest)?;
        let sums = (indexes.unended_tasks, indexes.unpublished, indexes.spec_bytes);
        equal("sums agree with the jobs", &sums, &(census.unended, census.unpublished, census.spec_bytes))
    }

    fn check_history(&self, census: &Census) -> Result<(), Violation> {
        let history = &self.history;
        let count = history.segments.len();
        let written = |id: u64| history.cuts.contains_key(&id) || history.part.is_some_and(|part| part.job == id);
        let newest = |id: u64| self.jobs.get(id).is_some_and(|job| census.newest.get(&job.terms.owner) == Some(&id));
        let bound = |id: u64| newest(id) || census.twins.iter().any(|(twin, _)| *twin == id);
        let free: BTreeSet<_> = census.ended.iter().copied().filter(|(_, id)| !written(*id) && !bound(*id)).collect();
        equal("ended jobs that may leave are listed", &history.free.iter().copied().collect(), &free)?;
        equal("jobs that are here are counted", &self.jobs.here(), &census.jobs)?;
        holds("what is settled was cut", history.settled as usize <= count, || format!("{}", history.settled))?;
        let ended = |id: u64| self.jobs.get(id).is_some_and(Job::ended);
        for (id, cut) in &history.cuts {
            let good = ended(*id) && cut.last_segment() as usize <= count && cut.last_segment() > history.settled;
            holds("what was written has ended, and waits to be settled", good, || format!("job {id}: {cut:?}"))?;
        }
        let part = history.part;
        let good = part.is_none_or(|part| ended(part.job) && part.first_segment as usize <= count);
        holds("what is being written has ended", good, || format!("{part:?}"))?;
        for (first, _, gone) in self.jobs.gone_runs() {
            let last = gone.first_segment + gone.segments - 1;
            holds("jobs leave when their segments are settled", last <= history.settled, || {
                format!("job {first}: {gone:?}")
            })?;
        }
        Ok(())
    }

    fn check_tables(&self, census: &Census) -> Result<(), Violation> {
        for (name, license) in &self.licenses.by_name {
            let used = census.licenses.get(name).copied().unwrap_or_default();
            equal("a license's use agrees with the leases", &license.used, &used)?;
        }
        let lost = census.licenses.keys().find(|name| !self.licenses.by_name.contains_key(*name));
        holds("a license in use is known", lost.is_none(), || format!("{lost:?}"))?;
        for (name, queue) in &self.queues {
            let expected = census.loads.get(name).copied().unwrap_or_default();
            equal("a queue's load agrees with the jobs", &queue.load, &expected)?;
        }
        let (mut bytes, mut unused) = (0, BTreeSet::new());
        for (hash, blob) in &self.blobs.stored {
            equal("a blob's uses agree with the jobs", &blob.uses, &census.blob_uses.get(hash).copied().unwrap_or(0))?;
            bytes += blob.data.len() as u64;
            if blob.uses == 0 {
                unused.insert((blob.until_ms, *hash));
            }
        }
        equal("blobs add up", &self.blobs.bytes, &bytes)?;
        equal("unused blobs have a time", &self.blobs.unused.iter().copied().collect(), &unused)?;
        let missing = census.blob_uses.keys().find(|hash| !self.blobs.stored.contains_key(*hash));
        holds("a job's blobs are stored", missing.is_none(), || format!("{missing:?}"))?;
        let streams: BTreeSet<_> = self.streams.known.iter().map(|(key, stream)| (stream.minute, *key)).collect();
        equal("streams agree with their order", &self.streams.order.iter().copied().collect(), &streams)?;
        for stream in self.streams.known.values() {
            let mut next = stream.answers.first().map_or(stream.last + 1, |run| run.first);
            for run in &stream.answers {
                equal("the answers of a stream have no gap", &run.first, &next)?;
                next += u64::from(run.count);
            }
            equal("the answers of a stream end with its last number", &next, &(stream.last + 1))?;
        }
        equal("request ids agree with their order", &self.requests.answers.len(), &self.requests.order.len())?;
        let total = self.sessions.values().fold(Shape::default(), |mut sum, session| {
            sum.add(&session.holds.used);
            sum
        });
        let queues = self.queues.values().fold(Shape::default(), |mut sum, queue| {
            sum.add(&queue.load.used);
            sum
        });
        equal("what queues use is what workers give", &queues, &total)
    }
}
