//! What failed in a job, by cause: kept up to date, so that nobody looks at a million tasks to say it.

use std::collections::BTreeMap;

use proto::v1::Cause;

use super::Fact;
use crate::limits;

/// Failures of one kind: cause, exit code, signal.
pub(crate) type Kind = (i32, i32, i32);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Failures {
    pub groups: BTreeMap<Kind, Group>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Group {
    pub count: u32,
    /// Some of the tasks, in ascending order.
    pub ordinals: Vec<u32>,
    /// Of the first that failed so.
    pub detail: Box<str>,
}

/// Whether an end for this cause is the grid's fault and not the task's own (interfaces, section 2: 125).
pub(crate) fn grid_is_to_blame(cause: Cause) -> bool {
    match cause {
        Cause::SpotReclaimed
        | Cause::WorkerLost
        | Cause::StageIn
        | Cause::StageOut
        | Cause::QueueTimeLimit
        | Cause::Infeasible
        | Cause::Dependency
        | Cause::Cancelled
        | Cause::Unspecified => true,
        Cause::ExitCode
        | Cause::Signal
        | Cause::OutOfMemory
        | Cause::TimeLimit
        | Cause::CommandNotFound
        | Cause::CommandNotExecutable => false,
    }
}

/// The exit code by which a shell would speak of such an end (interfaces, section 2).
fn shell_code(cause: Cause, exit_code: i32, signal: i32) -> i32 {
    match cause {
        Cause::ExitCode => exit_code,
        Cause::Signal => 128 + signal,
        Cause::OutOfMemory => 137,
        Cause::TimeLimit => 124,
        Cause::CommandNotExecutable => 126,
        Cause::CommandNotFound => 127,
        Cause::SpotReclaimed
        | Cause::WorkerLost
        | Cause::StageIn
        | Cause::StageOut
        | Cause::QueueTimeLimit
        | Cause::Infeasible
        | Cause::Dependency
        | Cause::Cancelled
        | Cause::Unspecified => 125,
    }
}

fn kind_of(fact: &Fact) -> Kind {
    let exit_code = if fact.cause == Cause::ExitCode { fact.exit_code } else { 0 };
    let signal = if matches!(fact.cause, Cause::Signal | Cause::OutOfMemory) { fact.signal } else { 0 };
    (fact.cause as i32, exit_code, signal)
}

impl Failures {
    /// Tasks that failed without an attempt, for one cause.
    pub fn add_run(&mut self, first: u32, count: u32, cause: Cause) {
        let mut kind = (cause as i32, 0, 0);
        if self.groups.len() >= limits::FAILURE_GROUPS && !self.groups.contains_key(&kind) {
            kind = *self.groups.keys().next_back().expect("there are many groups");
        }
        let group = self.groups.entry(kind).or_default();
        group.count += count;
        group.ordinals.extend(first..first + count.min(limits::FAILURE_INDEXES as u32));
        group.ordinals.sort_unstable();
        group.ordinals.dedup();
        group.ordinals.truncate(limits::FAILURE_INDEXES);
    }

    pub fn add(&mut self, ordinal: u32, fact: &Fact) {
        let mut kind = kind_of(fact);
        if self.groups.len() >= limits::FAILURE_GROUPS && !self.groups.contains_key(&kind) {
            kind = *self.groups.keys().next_back().expect("there are many groups");
        }
        let group = self.groups.entry(kind).or_default();
        if group.count == 0 {
            group.detail = fact.detail.clone();
        }
        group.count += 1;
        if let Err(place) = group.ordinals.binary_search(&ordinal) {
            group.ordinals.insert(place, ordinal);
            group.ordinals.truncate(limits::FAILURE_INDEXES);
        }
    }

    /// A retry takes a failed task out of its group.
    pub fn remove(&mut self, ordinal: u32, fact: &Fact) {
        let mut kind = kind_of(fact);
        if !self.groups.contains_key(&kind) {
            // It was counted with another kind when there were too many.
            let Some(last) = self.groups.keys().next_back() else { return };
            kind = *last;
        }
        let Some(group) = self.groups.get_mut(&kind) else { return };
        group.count -= 1;
        group.ordinals.retain(|one| *one != ordinal);
        if group.count == 0 {
            self.groups.remove(&kind);
        }
    }

    /// Cause, exit code and signal of what decides: by itself before by the grid, then the highest code.
    pub fn verdict(&self) -> (Cause, Option<i32>, i32) {
        let decisive = self.groups.keys().max_by_key(|(cause, exit_code, signal)| {
            let cause = Cause::try_from(*cause).unwrap_or_default();
            (!grid_is_to_blame(cause), shell_code(cause, *exit_code, *signal), std::cmp::Reverse(cause as i32))
        });
        let Some((cause, exit_code, signal)) = decisive else { return (Cause::Unspecified, None, 0) };
        let cause = Cause::try_from(*cause).unwrap_or_default();
        (cause, (cause == Cause::ExitCode).then_some(*exit_code), *signal)
    }

    /// How many failed through the grid's fault.
    pub fn by_the_grid(&self) -> u64 {
        let of_the_grid = |kind: &Kind| grid_is_to_blame(Cause::try_from(kind.0).unwrap_or_default());
        self.groups.iter().filter(|(kind, _)| of_the_grid(kind)).map(|(_, group)| u64::from(group.count)).sum()
    }
}
