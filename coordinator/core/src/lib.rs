//! What a coordinator decides, without I/O.
//!
//! A [`Core`] owns the replicated [`scheduler::State`] of one coordinator. It is fed with committed entries, calls of
//! clients and workers, and the passing of time ([`Input`]); it answers with what its surroundings must do
//! ([`Output`]). Whatever decides anything in a fault is in here, so that the simulator runs it and not a copy.
//!
//! *Invariant*: no clock, no thread, no socket, no randomness: the same inputs at the same times give the same outputs.
//!
//! *Invariant*: state changes by committed entries alone; everything else here is soft and dies with leadership.

mod answers;
mod calls;
mod clock;
mod disk;
mod followers;
mod grants;
mod history;
mod jobs;
pub mod limits;
mod logs;
mod marks;
mod operations;
mod permissions;
mod planning;
mod proposals;
mod queries;
mod reads;
pub mod refusal;
mod rows;
mod sessions;
mod settings;
mod streams;
mod submission;
mod watches;

mod core;

pub use core::{Core, Figures};
pub use followers::answered_anywhere;
pub use permissions::allows;
pub use settings::Settings;

use std::sync::Arc;

use bytes::Bytes;
use proto::internal::{Caller, MemberReport, Refusal, call_request, call_response};
use proto::v1::{StreamJobsRequest, WorkerMessage};
use scheduler::{Archive, Segment, Segments, State};

/// One call of a client or worker, unary or streaming, wherever it entered the grid. Its server draws the number; no
/// number is used twice in the life of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// What a core is told.
#[derive(Debug)]
pub enum Input {
    /// The log's next entry is committed. Empty data: a leader's first entry in its term.
    Committed { index: u64, term: u64, data: Bytes },
    /// The state was replaced: at start from disk, later by a snapshot of the leader's. Everything up to `index` is in
    /// it.
    Restored { index: u64, state: Box<State> },
    /// Who leads, as this coordinator's replica knows it.
    Role { term: u64, leading: bool },
    /// Whether somebody else leads, as this coordinator's replica knows it: until then reads of the state are taken
    /// here too.
    Led(bool),
    /// All entries up to `index` were committed when the round of [`Output::Read`] with this context was confirmed.
    ReadReady { context: u64, index: u64 },
    /// That round will not be confirmed.
    ReadLost { context: u64 },
    /// The proposal of [`Output::Propose`] with this sequence will never be committed.
    Dropped { sequence: u64 },
    /// A call arrives, its caller authenticated.
    Open { call: CallId, caller: Caller, request: call_request::Request },
    /// A further message of a call that was opened with `WorkerConnect`.
    Worker { call: CallId, message: WorkerMessage },
    /// A further message of a call that was opened with `StreamConnect`.
    Stream { call: CallId, message: StreamJobsRequest },
    /// The caller took so many messages: of a watch or a log, which wait for room.
    Taken { call: CallId, count: u32 },
    /// The caller has gone. Nothing more is to be sent.
    Hangup { call: CallId },
    /// The snapshot asked for by [`Output::Snapshot`] is on this coordinator's disk, or could not be written.
    SnapshotEnded { index: u64, stored: bool },
    /// A follower needs a snapshot newer than the last.
    SnapshotWanted,
    /// Whether the disk of this coordinator is almost full: new jobs are refused while it leads.
    DiskLow(bool),
    /// The digest that [`Output::Digest`] asked for, and how long it took.
    Digested { index: u64, digest: [u8; 32], took_ms: u64 },
    /// These segments of the history are on this coordinator's disk.
    SegmentsHeld { first: u32, last: u32 },
    /// What [`Output::ReadHistory`] asked for, in its order; nothing when a segment can't be had now, from any member.
    HistoryRead { ticket: u64, archives: Option<Vec<Arc<Archive>>> },
    /// Another member says how it stands; the surroundings have checked that it is the one.
    Reported(Box<MemberReport>),
    /// Time has passed; at least every 50 ms.
    Tick,
}

/// What a core asks for.
#[derive(Debug)]
pub enum Output {
    /// Propose this entry. Sequences rise by one.
    Propose { sequence: u64, data: Bytes },
    /// Begin a round that confirms leadership, one's own or another one's.
    Read { context: u64 },
    /// A message for a caller. A unary call gets one, and then `Finish`.
    Respond { call: CallId, response: call_response::Response },
    /// The call is over.
    Finish { call: CallId, result: Result<(), Refusal> },
    /// Entries up to `index` are applied.
    Applied { index: u64 },
    /// Encode this state in the background and store it as the snapshot at `index` and `term`.
    Snapshot { index: u64, term: u64, state: Box<State> },
    /// Compute the digest of this state in the background; at most one at a time is asked for.
    Digest { index: u64, state: Box<State> },
    /// Store this segment of the history on this coordinator's disk.
    StoreSegment { number: u32, data: Bytes },
    /// All segments that must be on this coordinator's disk, that at position 0 is number 1: say which are there, and
    /// fetch the others from other members.
    KeepSegments { segments: Segments },
    /// Read these segments, compare their checksums, and decode them; a damaged or missing one is fetched first.
    ReadHistory { ticket: u64, segments: Vec<(u32, Segment)> },
    /// Tell every other member. One that arrives late, or not at all, is made up for by the next.
    Report(MemberReport),
    /// The replicas differ after this index and nobody has a majority: a human must look. Absent: they agree again.
    Split { index: Option<u64> },
    /// This replica can't go on: an entry that it can't read, or a state that isn't the others'. The process ends
    /// with an exit code of its own.
    Halt { reason: String },
}
