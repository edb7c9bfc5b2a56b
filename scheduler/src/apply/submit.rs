//! Submits: whole or not at all.

use std::{collections::BTreeMap, sync::Arc};

use imbl::OrdMap;
use prost::Message;
use proto::{
    internal::{Dependency, JobSubmission, JobSubmissions, PutBlob, SubmitJobs, dependency::On},
    ranges,
    v1::{DependencyCondition, JobState},
};

use super::{Step, dependencies::state_word};
use crate::{
    Code, Event, Outcome, Rejection, State,
    ask::Ask,
    blobs::Hash,
    job::{Counts, Edge, Extra, Indexed, Job, Moment, Place, Rule, Runs, Tasks, Terms, Text},
    limits,
    queue::DEFAULT,
    requests::Answer,
};

impl State {
    pub(crate) fn admit_submit(&self, submit: &SubmitJobs) -> Result<(), Rejection> {
        let read;
        let jobs = if submit.parts.is_empty() {
            &submit.jobs
        } else {
            read = self.read_parts(submit)?;
            &read
        };
        self.admit_jobs(submit.request.as_ref().map_or("", |request| &request.owner), jobs)
    }

    /// Looks through all jobs of one submit.
    pub(super) fn admit_jobs(&self, owner: &str, jobs: &[JobSubmission]) -> Result<(), Rejection> {
        let count = jobs.len();
        if count == 0 {
            return Err(Rejection::invalid("specs", "there is no job in the request"));
        }
        if count > limits::JOBS_IN_A_SUBMIT {
            let message = format!("the request has {count} jobs, {} at most", limits::JOBS_IN_A_SUBMIT);
            return Err(Rejection::invalid("specs", message).hint("submit them in several requests"));
        }
        if owner.len() > limits::NAME_BYTES {
            return Err(Rejection::invalid("owner", format!("the owner's name has {} bytes", owner.len())));
        }
        if self.jobs.here() + count as u64 > limits::JOBS {
            let message = format!("the grid is full: {} jobs of {}", self.jobs.here(), limits::JOBS);
            return Err(Rejection::exhausted("TOO_MANY_JOBS", "specs", message));
        }
        let (mut tasks, mut spec_bytes) = (0, 0);
        let mut by_queue: BTreeMap<&str, u64> = BTreeMap::new();
        for (position, job) in jobs.iter().enumerate() {
            let tasks_of_job = self.admit_job(position, job, jobs)?;
            tasks += tasks_of_job;
            spec_bytes += job.spec.len() as u64;
            *by_queue.entry(queue_of(job)).or_default() += tasks_of_job;
        }
        let unended = self.indexes.unended_tasks;
        if unended + tasks > limits::UNENDED_TASKS {
            let message = format!(
                "the grid is full: {unended} of {} tasks have not ended, {tasks} more asked",
                limits::UNENDED_TASKS
            );
            return Err(Rejection::exhausted("TOO_MANY_TASKS", "array", message).hint("retry when some have ended"));
        }
        if self.indexes.spec_bytes + spec_bytes > limits::SPECS_BYTES {
            let message =
                format!("the specs of all jobs take {} bytes, the most there may be", self.indexes.spec_bytes);
            return Err(Rejection::exhausted("SPECS_FULL", "specs", message));
        }
        for (name, more) in by_queue {
            let queue = self.queues.get(name).expect("its queue was looked up");
            if queue.draining {
                let message = format!("queue `{name}` is drained: it takes no new jobs");
                return Err(Rejection::conflict("QUEUE_DRAINING", message)
                    .field("queue")
                    .hint("submit to another queue, or open it with `millgrid queue resume`"));
            }
            let queued = queue.load.queued;
            if queue.max_queued > 0 && queued + more > queue.max_queued {
                let message =
                    format!("queue `{name}` is full: {queued} of {} tasks, {more} more asked", queue.max_queued);
                let hint = format!("retry later or raise its limit with `millgrid queue set {name} --max-queued`");
                return Err(Rejection::exhausted("QUEUE_FULL", "queue", message).hint(hint));
            }
        }
        Ok(())
    }

