//! What the keeper knows: the session, and every process from its order until its end is acknowledged.
//!
//! All methods are called under the one lock. A process id is in `pids` from the moment the process is made
//! until just before it is reaped, so what is signalled under the lock is never a stranger.

mod ahead;
mod ends;

use std::collections::{BTreeSet, HashMap, VecDeque};

use bytes::Bytes;
use prost::Message;

use crate::{
    board::{Board, PLACES},
    cgroup::Slot,
    clock::wall_ms,
    frames, process,
    protocol::{
        End, Exited, Expired, FromKeeper, Key, Process as Listed, SetSession, SetTimeLimit, Spawn, Started, Stop,
        Welcome, from_keeper::Message as ToAgent,
    },
    servers::Servers,
    spawn::Spawned,
};

/// Bytes of memos and ends kept for the agent; a welcome, which carries them all, must fit a frame.
const MAX_KEPT: usize = frames::MAX_LEN - (1 << 20);
/// Longest text about an end, bytes.
const MAX_DETAIL: usize = 512;
/// Unsent bytes at which an agent that doesn't read is given up; it learns everything anew when it returns.
const MAX_UNSENT: usize = 64 << 20;
/// What a listed process takes in a welcome beside its memo and its end's detail, at most.
const LISTED_LEN: usize = 128;

/// A process to be made, taken by a spawning thread.
pub(crate) struct Order {
    pub key: Key,
    pub spawn: Spawn,
    pub place: u32,
    /// For [`Table::end_making`].
    pub number: u64,
}

struct Process {
    session: u64,
    memo: Bytes,
    time_limit_ms: u64,
    grace_ms: u64,
    memory_mib: u64,
    start_time_ms: i64,
    start_boot_ms: u64,
    /// Why it was made to end; the first reason stays.
    reason: Option<End>,
    /// The strongest signal sent so far; 0: none.
    signal: i32,
    /// When its time limit, or its grace, is over.
    timer: Option<u64>,
    place: u32,
    phase: Phase,
}

enum Phase {
    /// Ordered for when that process has ended.
    After { process: Key, spawn: Spawn },
    /// Ordered.
    Waiting,
    /// A thread is making it.
    Starting,
    Running {
        pid: i32,
        /// It never became the program that was asked for.
        failure: Option<(End, String)>,
        slot: Option<Slot>,
    },
    /// Kept until the agent says that its end was acknowledged.
    Ended(Exited),
}

/// See the module.
pub(crate) struct Table {
    session: u64,
    connection: u64,
    deadline_ms: u64,
    /// The deadline passed and was acted on.
    expired: bool,
    /// The keeper ends; nothing is started any more.
    pub ending: bool,
    processes: HashMap<Key, Process>,
    pids: HashMap<i32, Key>,
    /// Programs that make processes, and the processes that aren't tasks yet.
    pub servers: Servers,
    /// What threads are making at this moment, by number; the children of these may not be entered yet.
    making: BTreeSet<u64>,
    /// Number of the newest of them.
    newest: u64,
    waiting: VecDeque<(Key, Spawn)>,
    /// Of a process that hasn't ended, those at [`Phase::After`] that wait for it.
    next: HashMap<Key, Vec<Key>>,
    timers: BTreeSet<(u64, Key)>,
    kept: usize,
    board: Board,
    free_places: Vec<u32>,
    used_places: u32,
    /// Framed messages for the agent; `None` when there is no agent.
    unsent: Option<Vec<u8>>,
}

impl Table {
    pub fn new(board: Board) -> Table {
        Table {
            session: 0,
            connection: 0,
            deadline_ms: 0,
            expired: false,
            ending: false,
            processes: HashMap::new(),
            pids: HashMap::new(),
            servers: Servers::default(),
            making: BTreeSet::new(),
            newest: 0,
            waiting: VecDeque::new(),
            next: HashMap::new(),
            timers: BTreeSet::new(),
            kept: 0,
            board,
            free_places: Vec::new(),
            used_places: 0,
            unsent: None,
        }
    }

    // What the agent asks.

    /// An agent connected: everything there is to know, and from now on all that happens.
    pub fn welcome(&mut self) {
        let processes = self.processes.iter().map(|(key, process)| process.listed(*key)).collect();
        self.unsent = Some(Vec::new());
        self.send(ToAgent::Welcome(Welcome {
            session: self.session,
            connection: self.connection,
            deadline_ms: self.deadline_ms,
            keeper_pid: std::process::id(),
            processes,
            follows: true,
        }));
    }

    /// The agent is gone.
    pub fn agent_lost(&mut self) {
        self.unsent = None;
    }

