//! F1: queues that are saturated get their weights' parts of the grid, within five percent, over any minute in which a
//! hundred of each one's attempts ended.
//!
//! What a queue has is counted here anew, from who was granted what and when it ended, not from the rules' own
//! accounts. Time is the log's, which doesn't go on while nobody leads: then nobody can be granted anything. What a
//! queue is ahead, because a machine kept its tasks for long, it pays back, also when a minute has passed; so the
//! promise is checked of minutes at whose beginning nobody owed much, and of all others that the debts don't grow.

use std::collections::{BTreeMap, VecDeque};

use worker_core::Key;

use crate::workload::Saturation;

/// Over so long shares are compared, by steps of so much.
const WINDOW_MS: u64 = 60_000;
const STEP_MS: u64 = 5_000;
/// Attempts of each queue that must have ended in it.
const ENDS: u64 = 100;
/// A lease that is held for longer is stuck on a machine that is paused, cut off or gone: shares can't be mended with
/// what doesn't end. Staging and running take three seconds at most.
const STUCK_US: u64 = 4_000_000;

/// What the saturated queues had.
#[derive(Debug)]
pub(crate) struct Fairness {
    accounts: Vec<Account>,
    queues: BTreeMap<String, usize>,
    leases: BTreeMap<Key, (usize, u64)>,
    /// Log time up to which everything is counted.
    counted_ms: u64,
    /// The last minute's, the newest at the back; all of a time in which nothing was stuck.
    looks: VecDeque<Look>,
    over: bool,
}

#[derive(Debug)]
struct Account {
    weight: u64,
    cpu_milli: u64,
    held: u64,
    /// Thousandths of a cpu times milliseconds.
    used: u64,
    ends: u64,
}

#[derive(Debug)]
struct Look {
    at_ms: u64,
    used: Vec<u64>,
    ends: Vec<u64>,
}

/// What came of comparing a minute.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// There is no whole minute to look at.
    Unknown,
    /// Each queue had its part.
    Fair,
    /// Queues owed each other, and owe no more now.
    Repaid,
    Unfair(String),
}

impl Fairness {
    pub(crate) fn new(saturation: &Saturation) -> Self {
        let account = |(_, load): (_, &crate::workload::Load)| Account {
            weight: u64::from(load.weight),
            cpu_milli: load.cpu_milli,
            held: 0,
            used: 0,
            ends: 0,
        };
        Self {
            accounts: saturation.loads.iter().map(account).collect(),
            queues: saturation.loads.keys().cloned().zip(0..).collect(),
            leases: BTreeMap::new(),
            counted_ms: 0,
            looks: VecDeque::new(),
            over: false,
        }
    }

    /// Log time has gone on to `log_ms`, and what the entry says is about to be looked at.
    pub(crate) fn committed(&mut self, log_ms: u64, now_us: u64) -> Verdict {
        let passed_ms = log_ms.saturating_sub(self.counted_ms);
        self.counted_ms = self.counted_ms.max(log_ms);
        for account in &mut self.accounts {
            account.used += account.held * account.cpu_milli * passed_ms;
        }
        if self.over || self.looks.back().is_some_and(|look| self.counted_ms < look.at_ms + STEP_MS) {
            return Verdict::Unknown;
        }
        self.look(now_us)
    }

    pub(crate) fn granted(&mut self, key: Key, queue: &str, now_us: u64) {
        if let Some(at) = self.queues.get(queue) {
            self.accounts[*at].held += 1;
            self.leases.insert(key, (*at, now_us));
        }
    }

    /// Its capacity is free again.
    pub(crate) fn released(&mut self, key: Key, now_us: u64) {
        let Some((at, since_us)) = self.leases.remove(&key) else { return };
        self.accounts[at].held -= 1;
        self.accounts[at].ends += 1;
        if now_us > since_us + STUCK_US {
            self.looks.clear();
        }
    }

    /// Not saturated any more.
    pub(crate) fn end(&mut self) {
        self.over = true;
    }

    fn look(&mut self, now_us: u64) -> Verdict {
        if self.leases.values().any(|(_, since_us)| now_us > since_us + STUCK_US) {
            self.looks.clear();
            return Verdict::Unknown;
        }
        let now = Look {
            at_ms: self.counted_ms,
            used: self.accounts.iter().map(|account| account.used).collect(),
            ends: self.accounts.iter().map(|account| account.ends).collect(),
        };
        while self.looks.len() > 1 && self.looks[1].at_ms + WINDOW_MS <= now.at_ms {
            self.looks.pop_front();
        }
        let verdict = match self.looks.front().filter(|then| then.at_ms + WINDOW_MS <= now.at_ms) {
            None => Verdict::Unknown,
            Some(then) => self.compare(then, &now),
        };
        self.looks.push_back(now);
        verdict
    }

    fn compare(&self, then: &Look, now: &Look) -> Verdict {
        let had = |at: usize| now.used[at] - then.used[at];
        let few = (0..self.accounts.len()).any(|at| now.ends[at] - then.ends[at] < ENDS);
        let total: u64 = (0..self.accounts.len()).map(had).sum();
        if few {
            return Verdict::Unknown;
        }
        // What a queue of weight 1 should have had.
        let due = total / self.accounts.iter().map(|account| account.weight).sum::<u64>();
        let (before, after) = (self.debt(&then.used), self.debt(&now.used));
        if before > due / 50 {
            return match after <= before.max(due / 20) {
                true => Verdict::Repaid,
                false => Verdict::Unfair(format!(
                    "queues owed each other {before} and now {after}, a minute's part is {due}"
                )),
            };
        }
        for (name, at) in &self.queues {
            let part = due * self.accounts[*at].weight;
            if had(*at).abs_diff(part) * 20 > part {
                let (had, weight) = (had(*at), self.accounts[*at].weight);
                let share = (had * 1_000).checked_div(part).unwrap_or_default();
                let ends = now.ends[*at] - then.ends[*at];
                return Verdict::Unfair(format!(
                    "in the minute before {} s queue `{name}` of weight {weight} had {share} thousandths of its part in {ends} \
                     attempts",
                    now.at_ms / 1_000,
                ));
            }
        }
        Verdict::Fair
    }

    /// How far the queue that had most for its weight is ahead of the one that had least.
    fn debt(&self, used: &[u64]) -> u64 {
        let parts = || used.iter().zip(&self.accounts).map(|(used, account)| used / account.weight);
        parts().max().unwrap_or_default() - parts().min().unwrap_or_default()
    }
}
