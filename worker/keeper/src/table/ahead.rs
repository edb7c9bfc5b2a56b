//! Orders ahead: processes that wait for the end of another, whose room they take. The way to the agent and back lies
//! between no two of them.

use super::{LISTED_LEN, MAX_DETAIL, Phase, Process, Table, ToAgent};
use crate::protocol::{End, Exited, Key, Spawn, Withdraw};

impl Table {
    /// Takes back a process that waits for another.
    pub fn withdraw(&mut self, withdraw: &Withdraw) {
        let Some(key) = withdraw.key else { return };
        let Some(Process { phase: Phase::After { .. }, .. }) = self.processes.get(&key) else { return };
        let Some(Process { phase, memo, .. }) = self.processes.remove(&key) else { return };
        self.kept -= LISTED_LEN + MAX_DETAIL + memo.len();
        self.send(ToAgent::Exited(Exited {
            key: Some(key),
            end: End::NotStarted.into(),
            detail: "withdrawn before its turn came".into(),
            ..Exited::default()
        }));
        self.over(key, &phase);
    }

    /// Whether there is an end to wait for.
    pub(super) fn lives(&self, key: &Key) -> bool {
        self.processes.get(key).is_some_and(|process| !matches!(process.phase, Phase::Ended(_)))
    }

    /// Has an ordered process wait for another, which lives.
    pub(super) fn wait_for(&mut self, process: Key, key: Key, spawn: Spawn) {
        if let Some(waiting) = self.processes.get_mut(&key) {
            waiting.phase = Phase::After { process, spawn };
            self.next.entry(process).or_default().push(key);
        }
    }

    /// Orders a process that waited for another, if it did.
    pub(super) fn wait_no_more(&mut self, key: Key) {
        let Some(waiting) = self.processes.get_mut(&key) else { return };
        match std::mem::replace(&mut waiting.phase, Phase::Waiting) {
            Phase::After { process, spawn } => {
                self.remove_next(process, key);
                self.waiting.push_back((key, spawn));
            }
            phase => waiting.phase = phase,
        }
    }

    /// A process that was in this phase has ended, or won't be: those that waited for it are ordered, and it waits
    /// itself no more.
    pub(super) fn over(&mut self, key: Key, phase: &Phase) {
        if let Phase::After { process, .. } = phase {
            self.remove_next(*process, key);
        }
        for next in self.next.remove(&key).unwrap_or_default() {
            self.wait_no_more(next);
        }
    }

    fn remove_next(&mut self, process: Key, key: Key) {
        if let Some(next) = self.next.get_mut(&process) {
            next.retain(|one| *one != key);
            if next.is_empty() {
                self.next.remove(&process);
            }
        }
    }
}
