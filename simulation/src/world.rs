//! The world: one queue of events, and what each does.

mod calls;
mod clients;
mod history;
mod members;
mod watch;
mod workers;

use std::collections::BTreeMap;

use coordinator_core::{CallId, Input};
use proto::internal::{MemberReport, PeerMessage};
use proto::v1::AttemptKey;
use scheduler::State;
use worker_core::{End, Key};

pub(crate) use self::history::Segmental;
use self::watch::Watch;
use crate::{
    call::{Calls, Down, Origin, Up},
    client::{Client, Known},
    figures::Figures,
    member::Member,
    network::{Network, Place},
    oracle::{Oracle, Violation},
    plant::Plant,
    random::Random,
    store::Store,
    worker::Worker,
    workload::{Faults, Workload},
};

const TICK_US: u64 = 50_000;
/// Faults happen for so long.
const FAULTS_US: u64 = 90_000_000;
/// Everything has to drain within so long after the last fault.
const DRAIN_US: u64 = 400_000_000;

/// What one seed came to.
#[derive(Debug)]
pub struct Run {
    /// The first invariant that broke.
    pub violation: Option<Violation>,
    /// What happened, in numbers.
    pub figures: Figures,
    /// A hash of everything that happened, in order.
    pub history: [u8; 32],
}

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum Event {
    MemberTick { member: usize, boot: u64 },
    Synced { member: usize, boot: u64 },
    Stored { member: usize, boot: u64, index: u64, term: u64, state: Box<State> },
    Peer { to: usize, message: PeerMessage },
    SnapshotArrives { from: usize, boot: u64, message: PeerMessage, content: Vec<u8> },
    SnapshotReport { member: usize, boot: u64, to: u64, delivered: bool },
    Digested { member: usize, boot: u64, index: u64, digest: [u8; 32], took_ms: u64 },
    Report { to: usize, report: Box<MemberReport> },
    Up { call: CallId, up: Up },
    Down { call: CallId, down: Down },
    WorkerTick { worker: usize, incarnation: u64 },
    Tell { worker: usize, incarnation: u64, input: Box<worker_core::Input> },
    ProcessEnds { worker: usize, machine: u64, key: Key, end: End },
    KeeperDeadline { worker: usize, machine: u64, session: u64 },
    Think { client: usize },
    GiveUp { client: usize, operation: u64, call: CallId },
    Ghost { session: u64, key: AttemptKey },
    Fault,
    VoterDies { member: usize, boot: u64 },
    Restart { member: usize },
    PowerOfAll,
    RestartAgent { worker: usize },
    RestartMachine { worker: usize },
    QuickDisk { member: usize },
    Heal,
    Calm,
    CheckLeader,
    Watch,
    Segmental(Segmental),
}

/// A whole grid.
#[derive(Debug)]
pub struct World {
    pub(crate) now_us: u64,
    pub(crate) random: Random,
    queue: BTreeMap<(u64, u64), Event>,
    events: u64,
    pub(crate) members: Vec<Member>,
    pub(crate) workers: Vec<Worker>,
    pub(crate) clients: Vec<Client>,
    pub(crate) network: Network,
    calls: Calls,
    store: Store,
    known: Known,
    oracle: Oracle,
    pub(crate) workload: Workload,
    pub(crate) figures: Figures,
    pub(crate) plant: Option<Plant>,
    history: blake3::Hasher,
    peer_order: BTreeMap<(usize, usize), u64>,
    peaceful: bool,
    ghosts: u64,
    watch: Watch,
}

