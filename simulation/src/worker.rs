//! One worker: the real agent's core above a simulated keeper and its processes.

use std::{collections::BTreeMap, sync::Arc};

use coordinator_core::CallId;
use proto::v1::Capacity;
use worker_core::{Adopted, Core, End, Exit, Input, Key, Output, Settings, Standing, Task};

/// One machine with its keeper, and the agent when it runs.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) name: String,
    pub(crate) capacity: Capacity,
    pub(crate) agent: Option<Core>,
    /// One more at each start of the agent.
    pub(crate) incarnation: u64,
    /// One more at each start of the machine.
    pub(crate) machine: u64,
    pub(crate) agent_paused_until_us: u64,
    pub(crate) machine_paused_until_us: u64,
    /// Nothing starts it before.
    pub(crate) gone_until_us: u64,
    pub(crate) drift_permille: i64,
    /// The coordinator that it talks to.
    pub(crate) coordinator: usize,
    /// Its newest stream, and the call that carries it.
    pub(crate) stream: Option<(u64, CallId)>,
    pub(crate) standing: Option<Standing>,
    pub(crate) processes: BTreeMap<Key, Process>,
    /// What its keeper starts when another has ended.
    pub(crate) orders: BTreeMap<Key, Order>,
    /// Whether its keeper knows how to; those of earlier releases don't.
    pub(crate) follows: bool,
}

/// A process that waits for another.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) after: Key,
    pub(crate) task: Arc<Task>,
    pub(crate) session: u64,
}

/// A task's process, as the keeper knows it.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) adopted: Adopted,
    pub(crate) started_us: u64,
    pub(crate) exit_code: i32,
}

impl Process {
    pub(crate) fn alive(&self) -> bool {
        self.adopted.exit.is_none()
    }
}

impl Worker {
    pub(crate) fn new(number: usize, cpus: u64, drift_permille: i64) -> Self {
        let capacity = Capacity { cpu_milli: cpus * 1_000, memory_mib: 4_096, gpus: 0, scratch_gib: 10 };
        Self {
            name: format!("worker-{number}"),
            capacity,
            agent: None,
            incarnation: 0,
            machine: 0,
            agent_paused_until_us: 0,
            machine_paused_until_us: 0,
            gone_until_us: 0,
            drift_permille,
            coordinator: number % 3,
            stream: None,
            standing: None,
            processes: BTreeMap::new(),
            orders: BTreeMap::new(),
            follows: number % 4 != 3,
        }
    }

    /// CLOCK_BOOTTIME of its machine, milliseconds.
    pub(crate) fn now_ms(&self, now_us: u64) -> u64 {
        let drifted = i128::from(now_us) * (1_000 + i128::from(self.drift_permille)) / 1_000;
        u64::try_from(drifted / 1_000).unwrap_or(0) + 7_000
    }

    /// When its own clock shows `local_ms`.
    pub(crate) fn when_us(&self, local_ms: u64) -> u64 {
        let local_us = i128::from(local_ms.saturating_sub(7_000)) * 1_000;
        u64::try_from(local_us * 1_000 / (1_000 + i128::from(self.drift_permille))).unwrap_or(0) + 1_000
    }

    /// Starts an agent, which finds the keeper and what it holds.
    pub(crate) fn start_agent(&mut self, now_us: u64) {
        self.incarnation += 1;
        self.stream = None;
        let settings = Settings {
            pool: "local".to_owned(),
            labels: Vec::new(),
            capacity: self.capacity,
            version: "0.1.0".to_owned(),
            jitter: self.incarnation * 31 + self.coordinator as u64,
        };
        let mut agent = Core::new(settings);
        let waiting = self.orders.values().map(|order| Adopted {
            after: Some(order.after),
            start_time_ms: 0,
            ..adopted(&order.task, now_us)
        });
        let processes = self.processes.values().map(|process| process.adopted.clone()).chain(waiting).collect();
        let connected = Input::KeeperConnected { standing: self.standing, processes, follows: self.follows };
        agent.step(connected, self.now_ms(now_us), wall(now_us));
        self.agent = Some(agent);
    }

    /// What it believes, for the report of a job that doesn't end.
    pub(crate) fn describe(&self) -> String {
        let list = |keys: Vec<Key>| keys.iter().map(Key::to_string).collect::<Vec<_>>().join(" ");
        let agent = match &self.agent {
            None => "no agent".to_owned(),
            Some(agent) => {
                let session = agent.standing().map(|standing| standing.session);
                format!("session {session:?}, holds [{}], publishes [{}]", list(agent.held()), list(agent.publishing()))
            }
        };
        let alive = self.processes.values().filter(|process| process.alive()).map(|process| process.adopted.key);
        format!("{}: {agent}, runs [{}]", self.name, list(alive.collect()))
    }

