//! How attempts end, and what is said of it.

use proto::v1::{Cause, Ended, Manifest, ReportItem, Returned, report_item::Item};

use super::{Dying, Stage, stops::may_be_retried};
use crate::{Core, End, Exit, Failure, Key, Output, timing::DETAIL_BYTES};

impl Core {
    pub(crate) fn exited(&mut self, key: Key, exit: Exit) {
        if let Some(Dying { room, resources }) = self.dying.remove(&key) {
            self.leave_room(key, room, &resources);
            self.forget.push(key);
            self.outputs.push(Output::Discard { key, logs: false });
            return;
        }
        let Some(attempt) = self.attempts.all.get_mut(&key) else {
            self.forget.push(key);
            return;
        };
        if !attempt.stage.has_process() {
            return;
        }
        let withdrawn = matches!(attempt.stage, Stage::Withdrawn { .. }) && exit.end == End::NotStarted;
        if withdrawn && attempt.kill.is_none_or(may_be_retried) {
            attempt.kept = false;
            return self.report(key, Item::Returned(Returned {}));
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

    /// The keeper has lost the process, or never got it.
    pub(crate) fn process_lost(&mut self, key: Key) {
        let Some(attempt) = self.attempts.all.get_mut(&key) else { return };
        attempt.kept = false;
        let cause = attempt.kill.unwrap_or(Cause::WorkerLost);
        let retryable = attempt.kill.is_none_or(may_be_retried);
        self.end_with(key, Failure { cause, detail: "the worker's keeper died".to_owned(), retryable });
    }

    /// Ends an attempt that has no exit to tell of.
    pub(super) fn end_with(&mut self, key: Key, failure: Failure) {
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
        let (room, resources) = (attempt.stage.room(), attempt.resources);
        attempt.stage = Stage::Reported;
        self.leave_room(key, room, &resources);
        self.upstream.push(ReportItem { attempt: Some(key.into()), item: Some(item) }, self.now_ms);
    }

    pub(super) fn push_end(&mut self, key: Key, ended: Ended) {
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
            let (room, resources) = (attempt.stage.room(), attempt.resources);
            self.outputs.push(Output::BreakOff { key });
            self.leave_room(key, room, &resources);
            self.let_go(key, true);
        }
    }

    /// It is not ours any more: kills it at once and reports nothing.
    pub(crate) fn abandon(&mut self, key: Key) {
        let Some(attempt) = self.attempts.all.remove(&key) else { return };
        self.ended.insert(key);
        let room = attempt.stage.room();
        match attempt.stage {
            Stage::Waiting { .. } => {}
            Stage::Preparing { .. } | Stage::PreparingAhead { .. } => {
                self.outputs.push(Output::BreakOff { key });
                self.leave_room(key, room, &attempt.resources);
                self.outputs.push(Output::Discard { key, logs: false });
            }
            Stage::Ordered { .. } | Stage::Withdrawn { .. } | Stage::Spawning | Stage::Running { .. } => {
                // Its slot is free when it is dead, which its exit will tell.
                self.outputs.push(Output::Stop { key, immediately: true });
                self.dying.insert(key, Dying { room, resources: attempt.resources });
            }
            Stage::StagingOut { .. } => {
                self.outputs.push(Output::BreakOff { key });
                self.leave_room(key, room, &attempt.resources);
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

/// What is reported of a process that ended, or could not be started; `kill` is why it was told to stop.
pub(super) fn ended(exit: Exit, kill: Option<Cause>) -> Ended {
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
        answer: exit.answer,
    }
}

pub(super) fn unstarted(failure: Failure, wall_ms: i64) -> Ended {
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
