//! The end of a grid: everything gone, whatever state it was in.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use super::{
    context,
    failure::Failure,
    process::ProcessId,
    record::{Kind, Record},
    state::State,
    tree,
};

/// How long coordinators and the S3 endpoint may take to end by themselves.
const GRACE: Duration = Duration::from_millis(500);
/// After that, and after a SIGKILL, a process that is still there hangs in the kernel.
const PATIENCE: Duration = Duration::from_millis(1500);
const POLL: Duration = Duration::from_millis(5);

/// `dev down`: everything gone, and the program in the foreground too.
pub async fn down(state: &State) -> Result<(), Failure> {
    let record = state.started()?;
    everything(state, &record).await?;
    if let Some(foreground) = record.foreground.filter(|id| id.pid != std::process::id() as i32) {
        foreground.signal(Signal::TERM);
        let left = gone(vec![foreground], PATIENCE).await;
        refuse(&left)?;
    }
    if record.ephemeral {
        state.remove()?;
    }
    Ok(())
}

/// `dev reset`: down, and the state deleted.
pub async fn reset(state: &State) -> Result<(), Failure> {
    down(state).await?;
    let Some(_lock) = state.lock_if_there()? else { return Err(Failure::Busy(state.path().to_owned())) };
    if state.is_default() {
        context::remove()?;
    }
    state.remove()
}

/// Ends every process of the grid, tasks too, waits until they are gone, and writes down that it is stopped.
pub async fn everything(state: &State, record: &Record) -> Result<(), Failure> {
    let (workers, others): (Vec<_>, Vec<_>) =
        record.members().into_iter().partition(|member| member.kind == Kind::Worker);
    let others: Vec<ProcessId> = others
        .iter()
        .filter_map(|member| record.processes.get(&member.name))
        .filter(|id| id.is_alive())
        .cloned()
        .collect();
    let workers: Vec<tree::Worker> = workers
        .iter()
        .map(|member| tree::Worker {
            agent: record.processes.get(&member.name).cloned(),
            disk: state.disk(&member.name),
        })
        .collect();
    for process in &others {
        process.signal(Signal::TERM);
        // One that was paused hears it only now.
        process.signal(Signal::CONT);
    }
    let (left_of_workers, stubborn) =
        tokio::join!(tree::kill_all(|| tree::of_workers(&workers), PATIENCE), gone(others, GRACE));
    let left = tree::kill_all(|| stubborn.clone(), PATIENCE).await;
    refuse(&[left_of_workers, left].concat())?;
    state.change_record(|record| record.stopped = true).map(drop)
}

/// Waits until the processes are gone; those that aren't in time.
pub async fn gone(mut processes: Vec<ProcessId>, patience: Duration) -> Vec<ProcessId> {
    let until = Instant::now() + patience;
    loop {
        processes.retain(ProcessId::is_alive);
        if processes.is_empty() || Instant::now() > until {
            return processes;
        }
        sleep(POLL).await;
    }
}

fn refuse(left: &[ProcessId]) -> Result<(), Failure> {
    match left {
        [] => Ok(()),
        left => Err(Failure::Alive(left.iter().map(|id| id.pid.to_string()).collect::<Vec<_>>().join(", "))),
    }
}