    /// Looks through one job of a submit; its number of tasks.
    fn admit_job(&self, position: usize, job: &JobSubmission, jobs: &[JobSubmission]) -> Result<u64, Rejection> {
        if job.spec.len() > limits::SPEC_BYTES {
            let message = format!("the spec has {} bytes, {} at most", job.spec.len(), limits::SPEC_BYTES);
            return Err(Rejection::invalid("spec", message).hint("put large values into blobs or on S3"));
        }
        if job.name.len() > limits::NAME_BYTES {
            let message = format!("the name has {} bytes, {} at most", job.name.len(), limits::NAME_BYTES);
            return Err(Rejection::invalid("name", message));
        }
        if !self.queues.contains_key(queue_of(job)) {
            let message = format!("there is no queue `{}`", job.queue);
            return Err(Rejection::new(Code::NotFound, "QUEUE_NOT_FOUND", "queue", message)
                .hint("list them with `millgrid queue ls`"));
        }
        admit_labels(&job.labels)?;
        if !limits::PRIORITY.contains(&job.priority) {
            let (low, high) = (limits::PRIORITY.start(), limits::PRIORITY.end());
            let message = format!("the priority {} isn't between {low} and {high}", job.priority);
            return Err(Rejection::invalid("priority", message));
        }
        self.admit_needs(job)?;
        let tasks = ranges::validate(&job.ranges).map_err(|why| Rejection::invalid("array.ranges", why.to_string()))?;
        if !job.is_array && (tasks != 1 || job.ranges[0].first != 0) {
            return Err(Rejection::invalid("array.ranges", "a job that isn't an array has the index 0 alone"));
        }
        self.admit_dependencies(position, job, jobs)?;
        if job.blobs.len() > limits::BLOBS_OF_A_JOB {
            let message = format!("the job refers to {} blobs, {} at most", job.blobs.len(), limits::BLOBS_OF_A_JOB);
            return Err(Rejection::invalid("array.rows", message));
        }
        for hash in &job.blobs {
            let known = Hash::try_from(&hash[..]).is_ok_and(|hash| self.blobs.stored.contains_key(&hash));
            if !known {
                let message = "the job refers to a blob that isn't stored, or isn't any more";
                return Err(Rejection::conflict("BLOB_NOT_FOUND", message)
                    .hint("upload it again: a blob that no job refers to is kept for an hour"));
            }
        }
        Ok(tasks)
    }

    fn admit_dependencies(
        &self,
        position: usize,
        job: &JobSubmission,
        jobs: &[JobSubmission],
    ) -> Result<(), Rejection> {
        if job.after.len() > limits::DEPENDENCIES {
            let message = format!("the job waits for {} others, {} at most", job.after.len(), limits::DEPENDENCIES);
            return Err(Rejection::invalid("after", message).hint("let a job in between wait for some of them"));
        }
        for dependency in &job.after {
            if dependency.condition() == DependencyCondition::Unspecified {
                return Err(Rejection::invalid(
                    "after",
                    "a dependency doesn't say on what: success, any end, failure, exit codes or element",
                ));
            }
            admit_exit_codes(dependency)?;
            let size = match dependency.on {
                Some(On::JobId(id)) => match (self.jobs.get(id), self.jobs.gone(id)) {
                    (Some(other), _) => u64::from(other.tasks.count()),
                    (None, Some(gone)) => {
                        admit_gone(id, gone.state, dependency)?;
                        // What it means for each task alike needs no sizes.
                        continue;
                    }
                    (None, None) => return Err(Rejection::job_not_found("after", id)),
                },
                Some(On::Position(other)) if (other as usize) < position => {
                    jobs[other as usize].ranges.iter().map(proto::v1::IndexRange::count).sum()
                }
                Some(On::Position(other)) => {
                    let message =
                        format!("job {position} of the request can't wait for job {other}, which isn't before it");
                    return Err(Rejection::invalid("edges", message));
                }
                None => return Err(Rejection::invalid("after", "a dependency names no job")),
            };
            let tasks: u64 = job.ranges.iter().map(proto::v1::IndexRange::count).sum();
            if dependency.condition() == DependencyCondition::Element && size != tasks {
                let message = format!("an array of {tasks} tasks can't wait task by task for one of {size}");
                return Err(Rejection::invalid("after", message).hint("make both arrays of one size"));
            }
        }
        Ok(())
    }

    /// The jobs of a submit that is too large for an entry.
    pub(super) fn read_parts(&self, submit: &SubmitJobs) -> Result<Vec<JobSubmission>, Rejection> {
        let mut jobs = Vec::new();
        for hash in &submit.parts {
            let blob = Hash::try_from(&hash[..]).ok().and_then(|hash| self.blobs.stored.get(&hash));
            let Some(blob) = blob else {
                let message = "a part of the request isn't stored, or isn't any more";
                return Err(Rejection::conflict("PART_NOT_FOUND", message).hint("submit it again"));
            };
            let part = JobSubmissions::decode(blob.data.clone())
                .map_err(|_| Rejection::invalid("parts", "a part of the request can't be read"))?;
            jobs.extend(part.jobs);
            if jobs.len() > limits::JOBS_IN_A_SUBMIT {
                break;
            }
        }
        Ok(jobs)
    }

