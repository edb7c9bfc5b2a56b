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
//! A process whose task has succeeded and left nothing behind may say so on its stream ([`Word::Over`]): then it is a
//! spare again, for tasks of the same group. There is one of each server that is used that had no task yet, made ahead:
//! no start waits for a fork. None is made while tasks follow one another in those that there are.

mod keeping;
mod spares;

pub(crate) use keeping::run;
pub(crate) use spares::{Lent, Spare, Word};

use std::{
    collections::HashMap,
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    clock::boottime_ms,
    process::{self, Reaped},
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
/// A spare is made when none was wanted for so long: the one that became a task may come back, and be wanted next.
const RETURN_MS: u64 = 10;
/// Of one server: as many as there are processors, but not more than this.
const MAX_SPARES: usize = 8;
/// One that nobody wants any more may take so long to end.
const PATIENCE_FOR_END_MS: u64 = 10_000;
/// Those that had tasks end when nobody wanted them for so long: they may have much in memory.
const IDLE_SPARE_MS: u64 = 10_000;

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
    Down { until_ms: u64 },
    /// Its program is being started by the servers' thread.
    Starting,
    Up {
        process: Process,
        control: UnixStream,
        /// Asked for.
        coming: Option<Coming>,
        /// The one that was busy last is at the end: what it needs is near its processor still.
        spares: Vec<Spare>,
        /// When there should be one again that had no task.
        wanted_ms: u64,
        warm: bool,
    },
}

/// The process of a server: killed when it is given up, unless it was reaped.
#[derive(Debug)]
struct Process {
    pid: i32,
    reaped: bool,
}

/// A spare that will say its id on this stream.
#[derive(Debug)]
struct Coming {
    stream: UnixStream,
    until_ms: u64,
}

/// All servers, and their processes. Under the table's lock.
#[derive(Debug, Default)]
pub(crate) struct Servers {
    all: HashMap<Bytes, Server>,
    /// Servers and spares that live, and those of them that were given up.
    pids: HashMap<i32, Bytes>,
    /// Spares that became tasks.
    lent: HashMap<i32, Lent>,
    /// Of those that won't come back: cpu time of the tasks before their last one.
    spent_ms: HashMap<i32, u64>,
    /// Those of `pids` that nobody wants any more, and when they are killed: they may run what users wrote.
    leaving: HashMap<i32, u64>,
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

fn max_spares() -> usize {
    static COUNT: LazyLock<usize> =
        LazyLock::new(|| thread::available_parallelism().map_or(2, usize::from).clamp(2, MAX_SPARES));
    *COUNT
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
    pub fn take_spare(&mut self, id: &Bytes, group: &Bytes, now_ms: u64) -> Offer {
        let Some(server) = self.all.get_mut(id) else { return Offer::None };
        (server.used_ms, server.wanted) = (now_ms, true);
        let State::Up { spares, wanted_ms, warm, .. } = &mut server.state else { return Offer::None };
        let of = |group: &[u8]| spares.iter().rposition(|spare| spare.group == group);
        let found = of(group).or_else(|| of(&[]));
        match found.map(|at| spares.remove(at)) {
            Some(spare) => {
                self.pids.remove(&spare.pid);
                *wanted_ms = now_ms + RETURN_MS;
                Offer::Spare(spare)
            }
            // The first takes as long as the program takes to load: nobody waits for that.
            None if !*warm => Offer::None,
            None => {
                *wanted_ms = now_ms;
                Offer::Soon
            }
        }
    }

    /// A spare that was taken and could not be used; it is not reaped yet.
    pub fn given_up(&mut self, spare: &Spare) {
        self.pids.insert(spare.pid, Bytes::new());
    }

    /// A spare became a task's process.
    pub fn lend(&mut self, lent: Lent) {
        self.lent.insert(lent.pid(), lent);
    }

    /// There is something to read on the stream of a spare that became a task's.
    pub fn hear(&self, pid: i32) -> Word {
        self.lent.get(&pid).map_or(Word::Nothing, Lent::hear)
    }

    /// The process of a task that is over is a spare again, if one is wanted; whether it is.
    pub fn take_back(&mut self, pid: i32, used: Reaped, now_ms: u64) -> bool {
        let Some(lent) = self.lent.remove(&pid) else { return false };
        let Some(server) = self.all.get_mut(lent.server()) else { return false };
        let State::Up { spares, .. } = &mut server.state else { return false };
        if !lent.may_return() {
            return false;
        }
        self.pids.insert(pid, lent.server().clone());
        spares.push(lent.back(used, now_ms));
        if spares.iter().filter(|spare| !spare.is_new()).count() > max_spares() {
            let longest = spares.iter().position(|spare| !spare.is_new());
            longest.map(|at| spares.remove(at));
        }
        true
    }

    /// It won't come back: it sees the end of its stream, if it still reads.
    pub fn let_go(&mut self, pid: i32) {
        if let Some(lent) = self.lent.remove(&pid) {
            self.spent_ms.insert(pid, lent.spent_ms());
        }
    }

    /// It is gone: what the tasks before its last one have used of its cpu time.
    pub fn gone(&mut self, pid: i32) -> u64 {
        self.let_go(pid);
        self.spent_ms.remove(&pid).unwrap_or(0)
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
        let State::Up { process, spares, .. } = &mut server.state else { return };
        if process.pid == pid {
            process.reaped = true;
            server.fail(now_ms);
        } else {
            spares.retain(|spare| spare.pid != pid);
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
                State::Up { coming: Some(Coming { until_ms, .. }), .. } if *until_ms <= now_ms => server.fail(now_ms),
                State::Up { coming, spares, wanted_ms, .. } => {
                    spares.retain(|spare| spare.is_new() || now_ms < spare.since_ms + IDLE_SPARE_MS);
                    if coming.is_none() && *wanted_ms <= now_ms && !spares.iter().any(Spare::is_new) {
                        deeds.push(Deed::Fork(id.clone()));
                    }
                }
                State::Down { .. } | State::Starting => {}
            }
        }
        self.end_leaving(now_ms);
        deeds
    }

