//! Bundles of small logs: their bodies, an index in JSON, and its length in the last eight bytes.

use proto::v1::{AttemptKey, LogStream};
use serde::Deserialize;

/// So many bytes of a bundle's end are read at first; the index is nearly always in them.
pub const TAIL: u64 = 64 << 10;

#[derive(Debug, Deserialize)]
struct Contents {
    v: u32,
    logs: Vec<Body>,
}

/// Where one stream of one attempt lies.
#[derive(Debug, Deserialize)]
pub struct Body {
    job: u64,
    ordinal: u32,
    attempt: u32,
    stream: String,
    offset: u64,
    length: u64,
}

/// The index, or where it is.
pub enum Index {
    /// It was in the bytes.
    Here(Vec<Body>),
    /// It begins before them.
    At { offset: u64, length: u64 },
}

/// Reads the end of a bundle of `size` bytes.
pub fn index(tail: &[u8], size: u64) -> Option<Index> {
    let body = tail.len().checked_sub(8)?;
    let length = u64::from_le_bytes(tail[body..].try_into().ok()?);
    match usize::try_from(length).ok().and_then(|length| body.checked_sub(length)) {
        Some(begin) => parse(&tail[begin..body]).map(Index::Here),
        None => Some(Index::At { offset: size.checked_sub(8)?.checked_sub(length)?, length }),
    }
}

/// Reads the index itself.
pub fn parse(json: &[u8]) -> Option<Vec<Body>> {
    let contents: Contents = serde_json::from_slice(json).ok()?;
    (contents.v == 1).then_some(contents.logs)
}

/// Offset and length of a stream.
pub fn find(index: &[Body], attempt: &AttemptKey, stream: LogStream) -> Option<(u64, u64)> {
    let name = if stream == LogStream::Stdout { "stdout" } else { "stderr" };
    index
        .iter()
        .find(|body| {
            (body.job, body.ordinal, body.attempt) == (attempt.job_id, attempt.ordinal, attempt.attempt)
                && body.stream == name
        })
        .map(|body| (body.offset, body.length))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn bundle() -> Vec<u8> {
        let mut bytes = b"hello err".to_vec();
        let json = br#"{"v":1,"logs":[{"job":7,"ordinal":0,"attempt":1,"stream":"stdout","offset":0,"length":6},{"job":7,"ordinal":0,"attempt":1,"stream":"stderr","offset":6,"length":3}]}"#;
        bytes.extend_from_slice(json);
        bytes.extend_from_slice(&(json.len() as u64).to_le_bytes());
        bytes
    }

    #[test]
    fn a_stream_is_found_by_its_attempt() {
        let bytes = bundle();
        let Some(Index::Here(index)) = index(&bytes, bytes.len() as u64) else { panic!("it is all here") };
        let attempt = AttemptKey { job_id: 7, ordinal: 0, attempt: 1 };
        assert_eq!(find(&index, &attempt, LogStream::Stderr), Some((6, 3)));
        assert_eq!(find(&index, &AttemptKey { attempt: 2, ..attempt }, LogStream::Stdout), None);
    }

    #[test]
    fn an_index_before_the_bytes_is_told_with_its_place() {
        let bytes = bundle();
        let size = bytes.len() as u64;
        let Some(Index::At { offset, length }) = index(&bytes[bytes.len() - 20..], size) else { panic!("too short") };
        let begin = offset as usize;
        assert_eq!(parse(&bytes[begin..begin + length as usize]).unwrap().len(), 2);
    }

    #[test]
    fn a_damaged_bundle_is_no_bundle() {
        assert!(index(b"short", 5).is_none());
        assert!(index(&[0xff; 64], 64).is_none());
        assert!(parse(b"{\"v\":2,\"logs\":[]}").is_none());
    }
}
