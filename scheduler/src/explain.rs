//! Why a task waits, why it failed, where it runs: from the predicate by which the planner itself decides.

mod feasibility;
mod summary;

use std::collections::BTreeMap;

use proto::v1::{self, Capacity, JobState, Reason, TaskState, WaitReason};

pub use self::feasibility::feasible;
use crate::{
    State,
    indexes::{Bucket, turn_of},
    job::{Job, Phase},
    limits,
    session::Session,
    shape::{Resource, Shape},
    view::state_of,
};

/// The largest instance that a pool could ever launch: configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// What that instance has.
    pub largest: Capacity,
}

/// Jobs before this one that are counted for its position; with more it stays unknown.
const COUNTED_AHEAD: usize = 200_000;

impl State {
    /// Says why a job or one of its tasks waits, why it failed, or where it runs. `None`: there is no such thing.
    pub fn explain(&self, id: u64, ordinal: Option<u32>, pools: &[Pool]) -> Option<v1::Explanation> {
        let job = self.jobs.get(id)?;
        if ordinal.is_some_and(|ordinal| ordinal >= job.tasks.count()) {
            return None;
        }
        // A job is explained by the first of its tasks that waits, or else by itself.
        let waits = match ordinal {
            Some(ordinal) => matches!(state_of(job, ordinal), TaskState::Queued | TaskState::Waiting),
            None => job.counts.pending + job.counts.backoff > 0,
        };
        let reasons = if waits { self.reasons(id, job, ordinal, pools) } else { Vec::new() };
        let (position, ahead) = if waits { self.position(id, job) } else { (None, None) };
        let summary = match ordinal {
            Some(ordinal) => self.task_summary(id, job, ordinal, &reasons),
            None => self.job_summary(id, job, &reasons),
        };
        Some(v1::Explanation {
            job_id: id,
            index: ordinal.and_then(|ordinal| proto::ranges::index_of(job.ranges(), ordinal)),
            state: ordinal.map_or(task_state_of(job.state()), |ordinal| state_of(job, ordinal)) as i32,
            summary,
            reasons,
            position,
            ahead,
            estimated_start_time: None,
            job_state: job.state() as i32,
        })
    }

    /// Everything that keeps the queued tasks of a job, or one of them, from being granted now.
    fn reasons(&self, id: u64, job: &Job, ordinal: Option<u32>, pools: &[Pool]) -> Vec<Reason> {
        let mut reasons = Vec::new();
        let mut add = |reason: WaitReason, workers: u32, detail: String| {
            reasons.push(Reason { reason: reason as i32, workers, detail });
        };
        if !job.released {
            let open = job.after().iter().filter(|edge| !edge.met);
            for edge in open.take(10) {
                add(WaitReason::Dependency, 0, format!("waits for {} of job {}", edge.word(), edge.job));
            }
        }
        if job.held {
            add(WaitReason::Held, 0, format!("release it with `millgrid job release {id}`"));
        }
        if let Some(until_ms) = self.backoff_until(id, job, ordinal) {
            let seconds = until_ms.saturating_sub(self.time_ms).div_ceil(1000);
            add(WaitReason::RetryBackoff, 0, format!("the next attempt may start in {seconds} s"));
        }
        if job.room() == 0 {
            let (active, most) = (job.counts.active(), job.terms.max_running);
            add(WaitReason::MaxRunning, 0, format!("{active} of its tasks run, {most} may at once"));
        }
        let queue = self.queues.get(&job.terms.queue).expect("a job's queue exists");
        let name = &job.terms.queue;
        if queue.paused {
            add(WaitReason::QueuePaused, 0, format!("resume it with `millgrid queue resume {name}`"));
        }
        if queue.room(&queue.load, &job.terms.shape) == 0 {
            add(WaitReason::QueueLimit, 0, format!("queue `{name}` runs as much as its limits allow"));
        }
        if job.terms.has_outputs && self.indexes.unpublished >= limits::UNPUBLISHED as u64 {
            let detail = format!("{} ended tasks wait for their outputs to be published", self.indexes.unpublished);
            add(WaitReason::NoCapacity, 0, detail);
        }
        reasons.extend(self.reasons_of_workers(&job.terms.shape, pools));
        // Room there is, and nothing forbids: then it is only not its turn, or the plan is on its way.
        if reasons.is_empty() && self.position(id, job).1.is_some() {
            let detail = "jobs before it in its queue are served first".to_owned();
            reasons.push(Reason { reason: WaitReason::Priority as i32, workers: 0, detail });
        }
        reasons
    }