    /// Ends what has seen the end of its stream and goes on nevertheless.
    fn end_leaving(&mut self, now_ms: u64) {
        let wanted = |server: &Server, pid: i32| match &server.state {
            State::Up { process, spares, .. } => process.pid == pid || spares.iter().any(|spare| spare.pid == pid),
            State::Down { .. } | State::Starting => false,
        };
        let (all, pids) = (&self.all, &self.pids);
        self.leaving.retain(|pid, _| pids.contains_key(pid));
        for (pid, _) in pids.iter().filter(|(pid, id)| !all.get(*id).is_some_and(|server| wanted(server, **pid))) {
            let due_ms = *self.leaving.entry(*pid).or_insert(now_ms + PATIENCE_FOR_END_MS);
            if due_ms <= now_ms {
                // Not reaped yet, or it wouldn't be known.
                process::signal_group(*pid, libc::SIGKILL);
                self.leaving.insert(*pid, u64::MAX);
            }
        }
    }

    /// When [`Self::deeds`] should be asked again at the latest.
    pub fn next_due_ms(&self) -> Option<u64> {
        let due = |server: &Server| match &server.state {
            State::Down { until_ms } => server.wanted.then_some(*until_ms),
            State::Starting => None,
            State::Up { coming: Some(Coming { until_ms, .. }), .. } => Some(*until_ms),
            State::Up { spares, wanted_ms, .. } => {
                let idle = spares.iter().filter(|spare| !spare.is_new()).map(|spare| spare.since_ms + IDLE_SPARE_MS);
                let wanted = (!spares.iter().any(Spare::is_new)).then_some(*wanted_ms);
                idle.chain(wanted).chain([server.used_ms + IDLE_MS]).min()
            }
        };
        self.all.values().filter_map(due).chain(self.leaving.values().copied().filter(|due| *due < u64::MAX)).min()
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
                server.state =
                    State::Up { process, control, coming: None, spares: Vec::new(), wanted_ms: now_ms, warm: false };
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
        let State::Up { control, coming: coming @ None, warm, .. } = &mut server.state else { return };
        let patience = if *warm { PATIENCE_FOR_FORK_MS } else { PATIENCE_FOR_START_MS };
        match spares::ask(control) {
            Ok(stream) => *coming = Some(Coming { stream, until_ms: now_ms + patience }),
            Err(_) => server.fail(now_ms),
        }
    }

    /// The streams on which spares will say their ids.
    pub fn coming(&self) -> Vec<(Bytes, OwnedFd)> {
        let stream = |(id, server): (&Bytes, &Server)| match &server.state {
            State::Up { coming: Some(Coming { stream, .. }), .. } => {
                Some((id.clone(), stream.as_fd().try_clone_to_owned().ok()?))
            }
            _ => None,
        };
        self.all.iter().filter_map(stream).collect()
    }

    /// There is something to read on such a stream.
    pub fn came(&mut self, id: &Bytes, now_ms: u64) {
        let Some(server) = self.all.get_mut(id) else { return };
        let State::Up { coming, spares, warm, .. } = &mut server.state else { return };
        let Some(Coming { mut stream, .. }) = coming.take() else { return };
        let mut pid = [0; 4];
        // Four bytes that are written at once arrive at once.
        let said = stream.read_exact(&mut pid).map(|()| i32::from_le_bytes(pid)).ok().filter(|pid| *pid > 1);
        match said {
            Some(pid) if self.strangers.contains(&pid) => self.strangers.retain(|stranger| *stranger != pid),
            Some(pid) => {
                self.pids.insert(pid, id.clone());
                spares.push(Spare::new(pid, id.clone(), stream, now_ms));
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

/// A spare for this order, if its server has one or will have one in a moment.
pub(crate) fn spare(shared: &Shared, spawn: &Spawn) -> Option<Spare> {
    if spawn.fork_server.is_empty() {
        return None;
    }
    let until = Instant::now() + PATIENCE_FOR_SPARE;
    let mut hurried = false;
    let mut table = shared.lock();
    let found = loop {
        match table.servers.take_spare(&spawn.fork_server, &spawn.group, boottime_ms()) {
            Offer::Spare(spare) => break Some(spare),
            Offer::None => break None,
            Offer::Soon => {
                if !std::mem::replace(&mut hurried, true) {
                    shared.wake_servers();
                }
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break None;
                }
                table = shared.forked.wait_timeout(table, left).expect("a panic ends the process").0;
            }
        }
    };
    drop(table);
    if found.is_none() {
        shared.wake_servers();
    }
    found
}
