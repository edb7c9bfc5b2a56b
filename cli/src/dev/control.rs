//! What is done to single processes.

use std::{path::PathBuf, time::Duration};

use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use super::{
    bootstrap::Members,
    failure::Failure,
    launch::{self, Started},
    process::ProcessId,
    record::{Kind, Member, Record, worker_of},
    start::listens,
    state::State,
    stop, tree,
};

const POLL: Duration = Duration::from_millis(5);
/// How long a process that was killed or stopped may take to be so.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long one that is restarted may take to end by itself: a leader hands over first.
const GRACE: Duration = Duration::from_secs(2);
/// How long a restarted process may take to listen.
const LISTENING: Duration = Duration::from_secs(20);
/// How long a leader is looked for.
const LEADER: Duration = Duration::from_secs(5);

/// A process that was named, and what of it is alive.
struct Target {
    member: Member,
    /// The process that stands for the name.
    main: Option<ProcessId>,
    disk: PathBuf,
}

impl Target {
    async fn find(state: &State, record: &Record, name: &str) -> Result<Self, Failure> {
        let name = if name == "leader" { leader(state, record).await? } else { name.to_owned() };
        let members = record.members();
        let Some(member) = members.iter().find(|member| member.name == name).cloned() else {
            let known = members.iter().map(|member| member.name.as_str()).collect::<Vec<_>>().join(", ");
            return Err(Failure::NoProcess { name, known });
        };
        let disk = state.disk(worker_of(&name));
        let main = match member.kind {
            Kind::Keeper => tree::keeper(&disk),
            _ => record.processes.get(&name).filter(|id| id.is_alive()).cloned(),
        };
        Ok(Self { member, main, disk })
    }

    /// All processes that the name stands for: of a worker, keeper and tasks too.
    fn processes(&self) -> Vec<ProcessId> {
        match self.member.kind {
            Kind::Worker => tree::of_workers(&[tree::Worker { agent: self.main.clone(), disk: self.disk.clone() }]),
            _ => self.main.iter().filter(|id| id.is_alive()).cloned().collect(),
        }
    }

    fn refuse_dead(&self) -> Result<(), Failure> {
        if self.processes().is_empty() { Err(Failure::Dead(self.member.name.clone())) } else { Ok(()) }
    }
}

/// SIGKILL; returns when the processes are gone.
pub async fn kill(state: &State, name: &str, agent_only: bool) -> Result<(), Failure> {
    let record = state.started()?;
    let target = Target::find(state, &record, name).await?;
    if agent_only && target.member.kind != Kind::Worker {
        return Err(Failure::NotWorker(target.member.name));
    }
    let find = || if agent_only { target.main.iter().cloned().collect() } else { target.processes() };
    if find().is_empty() {
        return Err(Failure::Dead(target.member.name.clone()));
    }
    if let (Kind::Worker, Some(agent)) = (target.member.kind, &target.main) {
        // First, or it would start another keeper.
        agent.signal(Signal::KILL);
    }
    done(&target, tree::kill_all(find, PATIENCE).await, "killed")
}

/// SIGSTOP; returns when nothing of it runs.
pub async fn pause(state: &State, name: &str) -> Result<(), Failure> {
    let record = state.started()?;
    let target = Target::find(state, &record, name).await?;
    target.refuse_dead()?;
    done(&target, tree::stop_all(|| target.processes(), PATIENCE).await, "paused")
}

/// SIGCONT.
pub async fn resume(state: &State, name: &str) -> Result<(), Failure> {
    let record = state.started()?;
    let target = Target::find(state, &record, name).await?;
    target.refuse_dead()?;
    tree::resume_all(&target.processes());
    done(&target, Vec::new(), "resumed")
}

/// Ends what is alive of it, and starts it again; returns when it listens. Of a worker only the agent is restarted:
/// its keeper and tasks go on where they are alive, as they do when an agent is replaced by a newer release.
pub async fn restart(state: &State, name: &str) -> Result<(), Failure> {
    let record = state.started()?;
    let target = Target::find(state, &record, name).await?;
    if target.member.kind == Kind::Keeper {
        return Err(Failure::Keeper(target.member.name));
    }
    if let Some(main) = &target.main {
        main.signal(Signal::TERM);
    }
    // Nothing that was paused stays so.
    tree::resume_all(&target.processes());
    let stubborn = stop::gone(target.main.iter().cloned().collect(), GRACE).await;
    let left = tree::kill_all(|| stubborn.clone(), PATIENCE).await;
    if !left.is_empty() {
        return done(&target, left, "stopped");
    }
    let mut started = launch::start(state, &record, &target.member)?;
    wait_until_up(state, &record, &target, &mut started).await?;
    done(&target, Vec::new(), "restarted")
}

async fn wait_until_up(state: &State, record: &Record, target: &Target, started: &mut Started) -> Result<(), Failure> {
    let until = Instant::now() + LISTENING;
    let name = target.member.name.as_str();
    let ports = match target.member.kind {
        Kind::Coordinator => vec![record.ports.grpc(name), record.ports.peer(name), record.ports.http(name)],
        Kind::S3 => vec![record.ports.s3()],
        Kind::Worker | Kind::Keeper => Vec::new(),
    };
    loop {
        let mut up = target.member.kind != Kind::Worker || tree::keeper(&target.disk).is_some();
        for port in &ports {
            up = up && listens(*port).await;
        }
        // Looked at last: who listens must be the new one.
        started.check(state)?;
        if up {
            return Ok(());
        }
        if Instant::now() > until {
            let what = format!("{name} didn't come up");
            return Err(Failure::TooLate { what, seconds: LISTENING.as_secs(), logs: state.logs() });
        }
        sleep(POLL).await;
    }
}

async fn leader(state: &State, record: &Record) -> Result<String, Failure> {
    let mut members = Members::new(state, record)?;
    let until = Instant::now() + LEADER;
    loop {
        match members.led().await {
            Some(status) => return Ok(status.leader),
            None if Instant::now() > until => return Err(Failure::NoLeader),
            None => sleep(POLL).await,
        }
    }
}

/// Says what was done, to whom; an error for what is left.
fn done(target: &Target, left: Vec<ProcessId>, what: &str) -> Result<(), Failure> {
    if !left.is_empty() {
        let pids: Vec<String> = left.iter().map(|id| id.pid.to_string()).collect();
        return Err(Failure::Alive(format!("{} of {} (not {what})", pids.join(", "), target.member.name)));
    }
    eprintln!("{} {what}", target.member.name);
    Ok(())
}
