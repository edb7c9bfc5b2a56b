//! Workers, their keepers and processes, and those that nobody waits for any more.

use std::sync::Arc;

use proto::internal::{Caller, Entry, WorkerReport, call_request, command};
use proto::v1::{AttemptKey, Ended, Manifest, ManifestEntry, Report, ReportItem, Role, report_item::Item};
use worker_core::{End, Key, Task};

use super::{Event, World, object_name};
use crate::{
    call::{Origin, Up},
    member::Member,
    network::Place,
    plant::Plant,
    worker::Order,
};

impl World {
    pub(crate) fn kill_agent(&mut self, worker: usize) {
        self.workers[worker].agent = None;
        if let Some((_, call)) = self.workers[worker].stream.take() {
            self.hang_up(call);
            self.break_call(call, false);
        }
    }

    pub(crate) fn lose_machine(&mut self, worker: usize) {
        let hangs = self.random.chance(500);
        let call = self.workers[worker].stream.take();
        self.workers[worker].agent = None;
        self.workers[worker].machine += 1;
        self.workers[worker].standing = None;
        self.workers[worker].processes.clear();
        self.workers[worker].orders.clear();
        if let Some((_, call)) = call {
            if !hangs {
                self.hang_up(call);
            }
            self.break_call(call, false);
        }
    }

    pub(super) fn start_agent(&mut self, worker: usize) {
        if self.workers[worker].agent.is_some() || self.now_us < self.workers[worker].gone_until_us {
            return;
        }
        self.workers[worker].start_agent(self.now_us);
        let incarnation = self.workers[worker].incarnation;
        self.after(0, Event::WorkerTick { worker, incarnation });
    }

    pub(super) fn tell_worker(&mut self, worker: usize, input: worker_core::Input) {
        self.workers[worker].tell(input, self.now_us);
        for _ in 0..100 {
            let outputs = self.workers[worker].outputs(self.now_us);
            if outputs.is_empty() {
                return;
            }
            for output in outputs {
                self.worker_output(worker, output);
            }
        }
    }

    pub(super) fn worker_output(&mut self, worker: usize, output: worker_core::Output) {
        use worker_core::Output as Wanted;
        let incarnation = self.workers[worker].incarnation;
        match output {
            Wanted::Connect { stream, elsewhere } => self.connect(worker, stream, elsewhere),
            Wanted::Disconnect { stream } => {
                if let Some((_, call)) = self.workers[worker].stream.take_if(|(open, _)| *open == stream) {
                    self.hang_up(call);
                    self.break_call(call, false);
                }
            }
            Wanted::Send { stream, message } => {
                if let Some((_, call)) = self.workers[worker].stream.filter(|(open, _)| *open == stream) {
                    self.send_up(call, Up::Worker(message));
                }
            }
            Wanted::SetSession { session: 0, .. } => {
                for input in self.workers[worker].kill_all(End::Stopped, self.now_us) {
                    self.tell_later(worker, input);
                }
            }
            Wanted::SetSession { session, connection, deadline_ms } => {
                self.workers[worker].standing = Some(worker_core::Standing { session, connection, deadline_ms });
                let machine = self.workers[worker].machine;
                let at_us = self.workers[worker].when_us(deadline_ms);
                self.at(at_us, Event::KeeperDeadline { worker, machine, session });
            }
            Wanted::Prepare { task } => {
                let delay_us = self.random.skewed(2_000_000);
                let result = if self.random.chance(30) {
                    let cause = proto::v1::Cause::StageIn;
                    Err(worker_core::Failure { cause, detail: "unlucky".to_owned(), retryable: true })
                } else {
                    Ok(())
                };
                let input = Box::new(worker_core::Input::Prepared { key: task.key, result });
                self.after(delay_us, Event::Tell { worker, incarnation, input });
            }
            Wanted::Spawn { task, session, after, .. } => self.order(worker, task, session, after),
            Wanted::SpawnNow { key, .. } => {
                if let Some(order) = self.workers[worker].orders.remove(&key) {
                    self.spawn(worker, &order.task, order.session);
                }
            }
            Wanted::Withdraw { key } => {
                if let Some(input) = self.workers[worker].end_order(key, End::NotStarted, self.now_us) {
                    self.tell_later(worker, input);
                }
            }
            Wanted::Stop { key, immediately } => {
                let delay_us = if immediately { 0 } else { self.random.skewed(3_000_000) };
                let machine = self.workers[worker].machine;
                self.after(delay_us, Event::ProcessEnds { worker, machine, key, end: End::Stopped });
                if self.plant == Some(Plant::CapacityFreedAtCancel) {
                    let exit = worker_core::Exit { end: End::Stopped, ..worker_core::Exit::default() };
                    self.tell_later(worker, worker_core::Input::Exited { key, exit });
                }
            }
            Wanted::StageOut { key } => {
                let delay_us = self.random.skewed(2_000_000);
                let entry = ManifestEntry {
                    bucket: "dev".to_owned(),
                    key: object_name(key.job, key.ordinal),
                    upload_id: self.store.upload(key),
                    ..ManifestEntry::default()
                };
                let manifest = Manifest { entries: vec![entry], hash: Default::default(), entry_count: 1 };
                let input = Box::new(worker_core::Input::StagedOut { key, result: Ok(manifest) });
                self.after(delay_us, Event::Tell { worker, incarnation, input });
            }
            Wanted::Publish { key, manifest, .. } => {
                let complete = |entry: &ManifestEntry| self.store.complete(&entry.key, &entry.upload_id, key);
                let result = if manifest.entries.iter().all(complete) {
                    Ok(vec!["etag".to_owned()])
                } else {
                    let detail = "the upload is gone".to_owned();
                    Err(worker_core::PublishFailure::Final { detail, retryable: true })
                };
                let delay_us = self.random.skewed(1_000_000);
                let input = Box::new(worker_core::Input::PublishEnded { key, result });
                self.after(delay_us, Event::Tell { worker, incarnation, input });
            }
            Wanted::Forget { keys } => {
                for key in keys {
                    self.workers[worker].forget(key);
                }
            }
            // Its processes end by themselves.
            Wanted::SetTimeLimit { .. }
            | Wanted::BreakOff { .. }
            | Wanted::BreakOffPublish { .. }
            | Wanted::Discard { .. }
            | Wanted::ReadLog { .. }
            | Wanted::SessionOpened { .. }
            | Wanted::SessionLost { .. }
            // No machine of the simulation is taken back with a notice.
            | Wanted::Leave => {}
        }
    }

