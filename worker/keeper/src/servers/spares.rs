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
use rustix::{
    io::Errno,
    net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg},
};

use crate::{
    process::Reaped,
    protocol::{End, Spawn},
    spawn::{Step, explain},
};

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
    /// Cpu time of the tasks that it had.
    spent_ms: u64,
}

/// A spare that became a task's process.
#[derive(Debug)]
pub(crate) struct Lent {
    spare: Spare,
    /// The task's.
    directory: String,
}

/// What such a process says, in three numbers of four bytes: which of these it is, and what is named there.
pub(crate) enum Word {
    /// 0, cpu time in milliseconds, memory in KiB: its task has succeeded and left nothing behind.
    Over(Reaped),
    /// It can't become the task's, and ends, or ended before it could: 1, an error number, 0: it can't open what that writes to. 2, an error
    /// number, 0: it can't enter its directory.
    Unable(End, String),
    /// Nothing that was agreed, or that it will say nothing more.
    Nothing,
}

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
        Self { pid, server, group: Bytes::new(), stream, since_ms, spent_ms: 0 }
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
            Ok(()) => {
                let spare = Self { group: spawn.group.clone(), ..self };
                Ok(Lent { spare, directory: spawn.directory.clone() })
            }
            Err(_) => Err(self),
        }
    }
}

impl Lent {
    pub fn pid(&self) -> i32 {
        self.spare.pid
    }

    pub fn server(&self) -> &Bytes {
        &self.spare.server
    }

    /// Readable when it has something to say, or will say nothing more.
    pub fn stream(&self) -> BorrowedFd<'_> {
        self.spare.stream.as_fd()
    }

    /// What it says.
    pub fn hear(&self) -> Word {
        let mut said = [0; 12];
        // What is written at once arrives at once.
        let length = match recv(&self.spare.stream, &mut said[..], RecvFlags::DONTWAIT) {
            Ok((length, _)) => length,
            // What was written to it lies there unread.
            Err(Errno::CONNRESET) => {
                return Word::Unable(End::NotStarted, "its process ended before it had read what to do".into());
            }
            Err(_) => 0,
        };
        let number =
            |at: usize| said.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let unable = |step, errno: u32| {
            let (end, detail) = explain("", &self.directory, step, errno.cast_signed());
            Word::Unable(end, detail)
        };
        match (length, [number(0), number(4), number(8)]) {
            (12, [0, cpu_ms, kib]) => {
                Word::Over(Reaped { exit_code: 0, signal: 0, cpu_ms: cpu_ms.into(), max_memory_kib: kib.into() })
            }
            (12, [1, errno, _]) => unable(Step::Stdout, errno),
            (12, [2, errno, _]) => unable(Step::Directory, errno),
            _ => Word::Nothing,
        }
    }

    /// Whether another task may follow.
    pub fn may_return(&self) -> bool {
        !self.spare.group.is_empty()
    }

    /// What the tasks before this one have used of its process's cpu time.
    pub fn spent_ms(&self) -> u64 {
        self.spare.spent_ms
    }

    /// It waits for its next task.
    pub fn back(self, used: Reaped, now_ms: u64) -> Spare {
        Spare { since_ms: now_ms, spent_ms: self.spare.spent_ms + used.cpu_ms, ..self.spare }
    }
}
