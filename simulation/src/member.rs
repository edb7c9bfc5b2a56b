//! One coordinator: the real replica, log, snapshots and core, driven as the server's threads drive them.

use std::collections::BTreeMap;

use bytes::Bytes;
use coordinator_core::{Core, Input, Output, Settings};
use prost::Message;
use proto::internal::{Configuration, MemberReport, PeerMessage, SnapshotMetadata, StatePiece, state_piece::Piece};
use replication::{
    Compaction, Crash, Election, LogSettings, MemoryLog, MemorySnapshots, MemoryVolume, Outputs, Owner, Proposal,
    Replica, Trailing, Write, recover,
};
use scheduler::{Segment, Segments, State};

use crate::{plant::Plant, random::Random};

/// The grid's name.
pub(crate) const CLUSTER: &str = "simulated";
/// Whose state differs, where that bug is planted.
const DIFFERS: u64 = 22;

/// One coordinator's disks, and its process when it runs.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) id: u64,
    log: Option<MemoryVolume>,
    snapshots: Option<MemoryVolume>,
    pub(crate) process: Option<Process>,
    /// One more at each start.
    pub(crate) boot: u64,
    /// Nothing happens in it before.
    pub(crate) paused_until_us: u64,
    /// A sync takes up to so long.
    pub(crate) sync_us: u64,
    /// Its clock runs so many thousandths faster.
    pub(crate) drift_permille: i64,
    owner: Owner,
    members: Configuration,
    /// The newest rules that its release follows.
    pub(crate) newest_rules: u32,
    /// Of the history, on its disk.
    pub(crate) segments: BTreeMap<u32, Bytes>,
}

/// What runs while the process lives.
pub(crate) struct Process {
    pub(crate) replica: Replica,
    log: MemoryLog,
    pub(crate) snapshots: MemorySnapshots,
    pub(crate) core: Core,
    /// Written, but not synced yet: what the log thread takes next.
    waiting: Vec<LogWork>,
    /// Appended, and being synced.
    syncing: Vec<LogWork>,
    pub(crate) leader: Option<u64>,
    /// Since when its core leads, if it does.
    pub(crate) led_since_us: Option<u64>,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process").field("leader", &self.leader).finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum LogWork {
    Write(Write),
    Compact(Compaction),
}

/// What a process wants of the world.
#[derive(Debug)]
pub(crate) enum Wish {
    Send(PeerMessage),
    SendSnapshot {
        message: PeerMessage,
        content: Vec<u8>,
    },
    /// The log thread begins to write and sync.
    Sync,
    /// Encode and store in the background.
    Store {
        index: u64,
        term: u64,
        state: Box<State>,
    },
    /// Write a segment of the history to the disk.
    StoreSegment {
        number: u32,
        data: Bytes,
    },
    /// Have all of these on the disk.
    KeepSegments(Segments),
    ReadHistory {
        ticket: u64,
        segments: Vec<(u32, Segment)>,
    },
    /// Compute the digest in the background.
    Digest {
        index: u64,
        state: Box<State>,
    },
    /// Tell every other member.
    Report(MemberReport),
    Role {
        term: u64,
        leading: bool,
        leader: Option<u64>,
    },
    Committed {
        index: u64,
        term: u64,
        data: Bytes,
    },
    /// The core's own: responses, ends of calls; and how far its state was applied then.
    Core(Output, u64),
}

impl Member {
    pub(crate) fn new(id: u64, members: &[u64]) -> Self {
        let owner = Owner { cluster_id: CLUSTER.to_owned(), member_id: id };
        let members = Configuration { voters: members.to_vec(), ..Configuration::default() };
        let log = MemoryLog::create(MemoryVolume::new(), &owner, &members).expect("memory takes it");
        Self {
            id,
            log: Some(log),
            snapshots: Some(MemoryVolume::new()),
            process: None,
            boot: 0,
            paused_until_us: 0,
            sync_us: 1_000,
            drift_permille: 0,
            owner,
            members,
            newest_rules: scheduler::NEWEST_RULES,
            segments: BTreeMap::new(),
        }
    }

    /// CLOCK_BOOTTIME of its machine, milliseconds.
    pub(crate) fn now_ms(&self, now_us: u64) -> u64 {
        let drifted = i128::from(now_us) * (1_000 + i128::from(self.drift_permille)) / 1_000;
        u64::try_from(drifted / 1_000).unwrap_or(0) + self.id * 1_000
    }