    pub(super) fn tell_later(&mut self, worker: usize, input: worker_core::Input) {
        let incarnation = self.workers[worker].incarnation;
        self.after(100, Event::Tell { worker, incarnation, input: Box::new(input) });
    }

    pub(super) fn connect(&mut self, worker: usize, stream: u64, elsewhere: bool) {
        if elsewhere {
            self.workers[worker].coordinator = (self.workers[worker].coordinator + 1) % 3;
        }
        let front = self.workers[worker].coordinator;
        let incarnation = self.workers[worker].incarnation;
        let origin = Origin::Worker { worker, incarnation, stream };
        let caller = Caller { role: Role::Worker as i32, name: self.workers[worker].name.clone() };
        let request = call_request::Request::WorkerConnect(proto::internal::WorkerConnect {});
        let reached = self.network.reaches(Place::Worker(worker), Place::Member(front));
        let call = if reached { self.open_call(origin, front, caller, request) } else { None };
        let input = match call {
            Some(call) => {
                self.workers[worker].stream = Some((stream, call));
                worker_core::Input::StreamOpened { stream }
            }
            None => worker_core::Input::StreamClosed { stream, elsewhere: true },
        };
        let delay_us = self.network.delay(&mut self.random);
        self.after(delay_us, Event::Tell { worker, incarnation, input: Box::new(input) });
    }

    /// Starts a process, now or when another has ended, as the keeper is told.
    fn order(&mut self, worker: usize, task: Arc<Task>, session: u64, after: Option<Key>) {
        let waits = self.workers[worker].follows && self.plant != Some(Plant::KeeperHurries);
        match after.filter(|after| waits && self.workers[worker].lives(after)) {
            Some(after) => {
                let key = task.key;
                self.workers[worker].orders.insert(key, Order { after, task, session });
            }
            None => self.spawn(worker, &task, session),
        }
    }

    fn start_next(&mut self, worker: usize, ended: Key) {
        for order in self.workers[worker].take_next(ended) {
            self.spawn(worker, &order.task, order.session);
        }
    }

