//! The agent's end of the keeper's socket.

use std::{
    fs::OpenOptions,
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use tokio::{
    io::Interest,
    net::UnixStream,
    time::{sleep, timeout},
};
use worker_core::{End, Exit, Key};
use worker_keeper::{
    frames::{self, Frames},
    protocol::{self, FromAgent, FromKeeper, Welcome, from_agent, from_keeper},
};

/// Between two looks for a keeper that was just started.
const RETRY: Duration = Duration::from_millis(10);
/// A keeper that didn't answer for so long is started again. Its predecessor may hold the lock a while.
const START_AGAIN: Duration = Duration::from_secs(5);
/// A keeper that doesn't greet in this time is no keeper.
const GREETING: Duration = Duration::from_secs(5);
const READ_BYTES: usize = 64 << 10;

/// A connection to the keeper. Messages are collected and go out together.
#[derive(Debug)]
pub struct Keeper {
    stream: UnixStream,
    frames: Frames,
    outgoing: Vec<u8>,
}

impl Keeper {
    /// Connects to the keeper of a state directory, and starts one when there is none.
    pub async fn find(state_dir: &Path) -> (Self, Welcome) {
        let mut started: Option<tokio::time::Instant> = None;
        loop {
            match Self::connect(state_dir).await {
                Ok(found) => return found,
                Err(error) => {
                    if started.is_none_or(|at| at.elapsed() > START_AGAIN) {
                        tracing::info!("starts a keeper: none answers ({error})");
                        started = Some(tokio::time::Instant::now());
                        if let Err(error) = start(state_dir) {
                            tracing::error!("can't start a keeper: {error}");
                        }
                    }
                    sleep(RETRY).await;
                }
            }
        }
    }

    async fn connect(state_dir: &Path) -> io::Result<(Self, Welcome)> {
        let stream = worker_keeper::connect(state_dir)?;
        stream.set_nonblocking(true)?;
        let stream = UnixStream::from_std(stream)?;
        let mut keeper = Self { stream, frames: Frames::default(), outgoing: Vec::new() };
        let greeting = timeout(GREETING, async {
            loop {
                if let Some(message) = keeper.take()? {
                    return Ok(message);
                }
                keeper.stream.readable().await?;
                keeper.read()?;
            }
        });
        match greeting.await {
            Ok(Ok(from_keeper::Message::Welcome(welcome))) => Ok((keeper, welcome)),
            Ok(Ok(_)) => Err(io::Error::other("it doesn't begin with a welcome")),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Waits until there is something to read, or room to write what waits.
    pub async fn ready(&self) -> io::Result<()> {
        let interest =
            if self.outgoing.is_empty() { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
        self.stream.ready(interest).await.map(|_| ())
    }

    /// Takes in what has arrived; `UnexpectedEof` when the keeper is gone.
    pub fn read(&mut self) -> io::Result<()> {
        loop {
            let buffer = self.frames.buffer();
            buffer.reserve(READ_BYTES);
            match self.stream.try_read_buf(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// The next whole message of what has arrived.
    pub fn take(&mut self) -> io::Result<Option<from_keeper::Message>> {
        loop {
            match self.frames.take::<FromKeeper>().map_err(io::Error::other)? {
                None => return Ok(None),
                Some(FromKeeper { message: Some(message) }) => return Ok(Some(message)),
                // A word of a newer release.
                Some(FromKeeper { message: None }) => {}
            }
        }
    }

    /// Adds a message to what goes out with the next [`Self::flush`].
    pub fn say(&mut self, message: from_agent::Message) {
        if let Err(error) = frames::encode(&FromAgent { message: Some(message) }, &mut self.outgoing) {
            // Only a command line or an environment of megabytes is too long, and those were refused before.
            tracing::error!("a message to the keeper can't be sent: {error}");
        }
    }

    /// Sends what waits, and reads until the keeper has closed the connection: it has nothing left, or is gone.
    pub async fn end(mut self) {
        while self.flush().is_ok() && self.ready().await.is_ok() && self.read().is_ok() {
            while let Ok(Some(_)) = self.take() {}
        }
    }

    /// Writes what fits; the rest when there is room.
    pub fn flush(&mut self) -> io::Result<()> {
        let mut written = 0;
        let result = loop {
            if written == self.outgoing.len() {
                break Ok(());
            }
            match self.stream.try_write(&self.outgoing[written..]) {
                Ok(length) => written += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.outgoing.drain(..written);
        result
    }
}

/// Starts a keeper that outlives this process: it leaves our session by itself.
fn start(state_dir: &Path) -> io::Result<()> {
    let log = OpenOptions::new().create(true).append(true).open(state_dir.join("keeper.log"))?;
    let mut child = Command::new(program()?)
        .arg("keeper")
        .arg("--dir")
        .arg(state_dir)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()?;
    // So that a keeper that dies leaves no zombie behind while this agent lives.
    std::thread::Builder::new().name("keeper-wait".to_owned()).spawn(move || child.wait())?;
    Ok(())
}

/// This very program, even when its file was replaced by a newer release meanwhile.
fn program() -> io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    Ok(if path.exists() { path } else { PathBuf::from("/proc/self/exe") })
}

/// The core's name of an attempt in the keeper's words.
pub fn key(key: Key) -> protocol::Key {
    protocol::Key { job_id: key.job, ordinal: key.ordinal, attempt: key.attempt }
}

/// The keeper's name of an attempt in the core's words.
pub fn core_key(key: Option<protocol::Key>) -> Option<Key> {
    key.map(|key| Key { job: key.job_id, ordinal: key.ordinal, attempt: key.attempt })
}

/// An end in the core's words; lengths and bundle of its logs aren't the keeper's to know.
pub fn exit(exited: protocol::Exited) -> Exit {
    let end = match exited.end() {
        protocol::End::ExitCode => End::ExitCode,
        protocol::End::Signal => End::Signal,
        protocol::End::TimeLimit => End::TimeLimit,
        protocol::End::OutOfMemory => End::OutOfMemory,
        protocol::End::CommandNotFound => End::CommandNotFound,
        protocol::End::CommandNotExecutable => End::CommandNotExecutable,
        protocol::End::Stopped => End::Stopped,
        protocol::End::Expired => End::Expired,
        protocol::End::NotStarted | protocol::End::Unspecified => End::NotStarted,
    };
    Exit {
        end,
        exit_code: exited.exit_code,
        signal: exited.signal,
        start_time_ms: exited.start_time_ms,
        end_time_ms: exited.end_time_ms,
        run_ms: exited.run_ms,
        cpu_ms: exited.cpu_ms,
        max_memory_kib: exited.max_memory_kib,
        detail: exited.detail,
        ..Default::default()
    }
}
