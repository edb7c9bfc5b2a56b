//! Three members, a network that loses and delays, and what must hold whatever happens.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use replication::{Crash, Input, Outputs, PeerMessage, Proposal};

use crate::member::{Member, Plant, State};

const MEMBERS: u64 = 3;
/// In virtual milliseconds.
const TICK: u64 = 50;
const APPEND_RESPONSE: u32 = 4;

/// SplitMix64.
pub struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

enum Parcel {
    Message(PeerMessage),
    Snapshot(PeerMessage, Vec<u8>),
}

#[derive(Default, Debug, PartialEq, Eq)]
pub struct Figures {
    pub acked: u64,
    pub crashes: u64,
    pub terms: u64,
    pub installs: u64,
    pub reads: u64,
    pub history: u64,
}

pub struct World {
    pub dice: Dice,
    now: u64,
    plant: Plant,
    seed: u64,
    faults: bool,
    members: Vec<Member>,
    /// In order per pair; a broken connection loses all that is under way.
    wires: BTreeMap<(u64, u64), VecDeque<(u64, Parcel)>>,
    cut: BTreeSet<(u64, u64)>,
    leaders: BTreeMap<u64, u64>,
    committed: BTreeMap<u64, (u64, Bytes)>,
    acked: BTreeMap<u64, u64>,
    highest_acked: u64,
    dropped: BTreeSet<u64>,
    /// Context -> the highest index that was acknowledged when it was asked, and by whom it was.
    reads: BTreeMap<u64, (u64, u64)>,
    next_value: u64,
    pub figures: Figures,
}

impl World {
    pub fn new(seed: u64, plant: Plant) -> World {
        let mut world = World {
            dice: Dice(seed),
            now: 0,
            plant,
            seed,
            faults: true,
            members: (1..=MEMBERS).map(|id| Member::new(id, MEMBERS)).collect(),
            wires: BTreeMap::new(),
            cut: BTreeSet::new(),
            leaders: BTreeMap::new(),
            committed: BTreeMap::new(),
            acked: BTreeMap::new(),
            highest_acked: 0,
            dropped: BTreeSet::new(),
            reads: BTreeMap::new(),
            next_value: 1,
            figures: Figures::default(),
        };
        for id in 1..=MEMBERS {
            world.start(id);
        }
        world
    }

    pub fn run(&mut self, milliseconds: u64) {
        let end = self.now + milliseconds;
        while self.now < end {
            self.now += 1;
            if self.faults {
                self.misfortune();
            }
            self.ask();
            for id in 1..=MEMBERS {
                self.pass_time(id);
                self.deliver(id);
                self.drain(id);
            }
        }
    }

    /// Everything heals: a leader is found, all is applied everywhere, and nothing that was promised is missing.
    pub fn heal_and_check(&mut self) {
        self.faults = false;
        self.cut.clear();
        for id in 1..=MEMBERS {
            if self.member(id).running.is_none() {
                self.start(id);
            }
        }
        self.run(5_000);
        let acked_before = self.acked.len();
        self.run(3_000);
        assert!(self.acked.len() > acked_before, "nothing is acknowledged though all is healed");
        self.next_value = u64::MAX;
        self.run(3_000);
        let states: Vec<&State> = self.members.iter().map(|member| &member.running.as_ref().unwrap().state).collect();
        assert!(states.iter().all(|state| **state == *states[0]), "states differ after healing");
        for (value, index) in &self.acked {
            assert_eq!(states[0].values.get(value), Some(index), "acknowledged value {value} is lost");
        }
        for value in &self.dropped {
            assert!(!states[0].values.contains_key(value), "dropped value {value} was committed");
        }
        assert!(self.reads.is_empty(), "reads {:?} got no answer", self.reads);
        self.figures.acked = self.acked.len() as u64;
        self.figures.terms = self.leaders.len() as u64;
    }

    fn member(&mut self, id: u64) -> &mut Member {
        &mut self.members[id as usize - 1]
    }

