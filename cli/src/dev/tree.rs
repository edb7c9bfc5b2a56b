//! The processes of a worker: its agent, its keeper, and all that the tasks made of themselves.

use std::{
    collections::BTreeSet,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use super::process::{self, ProcessId, Stat};

const POLL: Duration = Duration::from_millis(10);

/// The keeper of the worker whose state directory this is.
pub fn keeper(disk: &Path) -> Option<ProcessId> {
    let text = std::fs::read_to_string(disk.join("keeper.pid")).ok()?;
    let id = ProcessId::of(text.trim().parse().ok()?)?;
    is_keeper(&id.stat()?, disk).then_some(id)
}

/// A worker: its agent, if one was started, and its state directory.
#[derive(Debug, Clone)]
pub struct Worker {
    pub agent: Option<ProcessId>,
    pub disk: PathBuf,
}

/// Every process of these workers that lives now.
pub fn of_workers(workers: &[Worker]) -> Vec<ProcessId> {
    if workers.is_empty() {
        return Vec::new();
    }
    let all = process::all();
    let mut found: BTreeSet<i32> = BTreeSet::new();
    for worker in workers {
        found.extend(worker.agent.iter().filter(|agent| agent.is_alive()).map(|agent| agent.pid));
        found.extend(all.iter().filter(|stat| is_keeper(stat, &worker.disk)).map(|stat| stat.pid));
    }
    // In their sessions, and the children of all these, however deep.
    add_descendants(&all, &mut found);
    // What left both was still started as a task of such a worker.
    let markers: Vec<Vec<u8>> = workers.iter().map(|worker| scratch_marker(&worker.disk)).collect();
    let escaped = all.iter().filter(|stat| !found.contains(&stat.pid) && has_entry(&stat.environment(), &markers));
    let escaped: Vec<i32> = escaped.map(|stat| stat.pid).collect();
    if !escaped.is_empty() {
        found.extend(escaped);
        add_descendants(&all, &mut found);
    }
    // A task may have called us.
    found.remove(&(std::process::id() as i32));
    all.iter().filter(|stat| found.contains(&stat.pid)).map(Stat::id).collect()
}

fn add_descendants(all: &[Stat], found: &mut BTreeSet<i32>) {
    loop {
        let before = found.len();
        let more = all.iter().filter(|stat| found.contains(&stat.parent) || found.contains(&stat.session));
        found.extend(more.map(|stat| stat.pid).collect::<Vec<_>>());
        if found.len() == before {
            return;
        }
    }
}

/// Kills all of `find`'s processes, and those that they made meanwhile; what is left after `patience`.
pub async fn kill_all(find: impl Fn() -> Vec<ProcessId>, patience: Duration) -> Vec<ProcessId> {
    signal_until(find, Signal::KILL, |_| false, patience).await
}

/// Stops all of `find`'s processes, so that none can make another; what still runs after `patience`.
pub async fn stop_all(find: impl Fn() -> Vec<ProcessId>, patience: Duration) -> Vec<ProcessId> {
    signal_until(find, Signal::STOP, |stat| matches!(stat.state, 'T' | 't'), patience).await
}

/// Continues all of them: parents last, so that they find their children running.
pub fn resume_all(processes: &[ProcessId]) {
    for process in processes.iter().rev() {
        process.signal(Signal::CONT);
    }
}

async fn signal_until(
    find: impl Fn() -> Vec<ProcessId>,
    signal: Signal,
    done: impl Fn(&Stat) -> bool,
    patience: Duration,
) -> Vec<ProcessId> {
    let until = Instant::now() + patience;
    let mut signalled = Vec::new();
    loop {
        let mut left = find();
        left.retain(|process| process.stat().is_some_and(|stat| !done(&stat)));
        if left.is_empty() || Instant::now() > until {
            return left;
        }
        for process in left {
            // Once is enough; a process that is killed may take a while to go.
            if !signalled.contains(&process) {
                process.signal(signal);
                signalled.push(process);
            }
        }
        sleep(POLL).await;
    }
}

/// Keepers are started as `millgrid-worker keeper --dir DISK`; their guardians are forks of them.
fn is_keeper(stat: &Stat, disk: &Path) -> bool {
    let arguments = stat.arguments();
    let words: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
    matches!(&words[..], [_, b"keeper", b"--dir", dir, ..] if *dir == disk.as_os_str().as_bytes())
}

/// What the environment of every task of the worker holds.
fn scratch_marker(disk: &Path) -> Vec<u8> {
    [b"MILLGRID_SCRATCH=", disk.as_os_str().as_bytes(), b"/"].concat()
}

fn has_entry(environment: &[u8], markers: &[Vec<u8>]) -> bool {
    environment.split(|byte| *byte == 0).any(|entry| markers.iter().any(|marker| entry.starts_with(marker)))
}
