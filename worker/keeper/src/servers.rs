//! Fork servers: programs that are loaded once and then make a process for each task by forking.
//!
//! A server is started with one end of a socket as descriptor [`CONTROL`] and [`VARIABLE`] in its environment. For each
//! byte that comes with a descriptor on it, it makes a process with `CLONE_PARENT`: a child of the keeper, as if the
//! keeper had made it, so that reaping, killing and counting are the same. That process, the *spare*, leads a group of
//! its own, dies with its parent, and says its id on its descriptor, which is a stream: four bytes, little-endian. Then
//! it waits there. What comes next is what it becomes: a count, and so many byte strings behind their lengths, all
//! numbers of four bytes: directory, path of standard output, path of standard error, and the environment,
//! `NAME=value`. At the end of either stream the one who reads it has nothing more to do, and ends.
//!
//! There is one spare of each server that is used, made ahead: no start waits for a fork.

mod keeping;

pub(crate) use keeping::run;

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::{
    clock::boottime_ms,
    process,
    protocol::{SetForkServer, Spawn},
    shared::Shared,
};

/// Where a server finds its socket.
pub(crate) const CONTROL: i32 = 3;
/// In a server's environment: the number of that descriptor.
const VARIABLE: &str = "MILLGRID_FORK_SERVER";

/// Servers known at once; of more, the one used longest ago is forgotten.
const MAX_SERVERS: usize = 16;
/// A server that nobody used for so long is ended.
const IDLE_MS: u64 = 10 * 60_000;
/// One that ended is started again after so long...
const PAUSE_MS: u64 = 1_000;
/// ...but one that never made a process after so long.
const BACKOFF_MS: u64 = 60_000;
/// Loading its program may take so long.
const PATIENCE_FOR_START_MS: u64 = 60_000;
/// And one fork so long.
const PATIENCE_FOR_FORK_MS: u64 = 5_000;
/// A task's start waits so long for a fork that is under way; then it is made as any other.
const PATIENCE_FOR_SPARE: Duration = Duration::from_millis(250);
/// A spare reads what it becomes at once, or something is wrong with it.
const PATIENCE_FOR_READER: Duration = Duration::from_secs(5);

/// A process that waits to become a task's.
#[derive(Debug)]
pub(crate) struct Spare {
    pub pid: i32,
    stream: UnixStream,
}

/// What a spawning thread that wants a spare is told.
pub(crate) enum Offer {
    /// This one.
    Spare(Spare),
    /// One is being made.
    Soon,
    /// There is none to be had now.
    None,
}

/// What the servers' thread is to do next.
pub(crate) enum Deed {
    /// Start this server's program.
    Start(Bytes),
    /// Ask this server for a spare.
    Fork(Bytes),
}

#[derive(Debug)]
struct Server {
    definition: SetForkServer,
    state: State,
    /// Somebody wanted it since it was last started.
    wanted: bool,
    used_ms: u64,
}

#[derive(Debug)]
enum State {
    /// Not before this.
    Down {
        until_ms: u64,
    },
    /// Its program is being started by the servers' thread.
    Starting,
    Up {
        process: Process,
        control: UnixStream,
        next: Next,
        warm: bool,
    },
}

/// The process of a server: killed when it is given up, unless it was reaped.
#[derive(Debug)]
struct Process {
    pid: i32,
    reaped: bool,
}

/// The spare of a server.
#[derive(Debug)]
enum Next {
    None,
    /// Asked for; the stream on which it will say its id.
    Coming {
        stream: UnixStream,
        until_ms: u64,
    },
    Ready(Spare),
}

/// All servers, and their processes. Under the table's lock.
#[derive(Debug, Default)]
pub(crate) struct Servers {
    all: HashMap<Bytes, Server>,
    /// Servers and spares that live, and those of them that were given up.
    pids: HashMap<i32, Bytes>,
    /// Children that were reaped before anybody had said what they were; newest last.
    strangers: Vec<i32>,
}

/// Of [`Servers::strangers`].
const MAX_STRANGERS: usize = 64;

impl Drop for Process {
    fn drop(&mut self) {
        // One that hangs would not see that its stream has ended.
        if !self.reaped {
            process::signal_group(self.pid, libc::SIGKILL);
        }
    }
}