    /// Starts the process from what its disks hold.
    ///
    /// # Errors
    /// When they can't be trusted, which no crash that is simulated may come to.
    pub(crate) fn start(
        &mut self,
        plant: Option<Plant>,
        random: &mut Random,
        now_us: u64,
    ) -> Result<(), replication::Failure> {
        let (Some(mut log), Some(snapshots)) = (self.log.take(), self.snapshots.take()) else { return Ok(()) };
        self.boot += 1;
        log.set_sync_lies(plant == Some(Plant::NoFsyncAtStart));
        let (mut log, contents) = MemoryLog::open(log, &self.owner, LogSettings { segment_bytes: 64 << 10 })?;
        log.volume_mut().set_sync_lies(false);
        let mut snapshots = MemorySnapshots::open(snapshots)?;
        let mut recovered = recover(contents, &mut snapshots)?;
        if plant == Some(Plant::VoteLost) {
            recovered.hard_state.vote = 0;
        }
        let (index, state) = match &recovered.snapshot {
            Some(metadata) => (metadata.index, decode(&snapshots.load(metadata)?)),
            None => (0, State::new()),
        };
        let mut settings = replication::Settings::new(self.id, random.next(), random.next());
        settings.election = if random.chance(500) { Election::Fast } else { Election::Default };
        settings.trailing = Trailing { entries: random.between(5, 200), bytes: 64 << 10 };
        let replica = Replica::new(settings, recovered)?;
        let mut settings = Settings::new(CLUSTER.to_owned(), random.next());
        settings.member = self.id;
        settings.members = self.members.voters.clone();
        settings.snapshot_commands = random.between(50, 500);
        settings.newest_rules = self.newest_rules;
        settings.cut_pause_ms = random.between(10, 3_000);
        settings.grid_prefix = "s3://grid/".to_owned();
        let mut core = Core::new(settings, index, state);
        core.step(Input::Tick, self.now_ms(now_us), 0);
        self.process = Some(Process {
            replica,
            log,
            snapshots,
            core,
            waiting: Vec::new(),
            syncing: Vec::new(),
            leader: None,
            led_since_us: None,
        });
        Ok(())
    }

    /// Ends the process at once. What was not synced stays readable, or with the power vanishes or tears.
    pub(crate) fn crash(&mut self, power: bool, random: &mut Random) {
        if let Some(process) = self.process.take() {
            self.log = Some(process.log.into_volume());
            self.snapshots = Some(process.snapshots.into_volume());
        }
        let (Some(log), Some(snapshots)) = (&mut self.log, &mut self.snapshots) else { return };
        for volume in [log, snapshots] {
            volume.crash(if power { Crash::Power { seed: random.next() } } else { Crash::Process });
        }
    }

    /// Lets the core see an input.
    pub(crate) fn tell_core(&mut self, input: Input, now_us: u64) {
        let now_ms = self.now_ms(now_us);
        if let Some(process) = &mut self.process {
            process.core.step(input, now_ms, wall(now_us));
        }
    }

    /// Lets the replica see an input. What it refuses changes nothing.
    pub(crate) fn tell_replica(&mut self, input: replication::Input) {
        if let Some(process) = &mut self.process {
            let _ = process.replica.step(input);
        }
    }

    /// Everything that waits is done, until nothing comes out any more.
    pub(crate) fn drive(&mut self, plant: Option<Plant>, now_us: u64) -> Vec<Wish> {
        let now_ms = self.now_ms(now_us);
        let Some(process) = &mut self.process else { return Vec::new() };
        let mut wishes = Vec::new();
        loop {
            let mut quiet = true;
            while let Some(outputs) = process.replica.outputs() {
                quiet = false;
                process.take_outputs(outputs, now_ms, now_us, &mut wishes);
            }
            for output in process.core.flush(now_ms, wall(now_us)) {
                quiet = false;
                process.take_core_output(output, plant, now_ms, now_us, &mut wishes);
            }
            if quiet {
                break;
            }
        }
        process.led_since_us = process.led_since_us.filter(|_| process.core.leads());
        if process.core.leads() {
            process.led_since_us.get_or_insert(now_us);
        }
        if process.syncing.is_empty() && !process.waiting.is_empty() {
            process.write_waiting(plant);
            wishes.push(Wish::Sync);
        }
        wishes
    }

