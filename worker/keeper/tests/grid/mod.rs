//! A keeper in a directory of its own, and an agent connected to it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use worker_keeper::{
    Client, boottime_ms,
    protocol::{Exited, Key, SetSession, Spawn, Welcome, from_agent::Message, from_keeper},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// Ended with its tasks when dropped.
pub struct Keeper {
    directory: tempfile::TempDir,
    process: Child,
    client: Option<Client>,
}

impl Keeper {
    /// In session 1, with a far deadline, and connected.
    pub fn start() -> Keeper {
        let directory = tempfile::tempdir().unwrap();
        let process = launch(directory.path());
        let mut keeper = Keeper { directory, process, client: None };
        keeper.await_ready();
        keeper.connect();
        keeper.set_session(1, boottime_ms() + 600_000);
        keeper
    }

    /// Another process in the same directory.
    pub fn restart(&mut self) {
        self.client = None;
        self.process = launch(self.directory.path());
        self.await_ready();
    }

    fn await_ready(&self) {
        let mine = format!("{}\n", self.process.id());
        until("the keeper is there", || {
            fs::read_to_string(self.directory().join("keeper.pid")).is_ok_and(|pid| pid == mine)
        });
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn client(&mut self) -> &mut Client {
        self.client.as_mut().expect("connected")
    }

    pub fn connect(&mut self) -> Welcome {
        let (client, welcome) = Client::connect(self.directory()).unwrap();
        self.client = Some(client);
        welcome
    }

    /// The end of a process that is dead, and may not have been reaped yet.
    pub fn connect_and_find_ended(&mut self, key: Key) -> Exited {
        let known = self.connect().processes.into_iter().find(|process| process.key == Some(key)).unwrap();
        known.exited.unwrap_or_else(|| self.exited(key))
    }

    pub fn disconnect(&mut self) {
        self.client = None;
    }

    pub fn send(&mut self, messages: impl IntoIterator<Item = Message>) {
        self.client().send(messages).unwrap();
    }

    pub fn set_session(&mut self, session: u64, deadline_ms: u64) {
        self.send([Message::SetSession(SetSession { session, connection: 1, deadline_ms })]);
    }

    pub fn receive(&mut self) -> from_keeper::Message {
        self.client().receive(PATIENCE).unwrap().expect("a message in time")
    }

    /// Everything sent so far has been taken: the end of a process ordered behind it is there.
    pub fn settle(&mut self) {
        let last = spawn(self, u64::MAX, &["true"]);
        self.send([Message::Spawn(last)]);
        self.exited(key(u64::MAX));
        self.send([Message::Forget(worker_keeper::protocol::Forget { keys: vec![key(u64::MAX)] })]);
        let refused = Spawn { session: u64::MAX, ..spawn(self, u64::MAX, &["true"]) };
        self.send([Message::Spawn(refused)]);
        self.exited(key(u64::MAX));
    }

    pub fn started(&mut self, key: Key) -> u32 {
        loop {
            match self.receive() {
                from_keeper::Message::Started(started) if started.key == Some(key) => return started.pid,
                from_keeper::Message::Exited(exited) if exited.key == Some(key) => panic!("{exited:?}"),
                _ => {}
            }
        }
    }

    pub fn exited(&mut self, key: Key) -> Exited {
        loop {
            match self.receive() {
                from_keeper::Message::Exited(exited) if exited.key == Some(key) => return exited,
                _ => {}
            }
        }
    }

    /// A process that would run for ever.
    pub fn spawn_sleeping(&mut self, job: u64) -> u32 {
        let spawn = spawn(self, job, &["sleep", "1000"]);
        self.send([Message::Spawn(spawn)]);
        self.started(key(job))
    }

    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    pub fn terminate(&mut self) {
        self.signal(libc::SIGTERM);
    }

    pub fn signal(&self, signal: i32) {
        let pid = rustix::process::Pid::from_raw(self.process.id() as i32).unwrap();
        let signal = rustix::process::Signal::from_named_raw(signal).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub fn wait(&mut self) -> Option<i32> {
        self.process.wait().unwrap().code()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn launch(directory: &Path) -> Child {
    super::keeper_command(directory).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
}

pub fn key(job_id: u64) -> Key {
    Key { job_id, ordinal: 0, attempt: 1 }
}

/// A process of session 1 whose files are named for its job.
pub fn spawn(keeper: &Keeper, job: u64, argv: &[&str]) -> Spawn {
    let file = |name: &str| -> String {
        let path: PathBuf = keeper.directory().join(format!("{job}.{name}"));
        path.to_str().unwrap().into()
    };
    Spawn {
        key: Some(key(job)),
        session: 1,
        argv: argv.iter().map(|argument| argument.as_bytes().to_vec().into()).collect(),
        env: vec!["PATH=/usr/local/bin:/usr/bin:/bin".into(), "A=b c".into()],
        directory: keeper.directory().canonicalize().unwrap().to_str().unwrap().into(),
        stdout_path: file("stdout"),
        stderr_path: file("stderr"),
        grace_ms: 1_000,
        ..Spawn::default()
    }
}

/// Whether there is such a process, and it isn't just waiting to be reaped.
pub fn exists(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
        state != Some('Z') && state != Some('X')
    })
}

#[track_caller]
pub fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "not in time: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