    pub(crate) fn admit_blob(&self, put: &PutBlob) -> Result<(), Rejection> {
        let length = put.data.len();
        if length == 0 || length > limits::BLOB_BYTES {
            let message = format!("the blob has {length} bytes, not 1 to {}", limits::BLOB_BYTES);
            return Err(Rejection::invalid("data", message).hint("cut it into chunks"));
        }
        let full = self.blobs.bytes + length as u64 > limits::BLOBS_BYTES;
        if full && !self.blobs.stored.contains_key(blake3::hash(&put.data).as_bytes()) {
            let message = format!("all blobs together take {} bytes of {}", self.blobs.bytes, limits::BLOBS_BYTES);
            return Err(Rejection::exhausted("BLOBS_FULL", "data", message).hint("put the data on S3 instead"));
        }
        Ok(())
    }
}

/// Of a job in the history it is known how it ended as a whole; so tasks can wait for its tasks only if all succeeded.
fn admit_gone(id: u64, state: JobState, dependency: &Dependency) -> Result<(), Rejection> {
    if dependency.condition() != DependencyCondition::Element || state == JobState::Succeeded {
        return Ok(());
    }
    let message =
        format!("job {id} {}, and has moved to the history: no task can wait for one of its tasks", state_word(state));
    Err(Rejection::conflict("JOB_MOVED", message)
        .field("after")
        .hint("wait for its success, failure or end as a whole"))
}

fn admit_exit_codes(dependency: &Dependency) -> Result<(), Rejection> {
    let codes = &dependency.exit_codes;
    if dependency.condition() != DependencyCondition::ExitCode {
        return match codes.is_empty() {
            true => Ok(()),
            false => Err(Rejection::invalid("after", "exit codes belong to a dependency on exit codes")),
        };
    }
    if codes.is_empty() || codes.len() > limits::EXIT_CODES || codes.iter().any(|code| *code > 255) {
        let message = format!("a dependency on exit codes names 1 to {}, each from 0 to 255", limits::EXIT_CODES);
        return Err(Rejection::invalid("after", message));
    }
    Ok(())
}

pub(super) fn admit_labels(labels: &BTreeMap<String, String>) -> Result<(), Rejection> {
    if labels.len() > limits::LABELS {
        let message = format!("there are {} labels, {} at most", labels.len(), limits::LABELS);
        return Err(Rejection::invalid("labels", message));
    }
    let bad = |text: &str| text.len() > limits::LABEL_BYTES;
    match labels.iter().find(|(name, value)| name.is_empty() || bad(name) || bad(value)) {
        None => Ok(()),
        Some((name, _)) => {
            let most = limits::LABEL_BYTES;
            let start: String = name.chars().take(40).collect();
            let message = format!("the label `{start}` has an empty name, or more than {most} bytes");
            Err(Rejection::invalid("labels", message))
        }
    }
}

/// The name with `{job}` filled in, the one placeholder that has a value for a whole job.
fn name_of(asked: &str, job: u64) -> String {
    let value = |name: &str| (name == "job").then(|| job.to_string());
    proto::template::expand(asked, value).unwrap_or_else(|_| asked.to_owned())
}

fn queue_of(job: &JobSubmission) -> &str {
    if job.queue.is_empty() { DEFAULT } else { &job.queue }
}

/// Shortest and longest wait before a retry.
pub(super) fn backoff_of(job: &JobSubmission) -> (u64, u64) {
    let low = if job.min_backoff_ms == 0 { limits::MIN_BACKOFF_MS } else { job.min_backoff_ms };
    let high = if job.max_backoff_ms == 0 { limits::MAX_BACKOFF_MS.max(low) } else { job.max_backoff_ms };
    // A longest wait below the default shortest one means: always so long.
    let low = if job.min_backoff_ms == 0 { low.min(high) } else { low };
    (low, high)
}

