//! Versions of the rules: what entries of the log mean.
//!
//! A release follows all versions from [`OLDEST_RULES`] to [`NEWEST_RULES`]; which of them holds is in the state, and an
//! entry raises it. So members of two releases make the same of one log: as long as an older one is among them, the
//! leader raises nothing, and the newer ones do as it does.
//!
//! - **1**: jobs stay in the state for ever.
//! - **2**: jobs that ended long ago move to the history.

use proto::internal::{RaiseRules, command::Command};

use crate::{Outcome, Rejection, State, apply::Step};

/// The oldest version that this release follows.
pub const OLDEST_RULES: u32 = 1;
/// The newest version that this release follows.
pub const NEWEST_RULES: u32 = 2;

/// The first version that knows a history.
pub(crate) const HISTORY_RULES: u32 = 2;

impl State {
    /// The version of the rules that the next command is read by.
    pub fn rules_version(&self) -> u32 {
        self.rules
    }

    pub(crate) fn admit_raise(&self, raise: &RaiseRules) -> Result<(), Rejection> {
        if raise.version == self.rules + 1 && raise.version <= NEWEST_RULES {
            return Ok(());
        }
        let message = format!("the rules are at version {}, and can't be raised to {}", self.rules, raise.version);
        Err(Rejection::conflict("RULES_VERSION", message))
    }

    /// Refuses what the present version doesn't know.
    pub(crate) fn admit_by_version(&self, command: &Command) -> Result<(), Rejection> {
        let needed = match command {
            Command::SetHistory(_) | Command::CutSegment(_) | Command::SettleSegments(_) => HISTORY_RULES,
            Command::SubmitJobs(_)
            | Command::StreamJobs(_)
            | Command::PutBlob(_)
            | Command::CancelTasks(_)
            | Command::RetryTasks(_)
            | Command::SetHold(_)
            | Command::OpenSession(_)
            | Command::ExpireSession(_)
            | Command::NoteSilence(_)
            | Command::GrantTasks(_)
            | Command::WorkerReport(_)
            | Command::AssignPublications(_)
            | Command::DrainWorker(_)
            | Command::SetJob(_)
            | Command::CreateQueue(_)
            | Command::SetQueue(_)
            | Command::DeleteQueue(_)
            | Command::SetFairShare(_)
            | Command::SetLicense(_)
            | Command::SetCordon(_)
            | Command::Reserve(_)
            | Command::RaiseRules(_)
            | Command::Tick(_)
            | Command::Mark(_) => OLDEST_RULES,
        };
        if self.rules >= needed {
            return Ok(());
        }
        let message = format!("the grid follows rules {}, and this needs {needed}", self.rules);
        Err(Rejection::conflict("RULES_TOO_OLD", message)
            .hint("it rises by itself once all coordinators run a release that knows it"))
    }
}

impl Step<'_> {
    pub fn raise_rules(&mut self, raise: &RaiseRules) -> Outcome {
        self.state.rules = raise.version;
        Outcome::Nothing
    }
}
