//! Attempts, from their grant to the acknowledgement of their end.

mod ahead;
mod ends;
mod limits;
mod stops;

pub(crate) use ahead::{Dying, Room, Successors};
pub(crate) use ends::clip;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use proto::v1::{Cause, Grant, Instructions, ReportItem, Resources, Started, report_item::Item};

use limits::Limit;

use crate::{
    Adopted, Core, Exit, Failure, Key, Output, Task,
    timing::{AHEAD_PATIENCE_MS, STARTED_AFTER_MS},
};

/// Where an attempt is. After a crash of the agent, what had a process goes on at `Running`, from the keeper's list;
/// anything earlier is granted again by the coordinator.
#[derive(Debug)]
enum Stage {
    /// Granted; entered by an instruction, left when there is room, by a return or by a kill.
    Waiting { task: Arc<Task> },
    /// Its directory and its inputs are being made.
    Preparing { task: Arc<Task> },
    /// Likewise, while it awaits the room of another.
    PreparingAhead { task: Arc<Task>, after: Key },
    /// The keeper was asked to start it when that one has ended; left when that is told, or when other room is free.
    Ordered { after: Key },
    /// The keeper was asked not to. If that came too late, it is told that the other has ended.
    Withdrawn { after: Key },
    /// The keeper was asked to start it, or starts it by itself.
    Spawning,
    /// It runs.
    Running { start_time_ms: i64 },
    /// It succeeded and its outputs are being uploaded.
    StagingOut { exit: Exit },
    /// Its end or its return is in the upstream; left by the acknowledgement.
    Reported,
}

#[derive(Debug)]
struct Attempt {
    stage: Stage,
    resources: Resources,
    outputs: bool,
    limit: Limit,
    /// Ordered by a coordinator, to be reported as the cause.
    kill: Option<Cause>,
    /// The keeper knows a process of it.
    kept: bool,
    /// It has a directory.
    directory: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Attempts {
    all: BTreeMap<Key, Attempt>,
    /// Granted for a free slot; they wait for the dying alone.
    waiting: VecDeque<Key>,
    /// Granted ahead, with the time of their return.
    ahead: VecDeque<(u64, Key)>,
    /// Running and not reported as such yet, with the time of that report.
    young: VecDeque<(u64, Key)>,
    pub(crate) successors: Successors,
}

impl Attempts {
    pub(crate) fn keys(&self) -> impl Iterator<Item = Key> {
        self.all.keys().copied()
    }

    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.all.contains_key(key)
    }

    pub(crate) fn killed(&self, key: &Key) -> bool {
        self.all.get(key).is_some_and(|attempt| attempt.kill.is_some())
    }

    /// Those that no process was ordered for, or only for later; none of them waits for room any more.
    pub(crate) fn take_unstarted(&mut self) -> Vec<Key> {
        self.waiting.clear();
        self.ahead.clear();
        let unstarted = |attempt: &Attempt| {
            matches!(
                attempt.stage,
                Stage::Waiting { .. } | Stage::Preparing { .. } | Stage::PreparingAhead { .. } | Stage::Ordered { .. }
            )
        };
        self.all.iter().filter(|(_, attempt)| unstarted(attempt)).map(|(key, _)| *key).collect()
    }

    /// Those that the keeper knows, or is about to.
    pub(crate) fn with_process(&self) -> impl Iterator<Item = Key> {
        self.all.iter().filter(|(_, attempt)| attempt.stage.has_process()).map(|(key, _)| *key)
    }

    /// Whether the keeper was asked to start it, whatever it waits for there.
    pub(crate) fn begun(&self, key: &Key) -> bool {
        self.all.get(key).is_some_and(|attempt| matches!(attempt.stage, Stage::Spawning))
    }

    /// Whether the keeper was asked not to start it after all.
    pub(crate) fn withdrawn(&self, key: &Key) -> bool {
        self.all.get(key).is_some_and(|attempt| matches!(attempt.stage, Stage::Withdrawn { .. }))
    }

