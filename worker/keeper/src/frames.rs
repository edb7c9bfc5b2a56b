//! Messages as bytes on a stream: each behind its length, four bytes little-endian.
//!
//! Pure: works on buffers, so that a blocking client and an asynchronous one share it.

use bytes::{Buf, BytesMut};
use prost::Message;

/// Longest message, bytes without its length. What is longer is refused by both sides.
pub const MAX_LEN: usize = 16 << 20;

const HEADER: usize = 4;

/// A message that is not sent, or bytes that are not a message. The connection is of no further use.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// Longer than [`MAX_LEN`].
    #[error("a frame of {0} bytes; at most {MAX_LEN} are allowed")]
    TooLong(usize),
    /// Not a message of the expected type.
    #[error("a frame that is no message: {0}")]
    Undecodable(#[from] prost::DecodeError),
}

/// Appends one framed message to `into`, which is unchanged on failure.
pub fn encode(message: &impl Message, into: &mut Vec<u8>) -> Result<(), Malformed> {
    let length = message.encoded_len();
    if length > MAX_LEN {
        return Err(Malformed::TooLong(length));
    }
    into.reserve(HEADER + length);
    into.extend_from_slice(&(length as u32).to_le_bytes());
    message.encode_raw(into);
    Ok(())
}

/// Received bytes, from which whole messages are taken.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: BytesMut,
}

impl Frames {
    /// Where received bytes are appended; for readers that fill a buffer themselves.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Takes the next whole message; `None` when more bytes are needed first.
    pub fn take<M: Message + Default>(&mut self) -> Result<Option<M>, Malformed> {
        let Some(header) = self.buffer.first_chunk::<HEADER>() else { return Ok(None) };
        let length = u32::from_le_bytes(*header) as usize;
        if length > MAX_LEN {
            return Err(Malformed::TooLong(length));
        }
        if self.buffer.len() < HEADER + length {
            return Ok(None);
        }
        self.buffer.advance(HEADER);
        Ok(Some(M::decode(self.buffer.split_to(length).freeze())?))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::protocol::{Forget, Key};

    fn forget(count: u64) -> Forget {
        Forget { keys: (0..count).map(|job_id| Key { job_id, ordinal: 7, attempt: 1 }).collect() }
    }

    #[test]
    fn messages_come_out_whole_whatever_the_pieces() {
        let messages = [forget(0), forget(3), forget(1000)];
        let mut bytes = Vec::new();
        messages.iter().for_each(|message| encode(message, &mut bytes).unwrap());
        for piece in [1, 3, 4096, bytes.len()] {
            let mut frames = Frames::default();
            let mut taken = Vec::new();
            for chunk in bytes.chunks(piece) {
                frames.buffer().extend_from_slice(chunk);
                while let Some(message) = frames.take::<Forget>().unwrap() {
                    taken.push(message);
                }
            }
            assert_eq!(taken, messages, "in pieces of {piece}");
        }
    }

    #[test]
    fn a_length_over_the_bound_is_refused_before_its_bytes_arrive() {
        let mut frames = Frames::default();
        frames.buffer().extend_from_slice(&(MAX_LEN as u32 + 1).to_le_bytes());
        assert!(matches!(frames.take::<Forget>(), Err(Malformed::TooLong(_))));
    }

    #[test]
    fn bytes_that_are_no_message_are_refused() {
        let mut frames = Frames::default();
        frames.buffer().extend_from_slice(&[2, 0, 0, 0, 0xff, 0xff]);
        assert!(matches!(frames.take::<Forget>(), Err(Malformed::Undecodable(_))));
    }
}
