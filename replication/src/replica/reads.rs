//! Reads that wait for the leader to be sure that it still is one: this replica's own, and those of followers that
//! share its rounds.

use std::collections::BTreeMap;

/// The library knows a round by (member, boot, counter), which no other round ever has; the callers know their own
/// numbers.
pub(super) struct Reads {
    member: u64,
    boot: u64,
    /// In ticks; raft itself repeats a round's message with each heartbeat, so what is older is lost.
    patience: u64,
    counter: u64,
    waiting: Waiting,
    waiting_since: u64,
    rounds: BTreeMap<u64, Round>,
}

struct Round {
    waiting: Waiting,
    since: u64,
}

/// Who shares a round.
#[derive(Default)]
pub(super) struct Waiting {
    /// The callers' numbers.
    pub own: Vec<u64>,
    /// Followers, and what each knows its own round by. They ask again by themselves.
    pub of_followers: Vec<(u64, Vec<u8>)>,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.own.is_empty() && self.of_followers.is_empty()
    }
}

impl Reads {
    pub(super) fn new(member: u64, boot: u64, patience: u64) -> Reads {
        Reads {
            member,
            boot,
            patience,
            counter: 0,
            waiting: Waiting::default(),
            waiting_since: 0,
            rounds: BTreeMap::new(),
        }
    }

    pub(super) fn wait(&mut self, context: u64, now: u64) {
        self.since(now).own.push(context);
    }

    /// A follower's round shares the next one of this replica; one that it repeats, once.
    pub(super) fn wait_for(&mut self, member: u64, context: Vec<u8>, now: u64) {
        let waiting = self.since(now);
        waiting.of_followers.retain(|(other, _)| *other != member);
        waiting.of_followers.push((member, context));
    }

    fn since(&mut self, now: u64) -> &mut Waiting {
        if self.waiting.is_empty() {
            self.waiting_since = now;
        }
        &mut self.waiting
    }

    pub(super) fn any_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn count(&self) -> usize {
        self.waiting.own.len() + self.rounds.values().map(|round| round.waiting.own.len()).sum::<usize>()
    }

    /// One round for all that wait: what the library is to be asked with.
    pub(super) fn ask(&mut self, now: u64) -> Vec<u8> {
        self.counter += 1;
        self.rounds.insert(self.counter, Round { waiting: std::mem::take(&mut self.waiting), since: now });
        self.context(self.counter)
    }

    fn context(&self, counter: u64) -> Vec<u8> {
        [self.member, self.boot, counter].iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    /// What was asked with in rounds that have waited for a multiple of so many ticks.
    pub(super) fn unanswered(&self, now: u64, ticks: u64) -> Vec<Vec<u8>> {
        let old = |round: &Round| now > round.since && (now - round.since).is_multiple_of(ticks);
        self.rounds.iter().filter(|(_, round)| old(round)).map(|(counter, _)| self.context(*counter)).collect()
    }

    /// Who shared the round that was asked for with `context`; nobody if it is not known any more.
    pub(super) fn answered(&mut self, context: &[u8]) -> Waiting {
        let own: Vec<u8> = [self.member, self.boot].iter().flat_map(|number| number.to_le_bytes()).collect();
        let counter = context.strip_prefix(&*own).and_then(|counter| counter.try_into().ok()).map(u64::from_le_bytes);
        counter.and_then(|counter| self.rounds.remove(&counter)).map(|round| round.waiting).unwrap_or_default()
    }

    pub(super) fn lose(&mut self) -> Vec<u64> {
        let mut lost = self.lose_asked();
        lost.append(&mut std::mem::take(&mut self.waiting).own);
        lost
    }

    /// The library forgets its rounds when its role changes.
    pub(super) fn lose_asked(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.rounds).into_values().flat_map(|round| round.waiting.own).collect()
    }

    pub(super) fn expire(&mut self, now: u64) -> Vec<u64> {
        let mut lost = Vec::new();
        while let Some(round) = self.rounds.first_entry()
            && now - round.get().since >= self.patience
        {
            lost.append(&mut round.remove().waiting.own);
        }
        if self.any_waiting() && now - self.waiting_since >= self.patience {
            lost.append(&mut std::mem::take(&mut self.waiting).own);
        }
        lost
    }
}