    /// Takes over the agent's standing; processes of another session than the new one are killed.
    pub fn set_session(&mut self, standing: &SetSession, now_ms: u64) {
        (self.session, self.connection) = (standing.session, standing.connection);
        self.deadline_ms = standing.deadline_ms;
        self.expired = false;
        let session = self.session;
        for key in self.keys(|process| session == 0 || process.session != session) {
            self.end(key, End::Expired, libc::SIGKILL, now_ms);
        }
    }

    /// Orders a process, for now or for when another has ended.
    pub fn order(&mut self, spawn: Spawn, now_ms: u64) {
        let Some(key) = spawn.key else { return };
        if let Some(process) = self.processes.get(&key) {
            let again = process.again(key);
            again.into_iter().for_each(|message| self.send(message));
            if spawn.after.is_none() {
                self.wait_no_more(key);
            }
            return;
        }
        let weight = LISTED_LEN + MAX_DETAIL + spawn.memo.len();
        if let Some(refusal) = self.refusal(&spawn, weight, now_ms) {
            self.send(ToAgent::Exited(Exited {
                key: Some(key),
                end: End::NotStarted.into(),
                detail: refusal.into(),
                ..Exited::default()
            }));
            return;
        }
        self.kept += weight;
        self.processes.insert(
            key,
            Process {
                session: spawn.session,
                memo: spawn.memo.clone(),
                time_limit_ms: spawn.time_limit_ms,
                grace_ms: spawn.grace_ms,
                memory_mib: spawn.memory_mib,
                start_time_ms: 0,
                start_boot_ms: 0,
                reason: None,
                signal: 0,
                timer: None,
                place: 0,
                phase: Phase::Waiting,
            },
        );
        match spawn.after {
            Some(process) if self.lives(&process) => self.wait_for(process, key, spawn),
            _ => self.waiting.push_back((key, spawn)),
        }
    }