    pub(crate) fn adopt(&mut self, process: &Adopted, now_ms: u64) {
        let stage = match process.after {
            None => Stage::Running { start_time_ms: process.start_time_ms },
            Some(after) => Stage::Ordered { after },
        };
        let attempt = Attempt {
            stage,
            resources: process.resources,
            outputs: process.outputs,
            limit: Limit::default(),
            kill: None,
            kept: true,
            directory: true,
        };
        self.all.insert(process.key, attempt);
        match process.after {
            None => self.young.push_back((now_ms + STARTED_AFTER_MS, process.key)),
            // Why it was granted isn't known any more.
            Some(_) => self.ahead.push_back((now_ms + AHEAD_PATIENCE_MS, process.key)),
        }
    }

    pub(crate) fn timer_ms(&self) -> Option<u64> {
        let ahead = self.ahead.front().map(|(at_ms, _)| *at_ms);
        let young = self.young.front().map(|(at_ms, _)| *at_ms);
        ahead.into_iter().chain(young).min()
    }

    /// Whether there is more to start as soon as there is room.
    pub(crate) fn some_wait(&self) -> bool {
        !self.waiting.is_empty() || !self.ahead.is_empty()
    }

    /// Whether it has no room yet, and is still to have one.
    fn waits(&self, key: &Key) -> bool {
        self.all.get(key).is_some_and(|attempt| match attempt.stage {
            Stage::Waiting { .. } | Stage::PreparingAhead { .. } => true,
            Stage::Ordered { .. } => attempt.kill.is_none(),
            Stage::Preparing { .. }
            | Stage::Withdrawn { .. }
            | Stage::Spawning
            | Stage::Running { .. }
            | Stage::StagingOut { .. }
            | Stage::Reported => false,
        })
    }
}

impl Stage {
    fn has_process(&self) -> bool {
        match self {
            Self::Ordered { .. } | Self::Withdrawn { .. } | Self::Spawning | Self::Running { .. } => true,
            Self::Waiting { .. }
            | Self::Preparing { .. }
            | Self::PreparingAhead { .. }
            | Self::StagingOut { .. }
            | Self::Reported => false,
        }
    }
}

impl Core {
    pub(crate) fn instructed(&mut self, instructions: Instructions) {
        let Some(session) = &mut self.session else { return };
        session.instructions_index = session.instructions_index.max(instructions.index);
        for job in instructions.jobs {
            self.specs.insert(job);
        }
        let mut unknown_job = false;
        for grant in instructions.grants {
            unknown_job |= !self.granted(grant);
        }
        for limit in instructions.time_limits {
            self.set_time_limit(limit);
        }
        for kill in instructions.kills {
            self.kill(kill);
        }
        for publish in instructions.publications {
            self.publish(publish);
        }
        if unknown_job {
            // A new stream begins with a comparison: what isn't held is granted again, with its spec.
            self.reconnect(false);
        }
    }

    /// Whether its job is known. Repeats change nothing.
    fn granted(&mut self, grant: Grant) -> bool {
        let Some(key) = grant.attempt.map(Key::from) else { return true };
        if self.attempts.contains(&key) || self.dying.contains_key(&key) || self.ended.contains(&key) {
            return true;
        }
        let Some(job) = self.specs.get(key.job) else { return false };
        let spec = job.spec.as_ref();
        let asked = grant.resources.or(job.resources).or_else(|| spec.and_then(|spec| spec.resources));
        let resources = asked.unwrap_or(Resources { cpu_milli: 1000, ..Default::default() });
        let outputs = spec.is_some_and(|spec| !spec.outputs.is_empty());
        let limit = Limit::granted(job.time_limit_ms);
        let task = Arc::new(Task { key, index: grant.task_index, row: grant.row, resources, job: Arc::clone(job) });
        let attempt = Attempt {
            resources,
            outputs,
            limit,
            stage: Stage::Waiting { task },
            kill: None,
            kept: false,
            directory: false,
        };
        self.attempts.all.insert(key, attempt);
        if grant.ahead {
            self.attempts.ahead.push_back((self.now_ms + AHEAD_PATIENCE_MS, key));
        } else {
            self.attempts.waiting.push_back(key);
        }
        true
    }

