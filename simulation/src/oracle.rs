//! What must never be: the invariants, checked against the committed log itself and against what really ran.
//!
//! The oracle applies each committed entry once, as soon as any replica has it, to a state of its own. So it knows
//! what every replica's state must be, which ends were accepted, and what became of every acknowledged call.

mod attempts;
mod fairness;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use bytes::Bytes;
use proto::internal::command::Command;
use proto::v1::{AttemptKey, Cause, JobState};
use scheduler::{Archive, Detail, End, Event, Instruction, State};
use worker_core::Key;

use self::{
    attempts::Ends,
    fairness::{Fairness, Verdict},
};
use crate::{figures::Figures, workload::Workload};

/// An invariant that broke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Its name in the list of promises, e.g. `I3`.
    pub invariant: &'static str,
    /// What was seen.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.detail)
    }
}

/// What really became of an attempt's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Truth {
    /// The exit code; absent while it runs.
    pub(crate) exit_code: Option<i32>,
}

/// The log's meaning, and what really happened.
#[derive(Debug)]
pub(crate) struct Oracle {
    pub(crate) state: State,
    applied: u64,
    committed: BTreeMap<u64, (u64, [u8; 32])>,
    /// Digest after each index.
    digests: BTreeMap<u64, [u8; 32]>,
    /// Digest of the whole state after each index at which one was asked for, and of the newest.
    wholes: BTreeMap<u64, [u8; 32]>,
    leaders: BTreeMap<u64, u64>,
    ended: BTreeMap<Key, Cause>,
    ends: Ends,
    /// Jobs of which a retry was asked for.
    retried: BTreeSet<u64>,
    /// Of the saturated queues, where there are any.
    fairness: Option<Fairness>,
    truths: BTreeMap<Key, Truth>,
    /// Acknowledged submits: request id -> job.
    pub(crate) acknowledged: BTreeMap<String, u64>,
    pub(crate) violation: Option<Violation>,
    checks: u64,
    /// All segments of the history.
    archives: Vec<Arc<Archive>>,
}

impl Oracle {
    pub(crate) fn new(workload: &Workload) -> Self {
        let state = State::new();
        let digests = BTreeMap::from([(0, state.digest())]);
        Self {
            state,
            applied: 0,
            committed: BTreeMap::new(),
            digests,
            wholes: BTreeMap::new(),
            leaders: BTreeMap::new(),
            ended: BTreeMap::new(),
            ends: Ends::new(),
            retried: BTreeSet::new(),
            fairness: workload.saturation().filter(|saturation| !saturation.quick).map(Fairness::new),
            truths: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            violation: None,
            checks: 0,
            archives: Vec::new(),
        }
    }

    /// The last entry that any replica has handed to its state.
    pub(crate) fn applied(&self) -> u64 {
        self.applied
    }

    /// The first one counts; what comes after may be its consequence.
    pub(crate) fn violated(&mut self, invariant: &'static str, detail: String) {
        self.violation.get_or_insert(Violation { invariant, detail });
    }

    pub(crate) fn leads(&mut self, term: u64, member: u64, figures: &mut Figures) {
        match self.leaders.insert(term, member) {
            None => figures.leaders += 1,
            Some(before) if before == member => {}
            Some(before) => self.violated("I9", format!("members {before} and {member} both lead term {term}")),
        }
    }

    /// A replica hands an entry to its state. The sessions that it grants something, when it is the first to do so.
    pub(crate) fn committed(
        &mut self,
        now_us: u64,
        index: u64,
        term: u64,
        data: &Bytes,
        figures: &mut Figures,
    ) -> BTreeSet<u64> {
        let content = (term, *blake3::hash(data).as_bytes());
        match self.committed.get(&index) {
            Some(known) if *known == content => return BTreeSet::new(),
            Some(known) => {
                let detail =
                    format!("index {index} was committed in term {} and again, differently, in {term}", known.0);
                self.violated("I9", detail);
                return BTreeSet::new();
            }
            None => {}
        }
        if index != self.applied + 1 {
            self.violated("I9", format!("index {index} was committed behind {}", self.applied));
            return BTreeSet::new();
        }
        self.committed.insert(index, content);
        self.applied = index;
        let granted = if data.is_empty() { BTreeSet::new() } else { self.apply(now_us, index, data, figures) };
        self.digests.insert(index, self.state.digest());
        granted
    }

