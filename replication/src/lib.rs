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
//! start     let mut directory = DataDirectory::open(..)?;  directory.bootstrap(..)? once
//!           let (log, snapshots, recovered) = directory.recover(..)?      // syncs, then reads
//!           state = recovered.snapshot ? decode(snapshots.load(..)?) : empty
//!           let mut replica = Replica::new(settings, recovered)?
//!
//! replica   for input in everything that waits { replica.step(input) }    // an Err is a peer's nonsense: log it
//!           while let Some(out) = replica.outputs() {
//!               tell the core out.role                                    // before the rest: waiters of the old term fail
//!               send out.messages                                         // never wait: a full queue drops, and steps Unreachable
//!               start out.send_snapshot                                   // then SnapshotReport, on every path
//!               queue out.write, then out.compact, for the log
//!               queue out.install, then out.committed, for the state machine
//!               tell the core out.reads, out.lost_reads, out.dropped, out.want_snapshot
//!           }
//!
//! log       take all writes that wait { log.append(&write)? }
//!           if any must_sync { log.sync()? }                              // an error ends the process
//!           step Persisted { number of the last write }
//!           log.compact(&compaction)?; snapshots.prune(compaction.snapshot.index)?
//!           after 100 ms without work: log.idle()?
//!
//! state     apply committed entries, then step Applied { index of the last one }
//!           on install: state = decode(snapshots.load(&metadata)?), then step Installed { metadata }
//!           now and then: snapshots.store(applied index, its term, members, chunks)?, then step SnapshotStored
//!
//! a snapshot from a peer
//!           replica.check(&message)?                                      // before its first byte is stored
//!           snapshots.receive(&metadata)?, write(..)? chunk by chunk, finish(..)?, then step Message(message)
//! ```
//!
//! Writes and compactions reach the log in the order in which they came out; installs and committed entries reach
//! the state machine likewise. The two don't wait for each other: nothing is committed here that isn't on this
//! disk. A message that answers for something on the disk (a vote, an acknowledgement) is held back inside the
//! replica until `Persisted` was stepped; only the leader's appends leave before its own disk has them.

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
pub use self::volume::{Crash, FileVolume, MemoryVolume, Reserve, Volume};

/// The write-ahead log in a directory.
pub type FileLog = Log<FileVolume>;

/// The write-ahead log in memory, for the simulator.
pub type MemoryLog = Log<MemoryVolume>;

/// Snapshots in a directory.
pub type SnapshotFiles = Snapshots<FileVolume>;

/// Snapshots in memory, for the simulator.
pub type MemorySnapshots = Snapshots<MemoryVolume>;
