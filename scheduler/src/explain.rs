//! Why a task waits, why it failed, where it runs: from the predicate by which the planner itself decides.

mod feasibility;
mod place;
mod summary;
mod workers;

use proto::v1::{self, Capacity, JobState, Reason, TaskState, WaitReason};

use self::feasibility::feasible;
use crate::{
    State,
    ask::Ask,
    job::{Edge, Job, Phase, Place},
    limits,
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
            None => job.counts.queued() > 0,
        };
        let reasons = if waits { self.reasons(id, job, ordinal, pools) } else { Vec::new() };
        let (position, ahead) = if waits { self.position(id, job) } else { (None, None) };
        let summary = match ordinal {
            Some(ordinal) => self.task_summary(id, job, ordinal, &reasons),
            None => self.job_summary(id, job, &reasons),
        };
        let waits_for_room = |one: &Reason| {
            use WaitReason as R;
            let (cpu, memory, gpu, scratch) =
                (R::ResourcesCpu, R::ResourcesMemory, R::ResourcesGpu, R::ResourcesScratch);
            [cpu, memory, gpu, scratch, R::ResourcesLicense, R::Priority, R::FairShare].contains(&one.reason())
        };
        let room_alone = waits && reasons.iter().all(waits_for_room);
        let tried = self.task_to_look_at(job, ordinal).map(|ordinal| (ordinal, self.task(id, ordinal, true)));
        let (attempts_index, attempts) = match tried {
            Some((ordinal, Some(task))) if !task.attempts.is_empty() => {
                (proto::ranges::index_of(job.ranges(), ordinal), task.attempts)
            }
            Some(_) | None => (None, Vec::new()),
        };
        Some(v1::Explanation {
            job_id: id,
            index: ordinal.and_then(|ordinal| proto::ranges::index_of(job.ranges(), ordinal)),
            state: ordinal.map_or(task_state_of(job.state()), |ordinal| state_of(job, ordinal)) as i32,
            summary,
            reasons,
            position,
            ahead,
            estimated_start_time: if room_alone { self.estimated_start(id, job) } else { None },
            job_state: job.state() as i32,
            attempts,
            attempts_index,
        })
    }

    /// The task whose attempts explain: the one asked about if it failed before, or the job's first that did.
    fn task_to_look_at(&self, job: &Job, ordinal: Option<u32>) -> Option<u32> {
        let failed = |ordinal: u32| job.newest_fact(ordinal).is_some_and(|fact| fact.place != Place::Succeeded);
        match ordinal {
            Some(ordinal) => failed(ordinal).then_some(ordinal),
            None => {
                let ended = job.tasks.next(0, Place::Failed).map(|(ordinal, _)| ordinal);
                let again = || job.records.iter().find(|(_, one)| one.failures > 0).map(|(ordinal, _)| *ordinal);
                ended.or_else(again).filter(|ordinal| failed(*ordinal))
            }
        }
    }

    /// Everything that keeps the queued tasks of a job, or one of them, from being granted now.
    fn reasons(&self, id: u64, job: &Job, ordinal: Option<u32>, pools: &[Pool]) -> Vec<Reason> {
        let mut reasons = self.reasons_of_dependencies(job, ordinal);
        if job.held {
            let advice = format!("release it with `millgrid job release {id}`");
            reasons.push(reason(WaitReason::Held, 0, "it is held", advice));
        }
        if let Some(until_ms) = self.backoff_until(id, job, ordinal) {
            let seconds = until_ms.saturating_sub(self.time_ms).div_ceil(1000);
            reasons.push(reason(WaitReason::RetryBackoff, 0, format!("the next attempt may start in {seconds} s"), ""));
        }
        if job.room() == 0 {
            let (active, most) = (job.counts.active(), job.terms.max_running);
            let detail = format!("{active} of its tasks run, {most} may at once");
            let advice = format!("`millgrid job set {id} --max-running N` lets more run");
            reasons.push(reason(WaitReason::MaxRunning, 0, detail, advice));
        }
        let ask = self.ask_of(job, ordinal);
        if let Some(queue) = self.queues.get(&job.terms.queue) {
            let name = &job.terms.queue;
            if queue.paused {
                let advice = format!("resume it with `millgrid queue resume {name}`");
                reasons.push(reason(WaitReason::QueuePaused, 0, format!("queue `{name}` is paused"), advice));
            }
            if ask.shapes.iter().all(|shape| queue.room(&queue.load, shape) == 0) {
                let detail = format!("queue `{name}` runs as much as its limits allow");
                let advice = format!("raise them with `millgrid queue set {name}`");
                reasons.push(reason(WaitReason::QueueLimit, 0, detail, advice));
            }
        }
        for (name, count) in &ask.licenses {
            let free = self.licenses.free(name);
            if free < u64::from(*count) {
                let total = self.licenses.by_name.get(&**name).map_or(0, |license| license.total);
                let detail = format!("license {name}: {count} asked, {free} of {total} free");
                reasons.push(reason(WaitReason::ResourcesLicense, 0, detail, "it starts when others give theirs back"));
            }
        }
        if ask.has_outputs && self.indexes.unpublished >= limits::UNPUBLISHED as u64 {
            let detail = format!("{} ended tasks wait for their outputs to be published", self.indexes.unpublished);
            reasons.push(reason(WaitReason::NoCapacity, 0, detail, ""));
        }
        reasons.extend(self.reasons_of_workers(id, &ask, pools));
        let may_start = !job.held && job.released && !reasons.iter().any(|one| one.reason() == WaitReason::QueuePaused);
        if may_start {
            reasons.extend(self.reason_of_share(job));
        }
        // Room there is, and nothing forbids: then it is only not its turn, or the plan is on its way.
        if let (true, Some(ahead)) = (reasons.is_empty(), self.position(id, job).1) {
            let detail = format!("jobs before it in its queue are served first, the last of them job {ahead}");
            let advice = format!("`millgrid job reprioritize {id} --priority N` moves it forward");
            reasons.push(reason(WaitReason::Priority, 0, detail, advice));
        }
        reasons
    }

    fn reasons_of_dependencies(&self, job: &Job, ordinal: Option<u32>) -> Vec<Reason> {
        let blocked = match ordinal {
            Some(ordinal) => job.tasks.place(ordinal) == Place::Blocked,
            None => job.counts.blocked > 0 && job.counts.blocked == job.counts.unended(),
        };
        let holds_up = |edge: &&Edge| if edge.is_by_task() { blocked } else { !edge.met };
        let open = job.after().iter().filter(holds_up);
        let dependency = |edge: &Edge| {
            let detail = match (edge.is_by_task(), ordinal) {
                (true, Some(ordinal)) => {
                    let index =
                        self.jobs.get(edge.job).and_then(|other| proto::ranges::index_of(other.ranges(), ordinal));
                    format!("waits for the success of task {}.{}", edge.job, index.unwrap_or_default())
                }
                (true, None) => format!("each task waits for the success of its twin in job {}", edge.job),
                (false, _) => format!("waits for {} of job {}", edge.word(), edge.job),
            };
            reason(WaitReason::Dependency, 0, detail, format!("see `millgrid explain {}`", edge.job))
        };
        open.take(10).map(dependency).collect()
    }

    /// What is asked for: more memory than the job for a task that ran out of it.
    fn ask_of(&self, job: &Job, ordinal: Option<u32>) -> Ask {
        let memory = ordinal.and_then(|ordinal| job.records.get(&ordinal)).map_or(0, |record| record.memory_mib);
        job.terms.ask.grown(memory)
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
}

/// A reason for people and programs.
fn reason(reason: WaitReason, workers: u32, detail: impl Into<String>, advice: impl Into<String>) -> Reason {
    Reason { reason: reason as i32, workers, detail: detail.into(), advice: advice.into() }
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