    /// Lets the agent see an input.
    pub(crate) fn tell(&mut self, input: Input, now_us: u64) {
        let now_ms = self.now_ms(now_us);
        if let Some(agent) = &mut self.agent {
            agent.step(input, now_ms, wall(now_us));
        }
    }

    pub(crate) fn outputs(&mut self, now_us: u64) -> Vec<Output> {
        let now_ms = self.now_ms(now_us);
        self.agent.as_mut().map(|agent| agent.outputs(now_ms)).unwrap_or_default()
    }

    /// Whether the keeper takes a start for this session.
    pub(crate) fn may_start(&self, session: u64, now_us: u64) -> bool {
        let now_ms = self.now_ms(now_us);
        self.standing.is_some_and(|standing| standing.session == session && standing.deadline_ms > now_ms)
    }

    pub(crate) fn add_process(&mut self, task: &Task, exit_code: i32, now_us: u64) {
        self.processes.insert(task.key, Process { adopted: adopted(task, now_us), started_us: now_us, exit_code });
    }

    /// Drops an end that was acknowledged.
    pub(crate) fn forget(&mut self, key: Key) {
        self.processes.remove(&key).filter(Process::alive).map(|process| self.processes.insert(key, process));
    }

    pub(crate) fn lives(&self, key: &Key) -> bool {
        self.orders.contains_key(key) || self.processes.get(key).is_some_and(Process::alive)
    }

    /// What is to be started now that a process has ended.
    pub(crate) fn take_next(&mut self, ended: Key) -> Vec<Order> {
        self.orders.extract_if(.., |_, order| order.after == ended).map(|(_, order)| order).collect()
    }

    /// Ends a process that is still alive. What the agent is to be told.
    pub(crate) fn end_process(&mut self, key: Key, end: End, now_us: u64) -> Option<Input> {
        let process = self.processes.get_mut(&key).filter(|process| process.alive())?;
        let run_ms = (now_us - process.started_us) / 1_000;
        let exit = Exit {
            end,
            exit_code: if end == End::ExitCode { process.exit_code } else { 0 },
            signal: if end == End::ExitCode { 0 } else { 9 },
            start_time_ms: process.adopted.start_time_ms,
            end_time_ms: wall(now_us),
            run_ms,
            cpu_ms: run_ms,
            max_memory_kib: 1_000,
            ..Exit::default()
        };
        process.adopted.exit = Some(exit.clone());
        Some(Input::Exited { key, exit })
    }

    /// Ends an order that waits for another. What the agent is to be told.
    pub(crate) fn end_order(&mut self, key: Key, end: End, now_us: u64) -> Option<Input> {
        let order = self.orders.remove(&key)?;
        let exit = Exit { end, end_time_ms: wall(now_us), ..Exit::default() };
        // A refusal isn't kept.
        if end != End::NotStarted {
            let adopted = Adopted { exit: Some(exit.clone()), start_time_ms: 0, ..adopted(&order.task, now_us) };
            self.processes.insert(key, Process { adopted, started_us: now_us, exit_code: 0 });
        }
        Some(Input::Exited { key, exit })
    }

    /// Kills everything, as the keeper does when the session is void.
    pub(crate) fn kill_all(&mut self, end: End, now_us: u64) -> Vec<Input> {
        self.standing = None;
        let orders: Vec<Key> = self.orders.keys().copied().collect();
        let mut told: Vec<Input> = orders.into_iter().filter_map(|key| self.end_order(key, end, now_us)).collect();
        let keys: Vec<Key> = self.processes.keys().copied().collect();
        told.extend(keys.into_iter().filter_map(|key| self.end_process(key, end, now_us)));
        told
    }
}

fn adopted(task: &Task, now_us: u64) -> Adopted {
    let spec = task.job.spec.as_ref();
    Adopted {
        key: task.key,
        resources: task.resources,
        outputs: spec.is_some_and(|spec| !spec.outputs.is_empty()),
        start_time_ms: wall(now_us),
        after: None,
        exit: None,
    }
}

fn wall(now_us: u64) -> i64 {
    1_700_000_000_000 + (now_us / 1_000) as i64
}
