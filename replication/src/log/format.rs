//! How a segment looks on the disk. All numbers are little-endian.
//!
//! ```text
//! head    128 bytes   magic 8 | version 4 | crc32c 4 | number 8 | first sequence 8 | member 8 | length 2 | cluster id 64 | 0
//! record  32 bytes    length 4 | crc32c 4 | sequence 8 | synced 8 | kind 4 | 0 4      then payload, then 0 up to 8 bytes
//! ```
//!
//! A record's checksum begins with its segment's number, so that no byte of another segment can pass for it, and
//! covers everything but itself. Records begin at multiples of 8.

use super::Owner;

pub(super) const HEADER_BYTES: usize = 128;
pub(super) const RECORD_BYTES: usize = 32;
pub(super) const CLUSTER_ID_BYTES: usize = 64;
const MAGIC: &[u8; 8] = b"MILLGLOG";
const VERSION: u32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `LogState`: first in a segment, and after a compaction.
    State = 1,
    /// `LogWrite`.
    Write = 2,
    /// Nothing but what its `synced` says.
    Mark = 3,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) number: u64,
    /// Of its first record: whatever the segment before holds from here on was never acknowledged.
    pub(super) first_sequence: u64,
    pub(super) owner: Owner,
}

pub(super) struct Record<'a> {
    pub(super) sequence: u64,
    pub(super) synced: u64,
    pub(super) kind: Kind,
    pub(super) payload: &'a [u8],
    /// Where the next one begins.
    pub(super) end: usize,
}

pub(super) fn segment_name(number: u64) -> String {
    format!("segment-{number:016x}.log")
}

pub(super) fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("segment-")?.strip_suffix(".log")?;
    let number = u64::from_str_radix(digits, 16).ok()?;
    (segment_name(number) == name).then_some(number)
}

/// Of the whole record, in bytes.
pub(super) fn record_length(payload: usize) -> u64 {
    (RECORD_BYTES + payload.next_multiple_of(8)) as u64
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let cluster = self.owner.cluster_id.as_bytes();
        let cluster = &cluster[..cluster.len().min(CLUSTER_ID_BYTES)];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.first_sequence.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.owner.member_id.to_le_bytes());
        bytes[40..42].copy_from_slice(&(cluster.len() as u16).to_le_bytes());
        bytes[42..42 + cluster.len()].copy_from_slice(cluster);
        let checksum = crc32c::crc32c(&bytes);
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Header> {
        let mut bytes: [u8; HEADER_BYTES] = bytes.get(..HEADER_BYTES)?.try_into().ok()?;
        let checksum = u32_at(&bytes, 12)?;
        bytes[12..16].fill(0);
        if &bytes[..8] != MAGIC || u32_at(&bytes, 8)? != VERSION || crc32c::crc32c(&bytes) != checksum {
            return None;
        }
        let length = usize::from(u16::from_le_bytes([bytes[40], bytes[41]]));
        let cluster_id = std::str::from_utf8(bytes.get(42..42 + length)?).ok()?.to_owned();
        let owner = Owner { cluster_id, member_id: u64_at(&bytes, 32)? };
        Some(Header { number: u64_at(&bytes, 16)?, first_sequence: u64_at(&bytes, 24)?, owner })
    }
}

pub(super) fn encode_record(segment: u64, sequence: u64, synced: u64, kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(record_length(payload.len()) as usize);
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&sequence.to_le_bytes());
    bytes.extend_from_slice(&synced.to_le_bytes());
    bytes.extend_from_slice(&(kind as u32).to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let checksum = record_checksum(segment, &bytes);
    bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// The record at `offset`, if there is a whole and undamaged one.
pub(super) fn decode_record(segment: u64, bytes: &[u8], offset: usize) -> Option<Record<'_>> {
    let head = bytes.get(offset..offset.checked_add(RECORD_BYTES)?)?;
    let kind = match u32_at(head, 24)? {
        1 => Kind::State,
        2 => Kind::Write,
        3 => Kind::Mark,
        _ => return None,
    };
    let length = u32_at(head, 0)? as usize;
    let end = offset.checked_add(RECORD_BYTES)?.checked_add(length.next_multiple_of(8))?;
    let whole = bytes.get(offset..end)?;
    if record_checksum(segment, whole) != u32_at(head, 4)? {
        return None;
    }
    let payload = &whole[RECORD_BYTES..RECORD_BYTES + length];
    Some(Record { sequence: u64_at(head, 8)?, synced: u64_at(head, 16)?, kind, payload, end })
}

fn record_checksum(segment: u64, record: &[u8]) -> u32 {
    let checksum = crc32c::crc32c(&segment.to_le_bytes());
    let checksum = crc32c::crc32c_append(checksum, &record[..4]);
    crc32c::crc32c_append(checksum, &record[8..])
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(offset..offset + 8)?.try_into().ok()?))
}