    fn refusal(&self, spawn: &Spawn, weight: usize, now_ms: u64) -> Option<&'static str> {
        if self.ending {
            Some("the keeper is ending")
        } else if self.session == 0 || spawn.session != self.session {
            Some("not of the present session")
        } else if now_ms >= self.deadline_ms {
            Some("the session's deadline has passed")
        } else if self.kept + weight > MAX_KEPT {
            Some("too many processes whose ends were not acknowledged")
        } else {
            None
        }
    }

    /// Ends one process at the agent's word.
    pub fn stop(&mut self, stop: &Stop, now_ms: u64) {
        let Some(key) = stop.key else { return };
        let signal = if stop.immediately { libc::SIGKILL } else { libc::SIGTERM };
        self.end(key, End::Stopped, signal, now_ms);
    }

    /// Changes how long a process may take; [`Table::on_time`] finds one that is over its new limit.
    pub fn set_time_limit(&mut self, limit: &SetTimeLimit) {
        let Some((key, process)) = limit.key.and_then(|key| Some((key, self.processes.get_mut(&key)?))) else { return };
        process.time_limit_ms = limit.time_limit_ms;
        // One that isn't made yet is given its limit then; of one that was told to end only the grace counts.
        let Phase::Running { failure: None, .. } = process.phase else { return };
        if process.signal != 0 {
            return;
        }
        let due = process.limit_due_ms();
        self.set_timer(key, due);
    }

    /// Drops acknowledged ends.
    pub fn forget(&mut self, keys: &[Key]) {
        for key in keys {
            if let Some(Process { phase: Phase::Ended(_), memo, .. }) = self.processes.get(key) {
                self.kept -= LISTED_LEN + MAX_DETAIL + memo.len();
                self.processes.remove(key);
            }
        }
    }

    /// Kills everything and starts nothing more.
    pub fn end_all(&mut self, now_ms: u64) {
        self.ending = true;
        for key in self.keys(|_| true) {
            self.end(key, End::Stopped, libc::SIGKILL, now_ms);
        }
    }

    // What the threads do.

    /// How many processes wait for a spawning thread.
    pub fn orders(&self) -> usize {
        self.waiting.len()
    }

    /// The next process to make.
    pub fn next_order(&mut self, now_ms: u64) -> Option<Order> {
        loop {
            let (key, spawn) = self.waiting.pop_front()?;
            // Stopped meanwhile, or even forgotten.
            if !matches!(self.processes.get(&key), Some(Process { phase: Phase::Waiting, .. })) {
                continue;
            }
            if now_ms >= self.deadline_ms {
                self.finish(key, Exited { end: End::Expired.into(), ..Exited::default() });
                continue;
            }
            let Some(place) = self.take_place() else {
                let detail = "too many processes at once".into();
                self.finish(key, Exited { end: End::NotStarted.into(), detail, ..Exited::default() });
                continue;
            };
            let process = self.processes.get_mut(&key)?;
            process.phase = Phase::Starting;
            process.place = place;
            process.start_time_ms = wall_ms();
            process.start_boot_ms = now_ms;
            let number = self.begin_making();
            return Some(Order { key, spawn, place, number });
        }
    }

    /// A thread begins to make a process; the number for [`Self::end_making`].
    pub fn begin_making(&mut self) -> u64 {
        self.newest += 1;
        self.making.insert(self.newest);
        self.newest
    }

    /// It was made and entered, or there is none.
    pub fn end_making(&mut self, number: u64) {
        self.making.remove(&number);
    }

    /// Number of the newest process that a thread began to make.
    pub fn newest_making(&self) -> u64 {
        self.newest
    }

    /// There is no process: nothing to reap.
    pub fn not_made(&mut self, key: Key, end: End, detail: String) {
        if let Some(place) = self.processes.get(&key).map(|process| process.place) {
            self.free_place(place);
            // Its end may have been asked for while it was tried; the reason it failed is the better answer.
            self.finish(key, Exited { end: end.into(), detail, ..Exited::default() });
        }
    }

    /// The process was made; it may have ended already.
    pub fn made(&mut self, key: Key, spawned: Spawned, slot: Option<Slot>, now_ms: u64) {
        let Some(process) = self.processes.get_mut(&key) else { return };
        let pid = spawned.pid;
        let started = spawned.failure.is_none();
        process.phase = Phase::Running { pid, failure: spawned.failure, slot };
        self.pids.insert(pid, key);
        if !started {
            return;
        }
        let start_time_ms = process.start_time_ms;
        let due = process.limit_due_ms();
        self.set_timer(key, due);
        self.send(ToAgent::Started(Started { key: Some(key), pid: pid as u32, start_time_ms }));
        // What was asked while it was made.
        if let Some(process) = self.processes.get_mut(&key)
            && let (Some(reason), signal) = (process.reason.take(), process.signal)
        {
            process.signal = 0;
            self.end(key, reason, signal, now_ms);
        }
    }

    /// Whether this child is entered, or never will be: nothing of up to number `newest` is being made any more.
    pub fn knows(&self, pid: i32, newest: u64) -> bool {
        self.pids.contains_key(&pid)
            || self.servers.knows(pid)
            || self.making.first().is_none_or(|oldest| *oldest > newest)
    }

    /// Main process, key and limit of those whose memory has to be watched.
    pub fn watched(&self) -> Vec<(i32, Key, u64)> {
        let limited = |(pid, key): (&i32, &Key)| match self.processes.get(key)? {
            Process { memory_mib, phase: Phase::Running { slot: None, .. }, .. } if *memory_mib > 0 => {
                Some((*pid, *key, *memory_mib))
            }
            _ => None,
        };
        self.pids.iter().filter_map(limited).collect()
    }

    /// The process used more memory than it asked for, if `pid` is still it.
    pub fn out_of_memory(&mut self, pid: i32, key: Key, now_ms: u64) {
        if self.pids.get(&pid) == Some(&key) {
            self.end(key, End::OutOfMemory, libc::SIGKILL, now_ms);
        }
    }

    // Time.

    /// When [`Table::on_time`] has something to do, by `CLOCK_BOOTTIME`.
    pub fn next_due_ms(&self) -> Option<u64> {
        let deadline = (self.session != 0 && !self.expired).then_some(self.deadline_ms);
        let timer = self.timers.first().map(|(due, _)| *due);
        deadline.into_iter().chain(timer).min()
    }

    /// Does what is due: the session's deadline, time limits, graces.
    pub fn on_time(&mut self, now_ms: u64) {
        if self.session != 0 && !self.expired && now_ms >= self.deadline_ms {
            self.expired = true;
            self.send(ToAgent::Expired(Expired {}));
            for key in self.keys(|_| true) {
                self.end(key, End::Expired, libc::SIGKILL, now_ms);
            }
        }
        while let Some((due, key)) = self.timers.first().copied()
            && due <= now_ms
        {
            self.timers.pop_first();
            let Some(process) = self.processes.get_mut(&key) else { continue };
            process.timer = None;
            let signal = if process.signal == 0 { libc::SIGTERM } else { libc::SIGKILL };
            self.end(key, End::TimeLimit, signal, now_ms);
        }
    }

    // What is to be sent.

    /// Takes the framed messages for the agent; `None` when it has to be given up.
    pub fn take_unsent(&mut self, emptied: Vec<u8>) -> Option<Vec<u8>> {
        match &mut self.unsent {
            Some(unsent) if unsent.len() <= MAX_UNSENT => Some(std::mem::replace(unsent, emptied)),
            _ => None,
        }
    }

    /// Whether there is something for [`Table::take_unsent`].
    pub fn has_unsent(&self) -> bool {
        self.unsent.as_ref().is_some_and(|unsent| !unsent.is_empty())
    }

    /// How many processes live.
    pub fn alive(&self) -> usize {
        self.pids.len() + self.keys(|process| matches!(process.phase, Phase::Starting)).len()
    }

    fn keys(&self, of: impl Fn(&Process) -> bool) -> Vec<Key> {
        let wanted = |process: &Process| !matches!(process.phase, Phase::Ended(_)) && of(process);
        self.processes.iter().filter(|(_, process)| wanted(process)).map(|(key, _)| *key).collect()
    }

    fn end(&mut self, key: Key, reason: End, signal: i32, now_ms: u64) {
        let Some(process) = self.processes.get_mut(&key) else { return };
        match process.phase {
            Phase::Ended(_) => {}
            Phase::After { .. } | Phase::Waiting => {
                self.finish(key, Exited { end: reason.into(), ..Exited::default() });
            }
            Phase::Starting => {
                process.reason.get_or_insert(reason);
                if process.signal != libc::SIGKILL {
                    process.signal = signal;
                }
            }
            Phase::Running { pid, .. } => {
                // What has ended by itself was not ended by us, and a signal can't change it.
                if process.signal == libc::SIGKILL || process.signal == signal || process::has_ended(pid) {
                    return;
                }
                process.reason.get_or_insert(reason);
                process.signal = signal;
                process::signal_group(pid, signal);
                if signal == libc::SIGTERM {
                    let due = now_ms + process.grace_ms;
                    self.set_timer(key, Some(due));
                }
            }
        }
    }

    fn set_timer(&mut self, key: Key, due: Option<u64>) {
        let Some(process) = self.processes.get_mut(&key) else { return };
        if let Some(old) = std::mem::replace(&mut process.timer, due) {
            self.timers.remove(&(old, key));
        }
        self.timers.extend(due.map(|due| (due, key)));
    }

    fn finish(&mut self, key: Key, mut exited: Exited) {
        let Some(process) = self.processes.get_mut(&key) else { return };
        exited.key = Some(key);
        if exited.end_time_ms == 0 {
            exited.end_time_ms = wall_ms();
        }
        if exited.detail.len() > MAX_DETAIL {
            exited.detail.truncate(exited.detail.floor_char_boundary(MAX_DETAIL));
        }
        let phase = std::mem::replace(&mut process.phase, Phase::Ended(exited.clone()));
        self.send(ToAgent::Exited(exited));
        self.over(key, &phase);
    }

    fn take_place(&mut self) -> Option<u32> {
        self.free_places.pop().or_else(|| {
            let place = self.used_places;
            ((place as usize) < PLACES).then(|| {
                self.used_places += 1;
                place
            })
        })
    }

    fn free_place(&mut self, place: u32) {
        self.board.clear(place);
        self.free_places.push(place);
    }

    fn send(&mut self, message: ToAgent) {
        if let Some(unsent) = &mut self.unsent {
            // The bounds on what is kept and on texts make every message fit a frame.
            let framed = frames::encode(&FromKeeper { message: Some(message) }, unsent);
            debug_assert!(framed.is_ok());
        }
    }
}