    /// The sync that was asked for is done.
    pub(crate) fn synced(&mut self, plant: Option<Plant>) {
        let Some(process) = &mut self.process else { return };
        process.log.sync().expect("memory syncs");
        for work in std::mem::take(&mut process.syncing) {
            match work {
                LogWork::Write(write) if plant != Some(Plant::AckBeforeFsync) => {
                    let _ = process.replica.step(replication::Input::Persisted { number: write.number });
                }
                LogWork::Write(_) => {}
                LogWork::Compact(compaction) => {
                    process.log.compact(&compaction).expect("memory takes it");
                    process.snapshots.prune(compaction.snapshot.index).expect("memory takes it");
                }
            }
        }
    }

    /// A background snapshot is encoded: it goes to the disk.
    pub(crate) fn store(&mut self, index: u64, term: u64, state: &State, now_us: u64) {
        let Some(process) = &mut self.process else { return };
        let content = encode(state);
        let metadata = process.snapshots.store(index, term, &self.members, [content]).expect("memory takes it");
        let _ = process.replica.step(replication::Input::SnapshotStored { metadata });
        self.tell_core(Input::SnapshotEnded { index, stored: true }, now_us);
    }

    /// A snapshot of the leader's has arrived whole. Whether it was stored.
    pub(crate) fn receive_snapshot(&mut self, message: PeerMessage, content: &[u8]) -> bool {
        let Some(process) = &mut self.process else { return false };
        let Some(metadata) = message.snapshot.clone() else { return false };
        let Ok(mut incoming) = process.snapshots.receive(&metadata) else { return false };
        if process.snapshots.write(&mut incoming, content).is_err() || process.snapshots.finish(incoming).is_err() {
            return false;
        }
        let _ = process.replica.step(replication::Input::Message(message));
        true
    }

    /// Replaces the state by what a snapshot would keep of it.
    pub(crate) fn swap_state(&mut self, plant: Option<Plant>, now_us: u64) {
        let Some(process) = &self.process else { return };
        let (index, mut content) = (process.core.applied_index(), encode(process.core.state()));
        if plant == Some(Plant::DifferingRecord) && self.id == DIFFERS {
            content = with_another_record(&content);
        }
        self.tell_core(Input::Restored { index, state: Box::new(decode(&content)) }, now_us);
    }
}

impl Process {
    fn take_outputs(&mut self, outputs: Outputs, now_ms: u64, now_us: u64, wishes: &mut Vec<Wish>) {
        let wall_ms = wall(now_us);
        if let Some(role) = outputs.role {
            self.leader = role.leader;
            wishes.push(Wish::Role { term: role.term, leading: role.leading, leader: role.leader });
            self.core.step(Input::Role { term: role.term, leading: role.leading }, now_ms, wall_ms);
            self.core.step(Input::Led(role.leader.is_some() && !role.leading), now_ms, wall_ms);
        }
        wishes.extend(outputs.messages.into_iter().map(Wish::Send));
        for message in outputs.send_snapshot {
            let content = message.snapshot.as_ref().and_then(|metadata| self.snapshots.load(metadata).ok());
            match content {
                Some(content) => wishes.push(Wish::SendSnapshot { message, content }),
                None => {
                    let failed = replication::Input::SnapshotReport { to: message.to, delivered: false };
                    let _ = self.replica.step(failed);
                }
            }
        }
        self.waiting.extend(outputs.write.map(LogWork::Write));
        self.waiting.extend(outputs.compact.map(LogWork::Compact));
        if let Some(metadata) = outputs.install {
            self.install(metadata, now_ms, wall_ms);
        }
        for entry in outputs.committed {
            let (index, term, data) = (entry.index, entry.term, entry.data);
            wishes.push(Wish::Committed { index, term, data: data.clone() });
            self.core.step(Input::Committed { index, term, data }, now_ms, wall_ms);
        }
        for read in outputs.reads {
            self.core.step(Input::ReadReady { context: read.context, index: read.index }, now_ms, wall_ms);
        }
        for context in outputs.lost_reads {
            self.core.step(Input::ReadLost { context }, now_ms, wall_ms);
        }
        for sequence in outputs.dropped {
            self.core.step(Input::Dropped { sequence }, now_ms, wall_ms);
        }
        if outputs.want_snapshot {
            self.core.step(Input::SnapshotWanted, now_ms, wall_ms);
        }
    }

