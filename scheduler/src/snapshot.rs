//! The state as bytes, and back. Canonical: equal states make equal bytes on every replica.
//!
//! What can be derived isn't written; `decode` makes it anew by the same functions that keep it up to date.

mod decode;
mod digest;
mod encode;
mod history;
mod records;

pub(crate) use self::{
    encode::{chunk_of, job_of, published_of, terms_of},
    records::{read_chunk, read_job, read_published, read_terms},
};
use crate::job::{Fact, Facts};

/// About how many bytes a piece has.
const PIECE_BYTES: usize = 1 << 20;

/// A snapshot that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed snapshot: {0}")]
pub struct Malformed(pub(crate) &'static str);

/// One fact alone, in the form of a chunk's.
fn fact_bytes(fact: &Fact) -> Vec<u8> {
    let mut facts = Facts::new(1);
    facts.append(0, 0, fact);
    facts.entries
}

fn fact_from(entries: &[u8]) -> Option<Fact> {
    let facts = Facts { newest: vec![1].into_boxed_slice(), entries: entries.to_vec() };
    if facts.readable() { facts.newest(0, 0) } else { None }
}
