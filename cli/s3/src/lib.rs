//! The S3 endpoint of `millgrid dev`: a bucket is a folder, an object is a plain file.
//!
//! A file that is put into a bucket's folder by hand is an object at once, and the other way round. What a file
//! can't carry (user metadata, ETags, checksums, unfinished uploads) lives in `ROOT/.millgrid-s3/`, beside the
//! buckets.
//!
//! *Invariant*: nothing is visible half-written. Bodies go to a temporary file, are synced, and appear by one
//! rename; a process killed at any point leaves the old object or the new one.
//!
//! *Invariant*: no request reaches a file outside its bucket's folder: keys are checked as text, and the kernel
//! resolves them beneath the folder without following links.

mod digest;
mod serve;
mod service;
mod store;

pub use serve::{Credentials, Failure, serve};