impl Servers {
    /// Takes note of a server; nothing is started before it is wanted.
    pub fn set(&mut self, definition: SetForkServer, now_ms: u64) {
        if self.all.contains_key(&definition.id) || definition.argv.is_empty() {
            return;
        }
        if self.all.len() >= MAX_SERVERS {
            let oldest = self.all.iter().min_by_key(|(_, server)| server.used_ms).map(|(id, _)| id.clone());
            oldest.map(|id| self.all.remove(&id));
        }
        let state = State::Down { until_ms: 0 };
        self.all.insert(definition.id.clone(), Server { definition, state, wanted: false, used_ms: now_ms });
    }

    /// A spare of this server, if there is one. Whoever gets one makes it a task's, or [`Self::given_up`].
    pub fn take_spare(&mut self, id: &Bytes, now_ms: u64) -> Offer {
        let Some(server) = self.all.get_mut(id) else { return Offer::None };
        (server.used_ms, server.wanted) = (now_ms, true);
        let State::Up { next, warm, .. } = &mut server.state else { return Offer::None };
        match std::mem::replace(next, Next::None) {
            Next::Ready(spare) => {
                self.pids.remove(&spare.pid);
                Offer::Spare(spare)
            }
            // The first takes as long as the program takes to load: nobody waits for that.
            other if *warm => {
                *next = other;
                Offer::Soon
            }
            other => {
                *next = other;
                Offer::None
            }
        }
    }

    /// A spare that was taken and could not be used; it is not reaped yet.
    pub fn given_up(&mut self, spare: &Spare) {
        self.pids.insert(spare.pid, Bytes::new());
    }

    /// Whether this child is a server or a spare.
    pub fn knows(&self, pid: i32) -> bool {
        self.pids.contains_key(&pid)
    }

    /// A child that is no task's was reaped.
    pub fn reaped(&mut self, pid: i32, now_ms: u64) {
        let Some(id) = self.pids.remove(&pid) else {
            if self.strangers.len() >= MAX_STRANGERS {
                self.strangers.remove(0);
            }
            return self.strangers.push(pid);
        };
        let Some(server) = self.all.get_mut(&id) else { return };
        let State::Up { process, next, .. } = &mut server.state else { return };
        if process.pid == pid {
            process.reaped = true;
            server.fail(now_ms);
        } else if matches!(next, Next::Ready(spare) if spare.pid == pid) {
            *next = Next::None;
        }
    }

    // What the servers' thread does.

    /// What has to be done now.
    pub fn deeds(&mut self, now_ms: u64) -> Vec<Deed> {
        let mut deeds = Vec::new();
        for (id, server) in &mut self.all {
            match &mut server.state {
                State::Down { until_ms } if server.wanted && *until_ms <= now_ms => {
                    server.state = State::Starting;
                    deeds.push(Deed::Start(id.clone()));
                }
                State::Up { .. } if server.used_ms + IDLE_MS <= now_ms => {
                    (server.state, server.wanted) = (State::Down { until_ms: 0 }, false);
                }
                State::Up { next: Next::None, .. } => deeds.push(Deed::Fork(id.clone())),
                State::Up { next: Next::Coming { until_ms, .. }, .. } if *until_ms <= now_ms => server.fail(now_ms),
                _ => {}
            }
        }
        deeds
    }

    /// When [`Self::deeds`] should be asked again at the latest.
    pub fn next_due_ms(&self) -> Option<u64> {
        let due = |server: &Server| match &server.state {
            State::Down { until_ms } => server.wanted.then_some(*until_ms),
            State::Starting => None,
            State::Up { next: Next::Coming { until_ms, .. }, .. } => Some(*until_ms),
            State::Up { .. } => Some(server.used_ms + IDLE_MS),
        };
        self.all.values().filter_map(due).min()
    }

    /// What a server is to be started with.
    pub fn definition(&self, id: &Bytes) -> Option<SetForkServer> {
        self.all.get(id).map(|server| server.definition.clone())
    }