impl World {
    /// A grid of three coordinators and some workers, all about to start.
    pub fn new(seed: u64, plant: Option<Plant>) -> Self {
        let mut random = Random::new(seed);
        let ids = [11, 22, 33];
        let mut members: Vec<Member> = ids.iter().map(|id| Member::new(*id, &ids)).collect();
        for member in &mut members {
            member.drift_permille = random.below(3) as i64 - 1;
        }
        // Some grids begin with an older release, on one member or on all, which is replaced as time goes on.
        if random.chance(300) {
            let old = random.between(1, 3) as usize;
            members.iter_mut().take(old).for_each(|member| member.newest_rules = scheduler::OLDEST_RULES);
        }
        let workload = Workload::of(seed, &mut random);
        // Where shares are measured, enough ends in a minute.
        let more = u64::from(workload.saturation().is_some());
        let workers = random.between(2 + more, 4);
        let workers: Vec<Worker> = (0..workers as usize)
            .map(|number| Worker::new(number, random.between(2 + more, 3 + more), random.below(3) as i64 - 1))
            .collect();
        let watch = Watch::new(workers.len());
        let mut network = Network::default();
        network.calm();
        Self {
            now_us: 0,
            random,
            queue: BTreeMap::new(),
            events: 0,
            members,
            workers,
            clients: (0..3).map(Client::new).collect(),
            network,
            calls: Calls::default(),
            store: Store::default(),
            known: Known::new(),
            oracle: Oracle::new(&workload),
            workload,
            figures: Figures { seeds: 1, ..Figures::default() },
            plant,
            history: blake3::Hasher::new(),
            peer_order: BTreeMap::new(),
            peaceful: false,
            ghosts: 0,
            watch,
        }
    }

    /// Runs it to its end.
    pub fn run(mut self) -> Run {
        for member in 0..3 {
            self.restart(member);
        }
        for worker in 0..self.workers.len() {
            self.after(0, Event::RestartMachine { worker });
        }
        for client in 0..self.clients.len() {
            self.after(2_000_000, Event::Think { client });
        }
        self.after(0, Event::Watch);
        if self.workload.faults() != Faults::None {
            self.after(5_000_000, Event::Fault);
        }
        while self.oracle.violation.is_none()
            && let Some(((at_us, number), event)) = self.queue.pop_first()
        {
            self.now_us = self.now_us.max(at_us);
            if !self.peaceful && self.now_us >= FAULTS_US {
                self.make_peace();
            }
            if self.peaceful && self.now_us >= FAULTS_US + 10_000_000 && self.over() {
                break;
            }
            if self.now_us >= FAULTS_US + DRAIN_US {
                let why = self.oracle.unended().map(|job| self.oracle.why_not_ended(job)).unwrap_or_default();
                let workers: Vec<String> = self.workers.iter().map(Worker::describe).collect();
                let workers = workers.join("; ");
                let detail = format!("not over {} s after the last fault: {why}; {workers}", DRAIN_US / 1_000_000);
                self.oracle.violated("L2", detail);
                break;
            }
            self.history.update(&at_us.to_le_bytes());
            self.history.update(&number.to_le_bytes());
            self.happens(event);
        }
        self.check_end();
        self.history.update(&self.oracle.state.digest());
        self.figures.simulated_ms = self.now_us / 1_000;
        Run { violation: self.oracle.violation, figures: self.figures, history: *self.history.finalize().as_bytes() }
    }

    pub(crate) fn after(&mut self, delay_us: u64, event: Event) {
        self.at(self.now_us + delay_us, event);
    }

    fn at(&mut self, at_us: u64, event: Event) {
        self.events += 1;
        self.queue.insert((at_us.max(self.now_us), self.events), event);
    }

    pub(crate) fn count(&mut self, fault: &'static str) {
        *self.figures.faults.entry(fault).or_default() += 1;
    }

    /// Everyone is back, everything is connected, nobody begins anything new.
    fn make_peace(&mut self) {
        self.peaceful = true;
        self.network.calm();
        for member in 0..3 {
            self.members[member].sync_us = 1_000;
            self.members[member].paused_until_us = 0;
            self.restart(member);
            self.upgrade(member);
        }
        for worker in 0..self.workers.len() {
            self.workers[worker].agent_paused_until_us = 0;
            self.workers[worker].machine_paused_until_us = 0;
            self.workers[worker].gone_until_us = 0;
            if self.workers[worker].agent.is_none() {
                self.after(0, Event::RestartAgent { worker });
            }
        }
        self.after(5_000_000, Event::CheckLeader);
    }

