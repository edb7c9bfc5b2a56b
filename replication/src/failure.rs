//! What breaks a replica: its disk, mostly.

use std::{io, path::PathBuf};

/// Why a replica can't start or go on. [`Failure::exit_code`] says how the process ends.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A file can't be read or written.
    #[error("can't {doing} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An fsync failed. What was written before may be lost though later reads show it, so nothing may be
    /// built on this disk again under the same identity.
    #[error("can't sync {}: {source}; this disk must not be used again as this member", path.display())]
    Sync {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An fsync failed when this directory was last in use.
    #[error(
        "{} must not be used again: an fsync on this disk failed before, and what it holds may be less than it \
         promised; the other members go on without it, replace it by a new member with an empty directory on a good \
         disk",
        path.display()
    )]
    Condemned {
        /// The data directory.
        path: PathBuf,
    },
    /// An earlier write or sync failed; the log takes nothing any more.
    #[error("the log at {} failed before and takes nothing any more", path.display())]
    Poisoned {
        /// The log's directory.
        path: PathBuf,
    },
    /// Bytes that were on the disk once are damaged.
    #[error("{} is corrupt at byte {offset}: {reason}; replace this member, don't repair the file", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// What is wrong there.
        reason: &'static str,
    },
    /// Whole files say things that can't both be true.
    #[error("the disk contradicts itself: {reason} ({left} against {right}); replace this member")]
    Contradiction {
        /// What can't be.
        reason: &'static str,
        /// One number.
        left: u64,
        /// The other.
        right: u64,
    },
    /// The data directory belongs to a member whose log is gone. Starting it empty would forget votes and
    /// acknowledged entries.
    #[error(
        "{} belongs to a bootstrapped member but has no log: its disk was wiped; remove the whole directory and let \
         it join as a new member",
        path.display()
    )]
    Wiped {
        /// The data directory.
        path: PathBuf,
    },
    /// The data directory has other files but not the one that says whose it is.
    #[error("{} holds a log but no identity; restore the file `identity` or start with an empty directory", path.display())]
    IdentityMissing {
        /// The data directory.
        path: PathBuf,
    },
    /// The data directory belongs to somebody else.
    #[error("{} belongs to `{found}`, not to `{wanted}`", path.display())]
    IdentityDiffers {
        /// The file.
        path: PathBuf,
        /// The name in it.
        found: String,
        /// The name that was configured.
        wanted: String,
    },
    /// Nobody told this member yet who the first members are.
    #[error("{} isn't bootstrapped; run `millgrid cluster bootstrap`", path.display())]
    NotBootstrapped {
        /// The data directory.
        path: PathBuf,
    },
    /// It was bootstrapped before, with other members.
    #[error("{} is already bootstrapped as cluster `{cluster_id}` with other members", path.display())]
    BootstrapDiffers {
        /// The data directory.
        path: PathBuf,
        /// The cluster it belongs to.
        cluster_id: String,
    },
    /// A bootstrap request that can't be.
    #[error("bootstrap: {field} {reason}")]
    BootstrapInvalid {
        /// The field of the request.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Another process has the directory open.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A snapshot that was received isn't the one that was announced.
    #[error("received snapshot {index} is damaged: {reason}")]
    SnapshotDamaged {
        /// Its index.
        index: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// A snapshot that is asked for isn't there.
    #[error("there is no snapshot at index {index}")]
    SnapshotMissing {
        /// Its index.
        index: u64,
    },
    /// The consensus library refused what the disk holds.
    #[error("the consensus library refuses to start: {source}")]
    Consensus {
        /// What it said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Failure {
    /// The exit code of a process that ends of this: 70 after a failed sync, now or earlier (nothing may restart it), 71 when
    /// the disk is damaged, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Sync { .. } | Failure::Condemned { .. } | Failure::Poisoned { .. } => 70,
            Failure::Corrupt { .. }
            | Failure::Contradiction { .. }
            | Failure::Wiped { .. }
            | Failure::IdentityMissing { .. }
            | Failure::Consensus { .. } => 71,
            Failure::Io { .. }
            | Failure::IdentityDiffers { .. }
            | Failure::NotBootstrapped { .. }
            | Failure::BootstrapDiffers { .. }
            | Failure::BootstrapInvalid { .. }
            | Failure::InUse { .. }
            | Failure::SnapshotDamaged { .. }
            | Failure::SnapshotMissing { .. } => 1,
        }
    }
}
