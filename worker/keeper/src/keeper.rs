//! The main thread: the lock, the socket, the timers.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    sync::Arc,
    thread,
    time::Duration,
};

use bytes::BufMut;
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{FlockOperation, flock},
    time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime},
};

use crate::{
    Failure,
    board::Board,
    cgroup::Cgroups,
    clock::boottime_ms,
    descriptors,
    frames::Frames,
    guardian::Guardian,
    memory,
    protocol::{FromAgent, from_agent::Message},
    reaper, servers,
    shared::Shared,
    signals, socket,
    spawn::Stack,
    spawner,
    table::Table,
};

/// A predecessor's guardian holds the lock until the predecessor's tasks are dead.
const PATIENCE_FOR_LOCK: Duration = Duration::from_secs(3);
/// At its end the keeper waits so long for what it killed.
const PATIENCE_FOR_END_MS: u64 = 2_000;
/// Stack of a thread; none calls deep.
const STACK_LEN: usize = 128 << 10;
/// Read from the agent at once, bytes.
const CHUNK: usize = 64 << 10;
/// Spawning threads: one per processor up to this.
const MAX_SPAWNERS: usize = 8;

/// Keeps processes for whatever agent connects at `directory`, until asked to end by SIGTERM, SIGINT or a
/// `Shutdown`: then it kills them all.
///
/// Call it in a process of its own, with nothing else in it: it takes over signals and standard input, leaves
/// the caller's session, and ends the process when one of its threads panics. `directory` must exist.
pub fn run(directory: &Path) -> Result<(), Failure> {
    let lock = lock(directory)?;
    detach()?;
    let board = Board::new().map_err(Failure::system("map the board"))?;
    let guardian = Guardian::new(lock.as_raw_fd(), board).map_err(Failure::system("make a pipe"))?;
    let guardian_pid = guardian.start().map_err(Failure::system("start the guardian"))?;
    let cgroups = Cgroups::find();
    let shared = Arc::new(Shared::new(Table::new(board))?);
    signals::install(shared.wake_fd());
    let listener = socket::listen(directory).map_err(file(directory, "keeper.sock"))?;
    listener.set_nonblocking(true).map_err(file(directory, "keeper.sock"))?;

    let spawners = thread::available_parallelism().map_or(2, usize::from).clamp(2, MAX_SPAWNERS);
    for _ in 0..spawners {
        let (shared, cgroups) = (shared.clone(), cgroups.clone());
        let stack = Stack::new().map_err(Failure::system("map a stack"))?;
        start("spawner", move || spawner::run(&shared, board, cgroups.as_ref(), stack))?;
    }
    let reaped = shared.clone();
    start("reaper", move || {
        let failure = reaper::run(&reaped, &guardian, guardian_pid);
        assert!(reaped.lock().ending, "cannot wait for children: {failure}");
    })?;
    let served = shared.clone();
    let stack = Stack::new().map_err(Failure::system("map a stack"))?;
    start("fork-servers", move || servers::run(&served, stack))?;
    let watched = shared.clone();
    start("memory", move || memory::run(&watched))?;

    // Last, as the sign that the keeper is there.
    write_pid(directory)?;
    let result = Keeper { shared: &shared, listener, connection: None, timer: timer()?, due_ms: None }.serve();
    // The socket goes first, so that nobody connects to a keeper that is about to end.
    let _ = socket::remove(directory);
    let _ = fs::remove_file(directory.join("keeper.pid"));
    rustix::process::Pid::from_raw(guardian_pid)
        .map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
    result
}

struct Keeper<'a> {
    shared: &'a Shared,
    listener: UnixListener,
    connection: Option<Connection>,
    /// Of `CLOCK_BOOTTIME`, absolute.
    timer: OwnedFd,
    /// What the timer is set to.
    due_ms: Option<u64>,
}

struct Connection {
    stream: UnixStream,
    frames: Frames,
    /// Being sent; the first `sent` bytes are.
    sending: Vec<u8>,
    sent: usize,
}