    fn over(&self) -> bool {
        self.clients.iter().all(|client| client.operation.is_none())
            && self.oracle.unended().is_none()
            && self.segments_are_everywhere()
    }

    /// When the place of an event goes on, if it is paused.
    fn paused_until(&self, event: &Event) -> u64 {
        match event {
            Event::MemberTick { member, .. }
            | Event::Synced { member, .. }
            | Event::Stored { member, .. }
            | Event::Digested { member, .. }
            | Event::Report { to: member, .. }
            | Event::SnapshotReport { member, .. }
            | Event::Peer { to: member, .. } => self.members[*member].paused_until_us,
            Event::SnapshotArrives { message, .. } => {
                self.member_of(message.to).map_or(0, |member| self.members[member].paused_until_us)
            }
            Event::Up { call, .. } => {
                self.calls.by_id.get(call).map_or(0, |call| self.members[call.leader].paused_until_us)
            }
            Event::Down { call, .. } => match self.calls.by_id.get(call).map(|call| call.origin) {
                Some(Origin::Worker { worker, .. }) => self.workers[worker].agent_paused_until_us,
                Some(Origin::Client { .. }) | None => 0,
            },
            Event::WorkerTick { worker, .. } | Event::Tell { worker, .. } => {
                self.workers[*worker].agent_paused_until_us
            }
            Event::ProcessEnds { worker, .. } | Event::KeeperDeadline { worker, .. } => {
                self.workers[*worker].machine_paused_until_us
            }
            Event::Think { .. }
            | Event::GiveUp { .. }
            | Event::Ghost { .. }
            | Event::Fault
            | Event::VoterDies { .. }
            | Event::Restart { .. }
            | Event::PowerOfAll
            | Event::RestartAgent { .. }
            | Event::RestartMachine { .. }
            | Event::QuickDisk { .. }
            | Event::Heal
            | Event::Calm
            | Event::CheckLeader
            | Event::Watch => 0,
            Event::Segmental(event) => self.members[event.member()].paused_until_us,
        }
    }

