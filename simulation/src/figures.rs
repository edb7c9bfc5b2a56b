//! What happened, in numbers.

use std::{collections::BTreeMap, fmt, ops::AddAssign};

/// Counts of one run, or of many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// Seeds run.
    pub seeds: u64,
    /// Milliseconds of simulated time.
    pub simulated_ms: u64,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Writes that clients saw acknowledged.
    pub acknowledged: u64,
    /// Of them, gone at the end.
    pub lost: u64,
    /// Jobs, tasks and ends of attempts that were accepted.
    pub ends: u64,
    /// Ends recorded twice.
    pub twice: u64,
    /// Items of reports that were fenced.
    pub fenced: u64,
    /// Reads whose answer was checked.
    pub reads: u64,
    /// Digests found equal.
    pub digests: u64,
    /// Digests of whole states found equal.
    pub wholes: u64,
    /// Minutes in which saturated queues had their weights' parts.
    pub fair_minutes: u64,
    /// Minutes in which such queues owed each other, and no more at their end.
    pub repaid_minutes: u64,
    /// Jobs that moved to the history.
    pub moved: u64,
    /// Reads for which segments of it were brought.
    pub history_reads: u64,
    /// Segments that one member fetched from another.
    pub fetched: u64,
    /// Changes of leader.
    pub leaders: u64,
}

impl AddAssign for Figures {
    fn add_assign(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.simulated_ms += other.simulated_ms;
        for (kind, count) in other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        self.acknowledged += other.acknowledged;
        self.lost += other.lost;
        self.ends += other.ends;
        self.twice += other.twice;
        self.fenced += other.fenced;
        self.reads += other.reads;
        self.digests += other.digests;
        self.wholes += other.wholes;
        self.fair_minutes += other.fair_minutes;
        self.repaid_minutes += other.repaid_minutes;
        self.moved += other.moved;
        self.history_reads += other.history_reads;
        self.fetched += other.fetched;
        self.leaders += other.leaders;
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: u64 = self.faults.values().sum();
        let kinds: Vec<String> = self.faults.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        write!(
            f,
            "{} seeds, {:.1} simulated minutes, {faults} faults of {} kinds ({}); {} acknowledged, {} lost; {} ends, \
             {} twice; {} fenced; {} reads checked; {} digests equal, {} of whole states; {} minutes fair, {} repaid; \
             {} jobs moved to the history, {} reads of it, {} segments fetched; {} leaders",
            self.seeds,
            self.simulated_ms as f64 / 60_000.0,
            self.faults.len(),
            kinds.join(", "),
            self.acknowledged,
            self.lost,
            self.ends,
            self.twice,
            self.fenced,
            self.reads,
            self.digests,
            self.wholes,
            self.fair_minutes,
            self.repaid_minutes,
            self.moved,
            self.history_reads,
            self.fetched,
            self.leaders,
        )
    }
}
