//! Reads that wait for the leader to be sure that it still is one.

use std::collections::BTreeMap;

/// The library knows a round by (member, boot, counter), which no other round ever has; the callers know their own
/// numbers.
pub(super) struct Reads {
    member: u64,
    boot: u64,
    /// In ticks; raft itself repeats a round's message with each heartbeat, so what is older is lost.
    patience: u64,
    counter: u64,
    waiting: Vec<u64>,
    waiting_since: u64,
    rounds: BTreeMap<u64, Round>,
}

struct Round {
    contexts: Vec<u64>,
    since: u64,
}

impl Reads {
    pub(super) fn new(member: u64, boot: u64, patience: u64) -> Reads {
        Reads { member, boot, patience, counter: 0, waiting: Vec::new(), waiting_since: 0, rounds: BTreeMap::new() }
    }

    pub(super) fn wait(&mut self, context: u64, now: u64) {
        if self.waiting.is_empty() {
            self.waiting_since = now;
        }
        self.waiting.push(context);
    }

    pub(super) fn any_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn count(&self) -> usize {
        self.waiting.len() + self.rounds.values().map(|round| round.contexts.len()).sum::<usize>()
    }

    /// One round for all that wait: what the library is to be asked with.
    pub(super) fn ask(&mut self, now: u64) -> Vec<u8> {
        self.counter += 1;
        self.rounds.insert(self.counter, Round { contexts: std::mem::take(&mut self.waiting), since: now });
        [self.member, self.boot, self.counter].iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    pub(super) fn answered(&mut self, context: &[u8]) -> Vec<u64> {
        let own: Vec<u8> = [self.member, self.boot].iter().flat_map(|number| number.to_le_bytes()).collect();
        let counter = context.strip_prefix(&*own).and_then(|counter| counter.try_into().ok()).map(u64::from_le_bytes);
        counter.and_then(|counter| self.rounds.remove(&counter)).map_or(Vec::new(), |round| round.contexts)
    }

    pub(super) fn lose(&mut self) -> Vec<u64> {
        let mut lost = self.lose_asked();
        lost.append(&mut self.waiting);
        lost
    }

    /// The library forgets its rounds when its role changes.
    pub(super) fn lose_asked(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.rounds).into_values().flat_map(|round| round.contexts).collect()
    }

    pub(super) fn expire(&mut self, now: u64) -> Vec<u64> {
        let mut lost = Vec::new();
        while let Some(round) = self.rounds.first_entry()
            && now - round.get().since >= self.patience
        {
            lost.append(&mut round.remove().contexts);
        }
        if self.any_waiting() && now - self.waiting_since >= self.patience {
            lost.append(&mut self.waiting);
        }
        lost
    }
}