impl Process {
    /// When its time limit is over, if it has one.
    fn limit_due_ms(&self) -> Option<u64> {
        (self.time_limit_ms > 0).then(|| self.start_boot_ms.saturating_add(self.time_limit_ms))
    }

    fn listed(&self, key: Key) -> Listed {
        let mut listed =
            Listed { key: Some(key), memo: self.memo.clone(), start_time_ms: self.start_time_ms, ..Listed::default() };
        match &self.phase {
            Phase::After { process, .. } => listed.after = Some(*process),
            Phase::Waiting | Phase::Starting => {}
            Phase::Running { pid, .. } => listed.pid = *pid as u32,
            Phase::Ended(exited) => listed.exited = Some(exited.clone()),
        }
        debug_assert!(listed.encoded_len() <= LISTED_LEN + MAX_DETAIL + self.memo.len());
        listed
    }

    /// What an agent that repeats an order should hear again.
    fn again(&self, key: Key) -> Option<ToAgent> {
        match &self.phase {
            Phase::After { .. } | Phase::Waiting | Phase::Starting => None,
            Phase::Running { pid, .. } => {
                Some(ToAgent::Started(Started { key: Some(key), pid: *pid as u32, start_time_ms: self.start_time_ms }))
            }
            Phase::Ended(exited) => Some(ToAgent::Exited(exited.clone())),
        }
    }
}
