//! What goes into a replica and what comes out of it.

use bytes::Bytes;
use proto::internal::{HardState, LogEntry, PeerMessage, SnapshotMetadata};

/// Something that happened to a replica.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// 50 ms went by. Ticks missed while the thread was stalled are not made up for.
    Tick,
    /// A peer said something. The caller has checked that the sender's certificate belongs to `from` and that the
    /// cluster is the same; a snapshot's file is already stored, whole and synced.
    Message(PeerMessage),
    /// Replicate this. Only a leader takes it.
    Propose(Proposal),
    /// From which index on may a linearizable read be answered here? A follower asks the leader that it knows.
    /// Answered by [`Outputs::reads`] or [`Outputs::lost_reads`].
    Read {
        /// The caller's own number for it; unique among those that wait.
        context: u64,
    },
    /// The write of this number, and all before it, are durable.
    Persisted {
        /// [`Write::number`].
        number: u64,
    },
    /// The state machine has applied all entries up to here.
    Applied {
        /// The last one.
        index: u64,
    },
    /// A snapshot that this member made of its own state is durable: the log may be compacted.
    SnapshotStored {
        /// As the store returned it.
        metadata: SnapshotMetadata,
    },
    /// The state machine was replaced by the snapshot that [`Outputs::install`] named.
    Installed {
        /// The same.
        metadata: SnapshotMetadata,
    },
    /// How the sending of a snapshot ended. Due on every path, time-outs included: until then that follower gets
    /// nothing.
    SnapshotReport {
        /// The follower.
        to: u64,
        /// Whether it has stored all of it.
        delivered: bool,
    },
    /// Messages to this member were lost: its stream broke, or its queue is full.
    Unreachable {
        /// The member.
        to: u64,
    },
    /// Hand leadership over; to the follower that is furthest when none is named. Ignored unless leading; given up
    /// after one election timeout, and until then proposals are dropped.
    TransferLeader {
        /// The member that shall lead.
        to: Option<u64>,
    },
}

/// Bytes to replicate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The caller's own number for it; unique among those that wait.
    pub id: u64,
    /// What to replicate; not empty, at most 1 MiB.
    pub data: Bytes,
}

/// What is to be done, in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outputs {
    /// Who leads, when that or the term changed. Everything that waited for the earlier term (proposals, reads) has
    /// an unknown outcome.
    pub role: Option<Role>,
    /// To send now, in this order per receiver; all are safe to send.
    pub messages: Vec<PeerMessage>,
    /// Snapshots to send: stream the file that `snapshot` names, then the message; step [`Input::SnapshotReport`].
    pub send_snapshot: Vec<PeerMessage>,
    /// For the log, in order; then step [`Input::Persisted`] with its number.
    pub write: Option<Write>,
    /// For the log, behind the write.
    pub compact: Option<Compaction>,
    /// A snapshot of the leader's replaces the state: load it, then step [`Input::Installed`]. It comes before
    /// the committed entries behind it.
    pub install: Option<SnapshotMetadata>,
    /// To apply, in order, without gap.
    pub committed: Vec<Committed>,
    /// Reads that may be answered once the state machine has applied up to their index.
    pub reads: Vec<ReadReady>,
    /// Reads that never get an answer: ask again, perhaps elsewhere.
    pub lost_reads: Vec<u64>,
    /// Proposals that will never commit: not leading, handing over, too much uncommitted, or replaced by another
    /// leader's entry.
    pub dropped: Vec<u64>,
    /// A follower needs a snapshot and there is none: make one soon.
    pub want_snapshot: bool,
}

/// What is to be durable together.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// Rises; names the write in [`Input::Persisted`]. Not dense.
    pub number: u64,
    /// Term, vote and commit, when changed.
    pub hard_state: Option<HardState>,
    /// To append; they replace whatever has the same index, and all behind it.
    pub entries: Vec<LogEntry>,
    /// A snapshot that was received: everything in the log before it is void. Comes before `entries`.
    pub snapshot: Option<SnapshotMetadata>,
    /// Whether a sync has to come before `Persisted`. Several writes may share one sync.
    pub must_sync: bool,
}

/// What the log may forget.
#[derive(Clone, Debug, PartialEq)]
pub struct Compaction {
    /// The durable snapshot that allows it.
    pub snapshot: SnapshotMetadata,
    /// The last entry that is no longer needed; at most the snapshot's index.
    pub base_index: u64,
    /// Its term.
    pub base_term: u64,
}

/// An entry that every replica applies at its index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its place.
    pub index: u64,
    /// The term of the leader that proposed it.
    pub term: u64,
    /// Empty for the first entry of a leader's term.
    pub data: Bytes,
    /// The id of the proposal, if it was this replica's own since it started.
    pub proposal: Option<u64>,
}

/// A read that may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadReady {
    /// As in [`Input::Read`].
    pub context: u64,
    /// The state must have been applied at least this far.
    pub index: u64,
}

/// Who leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Role {
    /// The current term.
    pub term: u64,
    /// The leader's id, as far as known.
    pub leader: Option<u64>,
    /// Whether this replica leads. It has the right to decide anything only once it applied an entry of this term.
    pub leading: bool,
}

/// How a replica stands in the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Proposes and replicates.
    Leader,
    /// Follows, or looks for a leader.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Follows without a vote.
    Learner,
}

/// A replica at one moment, for `cluster status` and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// This member.
    pub id: u64,
    /// The current term.
    pub term: u64,
    /// What it is.
    pub standing: Standing,
    /// The leader's id, as far as known.
    pub leader: Option<u64>,
    /// The highest index known to be committed.
    pub commit_index: u64,
    /// How far the state machine got.
    pub applied_index: u64,
    /// The last entry in the log.
    pub last_index: u64,
    /// The last entry that is on this disk.
    pub persisted_index: u64,
    /// The first entry still in the log.
    pub first_index: u64,
    /// Bytes of data of all entries in memory.
    pub log_bytes: u64,
    /// Bytes proposed and not yet committed.
    pub uncommitted_bytes: u64,
    /// The newest stored snapshot; 0 if none.
    pub snapshot_index: u64,
    /// Reads that wait for an answer.
    pub waiting_reads: usize,
    /// All other members, by id. A follower knows only whether it heard from them.
    pub followers: Vec<Follower>,
}

/// What a replica knows of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Follower {
    /// Its id.
    pub id: u64,
    /// The last entry it is known to have on its disk; 0 unless this replica leads.
    pub matched_index: u64,
    /// Whether anything was heard from it within an election timeout.
    pub active: bool,
    /// How it is fed; `Probe` unless this replica leads.
    pub state: FollowerState,
}

/// How a leader feeds a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FollowerState {
    /// One message at a time until it is known where its log ends.
    Probe,
    /// Streaming.
    Replicate,
    /// It is being sent a snapshot.
    Snapshot,
}
