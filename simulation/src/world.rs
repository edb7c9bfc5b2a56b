//! The world: one queue of events, and what each does.

use std::collections::BTreeMap;

use coordinator_core::{CallId, Input, Output};
use proto::internal::{Caller, Entry, PeerMessage, WorkerReport, call_request, call_response, command};
use proto::v1::{
    AttemptKey, Ended, Manifest, ManifestEntry, Report, ReportItem, Role, WorkerMessage, coordinator_message,
    report_item::Item, worker_message,
};
use scheduler::State;
use worker_core::{End, Key, Task};

use crate::{
    call::{Call, Calls, Down, Origin, Up},
    client::{ANSWER_US, Client, Known, PATIENCE_US},
    figures::Figures,
    member::{Member, Wish},
    network::{Network, Place},
    oracle::{Oracle, Violation, is_over},
    plant::Plant,
    random::Random,
    store::Store,
    worker::Worker,
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
    Restart { member: usize },
    PowerOfAll,
    RestartAgent { worker: usize },
    RestartMachine { worker: usize },
    QuickDisk { member: usize },
    Heal,
    Calm,
    CheckLeader,
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
    pub(crate) figures: Figures,
    plant: Option<Plant>,
    history: blake3::Hasher,
    peer_order: BTreeMap<(usize, usize), u64>,
    peaceful: bool,
    ghosts: u64,
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
        let workers = random.between(2, 4);
        let workers = (0..workers as usize)
            .map(|number| Worker::new(number, random.between(2, 3), random.below(3) as i64 - 1))
            .collect();
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
            oracle: Oracle::new(),
            figures: Figures { seeds: 1, ..Figures::default() },
            plant,
            history: blake3::Hasher::new(),
            peer_order: BTreeMap::new(),
            peaceful: false,
            ghosts: 0,
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
        self.after(5_000_000, Event::Fault);
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
                let detail = format!("not over {} s after the last fault: {why}", DRAIN_US / 1_000_000);
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
        }
        for worker in 0..self.workers.len() {
            self.workers[worker].agent_paused_until_us = 0;
            self.workers[worker].machine_paused_until_us = 0;
            if self.workers[worker].agent.is_none() {
                self.after(0, Event::RestartAgent { worker });
            }
        }
        self.after(5_000_000, Event::CheckLeader);
    }

    fn over(&self) -> bool {
        self.clients.iter().all(|client| client.operation.is_none()) && self.oracle.unended().is_none()
    }

    /// When the place of an event goes on, if it is paused.
    fn paused_until(&self, event: &Event) -> u64 {
        match event {
            Event::MemberTick { member, .. }
            | Event::Synced { member, .. }
            | Event::Stored { member, .. }
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
            | Event::Restart { .. }
            | Event::PowerOfAll
            | Event::RestartAgent { .. }
            | Event::RestartMachine { .. }
            | Event::QuickDisk { .. }
            | Event::Heal
            | Event::Calm
            | Event::CheckLeader => 0,
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
            Event::Peer { to, message } => {
                self.members[to].tell_replica(replication::Input::Message(message));
                self.drive_member(to);
            }
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
            Event::Restart { member } => self.restart(member),
            Event::PowerOfAll => {
                for member in 0..3 {
                    self.crash_member(member, true);
                    let down_us = 100_000 + self.random.skewed(5_000_000);
                    self.after(down_us, Event::Restart { member });
                }
            }
            Event::RestartAgent { worker } => self.start_agent(worker),
            Event::RestartMachine { worker } => {
                self.workers[worker].machine += 1;
                self.start_agent(worker);
            }
            Event::QuickDisk { member } => self.members[member].sync_us = 1_000,
            Event::Heal => self.network.heal(),
            Event::Calm => {
                self.network.loss_permille = 0;
                self.network.repeat_permille = 0;
                self.network.delay_us = 2_000;
            }
            Event::CheckLeader => {
                let leads = |member: &Member| member.process.as_ref().is_some_and(|process| process.core.leads());
                if !self.members.iter().any(leads) {
                    self.oracle.violated("L1", "no leader 5 s after everything was healed".to_owned());
                }
            }
        }
    }

    fn runs(&self, member: usize, boot: u64) -> bool {
        self.members[member].boot == boot && self.members[member].process.is_some()
    }

    fn member_of(&self, id: u64) -> Option<usize> {
        self.members.iter().position(|member| member.id == id)
    }

    pub(crate) fn restart(&mut self, member: usize) {
        if self.members[member].process.is_some() {
            return;
        }
        self.members[member].start(self.plant, &mut self.random, self.now_us);
        let boot = self.members[member].boot;
        let first_us = self.random.below(TICK_US);
        self.after(first_us, Event::MemberTick { member, boot });
        self.drive_member(member);
    }

    pub(crate) fn crash_member(&mut self, member: usize, power: bool) {
        self.members[member].crash(power, &mut self.random);
        // A process that dies closes its connections; a machine that does leaves them hanging.
        let broken: Vec<CallId> = self
            .calls
            .by_id
            .iter()
            .filter(|(_, call)| call.front == member || call.leader == member)
            .map(|(id, _)| *id)
            .collect();
        for call in broken {
            self.break_call(call, !power);
        }
    }

    /// Does everything that a member wants, until it wants nothing more.
    pub(crate) fn drive_member(&mut self, member: usize) {
        let wishes = self.members[member].drive(self.plant, self.now_us);
        let (id, boot) = (self.members[member].id, self.members[member].boot);
        for wish in wishes {
            match wish {
                Wish::Send(message) => self.send_peer(member, message),
                Wish::SendSnapshot { message, content } => {
                    let delay_us = 10_000 + self.random.skewed(500_000);
                    self.after(delay_us, Event::SnapshotArrives { from: member, boot, message, content });
                }
                Wish::Sync => {
                    let sync_us = 20 + self.random.skewed(self.members[member].sync_us);
                    self.after(sync_us, Event::Synced { member, boot });
                }
                Wish::Store { index, term, state } => {
                    let delay_us = 1_000 + self.random.skewed(500_000);
                    self.after(delay_us, Event::Stored { member, boot, index, term, state });
                }
                Wish::Role { term, leading, leader } => self.role_changed(member, term, leading, leader),
                Wish::Committed { index, term, data } => self.oracle_sees(index, term, &data),
                Wish::Core(output) => self.core_output(member, output),
            }
        }
        if let Some(process) = &self.members[member].process {
            let (index, digest) = (process.core.applied_index(), process.core.state().digest());
            self.oracle.digest(id, index, digest, &mut self.figures);
        }
    }

    fn oracle_sees(&mut self, index: u64, term: u64, data: &bytes::Bytes) {
        let held = self.oracle.leases_about_to_end(data);
        self.oracle.committed(index, term, data, &mut self.figures);
        for (session, keys) in held {
            if self.oracle.state.session(session).is_none() {
                for key in keys {
                    let delay_us = self.random.skewed(10_000_000);
                    self.after(delay_us, Event::Ghost { session, key });
                }
            }
        }
    }

    fn role_changed(&mut self, member: usize, term: u64, leading: bool, leader: Option<u64>) {
        let id = self.members[member].id;
        if leading {
            self.oracle.leads(term, id, &mut self.figures);
        }
        // A front closes what it relays to a leader that isn't one any more.
        let leader = leader.and_then(|leader| self.member_of(leader));
        if let Some(leader) = leader {
            let stale: Vec<CallId> = self
                .calls
                .by_id
                .iter()
                .filter(|(_, call)| call.front == member && call.leader != leader && !call.broken)
                .map(|(id, _)| *id)
                .collect();
            for call in stale {
                self.hang_up(call);
                self.break_call(call, true);
            }
        }
    }

    fn send_peer(&mut self, from: usize, message: PeerMessage) {
        let Some(to) = self.member_of(message.to) else { return };
        if !self.network.reaches(Place::Member(from), Place::Member(to))
            || self.random.chance(self.network.loss_permille)
        {
            let unreachable = replication::Input::Unreachable { to: message.to };
            if self.random.chance(300) {
                self.members[from].tell_replica(unreachable);
            }
            return;
        }
        let order = self.peer_order.get(&(from, to)).copied().unwrap_or(0);
        let at_us = (self.now_us + self.network.delay(&mut self.random)).max(order + 1);
        self.peer_order.insert((from, to), at_us);
        if self.random.chance(self.network.repeat_permille) {
            self.at(at_us, Event::Peer { to, message: message.clone() });
        }
        self.at(at_us, Event::Peer { to, message });
    }

    fn core_output(&mut self, member: usize, output: Output) {
        match output {
            Output::Respond { call, response } => {
                self.check_renewal(member, call, &response);
                self.send_down(call, Down::Response(response));
            }
            Output::Finish { call, result } => self.send_down(call, Down::Finish(result)),
            Output::Halt { reason } => self.oracle.violated("I8", format!("a replica stopped: {reason}")),
            _ => {}
        }
    }

    /// A renewal may be answered only by a leader that nobody had replaced when it arrived.
    fn check_renewal(&mut self, member: usize, call: CallId, response: &call_response::Response) {
        let call_response::Response::Coordinator(message) = response else { return };
        let Some(coordinator_message::Message::Renewed(renewed)) = &message.message else { return };
        let Some(arrived_us) = self.calls.by_id.get_mut(&call).and_then(|call| call.renewals.remove(&renewed.nonce))
        else {
            return;
        };
        let term = |member: &Member| member.process.as_ref().map(|process| process.replica.status().term);
        let mine = term(&self.members[member]);
        let newer = self.members.iter().find(|other| {
            other.process.as_ref().is_some_and(|process| {
                process.core.leads()
                    && term(other) > mine
                    && process.led_since_us.is_some_and(|since| since < arrived_us)
            })
        });
        if let Some(newer) = newer {
            let detail = format!(
                "member {} answered a renewal that arrived after member {} had taken over",
                self.members[member].id, newer.id
            );
            self.oracle.violated("L3", detail);
        }
    }

    fn open_call(
        &mut self,
        origin: Origin,
        front: usize,
        caller: Caller,
        request: call_request::Request,
    ) -> Option<CallId> {
        let process = self.members[front].process.as_ref()?;
        let leader = self.member_of(process.leader?)?;
        let (front_boot, leader_boot) = (self.members[front].boot, self.members[leader].boot);
        let call = self.calls.add(Call {
            origin,
            front,
            leader,
            front_boot,
            leader_boot,
            broken: false,
            last_up_us: 0,
            last_down_us: 0,
            renewals: BTreeMap::new(),
        });
        self.send_up(call, Up::Open { caller, request });
        Some(call)
    }

    /// Sends along an open connection; what gets lost breaks it.
    fn send_up(&mut self, id: CallId, up: Up) {
        let Some(call) = self.calls.by_id.get_mut(&id) else { return };
        let origin = place(call.origin);
        let (front, leader) = (Place::Member(call.front), Place::Member(call.leader));
        if call.broken || !self.network.reaches(origin, front) || !self.network.reaches(front, leader) {
            call.broken = true;
            return;
        }
        let delay_us = self.network.delay(&mut self.random);
        call.last_up_us = (self.now_us + delay_us).max(call.last_up_us + 1);
        let at_us = call.last_up_us;
        self.at(at_us, Event::Up { call: id, up });
    }

    fn send_down(&mut self, id: CallId, down: Down) {
        let Some(call) = self.calls.by_id.get_mut(&id) else { return };
        let origin = place(call.origin);
        let (front, leader) = (Place::Member(call.front), Place::Member(call.leader));
        if call.broken || !self.network.reaches(leader, front) || !self.network.reaches(front, origin) {
            call.broken = true;
            return;
        }
        let delay_us = self.network.delay(&mut self.random);
        call.last_down_us = (self.now_us + delay_us).max(call.last_down_us + 1);
        let at_us = call.last_down_us;
        self.at(at_us, Event::Down { call: id, down });
    }

    fn arrives_above(&mut self, id: CallId, up: Up) {
        let Some(call) = self.calls.by_id.get_mut(&id) else { return };
        let (leader, boot) = (call.leader, call.leader_boot);
        if let Up::Worker(WorkerMessage { message: Some(worker_message::Message::Renew(renew)) }) = &up {
            call.renewals.insert(renew.nonce, self.now_us);
        }
        let broken = call.broken;
        if !self.runs(leader, boot) {
            return;
        }
        let input = match up {
            Up::Hangup => Input::Hangup { call: id },
            _ if broken => return,
            Up::Open { caller, request } => Input::Open { call: id, caller, request },
            Up::Worker(message) => Input::Worker { call: id, message },
        };
        self.members[leader].tell_core(input, self.now_us);
        self.drive_member(leader);
    }

    fn arrives_below(&mut self, id: CallId, down: Down) {
        let Some(call) = self.calls.by_id.get(&id) else { return };
        if call.broken || self.members[call.front].boot != call.front_boot {
            return;
        }
        let origin = call.origin;
        let over = matches!(down, Down::Finish(_));
        match (origin, down) {
            (Origin::Client { client, operation }, down) => self.client_hears(client, operation, id, down),
            (
                Origin::Worker { worker, incarnation, stream },
                Down::Response(call_response::Response::Coordinator(message)),
            ) => {
                if self.workers[worker].incarnation == incarnation {
                    self.tell_worker(worker, worker_core::Input::Received { stream, message });
                }
            }
            (Origin::Worker { .. }, Down::Response(_)) => {}
            (Origin::Worker { worker, incarnation, stream }, Down::Finish(_)) => {
                if self.workers[worker].incarnation == incarnation {
                    self.tell_worker(worker, worker_core::Input::StreamClosed { stream });
                }
            }
        }
        if over {
            self.calls.by_id.remove(&id);
        }
    }

    /// The connection is gone; whoever opened the call may learn of it.
    fn break_call(&mut self, id: CallId, told: bool) {
        let Some(call) = self.calls.by_id.get_mut(&id) else { return };
        call.broken = true;
        let origin = call.origin;
        if told && let Origin::Worker { worker, incarnation, stream } = origin {
            let delay_us = self.random.below(200_000);
            let input = Box::new(worker_core::Input::StreamClosed { stream });
            self.after(delay_us, Event::Tell { worker, incarnation, input });
        }
    }

    /// Whoever opened the call has gone: the leader learns of it, if anything gets through.
    fn hang_up(&mut self, id: CallId) {
        self.send_up(id, Up::Hangup);
    }

    fn think(&mut self, client: usize) {
        if self.peaceful && self.clients[client].operation.is_none() {
            return;
        }
        if self.clients[client].operation.is_none() {
            self.clients[client].begin(&self.known, &mut self.random, self.now_us);
        }
        self.ask(client);
    }

    fn ask(&mut self, client: usize) {
        let Some(operation) = &self.clients[client].operation else { return };
        let (number, request) = (operation.number, operation.request.clone());
        let front = self.clients[client].coordinator;
        let caller = Caller { role: Role::Client as i32, name: self.clients[client].name.clone() };
        let origin = Origin::Client { client, operation: number };
        match self.open_call(origin, front, caller, request) {
            Some(call) => {
                if let Some(operation) = &mut self.clients[client].operation {
                    operation.call = Some(call);
                }
                self.after(ANSWER_US, Event::GiveUp { client, operation: number, call });
            }
            None => self.repeat(client, 200_000),
        }
    }

    /// Asks again, elsewhere, until patience ends.
    fn repeat(&mut self, client: usize, delay_us: u64) {
        let now_us = self.now_us;
        let one = &mut self.clients[client];
        one.coordinator = (one.coordinator + 1) % 3;
        if one.operation.as_ref().is_some_and(|operation| now_us >= operation.begun_us + PATIENCE_US) {
            one.operation = None;
        }
        self.after(delay_us, Event::Think { client });
    }

    fn client_hears(&mut self, client: usize, number: u64, call: CallId, down: Down) {
        let waits = self.clients[client].operation.as_ref();
        if !waits.is_some_and(|waits| waits.number == number && waits.call == Some(call)) {
            return;
        }
        match down {
            Down::Response(response) => {
                self.learn(client, &response);
                self.clients[client].operation = None;
                let pause_us = 20_000 + self.random.skewed(1_500_000);
                self.after(pause_us, Event::Think { client });
            }
            Down::Finish(Err(refusal)) if refusal.code == coordinator_core::refusal::Code::Unavailable as i32 => {
                self.repeat(client, 100_000);
            }
            Down::Finish(result) => {
                if let Err(refusal) = result {
                    self.refused(client, &refusal);
                }
                self.clients[client].operation = None;
                let pause_us = 20_000 + self.random.skewed(1_500_000);
                self.after(pause_us, Event::Think { client });
            }
        }
    }

    fn learn(&mut self, client: usize, response: &call_response::Response) {
        let Some(operation) = &self.clients[client].operation else { return };
        let begun_us = operation.begun_us;
        match (&operation.request, response) {
            (call_request::Request::SubmitJob(request), call_response::Response::Job(job)) => {
                self.figures.acknowledged += 1;
                let at_most_once = request.spec.as_ref().is_some_and(|spec| spec.at_most_once);
                self.known.entry(job.id).or_default().at_most_once = at_most_once;
                let before = self.oracle.acknowledged.insert(request.request_id.clone(), job.id);
                if before.is_some_and(|before| before != job.id) {
                    self.oracle.violated("I2", format!("{} was answered with two jobs", request.request_id));
                }
            }
            (call_request::Request::GetJob(request), call_response::Response::Job(job)) => {
                self.figures.reads += 1;
                let Some(facts) = self.known.get_mut(&request.job_id) else { return };
                let tasks = job.tasks.unwrap_or_default();
                let (over, waiting) = (is_over(job.state()), tasks.queued + tasks.waiting);
                let stale_end = facts.over_us.is_some_and(|since| since < begun_us) && !over && !facts.retried;
                let stale_cancel =
                    facts.cancelled_us.is_some_and(|since| since < begun_us) && waiting > 0 && !facts.retried;
                if over {
                    facts.over_us.get_or_insert(self.now_us);
                }
                if stale_end || stale_cancel {
                    let detail = format!("a read of job {} shows less than an earlier answer", request.job_id);
                    self.oracle.violated("I7", detail);
                }
            }
            (call_request::Request::CancelJob(request), _) => {
                self.figures.acknowledged += 1;
                let now_us = self.now_us;
                if let Some(facts) = self.known.get_mut(&request.job_id) {
                    facts.cancelled_us.get_or_insert(now_us);
                }
            }
            (call_request::Request::RetryJob(_), _) => self.figures.acknowledged += 1,
            _ => {}
        }
        // From the moment it is asked for: an answer that got lost doesn't undo it.
        for one in &self.clients {
            if let Some(call_request::Request::RetryJob(request)) = one.operation.as_ref().map(|one| &one.request)
                && let Some(facts) = self.known.get_mut(&request.job_id)
            {
                facts.retried = true;
            }
        }
    }

    fn refused(&mut self, client: usize, refusal: &proto::internal::Refusal) {
        let Some(operation) = &self.clients[client].operation else { return };
        if let call_request::Request::GetJob(request) = &operation.request {
            let detail = format!("job {} was acknowledged, but a read says: {}", request.job_id, refusal.message);
            self.oracle.violated("I1", detail);
        }
    }

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
        if let Some((_, call)) = call {
            if !hangs {
                self.hang_up(call);
            }
            self.break_call(call, false);
        }
    }

    fn start_agent(&mut self, worker: usize) {
        if self.workers[worker].agent.is_some() {
            return;
        }
        self.workers[worker].start_agent(self.now_us);
        let incarnation = self.workers[worker].incarnation;
        self.after(0, Event::WorkerTick { worker, incarnation });
    }

    fn tell_worker(&mut self, worker: usize, input: worker_core::Input) {
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

    fn worker_output(&mut self, worker: usize, output: worker_core::Output) {
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
            Wanted::Spawn { task, session } => self.spawn(worker, &task, session),
            Wanted::Stop { key, immediately } => {
                let delay_us = if immediately { 0 } else { self.random.skewed(3_000_000) };
                let machine = self.workers[worker].machine;
                self.after(delay_us, Event::ProcessEnds { worker, machine, key, end: End::Stopped });
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
                    self.workers[worker].processes.remove(&key);
                }
            }
            Wanted::BreakOff { .. }
            | Wanted::BreakOffPublish { .. }
            | Wanted::Discard { .. }
            | Wanted::ReadLog { .. }
            | Wanted::SessionOpened { .. }
            | Wanted::SessionLost { .. } => {}
        }
    }

    fn tell_later(&mut self, worker: usize, input: worker_core::Input) {
        let incarnation = self.workers[worker].incarnation;
        self.after(100, Event::Tell { worker, incarnation, input: Box::new(input) });
    }

    fn connect(&mut self, worker: usize, stream: u64, elsewhere: bool) {
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
            None => worker_core::Input::StreamClosed { stream },
        };
        let delay_us = self.network.delay(&mut self.random);
        self.after(delay_us, Event::Tell { worker, incarnation, input: Box::new(input) });
    }

    fn spawn(&mut self, worker: usize, task: &Task, session: u64) {
        if !self.workers[worker].may_start(session, self.now_us) {
            let exit = worker_core::Exit { end: End::NotStarted, ..worker_core::Exit::default() };
            return self.tell_later(worker, worker_core::Input::Exited { key: task.key, exit });
        }
        let key = task.key;
        self.oracle.started(key);
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
        let exit_code = if self.random.chance(150) { self.random.between(1, 5) as i32 } else { 0 };
        let run_us = 1_000 + self.random.skewed(20_000_000);
        self.workers[worker].add_process(task, exit_code, self.now_us);
        let machine = self.workers[worker].machine;
        let start_time_ms = self.workers[worker].processes[&key].adopted.start_time_ms;
        self.tell_later(worker, worker_core::Input::Started { key, start_time_ms });
        self.after(run_us, Event::ProcessEnds { worker, machine, key, end: End::ExitCode });
    }

    fn process_ends(&mut self, worker: usize, key: Key, end: End) {
        let exit_code = self.workers[worker].processes.get(&key).filter(|one| one.alive()).map(|one| one.exit_code);
        if let Some(input) = self.workers[worker].end_process(key, end, self.now_us) {
            if let Some(exit_code) = exit_code.filter(|_| end == End::ExitCode) {
                self.oracle.exited(key, exit_code);
            }
            self.tell_later(worker, input);
        }
    }

    fn keeper_deadline(&mut self, worker: usize, machine: u64, session: u64) {
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
    fn ghost(&mut self, session: u64, key: AttemptKey) {
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

    /// What has to hold when everything is over.
    fn check_end(&mut self) {
        if self.oracle.violation.is_some() {
            return;
        }
        self.oracle.check_submits(&mut self.figures);
        if let Err(violation) = self.oracle.state.check() {
            self.oracle.violated("I10", format!("at the end: {violation:?}"));
        }
        for job in 1.. {
            let Some(view) = self.oracle.state.submission(job) else { break };
            let tasks = self.oracle.state.job(job).map_or(0, |job| job.task_count);
            for ordinal in 0..tasks as u32 {
                let Some(task) = self.oracle.state.task(job, ordinal, false).filter(|_| view.has_outputs) else {
                    continue;
                };
                let object = self.store.object(&object_name(job, ordinal)).map(|key| key.attempt);
                let accepted = self.oracle.state.published(job, ordinal).map(|(attempt, ..)| attempt);
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

fn place(origin: Origin) -> Place {
    match origin {
        Origin::Client { client, .. } => Place::Client(client),
        Origin::Worker { worker, .. } => Place::Worker(worker),
    }
}

fn object_name(job: u64, ordinal: u32) -> String {
    format!("out/{job}/{ordinal}")
}
