//! Bugs that can be planted, so that the simulator proves that it would find them. They are planted around the
//! production code, where its driver could be wrong in the same way, never in it.

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plant {
    /// What a worker reports of an attempt that isn't its own any more is taken for the one that has it now.
    NoFence,
    /// A replica says that a write is durable before it is.
    AckBeforeFsync,
    /// A replica that comes back relies on bytes that it can read but that were never synced.
    NoFsyncAtStart,
    /// A repeated submit is taken for a new one.
    RequestIdsIgnored,
    /// A leader answers renewals and reads without asking whether it still leads.
    DeposedLeaderAnswers,
    /// A follower answers reads from what it has, without asking the leader how far it must be.
    FollowerAnswers,
    /// One replica has another record of a job than the others, and no event ever said so.
    DifferingRecord,
}

impl Plant {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::NoFence,
        Self::AckBeforeFsync,
        Self::NoFsyncAtStart,
        Self::RequestIdsIgnored,
        Self::DeposedLeaderAnswers,
        Self::FollowerAnswers,
        Self::DifferingRecord,
    ];

    /// What it is called on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoFence => "no-fence",
            Self::AckBeforeFsync => "ack-before-fsync",
            Self::NoFsyncAtStart => "no-fsync-at-start",
            Self::RequestIdsIgnored => "request-ids-ignored",
            Self::DeposedLeaderAnswers => "deposed-leader-answers",
            Self::FollowerAnswers => "follower-answers",
            Self::DifferingRecord => "differing-record",
        }
    }

    /// The bug of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|plant| plant.name() == name)
    }
}
