//! The history of ended jobs on this coordinator's disk: one file a segment, and the other members where one is
//! missing.
//!
//! A segment is a pure function of the log, so that whoever has it has the same bytes, and its checksum is in the
//! replicated state. Nothing here is the only copy of anything: a file that is damaged is fetched again.

mod counts;
mod fetch;
mod files;
mod format;
mod recent;

pub use counts::Counts;
pub use fetch::Fetcher;
pub use files::Files;
pub use format::Expected;
pub use recent::Recent;