    /// The leases of sessions that an entry may end, before it is applied.
    pub(crate) fn leases_about_to_end(&self, data: &Bytes) -> Vec<(u64, Vec<AttemptKey>)> {
        let Ok(entry) = proto::entry::decode(data) else { return Vec::new() };
        let ends = entry
            .commands
            .iter()
            .any(|command| matches!(command.command, Some(Command::ExpireSession(_) | Command::OpenSession(_))));
        if !ends {
            return Vec::new();
        }
        let leases = |session: u64| {
            let standing = self.state.instructions_of(session).into_iter();
            let keys = standing.filter_map(|instruction| match instruction {
                Instruction::Grant { key, .. } => Some(key),
                Instruction::Kill { .. } | Instruction::Publish { .. } => None,
            });
            (session, keys.collect())
        };
        self.state.sessions().map(|session| leases(session.id)).collect()
    }

    /// What a job waits for, in words.
    pub(crate) fn why_not_ended(&self, job: u64) -> String {
        let summary = self.state.explain(job, None, &[]).map(|explanation| explanation.summary).unwrap_or_default();
        let tasks = self.state.tasks(job, &[], &[], true, 0, 10).map(|(tasks, _)| tasks).unwrap_or_default();
        let tasks: Vec<String> = tasks
            .iter()
            .map(|task| format!("{} {:?} attempt {} on {}", task.index, task.state(), task.attempt, task.worker))
            .collect();
        let standing: Vec<String> = self
            .state
            .sessions()
            .map(|session| {
                format!("session {} of {}: {:?}", session.id, session.worker, self.state.instructions_of(session.id))
            })
            .collect();
        format!("job {job}: {summary}; tasks: {}; {}", tasks.join(", "), standing.join("; "))
    }

    fn apply(&mut self, now_us: u64, index: u64, data: &Bytes, figures: &mut Figures) -> BTreeSet<u64> {
        let Ok(entry) = proto::entry::decode(data) else {
            self.violated("I8", format!("the entry at {index} can't be read"));
            return BTreeSet::new();
        };
        let log_ms = entry.time_ms;
        match self.fairness.as_mut().map_or(Verdict::Unknown, |fairness| fairness.committed(log_ms, now_us)) {
            Verdict::Unknown => {}
            Verdict::Fair => figures.fair_minutes += 1,
            Verdict::Repaid => figures.repaid_minutes += 1,
            Verdict::Unfair(detail) => self.violated("F1", detail),
        }
        let applied = self.state.apply(index, &entry);
        for (command, outcome) in entry.commands.iter().zip(&applied.outcomes) {
            match &command.command {
                Some(Command::RetryTasks(retry)) if outcome.is_ok() => {
                    self.retried.insert(retry.job_id);
                }
                Some(Command::CancelTasks(_)) => self.fairness.iter_mut().for_each(Fairness::end),
                _ => {}
            }
        }
        let whole =
            |command: &proto::internal::Command| matches!(&command.command, Some(Command::Mark(mark)) if mark.whole);
        if entry.commands.iter().any(whole) {
            self.wholes.insert(index, self.state.digest_of_all(|| {}));
        }
        for event in &applied.events {
            match event {
                Event::AttemptEnded { key, cause, exit_code, end, .. } => {
                    figures.ends += 1;
                    self.attempt_ended(*key, *cause, *exit_code, figures);
                    self.task_ended((*key).into(), *end);
                }
                Event::Published { key, .. } => self.task_ended((*key).into(), End::Succeeded),
                Event::SegmentCut { number, data, .. } => {
                    let archive = Archive::read(*number, data).expect("what was cut can be read");
                    self.archives.push(Arc::new(archive));
                }
                _ => {}
            }
            self.account(event, now_us);
        }
        for outcome in applied.outcomes.iter().flatten() {
            if let scheduler::Outcome::Reported { verdicts, .. } = outcome {
                let fenced = verdicts.iter().filter(|(_, verdict)| *verdict == scheduler::Verdict::Fenced);
                figures.fenced += fenced.count() as u64;
            }
        }
        self.checks += 1;
        if self.checks.is_multiple_of(20)
            && let Err(violation) = self.state.check()
        {
            self.violated("I10", format!("after index {index}: {violation:?}"));
        }
        let granted = applied.events.iter().filter_map(|event| match event {
            Event::Granted { session, .. } => Some(*session),
            _ => None,
        });
        granted.collect()
    }

