//! Attempts, from their grant to the acknowledgement of their end.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use proto::v1::{
    Cause, Ended, Grant, Instructions, Kill, Manifest, ReportItem, Resources, Returned, Started, report_item::Item,
};

use crate::{
    Adopted, Core, End, Exit, Failure, Key, Output, Task,
    timing::{AHEAD_PATIENCE_MS, DETAIL_BYTES, STARTED_AFTER_MS},
};

/// Where an attempt is. After a crash of the agent, what had a process goes on at `Running`, from the keeper's list;
/// anything earlier is granted again by the coordinator.
#[derive(Debug)]
enum Stage {
    /// Granted; entered by an instruction, left when there is room, by a return or by a kill.
    Waiting { task: Arc<Task> },
    /// Its directory and its inputs are being made.
    Preparing { task: Arc<Task> },
    /// The keeper was asked to start it.
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

    /// Those that no process was ordered for; none of them waits for room any more.
    pub(crate) fn take_unstarted(&mut self) -> Vec<Key> {
        self.waiting.clear();
        self.ahead.clear();
        let unstarted = |attempt: &Attempt| matches!(attempt.stage, Stage::Waiting { .. } | Stage::Preparing { .. });
        self.all.iter().filter(|(_, attempt)| unstarted(attempt)).map(|(key, _)| *key).collect()
    }

    pub(crate) fn prepares(&self, key: &Key) -> bool {
        self.all.get(key).is_some_and(|attempt| matches!(attempt.stage, Stage::Preparing { .. }))
    }

    pub(crate) fn with_process(&self) -> impl Iterator<Item = Key> {
        self.all
            .iter()
            .filter(|(_, attempt)| matches!(attempt.stage, Stage::Spawning | Stage::Running { .. }))
            .map(|(key, _)| *key)
    }

