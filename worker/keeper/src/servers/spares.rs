//! Processes of fork servers: as spares, and as tasks.

use std::{
    io::{self, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use bytes::Bytes;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg};

use crate::{process::Reaped, protocol::Spawn};

/// A spare reads what it becomes at once, or something is wrong with it.
const PATIENCE_FOR_READER: Duration = Duration::from_secs(5);

/// A process that waits to become a task's.
#[derive(Debug)]
pub(crate) struct Spare {
    pub pid: i32,
    server: Bytes,
    /// Of the tasks that it had; empty: none yet, or none that may be followed by another.
    pub group: Bytes,
    stream: UnixStream,
    /// When it began to wait.
    pub since_ms: u64,
}

/// A spare that became a task's process. When that task has succeeded and left nothing behind, it may say so: cpu
/// time in milliseconds and the highest memory in KiB that the task used, each a number of four bytes.
#[derive(Debug)]
pub(crate) struct Lent(Spare);

/// Asks a server for a spare; the stream on which that will speak.
pub(super) fn ask(control: &UnixStream) -> io::Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_read_timeout(Some(PATIENCE_FOR_READER))?;
    ours.set_write_timeout(Some(PATIENCE_FOR_READER))?;
    let descriptors = [theirs.as_fd()];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(control, &[io::IoSlice::new(b"f")], &mut ancillary, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
    Ok(ours)
}

impl Spare {
    pub fn new(pid: i32, server: Bytes, stream: UnixStream, since_ms: u64) -> Self {
        Self { pid, server, group: Bytes::new(), stream, since_ms }
    }

    /// Whether it had no task yet.
    pub fn is_new(&self) -> bool {
        self.group.is_empty()
    }

    /// Makes it the process that was ordered.
    pub fn become_task(mut self, spawn: &Spawn) -> Result<Lent, Self> {
        let paths = [&spawn.directory, &spawn.stdout_path, &spawn.stderr_path];
        let strings = paths.into_iter().map(|path| path.as_bytes()).chain(spawn.env.iter().map(|entry| &entry[..]));
        let mut request = (3 + spawn.env.len() as u32).to_le_bytes().to_vec();
        for string in strings {
            request.extend_from_slice(&(string.len() as u32).to_le_bytes());
            request.extend_from_slice(string);
        }
        match self.stream.write_all(&request) {
            Ok(()) => Ok(Lent(Self { group: spawn.group.clone(), ..self })),
            Err(_) => Err(self),
        }
    }
}

impl Lent {
    pub fn pid(&self) -> i32 {
        self.0.pid
    }

    pub fn server(&self) -> &Bytes {
        &self.0.server
    }

    /// Readable when it has something to say, or will say nothing more.
    pub fn stream(&self) -> BorrowedFd<'_> {
        self.0.stream.as_fd()
    }

    /// What its task has used, once it says that this is over.
    pub fn hear(&self) -> Option<Reaped> {
        let mut said = [0; 8];
        // Eight bytes that are written at once arrive at once; anything else is not what was agreed.
        let (length, _) = recv(&self.0.stream, &mut said[..], RecvFlags::DONTWAIT).ok()?;
        let [a, b, c, d, e, f, g, h] = said;
        let (cpu_ms, memory_kib) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        let used = Reaped { exit_code: 0, signal: 0, cpu_ms: cpu_ms.into(), max_memory_kib: memory_kib.into() };
        (length == said.len()).then_some(used)
    }

    /// Whether another task may follow.
    pub fn may_return(&self) -> bool {
        !self.0.group.is_empty()
    }

    /// It waits for its next task.
    pub fn back(self, now_ms: u64) -> Spare {
        Spare { since_ms: now_ms, ..self.0 }
    }
}
