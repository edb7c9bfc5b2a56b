//! The contract: what clients, workers and coordinators say to one another, and the few pure rules about those
//! words that more than one of them must read alike.
//!
//! *Invariant*: nothing here does I/O, and nothing here depends on anything but prost (and tonic behind the
//! feature `grpc`).

pub mod entry;
pub mod outputs;
pub mod ranges;
pub mod template;

/// The public API.
pub mod v1 {
    #![allow(missing_docs, clippy::all, clippy::pedantic, unused_qualifications)]
    include!(concat!(env!("OUT_DIR"), "/millgrid.v1.rs"));
}

/// Words among the grid's own processes: log entries, relays, peers.
pub mod internal {
    pub use self::v1::*;

    #[doc(hidden)]
    pub mod v1 {
        #![allow(missing_docs, clippy::all, clippy::pedantic, unused_qualifications)]
        include!(concat!(env!("OUT_DIR"), "/millgrid.internal.v1.rs"));
    }
}

pub use prost_types::{Duration, Timestamp};

/// An encoded `FileDescriptorSet` of everything above.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