    /// Who holds what, for the shares of the queues.
    fn account(&mut self, event: &Event, now_us: u64) {
        let Some(fairness) = &mut self.fairness else { return };
        match event {
            Event::Granted { key, .. } => {
                let queue = self.state.job(key.job_id).map(|job| job.queue).unwrap_or_default();
                fairness.granted((*key).into(), &queue, now_us);
            }
            Event::AttemptEnded { key, .. } | Event::AttemptReturned { key, .. } => {
                fairness.released((*key).into(), now_us);
            }
            _ => {}
        }
    }

    fn attempt_ended(&mut self, key: AttemptKey, cause: Cause, exit_code: i32, figures: &mut Figures) {
        let key = Key::from(key);
        if let Some(before) = self.ended.insert(key, cause) {
            figures.twice += 1;
            self.violated("I3", format!("attempt {key} ended as {before:?} and again as {cause:?}"));
        }
        if cause == Cause::ExitCode {
            let truth = self.truths.get(&key).and_then(|truth| truth.exit_code);
            if truth != Some(exit_code) {
                let detail =
                    format!("attempt {key} is recorded with exit code {exit_code}, but what ran had {truth:?}");
                self.violated("I5", detail);
            }
        }
    }

    /// A process ended by itself.
    pub(crate) fn exited(&mut self, key: Key, exit_code: i32) {
        self.truths.insert(key, Truth { exit_code: Some(exit_code) });
    }

    /// A replica's digest at an index that it has just applied.
    pub(crate) fn digest(&mut self, member: u64, index: u64, digest: [u8; 32], figures: &mut Figures) {
        match self.digests.get(&index) {
            Some(expected) if *expected == digest => figures.digests += 1,
            Some(_) => self.violated("I8", format!("member {member} has another digest after index {index}")),
            None => {}
        }
    }

    /// What a replica computed of its whole state after an index.
    pub(crate) fn digest_of_all(&mut self, member: u64, index: u64, digest: [u8; 32], figures: &mut Figures) {
        match self.wholes.get(&index) {
            Some(expected) if *expected == digest => figures.wholes += 1,
            found => {
                let detail = format!("member {member} has another state after index {index}: {}", found.is_some());
                self.violated("I8", detail);
            }
        }
    }

    /// Whether every acknowledged submit is one job, and no request id made two.
    pub(crate) fn check_submits(&mut self, everything: &State, figures: &mut Figures) {
        let mut by_name: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        let filter = scheduler::JobFilter { ended: true, ..scheduler::JobFilter::default() };
        let (mut before, mut more) = (None, true);
        while more {
            let page = everything.jobs(&filter, before, 1_000);
            for job in page.jobs {
                by_name.entry(job.name).or_default().push(job.id);
            }
            (before, more) = (page.next, page.next.is_some() && page.missing.is_none());
        }
        for (name, jobs) in &by_name {
            if jobs.len() > 1 {
                self.violated("I2", format!("request id {name} made jobs {jobs:?}"));
            }
        }
        for (name, job) in self.acknowledged.clone() {
            if by_name.get(&name).is_none_or(|jobs| !jobs.contains(&job)) {
                figures.lost += 1;
                self.violated("I1", format!("job {job} was acknowledged for {name} and is not there"));
            }
        }
    }

    /// The state with all that has left it.
    pub(crate) fn everything(&self) -> State {
        self.state.with_archives(&self.archives, Detail::Tasks).expect("what was cut can be read")
    }

    /// The first job that has not ended, if any.
    pub(crate) fn unended(&self) -> Option<u64> {
        let page = self.state.jobs(&scheduler::JobFilter::default(), None, 1_000);
        page.jobs.iter().filter(|job| !is_over(job.state())).map(|job| job.id).min()
    }
}

/// Whether a job has ended.
pub(crate) fn is_over(state: JobState) -> bool {
    matches!(state, JobState::Succeeded | JobState::Failed | JobState::Cancelled | JobState::Skipped)
}
