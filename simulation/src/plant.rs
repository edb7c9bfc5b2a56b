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
    /// A member says that it has a segment of the history before it is on its disk.
    SegmentsUnstored,
    /// The weights of queues get lost on the way into the log.
    WeightsIgnored,
    /// Of all grants only those of one worker come into the log.
    GrantsLost,
    /// The end of a session isn't proposed.
    SessionsOutlive,
    /// A keeper starts at once what it was to start after another.
    KeeperHurries,
    /// A replica that comes back has forgotten for whom it voted.
    VoteLost,
    /// A worker says that a process has ended when it was only told to, so that its room is given away.
    CapacityFreedAtCancel,
}

impl Plant {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::NoFence,
        Self::AckBeforeFsync,
        Self::NoFsyncAtStart,
        Self::RequestIdsIgnored,
        Self::DeposedLeaderAnswers,
        Self::FollowerAnswers,
        Self::DifferingRecord,
        Self::SegmentsUnstored,
        Self::WeightsIgnored,
        Self::GrantsLost,
        Self::SessionsOutlive,
        Self::KeeperHurries,
        Self::VoteLost,
        Self::CapacityFreedAtCancel,
    ];

    /// Whether it changes what a leader proposes.
    pub(crate) fn tampers(self) -> bool {
        match self {
            Self::NoFence
            | Self::RequestIdsIgnored
            | Self::WeightsIgnored
            | Self::GrantsLost
            | Self::SessionsOutlive => true,
            Self::AckBeforeFsync
            | Self::NoFsyncAtStart
            | Self::DeposedLeaderAnswers
            | Self::FollowerAnswers
            | Self::DifferingRecord
            | Self::SegmentsUnstored
            | Self::KeeperHurries
            | Self::VoteLost
            | Self::CapacityFreedAtCancel => false,
        }
    }

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
            Self::SegmentsUnstored => "segments-unstored",
            Self::WeightsIgnored => "weights-ignored",
            Self::GrantsLost => "grants-lost",
            Self::SessionsOutlive => "sessions-outlive",
            Self::KeeperHurries => "keeper-hurries",
            Self::VoteLost => "vote-lost",
            Self::CapacityFreedAtCancel => "capacity-freed-at-cancel",
        }
    }

    /// The bug of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|plant| plant.name() == name)
    }
}
