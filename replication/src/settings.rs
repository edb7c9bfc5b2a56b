//! How one replica is set up.

use std::{fmt, sync::Arc};

/// How long a follower waits for its leader, in ticks of 50 ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Election {
    /// 20 to 39 ticks: 1 to 2 s. etcd's default.
    #[default]
    Default,
    /// 10 to 19 ticks: 0.5 to 1 s. For one machine, or disks that are known to be quick.
    Fast,
}

impl Election {
    /// The shortest wait, in ticks; the longest is just under twice that.
    pub fn ticks(self) -> usize {
        match self {
            Election::Default => 20,
            Election::Fast => 10,
        }
    }
}

/// How much of the log is kept behind a snapshot, so that a follower that was away for a minute catches up from
/// the log. Whichever bound is reached first counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailing {
    /// In entries.
    pub entries: u64,
    /// In bytes of their data.
    pub bytes: u64,
}

impl Default for Trailing {
    fn default() -> Trailing {
        Trailing { entries: 50_000, bytes: 64 << 20 }
    }
}

/// How much a line of the consensus library's own log matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Elections, changes of role.
    Info,
    /// Unexpected, but it went on.
    Warning,
    /// A human must look.
    Error,
}

/// Takes the lines that the consensus library logs.
pub type LogSink = Arc<dyn Fn(LogLevel, &str) + Send + Sync>;

/// How one replica is set up. Everything random is drawn by the caller.
#[derive(Clone)]
pub struct Settings {
    /// This member's id; not 0.
    pub id: u64,
    /// The election profile; the same on all members.
    pub election: Election,
    /// Election timeouts are drawn from it.
    pub seed: u64,
    /// A fresh random number each time the process starts: with the member's id and a counter it makes the
    /// context of a read unique.
    pub boot: u64,
    /// What a compaction leaves.
    pub trailing: Trailing,
    /// Where the consensus library logs to; nowhere when absent.
    pub log: Option<LogSink>,
}

impl Settings {
    /// The defaults for member `id`.
    pub fn new(id: u64, seed: u64, boot: u64) -> Settings {
        Settings { id, election: Election::Default, seed, boot, trailing: Trailing::default(), log: None }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("id", &self.id)
            .field("election", &self.election)
            .field("seed", &self.seed)
            .field("boot", &self.boot)
            .field("trailing", &self.trailing)
            .finish_non_exhaustive()
    }
}
