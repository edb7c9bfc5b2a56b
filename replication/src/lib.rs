//! The log: several copies agree on a sequence of bytes.
//!
//! [`Replica`] is a pure step function around raft-rs: it is fed [`Input`]s and hands out [`Outputs`]; whoever
//! drives it writes to the disk, sends to the peers and applies what is committed. [`Log`] and [`Snapshots`] are
//! what it writes, on a [`Volume`]: a directory, or its twin in memory that loses power on request.
//!
//! *Invariants*: the bytes that are replicated mean nothing here. No type of raft-rs leaves this crate, and its
//! parser never sees a byte from outside. Only [`FileVolume`] and [`DataDirectory`] touch files; there is no
//! clock, no thread and no randomness anywhere.
//!
//! # How to drive a replica
//!
//! ```text
//! on each input:   replica.step(input)?                  // everything that waits, then
//!                  while let Some(out) = replica.outputs() {
//!                      send out.messages                 // at once; a full queue drops them and steps Unreachable
//!                      hand out.write to the log         // in order of handing out
//!                      hand out.compact to the log       // behind the write
//!                      hand out.install, then out.committed, to the state machine, in order
//!                      answer out.reads once the state machine applied as far as their index
//!                  }
//! the log, in order of arrival:
//!                  log.append(write)?; log.sync()? if any of them must_sync; then step Persisted { number }
//!                  log.compact(compaction)?; then snapshots.prune(compaction.snapshot.index)?
//! the state:       after applying up to index: step Applied { index }
//!                  after loading a snapshot:   step Installed { metadata }
//!                  after its own snapshot is stored (durable): step SnapshotStored { metadata }
//! ```
//!
//! A message that answers for something on the disk (a vote, an acknowledgement) is held back inside the replica
//! until `Persisted` was stepped; only the leader's appends leave before its own disk has them.

mod directory;
mod draw;
mod failure;
mod log;
mod recovered;
mod replica;
mod settings;
mod snapshots;
mod step;
mod volume;

pub use proto::internal::{Configuration, HardState, LogEntry, PeerMessage, SnapshotMetadata};

pub use self::directory::{DataDirectory, Identity};
pub use self::failure::Failure;
pub use self::log::{Log, LogContents, LogSettings, Owner};
pub use self::recovered::{Recovered, recover};
pub use self::replica::{Refused, Replica};
pub use self::settings::{Election, LogLevel, LogSink, Settings, Trailing};
pub use self::snapshots::{IncomingSnapshot, Snapshots};
pub use self::step::{
    Committed, Compaction, Follower, FollowerState, Input, Outputs, Proposal, ReadReady, Role, Standing, Status, Write,
};
pub use self::volume::{Crash, FileVolume, MemoryVolume, Volume};

/// The write-ahead log in a directory.
pub type FileLog = Log<FileVolume>;

/// The write-ahead log in memory, for the simulator.
pub type MemoryLog = Log<MemoryVolume>;

/// Snapshots in a directory.
pub type SnapshotFiles = Snapshots<FileVolume>;

/// Snapshots in memory, for the simulator.
pub type MemorySnapshots = Snapshots<MemoryVolume>;