impl Keeper<'_> {
    fn serve(&mut self) -> Result<(), Failure> {
        let mut end_by = None;
        loop {
            let now = boottime_ms();
            let due = {
                let mut table = self.shared.lock();
                table.on_time(now);
                // Their thread isn't woken each time that this changes.
                let servers_due = table.servers.next_due_ms();
                if servers_due.is_some_and(|due| due <= now) {
                    self.shared.wake_servers();
                }
                if signals::asked_to_end() && !table.ending {
                    table.end_all(now);
                }
                if table.ending {
                    let end_by = *end_by.get_or_insert(now + PATIENCE_FOR_END_MS);
                    if table.alive() == 0 || now >= end_by {
                        drop(table);
                        self.send();
                        return Ok(());
                    }
                }
                table.next_due_ms().into_iter().chain(end_by).chain(servers_due.filter(|due| *due > now)).min()
            };
            self.send();
            self.set_timer(due).map_err(Failure::system("set a timer"))?;
            self.wait().map_err(Failure::system("wait for events"))?;
        }
    }

    fn set_timer(&mut self, due_ms: Option<u64>) -> io::Result<()> {
        if self.due_ms == due_ms {
            return Ok(());
        }
        self.due_ms = due_ms;
        // Zero would disarm; and what lies centuries ahead is as good as never.
        let due_ms = due_ms.map_or(0, |due| due.clamp(1, u64::MAX >> 8));
        let due = Timespec { tv_sec: (due_ms / 1_000) as i64, tv_nsec: (due_ms % 1_000 * 1_000_000) as i64 };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: due };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &once)?;
        Ok(())
    }

    /// Waits for anything and takes what came in.
    fn wait(&mut self) -> io::Result<()> {
        let (wake, soon, lent) = (self.shared.wake_fd(), self.shared.soon_fd(), self.shared.lent_fd());
        let mut files = vec![
            PollFd::new(&wake, PollFlags::IN),
            PollFd::new(&self.timer, PollFlags::IN),
            PollFd::new(&self.listener, PollFlags::IN),
            PollFd::new(&soon, PollFlags::IN),
            PollFd::new(&lent, PollFlags::IN),
        ];
        if let Some(connection) = &self.connection {
            let writable = if connection.is_sending() { PollFlags::OUT } else { PollFlags::empty() };
            files.push(PollFd::new(&connection.stream, PollFlags::IN | writable));
        }
        match poll(&mut files, None) {
            Err(error) if error != rustix::io::Errno::INTR => return Err(error.into()),
            _ => {}
        }
        let came = |number: usize| files.get(number).is_some_and(|file| !file.revents().is_empty());
        let (woken, connecting, woken_soon, saying, talking) = (came(0), came(2), came(3), came(4), came(5));
        drop(files);
        if woken {
            self.shared.woken();
        }
        if woken_soon {
            self.shared.woken_soon();
        }
        if saying {
            self.hear_tasks();
        }
        if talking && self.listen().is_err() {
            self.disconnect();
        }
        if connecting && let Ok((stream, _)) = self.listener.accept() {
            self.connect(stream)?;
        }
        Ok(())
    }

    /// Hears what forked tasks say: that they are over.
    fn hear_tasks(&self) {
        let heard = self.shared.heard();
        let now = boottime_ms();
        let mut table = self.shared.lock();
        heard.into_iter().for_each(|pid| table.hear(pid, now));
        let orders = table.orders();
        drop(table);
        self.shared.wake_spawners(orders);
    }

    /// The newest connection is the agent; what an older one sent but was not read is lost, as it would be had
    /// it died earlier.
    fn connect(&mut self, stream: UnixStream) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        self.connection = Some(Connection { stream, frames: Frames::default(), sending: Vec::new(), sent: 0 });
        self.shared.lock().welcome();
        Ok(())
    }

    fn disconnect(&mut self) {
        self.connection = None;
        self.shared.lock().agent_lost();
    }

    /// Reads what is there, and does it. Fails when the connection is of no further use.
    fn listen(&mut self) -> io::Result<()> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        let mut chunk = [0; CHUNK];
        loop {
            match connection.stream.read(&mut chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => connection.frames.buffer().put_slice(&chunk[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            let now = boottime_ms();
            let mut table = self.shared.lock();
            while let Some(FromAgent { message }) = connection.frames.take().map_err(io::Error::other)? {
                match message {
                    Some(Message::SetSession(standing)) => table.set_session(&standing, now),
                    Some(Message::Spawn(spawn)) => table.order(spawn, now),
                    Some(Message::Withdraw(withdraw)) => table.withdraw(&withdraw),
                    Some(Message::Stop(stop)) => table.stop(&stop, now),
                    Some(Message::Forget(forget)) => table.forget(&forget.keys),
                    Some(Message::SetTimeLimit(limit)) => table.set_time_limit(&limit),
                    Some(Message::SetForkServer(definition)) => table.servers.set(definition, now),
                    Some(Message::Shutdown(_)) => table.end_all(now),
                    // Of an agent newer than this keeper.
                    None => {}
                }
            }
            let orders = table.orders();
            drop(table);
            self.shared.wake_spawners(orders);
        }
    }

    fn send(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        loop {
            if !connection.is_sending() {
                let mut emptied = std::mem::take(&mut connection.sending);
                emptied.clear();
                emptied.shrink_to(4 * CHUNK);
                let Some(unsent) = self.shared.lock().take_unsent(emptied) else { return self.disconnect() };
                (connection.sending, connection.sent) = (unsent, 0);
            }
            if !connection.is_sending() {
                return;
            }
            match connection.stream.write(&connection.sending[connection.sent..]) {
                Ok(length) => connection.sent += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.disconnect(),
            }
        }
    }
}

impl Connection {
    fn is_sending(&self) -> bool {
        self.sent < self.sending.len()
    }
}

/// Takes the directory, or says who has it.
fn lock(directory: &Path) -> Result<File, Failure> {
    let file_failure = || file(directory, "keeper.lock");
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(directory.join("keeper.lock"))
        .map_err(file_failure())?;
    let until = std::time::Instant::now() + PATIENCE_FOR_LOCK;
    loop {
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(lock),
            Err(rustix::io::Errno::WOULDBLOCK) if std::time::Instant::now() < until => {
                thread::sleep(Duration::from_millis(10));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(Failure::AlreadyRunning { directory: directory.to_owned() });
            }
            Err(error) => return Err(file_failure()(error.into())),
        }
    }
}