    fn install(&mut self, metadata: SnapshotMetadata, now_ms: u64, wall_ms: i64) {
        let content = self.snapshots.load(&metadata).expect("what was received is sound");
        let restored = Input::Restored { index: metadata.index, state: Box::new(decode(&content)) };
        self.core.step(restored, now_ms, wall_ms);
        let _ = self.replica.step(replication::Input::Installed { metadata });
    }

    fn take_core_output(
        &mut self,
        output: Output,
        plant: Option<Plant>,
        now_ms: u64,
        now_us: u64,
        wishes: &mut Vec<Wish>,
    ) {
        match output {
            Output::Propose { sequence, data } => {
                let data = crate::faults::tamper(plant, &data, self.core.state()).unwrap_or(data);
                let _ = self.replica.step(replication::Input::Propose(Proposal { id: sequence, data }));
            }
            Output::Read { context } if self.answers_unasked(plant) => {
                let index = self.core.applied_index();
                self.core.step(Input::ReadReady { context, index }, now_ms, wall(now_us));
            }
            Output::Read { context } => {
                let _ = self.replica.step(replication::Input::Read { context });
            }
            Output::Applied { index } => {
                let _ = self.replica.step(replication::Input::Applied { index });
            }
            Output::Snapshot { index, term, state } => wishes.push(Wish::Store { index, term, state }),
            Output::Digest { index, state } => wishes.push(Wish::Digest { index, state }),
            Output::StoreSegment { number, data } => wishes.push(Wish::StoreSegment { number, data }),
            Output::KeepSegments { segments } => wishes.push(Wish::KeepSegments(segments)),
            Output::ReadHistory { ticket, segments } => wishes.push(Wish::ReadHistory { ticket, segments }),
            Output::Report(report) => wishes.push(Wish::Report(report)),
            Output::Respond { .. } | Output::Finish { .. } | Output::Halt { .. } | Output::Split { .. } => {
                wishes.push(Wish::Core(output, self.core.applied_index()))
            }
        }
    }

    fn answers_unasked(&self, plant: Option<Plant>) -> bool {
        match plant {
            Some(Plant::DeposedLeaderAnswers) => self.core.leads(),
            Some(Plant::FollowerAnswers) => !self.core.leads(),
            _ => false,
        }
    }

    /// What the log thread does before it syncs.
    fn write_waiting(&mut self, plant: Option<Plant>) {
        self.syncing = std::mem::take(&mut self.waiting);
        for work in &self.syncing {
            let LogWork::Write(write) = work else { continue };
            self.log.append(write).expect("memory takes it");
            if plant == Some(Plant::AckBeforeFsync) {
                let _ = self.replica.step(replication::Input::Persisted { number: write.number });
            }
        }
    }
}

fn wall(now_us: u64) -> i64 {
    1_700_000_000_000 + (now_us / 1_000) as i64
}

/// A state as one run of bytes: each piece behind its length.
pub(crate) fn encode(state: &State) -> Vec<u8> {
    let mut content = Vec::new();
    for piece in state.encode() {
        content.extend((piece.len() as u32).to_le_bytes());
        content.extend_from_slice(&piece);
    }
    content
}

/// The same, but that the first job was created a millisecond later.
fn with_another_record(content: &[u8]) -> Vec<u8> {
    let mut changed = Vec::new();
    let mut done = false;
    for piece in pieces(content) {
        let mut piece = StatePiece::decode(piece).expect("a snapshot that was just encoded");
        if let Some(Piece::Jobs(jobs)) = &mut piece.piece
            && let Some(job) = jobs.jobs.first_mut().filter(|_| !done)
        {
            job.created_ms += 1;
            done = true;
        }
        let piece = piece.encode_to_vec();
        changed.extend((piece.len() as u32).to_le_bytes());
        changed.extend_from_slice(&piece);
    }
    changed
}

fn pieces(mut content: &[u8]) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    while let Some((length, rest)) = content.split_first_chunk::<4>() {
        let (piece, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        pieces.push(Bytes::copy_from_slice(piece));
        content = rest;
    }
    pieces
}

/// # Panics
/// When the bytes are not those of [`encode`]: a bug of the snapshot's code, which is what is tested.
pub(crate) fn decode(content: &[u8]) -> State {
    State::decode(pieces(content)).expect("a snapshot that was just encoded")
}