    /// Its program was started, or could not be.
    pub fn started(&mut self, id: &Bytes, started: io::Result<(i32, UnixStream)>, now_ms: u64) {
        match (started, self.all.get_mut(id)) {
            (Ok((pid, control)), Some(server)) => {
                self.pids.insert(pid, id.clone());
                let process = Process { pid, reaped: false };
                server.state = State::Up { process, control, next: Next::None, warm: false };
            }
            // Forgotten meanwhile.
            (Ok((pid, _)), None) => {
                self.pids.insert(pid, Bytes::new());
                drop(Process { pid, reaped: false });
            }
            (Err(_), Some(server)) => server.fail(now_ms),
            (Err(_), None) => {}
        }
    }

    /// Asks for a spare.
    pub fn fork(&mut self, id: &Bytes, now_ms: u64) {
        let Some(server) = self.all.get_mut(id) else { return };
        let State::Up { control, next: next @ Next::None, warm, .. } = &mut server.state else { return };
        let patience = if *warm { PATIENCE_FOR_FORK_MS } else { PATIENCE_FOR_START_MS };
        match ask(control) {
            Ok(stream) => *next = Next::Coming { stream, until_ms: now_ms + patience },
            Err(_) => server.fail(now_ms),
        }
    }

    /// The streams on which spares will say their ids.
    pub fn coming(&self) -> Vec<(Bytes, OwnedFd)> {
        let stream = |(id, server): (&Bytes, &Server)| match &server.state {
            State::Up { next: Next::Coming { stream, .. }, .. } => {
                Some((id.clone(), stream.as_fd().try_clone_to_owned().ok()?))
            }
            _ => None,
        };
        self.all.iter().filter_map(stream).collect()
    }

    /// There is something to read on such a stream.
    pub fn came(&mut self, id: &Bytes, now_ms: u64) {
        let Some(server) = self.all.get_mut(id) else { return };
        let State::Up { next, warm, .. } = &mut server.state else { return };
        let Next::Coming { mut stream, .. } = std::mem::replace(next, Next::None) else { return };
        let mut pid = [0; 4];
        // Four bytes that are written at once arrive at once.
        let said = stream.read_exact(&mut pid).map(|()| i32::from_le_bytes(pid)).ok().filter(|pid| *pid > 1);
        match said {
            Some(pid) if self.strangers.contains(&pid) => self.strangers.retain(|stranger| *stranger != pid),
            Some(pid) => {
                self.pids.insert(pid, id.clone());
                *next = Next::Ready(Spare { pid, stream });
                *warm = true;
            }
            None => server.fail(now_ms),
        }
    }
}

impl Server {
    /// It is ended, and its spare ends, since its stream is closed.
    fn fail(&mut self, now_ms: u64) {
        // One that has made processes will do so again.
        let pause = if matches!(self.state, State::Up { warm: true, .. }) { PAUSE_MS } else { BACKOFF_MS };
        self.state = State::Down { until_ms: now_ms + pause };
    }
}

/// Asks a server for a spare; the stream on which that will speak.
fn ask(control: &UnixStream) -> io::Result<UnixStream> {
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
    /// Makes it the process that was ordered.
    pub fn become_task(&mut self, spawn: &Spawn) -> io::Result<()> {
        let paths = [&spawn.directory, &spawn.stdout_path, &spawn.stderr_path];
        let strings = paths.into_iter().map(|path| path.as_bytes()).chain(spawn.env.iter().map(|entry| &entry[..]));
        let mut request = (3 + spawn.env.len() as u32).to_le_bytes().to_vec();
        for string in strings {
            request.extend_from_slice(&(string.len() as u32).to_le_bytes());
            request.extend_from_slice(string);
        }
        self.stream.write_all(&request)
    }
}

/// A spare for this order, if its server has one or will have one in a moment.
pub(crate) fn spare(shared: &Shared, spawn: &Spawn) -> Option<Spare> {
    if spawn.fork_server.is_empty() {
        return None;
    }
    let until = Instant::now() + PATIENCE_FOR_SPARE;
    let mut table = shared.lock();
    let found = loop {
        match table.servers.take_spare(&spawn.fork_server, boottime_ms()) {
            Offer::Spare(spare) => break Some(spare),
            Offer::None => break None,
            Offer::Soon => {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break None;
                }
                table = shared.forked.wait_timeout(table, left).expect("a panic ends the process").0;
            }
        }
    };
    drop(table);
    shared.wake_servers();
    found
}
