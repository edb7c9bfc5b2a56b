//! A blocking agent's end of the connection; for tests and tools.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use bytes::BufMut;

use crate::{
    frames::{self, Frames},
    protocol::{FromAgent, FromKeeper, Welcome, from_agent, from_keeper},
    socket,
};

/// A connection to a keeper.
pub struct Client {
    stream: UnixStream,
    frames: Frames,
}

impl Client {
    /// Connects and takes the keeper's welcome; earlier connections are closed by it.
    pub fn connect(directory: &Path) -> io::Result<(Client, Welcome)> {
        let mut client = Client { stream: socket::connect(directory)?, frames: Frames::default() };
        match client.receive(Duration::from_secs(10))? {
            Some(from_keeper::Message::Welcome(welcome)) => Ok((client, welcome)),
            other => Err(io::Error::other(format!("expected a welcome, got {other:?}"))),
        }
    }

    /// Sends messages in one write.
    pub fn send(&mut self, messages: impl IntoIterator<Item = from_agent::Message>) -> io::Result<()> {
        let mut bytes = Vec::new();
        for message in messages {
            frames::encode(&FromAgent { message: Some(message) }, &mut bytes).map_err(io::Error::other)?;
        }
        self.stream.write_all(&bytes)
    }

    /// The next message; `None` when there is none within `patience`. Fails with `UnexpectedEof` when the keeper
    /// closed the connection.
    pub fn receive(&mut self, patience: Duration) -> io::Result<Option<from_keeper::Message>> {
        let until = Instant::now() + patience;
        loop {
            if let Some(FromKeeper { message }) = self.frames.take().map_err(io::Error::other)? {
                return Ok(message);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut chunk = [0; 64 << 10];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.frames.buffer().put_slice(&chunk[..length]),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
