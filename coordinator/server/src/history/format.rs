//! A segment as a file.
//!
//! ```text
//! magic 8 | number 4 | bytes 4 | compressed bytes 4 | BLAKE3 of the bytes 32 | BLAKE3 of all before it, 4 | compressed
//! ```
//!
//! Numbers are little-endian. The bytes are the canonical, uncompressed ones; how they are compressed is this release's
//! own affair.

use bytes::Bytes;
use scheduler::Segment;

const MAGIC: &[u8; 8] = b"MILLGHIS";
const CHECKED: usize = 52;
/// A segment is never larger, whatever a file says.
const MOST_BYTES: u32 = 64 << 20;

/// What a segment has to be, as the replicated state has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// Uncompressed.
    pub bytes: u32,
    /// BLAKE3.
    pub checksum: [u8; 32],
}

impl From<&Segment> for Expected {
    fn from(segment: &Segment) -> Self {
        Self { bytes: segment.bytes, checksum: segment.checksum }
    }
}

impl Expected {
    /// What describes `data` alone.
    pub fn of(data: &[u8]) -> Self {
        // One that is longer than its number says fits nothing.
        Self { bytes: u32::try_from(data.len()).unwrap_or(u32::MAX), checksum: *blake3::hash(data).as_bytes() }
    }
}

/// What stands in front of the compressed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub number: u32,
    pub is: Expected,
    pub compressed: u32,
}

impl Header {
    pub const BYTES: usize = CHECKED + 4;

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::BYTES);
        bytes.extend_from_slice(MAGIC);
        for number in [self.number, self.is.bytes, self.compressed] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.is.checksum);
        let checksum = blake3::hash(&bytes);
        bytes.extend_from_slice(&checksum.as_bytes()[..Self::BYTES - bytes.len()]);
        bytes
    }

    /// The header at the beginning of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Header, &'static str> {
        let header = bytes.get(..Self::BYTES).ok_or("it is too short for a segment")?;
        let number = |at: usize| {
            let bytes = header[at..at + 4].try_into().expect("four bytes were taken");
            u32::from_le_bytes(bytes)
        };
        let checksum = header[20..CHECKED].try_into().expect("32 bytes were taken");
        let decoded =
            Header { number: number(8), is: Expected { bytes: number(12), checksum }, compressed: number(16) };
        // Whatever is in front of the checksum is checked by it, the magic too.
        if header != decoded.encode() {
            return Err("its header is damaged");
        }
        Ok(decoded)
    }
}

/// The file of a segment.
pub(super) fn encode(number: u32, data: &[u8]) -> Vec<u8> {
    let compressed = lz4_flex::block::compress(data);
    let header = Header { number, is: Expected::of(data), compressed: compressed.len() as u32 };
    let mut file = header.encode();
    file.extend_from_slice(&compressed);
    file
}

/// What a file says it is, verified down to the last byte.
pub(super) fn decode(file: &[u8]) -> Result<(Header, Bytes), &'static str> {
    let header = Header::decode(file)?;
    let compressed = &file[Header::BYTES..];
    if compressed.len() as u64 != u64::from(header.compressed) {
        return Err("its length is wrong");
    }
    if header.is.bytes > MOST_BYTES {
        return Err("it says that it is larger than a segment can be");
    }
    let data = lz4_flex::block::decompress(compressed, header.is.bytes as usize)
        .map_err(|_| "its content can't be expanded")?;
    if Expected::of(&data) != header.is {
        return Err("its content doesn't fit its checksum");
    }
    Ok((header, data.into()))
}

/// A header alone, for tests that lie in it.
#[cfg(test)]
pub(super) fn encode_header(number: u32, is: Expected, compressed: u32) -> Vec<u8> {
    Header { number, is, compressed }.encode()
}