    fn start(&mut self, id: u64) {
        let (seed, plant, now) = (self.seed, self.plant, self.now);
        let member = self.member(id);
        member.start(seed, plant);
        member.running.as_mut().unwrap().last_tick = now;
    }

    fn misfortune(&mut self) {
        let id = 1 + self.dice.below(MEMBERS);
        if self.dice.one_in(4_000) {
            let crash = match self.dice.below(2) {
                0 => Crash::Process,
                _ => Crash::Power { seed: self.dice.next() },
            };
            self.crash(id, crash);
        }
        if self.dice.one_in(30_000) {
            let seed = self.dice.next();
            (1..=MEMBERS).for_each(|id| self.crash(id, Crash::Power { seed }));
        }
        if self.member(id).running.is_none() && self.dice.one_in(300) {
            // Power may fail also between two starts: what the first one read back must be on the disk.
            self.start(id);
            if self.dice.one_in(3) {
                (0..5).for_each(|_| self.drain(id));
            }
        }
        if self.member(id).running.is_none() && self.dice.one_in(1_000) {
            let seed = self.dice.next();
            self.member(id).lose_power(seed);
        }
        if self.dice.one_in(3_000) {
            let other = 1 + self.dice.below(MEMBERS);
            self.cut.insert((id, other));
            if self.dice.one_in(2) {
                self.cut.insert((other, id));
            }
        }
        if self.dice.one_in(2_000) {
            self.cut.clear();
        }
        if self.dice.one_in(2_000) {
            self.wires.retain(|(from, _), _| *from != id);
        }
        if self.dice.one_in(5_000)
            && let Some(running) = &mut self.member(id).running
        {
            running.step(Input::TransferLeader { to: None });
        }
    }

    fn crash(&mut self, id: u64, crash: Crash) {
        if self.member(id).running.is_some() {
            self.figures.crashes += 1;
        }
        self.member(id).crash(crash);
        self.wires.retain(|(from, to), _| *from != id && *to != id);
        self.reads.retain(|_, (_, asked)| *asked != id);
    }

    /// Clients: they propose and read anywhere.
    fn ask(&mut self) {
        let id = 1 + self.dice.below(MEMBERS);
        if self.next_value < u64::MAX && self.dice.one_in(5) {
            let (count, first) = (1 + self.dice.below(4), self.next_value);
            self.next_value += count;
            let size = 8 + self.dice.below(100) as usize;
            if let Some(running) = &mut self.member(id).running {
                for value in first..first + count {
                    let mut data = value.to_le_bytes().to_vec();
                    data.resize(size, 7);
                    running.step(Input::Propose(Proposal { id: value, data: data.into() }));
                }
            }
        }
        if self.next_value < u64::MAX && self.dice.one_in(20) {
            let (context, least) = (self.now, self.highest_acked);
            if let Some(running) = &mut self.member(id).running {
                running.step(Input::Read { context });
                self.reads.insert(context, (least, id));
            }
        }
    }

    fn pass_time(&mut self, id: u64) {
        let (now, plant) = (self.now, self.plant);
        let slow = self.faults && self.dice.one_in(50);
        let sync_time = 1 + self.dice.below(if slow { 400 } else { 8 });
        let snapshot = self.dice.one_in(1_500);
        let Some(running) = &mut self.member(id).running else { return };
        if now - running.last_tick >= TICK {
            running.last_tick = now;
            running.step(Input::Tick);
        }
        if running.syncing.is_some_and(|(done, ..)| done <= now) {
            running.end_sync();
        }
        if running.syncing.is_none() && !running.queue.is_empty() {
            running.begin_sync(now + sync_time, plant);
        }
        if snapshot && running.state.applied > 0 {
            running.snapshot(MEMBERS);
        }
    }

    fn deliver(&mut self, to: u64) {
        for from in 1..=MEMBERS {
            let now = self.now;
            let Some(wire) = self.wires.get_mut(&(from, to)) else { continue };
            let mut arrived = Vec::new();
            while wire.front().is_some_and(|(at, _)| *at <= now) {
                arrived.extend(wire.pop_front().map(|(_, parcel)| parcel));
            }
            for parcel in arrived {
                let lost = self.cut.contains(&(from, to)) || (self.faults && self.dice.one_in(50));
                let repeated = self.faults && self.dice.one_in(50);
                self.arrive(from, to, parcel, lost, repeated);
            }
        }
    }

