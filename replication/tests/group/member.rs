//! One member: a replica, its log, its snapshots, and a state machine that remembers what it applied.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use replication::{
    Compaction, Configuration, Crash, Election, Input, Log, LogSettings, MemoryLog, MemorySnapshots, MemoryVolume,
    Outputs, Owner, Recovered, Replica, Settings, SnapshotMetadata, Snapshots, Trailing, Write, recover,
};

/// Small, so that logs rotate and compact all the time.
const SEGMENT_BYTES: u64 = 4096;
const TRAILING: Trailing = Trailing { entries: 30, bytes: 1 << 20 };

/// Bugs that the checks have to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    None,
    AckBeforeSync,
    NoSyncAtStart,
}

pub enum Work {
    Write(Write),
    Compact(Compaction),
}

pub struct Member {
    pub id: u64,
    pub running: Option<Running>,
    disk: Option<(MemoryVolume, MemoryVolume)>,
    starts: u64,
}

pub struct Running {
    pub replica: Replica,
    pub log: MemoryLog,
    pub snapshots: MemorySnapshots,
    pub queue: VecDeque<Work>,
    /// What the log is busy with, and when it is done with it.
    pub syncing: Option<(u64, Option<u64>, bool)>,
    pub state: State,
    pub last_tick: u64,
}

/// Values in the order of their indexes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub applied: u64,
    pub applied_term: u64,
    pub values: BTreeMap<u64, u64>,
}

impl State {
    pub fn apply(&mut self, index: u64, term: u64, data: &[u8]) {
        assert_eq!(index, self.applied + 1, "committed entries come without gap");
        self.applied = index;
        self.applied_term = term;
        if !data.is_empty() {
            let value = u64::from_le_bytes(data[..8].try_into().unwrap());
            assert_eq!(self.values.insert(value, index), None, "value {value} was committed twice");
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let pairs = self.values.iter().flat_map(|(value, index)| [*value, *index]);
        [self.applied, self.applied_term].into_iter().chain(pairs).flat_map(u64::to_le_bytes).collect()
    }

    fn decode(bytes: &[u8]) -> State {
        let mut numbers = bytes.chunks_exact(8).map(|number| u64::from_le_bytes(number.try_into().unwrap()));
        let (applied, applied_term) = (numbers.next().unwrap(), numbers.next().unwrap());
        let numbers: Vec<u64> = numbers.collect();
        let values = numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        State { applied, applied_term, values }
    }
}

pub fn members(count: u64) -> Configuration {
    Configuration { voters: (1..=count).collect(), ..Configuration::default() }
}

fn owner(id: u64) -> Owner {
    Owner { cluster_id: "grid".to_owned(), member_id: id }
}

impl Member {
    pub fn new(id: u64, count: u64) -> Member {
        let log = Log::create(MemoryVolume::new(), &owner(id), &members(count)).unwrap();
        Member { id, running: None, disk: Some((log, MemoryVolume::new())), starts: 0 }
    }

    /// Whatever the disk holds is enough, or the replica refuses.
    pub fn start(&mut self, seed: u64, plant: Plant) {
        let (mut log_volume, mut snapshot_volume) = self.disk.take().unwrap();
        self.starts += 1;
        let lies = plant == Plant::NoSyncAtStart;
        log_volume.set_sync_lies(lies);
        snapshot_volume.set_sync_lies(lies);
        let settings = LogSettings { segment_bytes: SEGMENT_BYTES };
        let (mut log, contents) = Log::open(log_volume, &owner(self.id), settings).unwrap();
        let mut snapshots = Snapshots::open(snapshot_volume).unwrap();
        log.volume_mut().set_sync_lies(false);
        snapshots.volume_mut().set_sync_lies(false);
        let recovered: Recovered = recover(contents, &mut snapshots).unwrap();
        let state = match &recovered.snapshot {
            Some(metadata) => State::decode(&snapshots.load(metadata).unwrap()),
            None => State::default(),
        };
        let mut settings = Settings::new(self.id, seed ^ self.id, self.starts);
        settings.election = Election::Fast;
        settings.trailing = TRAILING;
        let replica = Replica::new(settings, recovered).unwrap();
        let queue = VecDeque::new();
        self.running = Some(Running { replica, log, snapshots, queue, syncing: None, state, last_tick: 0 });
    }

    pub fn crash(&mut self, crash: Crash) {
        let Some(running) = self.running.take() else { return };
        let (mut log, mut snapshots) = (running.log.into_volume(), running.snapshots.into_volume());
        log.crash(crash);
        snapshots.crash(crash);
        self.disk = Some((log, snapshots));
    }

    /// The power of a stopped machine fails too.
    pub fn lose_power(&mut self, seed: u64) {
        if let Some((log, snapshots)) = &mut self.disk {
            log.crash(Crash::Power { seed });
            snapshots.crash(Crash::Power { seed });
        }
    }
}

impl Running {
    pub fn step(&mut self, input: Input) {
        self.replica.step(input).expect("no message of a healthy peer is refused");
    }

    /// What the driver does with outputs, but for sending: applies, queues for the log.
    pub fn take(&mut self, outputs: &mut Outputs) {
        self.queue.extend(outputs.write.take().map(Work::Write));
        self.queue.extend(outputs.compact.take().map(Work::Compact));
        if let Some(metadata) = outputs.install.take() {
            self.state = State::decode(&self.snapshots.load(&metadata).unwrap());
            assert_eq!(self.state.applied, metadata.index);
            self.step(Input::Installed { metadata });
        }
        for committed in &outputs.committed {
            self.state.apply(committed.index, committed.term, &committed.data);
        }
        if let Some(last) = outputs.committed.last() {
            self.step(Input::Applied { index: last.index });
        }
    }

    pub fn snapshot(&mut self, count: u64) {
        let chunks = [Bytes::from(self.state.encode())];
        let (applied, term) = (self.state.applied, self.state.applied_term);
        let metadata = self.snapshots.store(applied, term, &members(count), chunks).unwrap();
        self.step(Input::SnapshotStored { metadata });
    }

    /// The leader's file, stored before its message is stepped.
    pub fn receive_snapshot(&mut self, announced: &SnapshotMetadata, content: &[u8]) {
        let mut incoming = self.snapshots.receive(announced).unwrap();
        for chunk in content.chunks(100) {
            self.snapshots.write(&mut incoming, chunk).unwrap();
        }
        self.snapshots.finish(incoming).unwrap();
    }

    /// Hands all that waits to the log; done at `done`.
    pub fn begin_sync(&mut self, done: u64, plant: Plant) {
        let (mut number, mut must_sync) = (None, false);
        while let Some(Work::Write(write)) = self.queue.front() {
            self.log.append(write).unwrap();
            number = Some(write.number);
            must_sync |= write.must_sync;
            self.queue.pop_front();
        }
        self.syncing = Some((done, number, must_sync));
        if plant == Plant::AckBeforeSync
            && let Some(number) = number
        {
            self.step(Input::Persisted { number });
        }
    }

    pub fn end_sync(&mut self) {
        let Some((_, number, must_sync)) = self.syncing.take() else { return };
        if must_sync {
            self.log.sync().unwrap();
        }
        if let Some(number) = number {
            self.step(Input::Persisted { number });
        }
        if let Some(Work::Compact(_)) = self.queue.front()
            && let Some(Work::Compact(compaction)) = self.queue.pop_front()
        {
            self.log.compact(&compaction).unwrap();
            self.snapshots.prune(compaction.snapshot.index).unwrap();
        }
        if self.queue.is_empty() {
            self.log.idle().unwrap();
        }
    }
}