    /// Starts what there is room for: what was granted a slot first, then what was granted ahead. What comes next then
    /// is ordered ahead.
    pub(crate) fn start_waiting(&mut self) {
        while let Some(key) = self.attempts.waiting.front().copied() {
            if !self.begin(key) {
                return self.prepare_ahead();
            }
            self.attempts.waiting.pop_front();
        }
        while let Some((at_ms, key)) = self.attempts.ahead.front().copied() {
            if at_ms <= self.now_ms {
                return;
            }
            if !self.begin(key) {
                return self.prepare_ahead();
            }
            self.attempts.ahead.pop_front();
        }
    }

    /// False when there is no room.
    fn begin(&mut self, key: Key) -> bool {
        let waits = self.attempts.waits(&key);
        let Some(attempt) = self.attempts.all.get_mut(&key).filter(|_| waits) else { return true };
        if !self.slots.fits(&attempt.resources) {
            return false;
        }
        let Stage::Waiting { task } = &attempt.stage else {
            self.start_now(key);
            return true;
        };
        let task = Arc::clone(task);
        self.slots.take(&attempt.resources);
        attempt.directory = true;
        attempt.stage = Stage::Preparing { task: Arc::clone(&task) };
        self.outputs.push(Output::Prepare { task });
        true
    }

    /// Returns what was granted ahead and found no room in time.
    pub(crate) fn return_overdue(&mut self) {
        while let Some((at_ms, key)) = self.attempts.ahead.front().copied() {
            let waits = self.attempts.waits(&key);
            if waits && self.now_ms < at_ms {
                return;
            }
            self.attempts.ahead.pop_front();
            if waits {
                self.give_back(key);
            }
        }
    }

    pub(crate) fn prepared(&mut self, key: Key, result: Result<(), Failure>) {
        let Some(attempt) = self.attempts.all.get_mut(&key) else { return };
        let (task, after) = match &attempt.stage {
            Stage::Preparing { task } => (Arc::clone(task), None),
            Stage::PreparingAhead { task, after } => (Arc::clone(task), Some(*after)),
            _ => return,
        };
        match (result, &self.session) {
            (Ok(()), Some(session)) => {
                let session = session.id;
                attempt.stage = after.map_or(Stage::Spawning, |after| Stage::Ordered { after });
                attempt.kept = true;
                let time_limit_ms = attempt.limit.milliseconds;
                self.outputs.push(Output::Spawn { task, session, time_limit_ms, after });
            }
            // Without a session there is no attempt: `lose_session` took them all.
            (Ok(()), None) => {}
            (Err(failure), _) => self.end_with(key, failure),
        }
    }

    pub(crate) fn started(&mut self, key: Key, start_time_ms: i64) {
        let Some(attempt) = self.attempts.all.get_mut(&key) else { return };
        if matches!(attempt.stage, Stage::Spawning) {
            attempt.stage = Stage::Running { start_time_ms };
            self.attempts.young.push_back((self.now_ms + STARTED_AFTER_MS, key));
        }
    }

    /// Reports the starts of those that have run for a while.
    pub(crate) fn report_starts(&mut self) {
        while let Some((at_ms, key)) = self.attempts.young.front().copied() {
            let running = match self.attempts.all.get(&key).map(|attempt| &attempt.stage) {
                Some(Stage::Running { start_time_ms }) => Some(*start_time_ms),
                _ => None,
            };
            if running.is_some() && self.now_ms < at_ms {
                return;
            }
            self.attempts.young.pop_front();
            if let Some(start_time_ms) = running {
                let item = Some(Item::Started(Started { start_time_ms }));
                self.upstream.push(ReportItem { attempt: Some(key.into()), item }, self.now_ms);
            }
        }
    }
}