    pub(crate) fn adopt(&mut self, process: &Adopted, now_ms: u64) {
        let attempt = Attempt {
            stage: Stage::Running { start_time_ms: process.start_time_ms },
            resources: process.resources,
            outputs: process.outputs,
            kill: None,
            kept: true,
            directory: true,
        };
        self.all.insert(process.key, attempt);
        self.young.push_back((now_ms + STARTED_AFTER_MS, process.key));
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

    fn waits(&self, key: &Key) -> Option<&Attempt> {
        self.all.get(key).filter(|attempt| matches!(attempt.stage, Stage::Waiting { .. }))
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
        let asked = job.resources.or_else(|| spec.and_then(|spec| spec.resources));
        let task = Arc::new(Task { key, index: grant.task_index, row: grant.row, job: Arc::clone(job) });
        let attempt = Attempt {
            resources: asked.unwrap_or(Resources { cpu_milli: 1000, ..Default::default() }),
            outputs: spec.is_some_and(|spec| !spec.outputs.is_empty()),
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

    /// Starts what there is room for: what was granted a slot first, then what was granted ahead.
    pub(crate) fn start_waiting(&mut self) {
        while let Some(key) = self.attempts.waiting.front().copied() {
            if !self.begin(key) {
                return;
            }
            self.attempts.waiting.pop_front();
        }
        while let Some((at_ms, key)) = self.attempts.ahead.front().copied() {
            if at_ms <= self.now_ms || !self.begin(key) {
                return;
            }
            self.attempts.ahead.pop_front();
        }
    }

    /// False when there is no room.
    fn begin(&mut self, key: Key) -> bool {
        let Some(attempt) = self.attempts.all.get_mut(&key) else { return true };
        let Stage::Waiting { task } = &attempt.stage else { return true };
        if !self.slots.fits(&attempt.resources) {
            return false;
        }
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
            let waits = self.attempts.waits(&key).is_some();
            if waits && self.now_ms < at_ms {
                return;
            }
            self.attempts.ahead.pop_front();
            if waits {
                self.report(key, Item::Returned(Returned {}));
            }
        }
    }

    pub(crate) fn prepared(&mut self, key: Key, result: Result<(), Failure>) {
        let Some(attempt) = self.attempts.all.get_mut(&key) else { return };
        let Stage::Preparing { task } = &attempt.stage else { return };
        let task = Arc::clone(task);
        match (result, &self.session) {
            (Ok(()), Some(session)) => {
                let session = session.id;
                attempt.stage = Stage::Spawning;
                attempt.kept = true;
                self.outputs.push(Output::Spawn { task, session });
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

    pub(crate) fn exited(&mut self, key: Key, exit: Exit) {
        if let Some(resources) = self.dying.remove(&key) {
            self.slots.give(&resources);
            self.forget.push(key);
            self.outputs.push(Output::Discard { key, logs: false });
            return;
        }
        let Some(attempt) = self.attempts.all.get_mut(&key) else {
            self.forget.push(key);
            return;
        };
        if !matches!(attempt.stage, Stage::Spawning | Stage::Running { .. }) {
            return;
        }
        let kill = match attempt.kill {
            // It ended by itself just before it heard of it.
            Some(Cause::SpotReclaimed) if exit.end != End::Stopped => None,
            // At the word of an agent before this one.
            None if exit.end == End::Stopped && self.reclaim.is_some() => Some(Cause::SpotReclaimed),
            kill => kill,
        };
        let success = kill.is_none() && exit.end == End::ExitCode && exit.exit_code == 0;
        if success && attempt.outputs {
            attempt.stage = Stage::StagingOut { exit };
            self.outputs.push(Output::StageOut { key });
        } else {
            let ended = ended(exit, kill);
            self.report(key, Item::Ended(ended));
        }
    }

    pub(crate) fn staged_out(&mut self, key: Key, result: Result<Manifest, Failure>) {
        let Some(attempt) = self.attempts.all.get_mut(&key) else { return };
        let Stage::StagingOut { exit } = &mut attempt.stage else { return };
        let exit = std::mem::take(exit);
        let mut ended = ended(exit, None);
        match result {
            Ok(manifest) => ended.manifest = Some(manifest),
            Err(failure) => {
                (ended.cause, ended.retryable) = (failure.cause.into(), failure.retryable);
                ended.detail = clip(failure.detail);
            }
        }
        self.report(key, Item::Ended(ended));
    }

    fn kill(&mut self, kill: Kill) {
        let cause = match kill.cause() {
            Cause::Unspecified => Cause::Cancelled,
            cause => cause,
        };
        let Some(key) = kill.attempt.map(Key::from) else { return };
        if self.ended.contains(&key) || self.dying.contains_key(&key) {
            return;
        }
        let failure = || Failure { cause, detail: String::new(), retryable: false };
        let Some(attempt) = self.attempts.all.get_mut(&key) else {
            // Its grant never arrived, or died with our predecessor. Whoever waits for its end gets one.
            let attempt = Attempt {
                stage: Stage::Reported,
                resources: Resources::default(),
                outputs: false,
                kill: Some(cause),
                kept: false,
                directory: false,
            };
            self.attempts.all.insert(key, attempt);
            self.push_end(key, unstarted(failure(), self.wall_ms));
            return;
        };
        let first = attempt.kill.replace(cause).is_none();
        match &mut attempt.stage {
            Stage::Waiting { .. } => self.end_with(key, failure()),
            Stage::Preparing { .. } => {
                self.outputs.push(Output::BreakOff { key });
                self.end_with(key, failure());
            }
            Stage::Spawning | Stage::Running { .. } => {
                if first {
                    self.outputs.push(Output::Stop { key, immediately: false });
                }
            }
            Stage::StagingOut { exit } => {
                let exit = std::mem::take(exit);
                self.outputs.push(Output::BreakOff { key });
                self.report(key, Item::Ended(ended(exit, Some(cause))));
            }
            // Decided already: the end went before.
            Stage::Reported => {}
        }
    }

    /// Asks what runs to stop, because the machine is taken back. What was killed for another reason has its grace.
    pub(crate) fn reclaim_running(&mut self) {
        for key in self.attempts.with_process().collect::<Vec<_>>() {
            let Some(attempt) = self.attempts.all.get_mut(&key) else { continue };
            if *attempt.kill.get_or_insert(Cause::SpotReclaimed) == Cause::SpotReclaimed {
                self.outputs.push(Output::Stop { key, immediately: false });
            }
        }
    }

    /// Ends what is left, because the machine is taken back: processes, and uploads that nobody could complete.
    pub(crate) fn kill_reclaimed(&mut self) {
        for key in self.attempts.keys().collect::<Vec<_>>() {
            let Some(attempt) = self.attempts.all.get_mut(&key) else { continue };
            match &mut attempt.stage {
                Stage::Spawning | Stage::Running { .. } => {
                    self.outputs.push(Output::Stop { key, immediately: true });
                }
                Stage::StagingOut { exit } => {
                    let exit = std::mem::take(exit);
                    self.outputs.push(Output::BreakOff { key });
                    self.report(key, Item::Ended(ended(exit, Some(Cause::SpotReclaimed))));
                }
                Stage::Waiting { .. } | Stage::Preparing { .. } | Stage::Reported => {}
            }
        }
    }

    /// The keeper has lost the process, or never got it.
    pub(crate) fn process_lost(&mut self, key: Key) {
        let Some(attempt) = self.attempts.all.get_mut(&key) else { return };
        attempt.kept = false;
        let cause = attempt.kill.unwrap_or(Cause::WorkerLost);
        let retryable = attempt.kill.is_none_or(may_be_retried);
        self.end_with(key, Failure { cause, detail: "the worker's keeper died".to_owned(), retryable });
    }

    /// Ends an attempt that has no exit to tell of.
    fn end_with(&mut self, key: Key, failure: Failure) {
        let start_time_ms = match self.attempts.all.get(&key).map(|attempt| &attempt.stage) {
            Some(Stage::Running { start_time_ms }) => *start_time_ms,
            _ => 0,
        };
        let ended = Ended { start_time_ms, ..unstarted(failure, self.wall_ms) };
        self.report(key, Item::Ended(ended));
    }

    /// Frees the slot and puts the end, or the return, into the upstream.
    pub(crate) fn report(&mut self, key: Key, item: Item) {
        let Some(attempt) = self.attempts.all.get_mut(&key) else { return };
        let stage = std::mem::replace(&mut attempt.stage, Stage::Reported);
        if !matches!(stage, Stage::Waiting { .. } | Stage::Reported) {
            self.slots.give(&attempt.resources);
        }
        self.upstream.push(ReportItem { attempt: Some(key.into()), item: Some(item) }, self.now_ms);
    }

    fn push_end(&mut self, key: Key, ended: Ended) {
        self.upstream.push(ReportItem { attempt: Some(key.into()), item: Some(Item::Ended(ended)) }, self.now_ms);
    }

    /// Its end was acknowledged.
    pub(crate) fn let_go(&mut self, key: Key, logs: bool) {
        let Some(attempt) = self.attempts.all.remove(&key) else { return };
        self.ended.insert(key);
        if attempt.kept {
            self.forget.push(key);
        }
        if attempt.directory {
            self.outputs.push(Output::Discard { key, logs });
        }
    }

    /// Its end was accepted, before this agent's time: what we do for it is in vain.
    pub(crate) fn end_was_accepted(&mut self, key: Key) {
        let Some(attempt) = self.attempts.all.get(&key) else { return };
        if matches!(attempt.stage, Stage::StagingOut { .. }) {
            let resources = attempt.resources;
            self.outputs.push(Output::BreakOff { key });
            self.slots.give(&resources);
            self.let_go(key, true);
        }
    }

    /// It is not ours any more: kills it at once and reports nothing.
    pub(crate) fn abandon(&mut self, key: Key) {
        let Some(attempt) = self.attempts.all.remove(&key) else { return };
        self.ended.insert(key);
        match attempt.stage {
            Stage::Waiting { .. } => {}
            Stage::Preparing { .. } => {
                self.outputs.push(Output::BreakOff { key });
                self.slots.give(&attempt.resources);
                self.outputs.push(Output::Discard { key, logs: false });
            }
            Stage::Spawning | Stage::Running { .. } => {
                // Its slot is free when it is dead, which its exit will tell.
                self.outputs.push(Output::Stop { key, immediately: true });
                self.dying.insert(key, attempt.resources);
            }
            Stage::StagingOut { .. } => {
                self.outputs.push(Output::BreakOff { key });
                self.slots.give(&attempt.resources);
                self.forget.push(key);
                self.outputs.push(Output::Discard { key, logs: false });
            }
            Stage::Reported => {
                if attempt.kept {
                    self.forget.push(key);
                }
                if attempt.directory {
                    // Its end may have been accepted, and then somebody may want to read its logs.
                    self.outputs.push(Output::Discard { key, logs: true });
                }
            }
        }
    }
}

/// Whether a task that was told to stop for this may run elsewhere.
fn may_be_retried(kill: Cause) -> bool {
    kill == Cause::SpotReclaimed
}

/// What is reported of a process that ended, or could not be started; `kill` is why it was told to stop.
fn ended(exit: Exit, kill: Option<Cause>) -> Ended {
    let (cause, retryable) = match (kill, exit.end) {
        (Some(cause), _) => (cause, may_be_retried(cause)),
        (None, End::ExitCode) => (Cause::ExitCode, true),
        (None, End::Signal) => (Cause::Signal, true),
        (None, End::TimeLimit) => (Cause::TimeLimit, true),
        (None, End::OutOfMemory) => (Cause::OutOfMemory, true),
        (None, End::CommandNotFound) => (Cause::CommandNotFound, false),
        (None, End::CommandNotExecutable) => (Cause::CommandNotExecutable, false),
        // Nobody of ours stopped it, so the machine did.
        (None, End::Stopped | End::Expired | End::NotStarted) => (Cause::WorkerLost, true),
    };
    Ended {
        cause: cause.into(),
        exit_code: exit.exit_code,
        signal: exit.signal,
        detail: clip(exit.detail),
        retryable,
        start_time_ms: exit.start_time_ms,
        end_time_ms: exit.end_time_ms,
        run_ms: exit.run_ms,
        cpu_ms: exit.cpu_ms,
        max_memory_kib: exit.max_memory_kib,
        stdout_bytes: exit.stdout_bytes,
        stderr_bytes: exit.stderr_bytes,
        log_bundle: exit.log_bundle,
        manifest: None,
    }
}

fn unstarted(failure: Failure, wall_ms: i64) -> Ended {
    Ended {
        cause: failure.cause.into(),
        detail: clip(failure.detail),
        retryable: failure.retryable,
        end_time_ms: wall_ms,
        ..Default::default()
    }
}

/// Cuts a detail to its bound.
pub(crate) fn clip(mut detail: String) -> String {
    detail.truncate(detail.floor_char_boundary(DETAIL_BYTES));
    detail
}
