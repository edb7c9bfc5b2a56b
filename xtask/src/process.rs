//! Running other programs, so that none outlives a Ctrl-C.

use std::{
    fs::File,
    io::{self, Read, Seek},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, ExitCode, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process_group};

/// How often a running program is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Whether the user asked to stop.
#[derive(Clone)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes over SIGINT and SIGTERM.
    pub fn register() -> io::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(&asked))?;
        signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&asked))?;
        Ok(Self(asked))
    }

    /// An error if the user asked to stop.
    pub fn check(&self) -> anyhow::Result<()> {
        if self.0.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        Ok(())
    }
}

/// Gives this process over to `command`.
pub fn replace(mut command: Command) -> anyhow::Result<ExitCode> {
    let error = command.exec();
    Err(error).with_context(|| format!("can't run {}", command.get_program().display()))
}

/// Runs with the caller's own output; whether it succeeded.
pub fn run(command: &mut Command, interrupt: &Interrupt) -> anyhow::Result<bool> {
    let group = Group::spawn(command.stdin(Stdio::null()))?;
    group.wait(interrupt, None).map(|ended| ended == Ended::Success)
}

/// What a program said, and its exit code if no signal ended it.
#[derive(Debug)]
pub struct Captured {
    /// None: a signal.
    pub code: Option<i32>,
    /// All of it.
    pub stdout: String,
    /// All of it.
    pub stderr: String,
}

impl Captured {
    /// Stdout as one document.
    pub fn json(&self) -> anyhow::Result<serde_json::Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("no JSON: {}", self.stdout))
    }
}

/// Runs with output and errors kept.
pub fn capture(command: &mut Command, interrupt: &Interrupt) -> anyhow::Result<Captured> {
    interrupt.check()?;
    let (mut stdout, mut stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    command.stdin(Stdio::null()).stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
    let mut group = Group::spawn(command)?;
    let code = group.status(interrupt, None)?.and_then(|status| status.code());
    let read = |file: &mut File| {
        let mut bytes = Vec::new();
        file.seek(io::SeekFrom::Start(0))?;
        file.read_to_end(&mut bytes)?;
        Ok::<_, io::Error>(String::from_utf8_lossy(&bytes).into_owned())
    };
    Ok(Captured { code, stdout: read(&mut stdout)?, stderr: read(&mut stderr)? })
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With exit code 0.
    Success,
    /// With another one, or by a signal.
    Failure,
    /// It ran longer than it may and was killed.
    TimeLimit,
}

/// Runs with output and errors in a file; what it wrote is returned.
pub fn run_into(
    command: &mut Command,
    log: &Path,
    limit: Duration,
    interrupt: &Interrupt,
) -> anyhow::Result<(Ended, String)> {
    let file = File::create(log).with_context(|| format!("can't write {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let ended = Group::spawn(command)?.wait(interrupt, Some(limit))?;
    let text = std::fs::read(log).with_context(|| format!("can't read {}", log.display()))?;
    Ok((ended, String::from_utf8_lossy(&text).into_owned()))
}

/// A program with a process group of its own, which is killed as a whole when this is dropped.
struct Group {
    child: Child,
    ended: bool,
}

impl Group {
    fn spawn(command: &mut Command) -> anyhow::Result<Self> {
        let program = command.get_program().to_owned();
        let child = command.process_group(0).spawn().with_context(|| format!("can't run {}", program.display()))?;
        Ok(Self { child, ended: false })
    }

    fn wait(mut self, interrupt: &Interrupt, limit: Option<Duration>) -> anyhow::Result<Ended> {
        Ok(match self.status(interrupt, limit)? {
            Some(status) if status.success() => Ended::Success,
            Some(_) => Ended::Failure,
            None => Ended::TimeLimit,
        })
    }

    /// None: it runs longer than it may.
    fn status(&mut self, interrupt: &Interrupt, limit: Option<Duration>) -> anyhow::Result<Option<ExitStatus>> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.ended = true;
                return Ok(Some(status));
            }
            interrupt.check()?;
            if limit.is_some_and(|limit| start.elapsed() > limit) {
                return Ok(None);
            }
            thread::sleep(LOOK);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // An error means that the group is gone already.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}