/// Leaves the agent's session, and gives away nothing that the agent had open: tasks would inherit it.
fn detach() -> Result<(), Failure> {
    let old = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        old(panic);
        // Half a keeper would be worse than none: the tasks die with it, and the agent starts another.
        std::process::abort();
    }));
    // Fails only when it leads a group already, which is as good.
    let _ = rustix::process::setsid();
    descriptors::empty_stdin().map_err(Failure::system("replace the standard input"))?;
    descriptors::keep_from_programs();
    Ok(())
}

fn timer() -> Result<OwnedFd, Failure> {
    timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)
        .map_err(Failure::system("make a timer"))
}

fn write_pid(directory: &Path) -> Result<(), Failure> {
    let new = directory.join("keeper.pid.new");
    fs::write(&new, format!("{}\n", std::process::id()))
        .and_then(|()| fs::rename(&new, directory.join("keeper.pid")))
        .map_err(file(directory, "keeper.pid"))
}

fn start<R>(name: &str, run: impl FnOnce() -> R + Send + 'static) -> Result<(), Failure> {
    let body = move || {
        run();
    };
    let thread = thread::Builder::new().name(name.into()).stack_size(STACK_LEN).spawn(body);
    thread.map(drop).map_err(Failure::system("start a thread"))
}

fn file(directory: &Path, name: &str) -> impl FnOnce(io::Error) -> Failure {
    let path = directory.join(name);
    move |source| Failure::File { path, source }
}