    pub(super) fn spawn(&mut self, worker: usize, task: &Task, session: u64) {
        if !self.workers[worker].may_start(session, self.now_us) {
            let exit = worker_core::Exit { end: End::NotStarted, ..worker_core::Exit::default() };
            return self.tell_later(worker, worker_core::Input::Exited { key: task.key, exit });
        }
        let key = task.key;
        self.oracle.started(task);
        self.check_slots(worker, task);
        let elsewhere = self.workers.iter().enumerate().find(|(number, other)| {
            let same_task = |other: &Key| (other.job, other.ordinal) == (key.job, key.ordinal);
            let alive = other.processes.iter().any(|(key, process)| same_task(key) && process.alive());
            *number != worker && alive && other.machine_paused_until_us <= self.now_us
        });
        if let Some((_, other)) = elsewhere {
            let detail = format!("{key} was started while another attempt still ran on {}", other.name);
            self.oracle.violated("I4", detail);
        }
        let at_most_once = task.job.spec.as_ref().is_some_and(|spec| spec.at_most_once);
        let retried = self.known.get(&key.job).is_some_and(|facts| facts.retried);
        if at_most_once && !retried && self.oracle.starts(key.job, key.ordinal) > 1 {
            self.oracle.violated("promise 3", format!("{key} must be started at most once and was started again"));
        }
        let queue = task.job.spec.as_ref().map_or("", |spec| spec.queue.as_str());
        let load = self.workload.saturation().and_then(|saturation| saturation.loads.get(queue));
        let (exit_code, run_us) = match load {
            Some(load) => (i32::from(self.random.chance(10)), self.random.between(load.run_us.0, load.run_us.1)),
            None => {
                let exit_code = if self.random.chance(150) { self.random.between(1, 5) as i32 } else { 0 };
                (exit_code, 1_000 + self.random.skewed(6_000_000))
            }
        };
        self.workers[worker].add_process(task, exit_code, self.now_us);
        let machine = self.workers[worker].machine;
        let start_time_ms = self.workers[worker].processes[&key].adopted.start_time_ms;
        self.tell_later(worker, worker_core::Input::Started { key, start_time_ms });
        self.after(run_us, Event::ProcessEnds { worker, machine, key, end: End::ExitCode });
    }

    /// What runs on a worker never takes more than it has.
    fn check_slots(&mut self, worker: usize, task: &Task) {
        let one = &self.workers[worker];
        let alive =
            || one.processes.values().filter(|process| process.alive()).map(|process| process.adopted.resources);
        let cpu_milli = alive().map(|taken| taken.cpu_milli).sum::<u64>() + task.resources.cpu_milli;
        let memory_mib = alive().map(|taken| taken.memory_mib).sum::<u64>() + task.resources.memory_mib;
        if cpu_milli > one.capacity.cpu_milli || memory_mib > one.capacity.memory_mib {
            let detail = format!(
                "{} takes {cpu_milli} thousandths of a cpu and {memory_mib} MiB with {}, it has {:?}",
                one.name, task.key, one.capacity
            );
            self.oracle.violated("I10", detail);
        }
    }

    pub(super) fn process_ends(&mut self, worker: usize, key: Key, end: End) {
        if end == End::Stopped
            && let Some(input) = self.workers[worker].end_order(key, end, self.now_us)
        {
            self.tell_later(worker, input);
            return self.start_next(worker, key);
        }
        let exit_code = self.workers[worker].processes.get(&key).filter(|one| one.alive()).map(|one| one.exit_code);
        if let Some(input) = self.workers[worker].end_process(key, end, self.now_us) {
            if let Some(exit_code) = exit_code.filter(|_| end == End::ExitCode) {
                self.oracle.exited(key, exit_code);
            }
            self.tell_later(worker, input);
            self.start_next(worker, key);
        }
    }

    pub(super) fn keeper_deadline(&mut self, worker: usize, machine: u64, session: u64) {
        let now_ms = self.workers[worker].now_ms(self.now_us);
        let due = |standing: worker_core::Standing| standing.session == session && standing.deadline_ms <= now_ms;
        if self.workers[worker].machine != machine || !self.workers[worker].standing.is_some_and(due) {
            return;
        }
        for input in self.workers[worker].kill_all(End::Expired, self.now_us) {
            self.tell_later(worker, input);
        }
        self.tell_later(worker, worker_core::Input::Expired);
    }

    /// Someone whose session is over still says how its attempt ended.
    pub(super) fn ghost(&mut self, session: u64, key: AttemptKey) {
        let leads = |member: &Member| member.process.as_ref().is_some_and(|process| process.core.leads());
        let Some(leader) = self.members.iter().position(leads) else { return };
        self.ghosts += 1;
        self.figures.fenced += 1;
        let ended = Ended { cause: proto::v1::Cause::ExitCode as i32, exit_code: 99, ..Ended::default() };
        let items = vec![ReportItem { attempt: Some(key), item: Some(Item::Ended(ended)) }];
        let report = WorkerReport { session, report: Some(Report { first_sequence: 1, items }) };
        let command = proto::internal::Command { command: Some(command::Command::WorkerReport(report)) };
        let time_ms = self.oracle.state.time_ms();
        let entry = Entry { proposer: u64::MAX, sequence: self.ghosts, time_ms, wall_ms: 0, commands: vec![command] };
        let data = proto::entry::encode(&entry);
        let data = match &self.members[leader].process {
            Some(process) => crate::faults::tamper(self.plant, &data, process.core.state()).unwrap_or(data),
            None => data,
        };
        let proposal = replication::Proposal { id: u64::MAX - self.ghosts, data };
        self.members[leader].tell_replica(replication::Input::Propose(proposal));
        self.drive_member(leader);
    }
}