impl Step<'_> {
    pub fn submit(&mut self, submit: &SubmitJobs) -> Outcome {
        let owner = submit.request.as_ref().map_or("", |request| &request.owner);
        let owner = self.state.indexes.owner(owner);
        let first = self.state.jobs.len() + 1;
        let read;
        let jobs = if submit.parts.is_empty() {
            &submit.jobs
        } else {
            read = self.state.read_parts(submit).expect("the parts were looked at");
            &read
        };
        for job in jobs {
            self.accept(owner.clone(), first, job);
        }
        let count = jobs.len() as u32;
        self.state.requests.store(submit.request.as_ref(), Answer::Jobs { first, count }, self.state.time_ms);
        Outcome::Jobs { first, count, duplicate: false }
    }

    pub(super) fn accept(&mut self, owner: Arc<str>, first: u64, asked: &JobSubmission) {
        let state = &mut *self.state;
        let queue = state.queues.get_key_value(queue_of(asked)).expect("its queue was looked up").0.clone();
        let (min_backoff_ms, max_backoff_ms) = backoff_of(asked);
        let ask = state.indexes.intern_ask(Ask::of(asked));
        let terms = state.indexes.intern(Terms {
            owner,
            queue,
            ask,
            priority: asked.priority,
            retries: asked.retries,
            max_running: asked.max_running,
            max_failures: asked.max_failures,
            min_backoff_ms,
            max_backoff_ms,
            rules: asked.retry_rules.iter().map(Rule::from).collect(),
            queue_time_limit_ms: asked.queue_time_limit_ms,
            total_time_limit_ms: asked.total_time_limit_ms,
            at_most_once: asked.at_most_once,
            is_array: asked.is_array,
            labels: asked.labels.clone(),
        });
        let count: u64 = asked.ranges.iter().map(proto::v1::IndexRange::count).sum();
        let count = u32::try_from(count).expect("an array's size was looked at");
        let edges: Vec<Edge> = asked
            .after
            .iter()
            .map(|dependency| Edge {
                job: match dependency.on {
                    Some(On::JobId(id)) => id,
                    Some(On::Position(position)) => first + u64::from(position),
                    None => unreachable!("dependencies were looked at"),
                },
                condition: dependency.condition(),
                exit_codes: dependency.exit_codes.as_slice().into(),
                met: false,
            })
            .collect();
        let blobs: Vec<Hash> = asked.blobs.iter().filter_map(|hash| Hash::try_from(&hash[..]).ok()).collect();
        for hash in &blobs {
            state.blobs.take_up(hash);
        }
        // Such jobs always have edges, which is what makes them wait.
        let by_task = edges.iter().any(Edge::is_by_task);
        let (place, counts) = match by_task {
            true => (Place::Blocked, Counts { blocked: count, ..Counts::default() }),
            false => (Place::Pending, Counts { pending: count, ..Counts::default() }),
        };
        let ranges: Option<Arc<[_]>> = asked.is_array.then(|| asked.ranges.clone().into());
        let extra = (ranges.is_some() || !edges.is_empty() || !blobs.is_empty())
            .then(|| Box::new(Extra { ranges, after: edges, blobs, ..Extra::default() }));
        let id = state.jobs.len() + 1;
        let mut job = Job {
            // A copy of its own: a slice would keep the whole entry in memory.
            text: Text::new(&name_of(&asked.name, id), &asked.spec),
            terms,
            tasks: Tasks::new(count, place),
            records: OrdMap::new(),
            counts,
            created_ms: state.wall_ms,
            started_ms: Moment::NONE,
            ended_ms: Moment::NONE,
            highest_attempt: 0,
            runs: Runs::default(),
            held: asked.hold,
            released: asked.after.is_empty(),
            extra,
            indexed: Indexed::default(),
        };
        if job.released {
            job.start_limits(state.time_ms);
        }
        let newest_before = state.indexes.newest.get(&job.terms.owner).copied();
        let twins: Vec<u64> = job.after().iter().filter(|edge| edge.is_by_task()).map(|edge| edge.job).collect();
        state.indexes.add_job(id, &job);
        state.jobs.push(job);
        // The owner's newest so far may leave from now on; what this one waits for task by task may not.
        for other in newest_before.into_iter().chain(twins) {
            state.weigh_for_history(other);
        }
        self.touch_tasks(id, 0, count);
        // Jobs of the same submit come in order, so that what this one waits for is settled.
        self.settle();
        self.weigh_dependencies(id);
        if by_task {
            self.weigh_twins(id, 0, count);
        }
        self.settle();
    }

    pub fn put_blob(&mut self, put: &PutBlob) -> Outcome {
        let hash = *blake3::hash(&put.data).as_bytes();
        if !self.state.blobs.stored.contains_key(&hash) {
            self.events.push(Event::BlobStored { hash });
        }
        self.state.blobs.put(hash, &put.data, self.state.time_ms);
        Outcome::Blob(hash)
    }
}
