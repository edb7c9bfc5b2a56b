//! The format of log bundles: bodies one after another, then an index as JSON, then the length of that JSON in
//! eight bytes, little-endian.

use proto::v1::AttemptKey;
use serde::Serialize;

/// A bundle in the making.
#[derive(Default)]
pub(super) struct Bundle {
    bytes: Vec<u8>,
    logs: Vec<Log>,
}

#[derive(Serialize)]
struct Index {
    v: u32,
    logs: Vec<Log>,
}

#[derive(Serialize)]
struct Log {
    job: u64,
    ordinal: u32,
    attempt: u32,
    stream: &'static str,
    offset: u64,
    length: u64,
}

impl Bundle {
    /// Appends one stream of one attempt.
    pub fn add(&mut self, key: &AttemptKey, stream: &'static str, body: &[u8]) {
        let (offset, length) = (self.bytes.len() as u64, body.len() as u64);
        let AttemptKey { job_id: job, ordinal, attempt } = *key;
        self.logs.push(Log { job, ordinal, attempt, stream, offset, length });
        self.bytes.extend_from_slice(body);
    }

    /// The object.
    pub fn finish(self) -> Vec<u8> {
        let index = serde_json::to_vec(&Index { v: 1, logs: self.logs }).expect("numbers and plain words");
        let mut bytes = self.bytes;
        bytes.extend_from_slice(&index);
        bytes.extend_from_slice(&(index.len() as u64).to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_bundle_can_be_read_from_its_end() {
        let mut bundle = Bundle::default();
        bundle.add(&AttemptKey { job_id: 1, ordinal: 0, attempt: 1 }, "stdout", b"hello world\n");
        bundle.add(&AttemptKey { job_id: 1, ordinal: 7, attempt: 2 }, "stderr", b"oh\n");
        let bytes = bundle.finish();
        let (rest, length) = bytes.split_last_chunk::<8>().unwrap();
        let (bodies, index) = rest.split_at(rest.len() - u64::from_le_bytes(*length) as usize);
        assert_eq!(bodies, b"hello world\noh\n");
        assert_eq!(
            std::str::from_utf8(index).unwrap(),
            r#"{"v":1,"logs":[{"job":1,"ordinal":0,"attempt":1,"stream":"stdout","offset":0,"length":12},{"job":1,"ordinal":7,"attempt":2,"stream":"stderr","offset":12,"length":3}]}"#
        );
    }
}
