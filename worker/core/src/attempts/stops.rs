//! Attempts that are not to go on: asked to by the grid, or because the machine goes.

use proto::v1::{Cause, Kill, Resources, report_item::Item};

use super::{
    Attempt, Stage,
    ends::{ended, unstarted},
    limits::Limit,
};
use crate::{Core, Failure, Key, Output};

impl Core {
    pub(super) fn kill(&mut self, kill: Kill) {
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
                limit: Limit::default(),
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
            Stage::Preparing { .. } | Stage::PreparingAhead { .. } => {
                self.outputs.push(Output::BreakOff { key });
                self.end_with(key, failure());
            }
            Stage::Ordered { .. } | Stage::Withdrawn { .. } | Stage::Spawning | Stage::Running { .. } => {
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
                Stage::Ordered { .. } | Stage::Withdrawn { .. } | Stage::Spawning | Stage::Running { .. } => {
                    self.outputs.push(Output::Stop { key, immediately: true });
                }
                Stage::StagingOut { exit } => {
                    let exit = std::mem::take(exit);
                    self.outputs.push(Output::BreakOff { key });
                    self.report(key, Item::Ended(ended(exit, Some(Cause::SpotReclaimed))));
                }
                Stage::Waiting { .. } | Stage::Preparing { .. } | Stage::PreparingAhead { .. } | Stage::Reported => {}
            }
        }
    }
}

/// Whether a task that was told to stop for this may run elsewhere.
pub(super) fn may_be_retried(kill: Cause) -> bool {
    kill == Cause::SpotReclaimed
}
