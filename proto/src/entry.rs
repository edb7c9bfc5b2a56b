//! The bytes of a log entry: one byte of version, then an encoded [`Entry`].

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use crate::internal::Entry;

/// Version of the format that this release writes, and the only one it reads.
pub const VERSION: u8 = 1;

/// An entry never exceeds this many bytes, so that one command can't delay heartbeats.
pub const MAX_BYTES: usize = 1 << 20;

/// Why an entry can't be read. A replica that meets one stops: skipping would part it from the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    /// Written by a release with another format.
    Version(u8),
    /// Not an entry at all.
    Malformed,
    /// A command or a field that this release doesn't know.
    Unknown,
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Version(version) => write!(f, "entry of format {version}, but this release reads {VERSION} alone"),
            Self::Malformed => write!(f, "entry that can't be decoded"),
            Self::Unknown => write!(f, "entry with a command or a field that this release doesn't know"),
        }
    }
}

impl std::error::Error for Unreadable {}

/// The bytes to propose.
pub fn encode(entry: &Entry) -> Bytes {
    let mut bytes = BytesMut::with_capacity(1 + entry.encoded_len());
    bytes.put_u8(VERSION);
    entry.encode(&mut bytes).expect("a BytesMut grows");
    bytes.freeze()
}

/// Reads an entry, strictly.
pub fn decode(bytes: &Bytes) -> Result<Entry, Unreadable> {
    match bytes.first() {
        None => return Err(Unreadable::Malformed),
        Some(&VERSION) => {}
        Some(&version) => return Err(Unreadable::Version(version)),
    }
    let body = bytes.slice(1..);
    let length = body.len();
    let entry = Entry::decode(body).map_err(|_| Unreadable::Malformed)?;
    // The decoder drops fields that it doesn't know, so that what it read is shorter than what was there.
    if entry.encoded_len() != length || entry.commands.iter().any(|one| one.command.is_none()) {
        return Err(Unreadable::Unknown);
    }
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::internal::{Command, Mark, PutBlob, command};

    fn entry() -> Entry {
        let put = command::Command::PutBlob(PutBlob { data: Bytes::from_static(b"rows") });
        let mark = command::Command::Mark(Mark::default());
        let commands = [put, mark].map(|command| Command { command: Some(command) }).to_vec();
        Entry { proposer: 1, sequence: 2, time_ms: 3, wall_ms: -4, commands }
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(decode(&encode(&entry())), Ok(entry()));
    }

    #[test]
    fn unknown_fields_and_versions_are_refused() {
        let mut bytes = encode(&entry()).to_vec();
        bytes.extend([0xf8, 0x07, 0x01]); // Field 127, a varint.
        assert_eq!(decode(&bytes.clone().into()), Err(Unreadable::Unknown));
        bytes[0] = 9;
        assert_eq!(decode(&bytes.into()), Err(Unreadable::Version(9)));
        let unknown_command = Entry { commands: vec![Command { command: None }], ..entry() };
        assert_eq!(decode(&encode(&unknown_command)), Err(Unreadable::Unknown));
        assert_eq!(decode(&Bytes::new()), Err(Unreadable::Malformed));
    }
}