    fn arrive(&mut self, from: u64, to: u64, parcel: Parcel, lost: bool, repeated: bool) {
        let receiver = self.member(to).running.as_mut().filter(|_| !lost);
        let delivered = receiver.is_some();
        match (parcel, receiver) {
            (Parcel::Message(message), Some(running)) => {
                for _ in 0..1 + u64::from(repeated) {
                    running.step(Input::Message(message.clone()));
                }
            }
            (Parcel::Snapshot(message, content), Some(running)) => {
                running.receive_snapshot(message.snapshot.as_ref().unwrap(), &content);
                // Refused while another one is being installed: that one is as good.
                let _ = running.replica.step(Input::Message(message));
                self.report(from, Input::SnapshotReport { to, delivered: true });
            }
            (Parcel::Message(message), None) => {
                if message.kind != APPEND_RESPONSE {
                    self.report(from, Input::Unreachable { to });
                }
            }
            (Parcel::Snapshot(..), None) => self.report(from, Input::SnapshotReport { to, delivered }),
        }
    }

    fn report(&mut self, id: u64, input: Input) {
        if let Some(running) = &mut self.member(id).running {
            running.step(input);
        }
    }

    fn drain(&mut self, id: u64) {
        while let Some(running) = &mut self.member(id).running
            && let Some(mut outputs) = running.replica.outputs()
        {
            if let Some(role) = outputs.role
                && role.leading
            {
                let leader = *self.leaders.entry(role.term).or_insert(id);
                assert_eq!(leader, id, "term {} has two leaders", role.term);
            }
            self.check(id, &outputs);
            self.figures.installs += u64::from(outputs.install.is_some());
            let running = self.member(id).running.as_mut().unwrap();
            let snapshots: Vec<Parcel> = outputs
                .send_snapshot
                .drain(..)
                .map(|message| {
                    let content = running.snapshots.load(message.snapshot.as_ref().unwrap()).unwrap();
                    Parcel::Snapshot(message, content)
                })
                .collect();
            running.take(&mut outputs);
            if outputs.want_snapshot && running.state.applied > 0 {
                running.snapshot(MEMBERS);
            }
            self.send(id, outputs.messages.into_iter().map(Parcel::Message).chain(snapshots).collect());
        }
    }

    fn check(&mut self, id: u64, outputs: &Outputs) {
        for committed in &outputs.committed {
            let entry = (committed.term, committed.data.clone());
            let known = self.committed.entry(committed.index).or_insert_with(|| entry.clone());
            assert_eq!(*known, entry, "committed entry {} changed", committed.index);
            if let Some(value) = committed.proposal {
                self.acked.insert(value, committed.index);
                self.highest_acked = self.highest_acked.max(committed.index);
            }
            self.figures.history = self.figures.history.wrapping_mul(31).wrapping_add(self.now ^ committed.index);
        }
        for read in &outputs.reads {
            let (least, asked) = self.reads.remove(&read.context).expect("a read is answered once");
            assert_eq!(asked, id);
            assert!(read.index >= least, "a read at {} misses what was acknowledged at {least}", read.index);
            self.figures.reads += 1;
        }
        for context in &outputs.lost_reads {
            self.reads.remove(context).expect("a read is answered once");
        }
        self.dropped.extend(&outputs.dropped);
    }

    fn send(&mut self, from: u64, parcels: Vec<Parcel>) {
        for parcel in parcels {
            let to = match &parcel {
                Parcel::Message(message) | Parcel::Snapshot(message, _) => message.to,
            };
            let slow = self.faults && self.dice.one_in(100);
            let delay = 1 + self.dice.below(if slow { 300 } else { 5 });
            let now = self.now;
            let wire = self.wires.entry((from, to)).or_default();
            let at = wire.back().map_or(0, |(at, _)| *at).max(now + delay);
            wire.push_back((at, parcel));
        }
    }
}