    /// When the back-off of a task is over; of a job, when all that is left of it backs off, the first.
    fn backoff_until(&self, id: u64, job: &Job, ordinal: Option<u32>) -> Option<u64> {
        match ordinal {
            Some(ordinal) => match job.records.get(&ordinal)?.phase {
                Phase::Backoff { until_ms } => Some(until_ms),
                Phase::Pending | Phase::Leased(_) | Phase::Publishing(_) => None,
            },
            None if job.counts.pending > 0 || job.counts.backoff == 0 => None,
            None => self.indexes.timers.iter().find(|(_, of, _)| *of == id).map(|(until_ms, ..)| *until_ms),
        }
    }

    /// What the workers say to a shape, counted; empty when one has room for it.
    fn reasons_of_workers(&self, shape: &Shape, pools: &[Pool]) -> Vec<Reason> {
        let mut lacking: BTreeMap<Resource, (u32, u64)> = BTreeMap::new();
        let (mut draining, mut silent) = (0, 0);
        for session in self.sessions.values() {
            match obstacle(session, shape) {
                Obstacle::None => return Vec::new(),
                Obstacle::Draining => draining += 1,
                Obstacle::Silent => silent += 1,
                Obstacle::Lacking(resources) => {
                    for resource in resources {
                        let (workers, most) = lacking.entry(resource).or_default();
                        *workers += 1;
                        *most = (*most).max(session.free().amount(resource));
                    }
                }
            }
        }
        let mut reasons = Vec::new();
        for (resource, (workers, most)) in lacking {
            let (asked, free) = (resource.amount(shape.amount(resource)), resource.amount(most));
            let detail = format!("{}: {asked} asked, {free} free at most", resource.name());
            reasons.push(Reason { reason: reason_of(resource) as i32, workers, detail });
        }
        if draining > 0 {
            let detail = "they get no further tasks".to_owned();
            reasons.push(Reason { reason: WaitReason::WorkerDraining as i32, workers: draining, detail });
        }
        if silent > 0 {
            let detail = "not heard of for half their time".to_owned();
            reasons.push(Reason { reason: WaitReason::NoWorkers as i32, workers: silent, detail });
        }
        if self.sessions.is_empty() {
            let detail = match feasible(&(*shape).into(), pools) {
                Ok(()) => "no worker has joined".to_owned(),
                Err(most) => format!("no worker has joined, and {most}"),
            };
            reasons.push(Reason { reason: WaitReason::NoWorkers as i32, workers: 0, detail });
        } else if !self.sessions.values().any(|session| shape.fits(&session.about.capacity)) {
            let workers = self.sessions.len() as u32;
            let detail = format!("no worker is large enough for {}, even when idle", shape.describe());
            reasons.push(Reason { reason: WaitReason::NoCapacity as i32, workers, detail });
        }
        reasons
    }

    /// The place of a job in its queue, from 1, and the job in front of it; nothing for one that doesn't stand
    /// there.
    fn position(&self, id: u64, job: &Job) -> (Option<u64>, Option<u64>) {
        if !job.indexed.ready {
            return (None, None);
        }
        let turn = turn_of(&job.terms, id);
        let lines = self.indexes.ready.iter().filter(|(bucket, _): &(&Bucket, _)| bucket.queue == job.terms.queue);
        let (mut before, mut ahead) = (0usize, None);
        for (_, line) in lines {
            before += line.range(..turn).take(COUNTED_AHEAD + 1 - before.min(COUNTED_AHEAD)).count();
            ahead = ahead.max(line.range(..turn).next_back().copied());
        }
        let position = (before <= COUNTED_AHEAD).then_some(before as u64 + 1);
        (position, ahead.map(|(_, job)| job))
    }
}

/// What a worker says to a shape.
enum Obstacle {
    None,
    Draining,
    Silent,
    Lacking(Vec<Resource>),
}

fn obstacle(session: &Session, shape: &Shape) -> Obstacle {
    if !session.accepts() {
        Obstacle::Draining
    } else if session.silent_since_ms.is_some() {
        Obstacle::Silent
    } else if shape.fits(&session.free()) {
        Obstacle::None
    } else {
        Obstacle::Lacking(shape.lacking(&session.free()).collect())
    }
}

fn reason_of(resource: Resource) -> WaitReason {
    match resource {
        Resource::Cpu => WaitReason::ResourcesCpu,
        Resource::Memory => WaitReason::ResourcesMemory,
        Resource::Gpu => WaitReason::ResourcesGpu,
        Resource::Scratch => WaitReason::ResourcesScratch,
    }
}

/// The word for a job's state among those for tasks.
fn task_state_of(state: JobState) -> TaskState {
    match state {
        JobState::Unspecified => TaskState::Unspecified,
        JobState::Waiting => TaskState::Waiting,
        JobState::Queued => TaskState::Queued,
        JobState::Running => TaskState::Running,
        JobState::Succeeded => TaskState::Succeeded,
        JobState::Failed => TaskState::Failed,
        JobState::Cancelled => TaskState::Cancelled,
        JobState::Skipped => TaskState::Skipped,
    }
}