    fn happens(&mut self, event: Event) {
        let paused_until_us = self.paused_until(&event);
        if paused_until_us > self.now_us {
            return self.at(paused_until_us, event);
        }
        match event {
            Event::MemberTick { member, boot } => {
                if self.runs(member, boot) {
                    self.after(TICK_US, Event::MemberTick { member, boot });
                    self.members[member].tell_replica(replication::Input::Tick);
                    self.members[member].tell_core(Input::Tick, self.now_us);
                    self.drive_member(member);
                }
            }
            Event::Synced { member, boot } => {
                if self.runs(member, boot) {
                    self.members[member].synced(self.plant);
                    self.drive_member(member);
                }
            }
            Event::Stored { member, boot, index, term, state } => {
                if self.runs(member, boot) {
                    self.members[member].store(index, term, &state, self.now_us);
                    self.drive_member(member);
                }
            }
            Event::Digested { member, boot, index, digest, took_ms } => {
                if self.runs(member, boot) {
                    self.members[member].tell_core(Input::Digested { index, digest, took_ms }, self.now_us);
                    self.drive_member(member);
                }
            }
            Event::Report { to, report } => {
                self.members[to].tell_core(Input::Reported(report), self.now_us);
                self.drive_member(to);
            }
            Event::Peer { to, message } => {
                self.members[to].tell_replica(replication::Input::Message(message));
                self.drive_member(to);
            }
            Event::Segmental(event) => self.segmental(event),
            Event::SnapshotArrives { from, boot, message, content } => {
                let Some(member) = self.member_of(message.to) else { return };
                let to = message.to;
                let reached = self.network.reaches(Place::Member(from), Place::Member(member));
                let delivered = reached && self.members[member].receive_snapshot(message, &content);
                self.drive_member(member);
                self.after(1_000, Event::SnapshotReport { member: from, boot, to, delivered });
            }
            Event::SnapshotReport { member, boot, to, delivered } => {
                if self.runs(member, boot) {
                    self.members[member].tell_replica(replication::Input::SnapshotReport { to, delivered });
                    self.drive_member(member);
                }
            }
            Event::Up { call, up } => self.arrives_above(call, up),
            Event::Down { call, down } => self.arrives_below(call, down),
            Event::WorkerTick { worker, incarnation } => {
                if self.workers[worker].incarnation == incarnation && self.workers[worker].agent.is_some() {
                    self.after(TICK_US, Event::WorkerTick { worker, incarnation });
                    self.tell_worker(worker, worker_core::Input::Tick);
                }
            }
            Event::Tell { worker, incarnation, input } => {
                if self.workers[worker].incarnation == incarnation {
                    self.tell_worker(worker, *input);
                }
            }
            Event::ProcessEnds { worker, machine, key, end } => {
                if self.workers[worker].machine == machine {
                    self.process_ends(worker, key, end);
                }
            }
            Event::KeeperDeadline { worker, machine, session } => self.keeper_deadline(worker, machine, session),
            Event::Think { client } => self.think(client),
            Event::GiveUp { client, operation, call } => {
                let waits = self.clients[client].operation.as_ref();
                if waits.is_some_and(|waits| waits.number == operation && waits.call == Some(call)) {
                    self.hang_up(call);
                    self.repeat(client, 10_000);
                }
            }
            Event::Ghost { session, key } => self.ghost(session, key),
            Event::Fault => {
                if !self.peaceful {
                    self.fault();
                }
            }
            Event::VoterDies { member, boot } if self.runs(member, boot) => self.voter_dies(member),
            Event::VoterDies { .. } => {}
            Event::Restart { member } => self.restart(member),
            // The last fault may have been its beginning: then there is peace already.
            Event::PowerOfAll if self.peaceful => {}
            Event::PowerOfAll => {
                for member in 0..3 {
                    self.crash_member(member, true);
                    let down_us = 100_000 + self.random.skewed(5_000_000);
                    self.after(down_us, Event::Restart { member });
                }
            }
            Event::RestartAgent { worker } | Event::RestartMachine { worker } => self.start_agent(worker),
            Event::QuickDisk { member } => self.members[member].sync_us = 1_000,
            Event::Heal => self.network.heal(),
            Event::Calm => {
                self.network.loss_permille = 0;
                self.network.repeat_permille = 0;
                self.network.delay_us = 2_000;
            }
            Event::Watch => self.watch(),
            Event::CheckLeader => {
                let leads = |member: &Member| member.process.as_ref().is_some_and(|process| process.core.leads());
                if !self.members.iter().any(leads) {
                    self.oracle.violated("L1", "no leader 5 s after everything was healed".to_owned());
                }
            }
        }
    }

    /// What has to hold when everything is over.
    fn check_end(&mut self) {
        if self.oracle.violation.is_some() {
            return;
        }
        self.figures.moved += self.oracle.state.moved_jobs();
        self.check_segments();
        let everything = self.oracle.everything();
        self.oracle.check_submits(&everything, &mut self.figures);
        if let Err(violation) = self.oracle.state.check() {
            self.oracle.violated("I10", format!("at the end: {violation:?}"));
        }
        for job in 1.. {
            let Some(view) = everything.submission(job) else { break };
            if !view.has_outputs {
                continue;
            }
            let tasks = everything.job(job).map_or(0, |job| job.task_count);
            for ordinal in 0..tasks as u32 {
                let Some(task) = everything.task(job, ordinal, false) else { continue };
                let object = self.store.object(&object_name(job, ordinal)).map(|key| key.attempt);
                let accepted = everything.published(job, ordinal).map(|(attempt, ..)| attempt);
                let succeeded = task.state() == proto::v1::TaskState::Succeeded;
                if succeeded && (object.is_none() || object != accepted) {
                    let detail =
                        format!("task {job}.{ordinal} succeeded with {accepted:?}, its output is of {object:?}");
                    self.oracle.violated("I5", detail);
                }
            }
        }
    }
}

fn object_name(job: u64, ordinal: u32) -> String {
    format!("out/{job}/{ordinal}")
}
