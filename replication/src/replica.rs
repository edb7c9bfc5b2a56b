//! The replica: raft-rs behind `step` and `outputs`.

use std::collections::{BTreeMap, BTreeSet};

use proto::internal::{HardState, LogEntry, PeerMessage, SnapshotMetadata};
use raft::{
    Config, RawNode, ReadOnlyOption, Ready, SnapshotStatus, StateRole,
    eraftpb::{Entry, Message, MessageType},
};

use self::{guard::Kind, held::Held, reads::Reads, storage::MemoryStorage, timeout::Timeout};
use crate::{Committed, Compaction, Failure, Input, Outputs, Proposal, Recovered, Role, Settings, Trailing, Write};

mod asked;
mod batch;
mod convert;
mod guard;
mod held;
mod logger;
mod reads;
mod status;
mod storage;
#[cfg(test)]
mod tests;
mod timeout;

pub use self::guard::Refused;

/// In ticks; the heartbeat carries commit indexes and reads.
const HEARTBEAT_TICKS: usize = 2;
const MESSAGE_BYTES: u64 = 1 << 20;
const INFLIGHT_MESSAGES: usize = 256;
const UNCOMMITTED_BYTES: u64 = 64 << 20;
const COMMITTED_BYTES_A_READY: u64 = 4 << 20;
/// A commit index that changed alone is worth no write of its own; in ticks until it gets one all the same.
const LAZY_COMMIT_TICKS: u64 = 10;

/// One member of the group, as a pure step function: feed it with [`Replica::step`] whatever waits, then take
/// [`Replica::outputs`] until there are none. The same inputs give the same outputs, always.
pub struct Replica {
    node: RawNode<MemoryStorage>,
    id: u64,
    trailing: Trailing,
    members: BTreeSet<u64>,
    proposals: Vec<Proposal>,
    /// Index -> (term, id) of this replica's own proposals that are in the log and not yet decided.
    undecided: BTreeMap<u64, (u64, u64)>,
    reads: Reads,
    held: Held,
    timeout: Timeout,
    /// What the log was last handed, and since when that is out of date.
    written: HardState,
    unwritten_since: Option<u64>,
    /// How far the state machine got.
    applied_index: u64,
    /// How far the consensus library may believe it got, once that is persisted.
    applied_goal: u64,
    /// The number of the write that makes a received snapshot part of the log.
    installing: Option<u64>,
    ticks: u64,
    heard: BTreeMap<u64, u64>,
    /// While it leads: the commit index that each follower was last sent.
    told_commit: BTreeMap<u64, u64>,
    role: Role,
    outputs: Outputs,
}

impl Replica {
    /// A replica as it was when it stopped. The state machine has to be loaded from `recovered.snapshot` before
    /// the first step; committed entries behind that come out again.
    ///
    /// # Errors
    /// If what was recovered contradicts itself, or `settings.id` is no member.
    pub fn new(settings: Settings, recovered: Recovered) -> Result<Replica, Failure> {
        check_recovered(&settings, &recovered)?;
        let applied = recovered.snapshot.as_ref().map_or(recovered.base_index, |snapshot| snapshot.index);
        let configuration = &recovered.configuration;
        let members = configuration.voters.iter().chain(&configuration.learners).copied().collect();
        let written = recovered.hard_state;
        let election = settings.election.ticks();
        let config = Config {
            id: settings.id,
            applied,
            election_tick: election,
            heartbeat_tick: HEARTBEAT_TICKS,
            pre_vote: true,
            check_quorum: true,
            // Its batching adds entries to an empty append of another place (seen in the tests): `send` does it.
            batch_append: false,
            // Followers hear of a commit with the next append or heartbeat, or when they ask for a read: nobody else
            // waits for it, and a message of its own to each of them would come when the outcome goes out.
            skip_bcast_commit: true,
            read_only_option: ReadOnlyOption::Safe,
            max_size_per_msg: MESSAGE_BYTES,
            max_inflight_msgs: INFLIGHT_MESSAGES,
            max_uncommitted_size: UNCOMMITTED_BYTES,
            max_committed_size_per_ready: COMMITTED_BYTES_A_READY,
            ..Config::default()
        };
        let storage = MemoryStorage::new(recovered);
        let logger = logger::logger(settings.log.clone());
        let node = RawNode::new(&config, storage, &logger)
            .map_err(|source| Failure::Consensus { source: Box::new(source) })?;
        let mut replica = Replica {
            node,
            id: settings.id,
            trailing: settings.trailing,
            members,
            proposals: Vec::new(),
            undecided: BTreeMap::new(),
            reads: Reads::new(settings.id, settings.boot, election as u64),
            held: Held::default(),
            timeout: Timeout::new(settings.seed, election),
            written,
            unwritten_since: None,
            applied_index: applied,
            applied_goal: applied,
            installing: None,
            ticks: 0,
            heard: BTreeMap::new(),
            told_commit: BTreeMap::new(),
            role: Role { term: written.term, leader: None, leading: false },
            outputs: Outputs::default(),
        };
        replica.timeout.spread(&mut replica.node);
        Ok(replica)
    }

    /// Takes one input. Cheap: proposals and reads are only collected, until [`Replica::outputs`].
    ///
    /// # Errors
    /// A message that no healthy peer sends is refused and changes nothing; all other inputs are taken.
    pub fn step(&mut self, input: Input) -> Result<(), Refused> {
        match input {
            Input::Tick => self.tick(),
            Input::Message(message) => self.receive(message)?,
            Input::Propose(proposal) => self.proposals.push(proposal),
            Input::Read { context } => self.reads.wait(context, self.ticks),
            Input::Persisted { number } => {
                let released = self.held.persisted(number);
                self.release(released);
            }
            Input::Applied { index } => self.applied(index),
            Input::SnapshotStored { metadata } => self.snapshot_stored(metadata),
            Input::Installed { metadata } => self.applied(metadata.index),
            Input::SnapshotReport { to, delivered } => {
                let status = if delivered { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
                self.node.report_snapshot(to, status);
            }
            Input::Unreachable { to } => self.node.report_unreachable(to),
            Input::TransferLeader { to } => self.transfer(to),
        }
        self.settle();
        Ok(())
    }

    /// Whether [`Replica::step`] would take this message now; to be asked before a snapshot's file is received.
    ///
    /// # Errors
    /// What `step` would say.
    pub fn check(&self, message: &PeerMessage) -> Result<(), Refused> {
        self.examine(message).map(|_| ())
    }

    /// What is to be done now; `None` when there is nothing more until the next step. All proposals that wait become
    /// one message, all reads one round.
    pub fn outputs(&mut self) -> Option<Outputs> {
        self.propose();
        self.ask_reads();
        self.settle();
        loop {
            self.note_role();
            let more = self.node.has_ready();
            if more {
                let ready = self.node.ready();
                self.take_ready(ready);
                self.settle();
            }
            self.outputs.want_snapshot |= self.node.store().take_wanted();
            if self.outputs != Outputs::default() {
                return Some(std::mem::take(&mut self.outputs));
            }
            if !more {
                return None;
            }
        }
    }

    fn leading(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    fn tick(&mut self) {
        self.ticks += 1;
        self.outputs.lost_reads.append(&mut self.reads.expire(self.ticks));
        self.ask_again();
        // A campaign looks at the entries since the last applied one, which a snapshot has just replaced.
        if self.installing.is_none() {
            self.node.tick();
            self.timeout.ticked(&self.node);
        }
    }

    fn receive(&mut self, message: PeerMessage) -> Result<(), Refused> {
        if let Some(kind) = self.examine(&message)? {
            self.heard.insert(message.from, self.ticks);
            match kind {
                Kind::ReadAsked => self.asked(message),
                Kind::ReadAnswered => self.answered(&message),
                // What the library says to a valid message (a proposal dropped, a peer unknown) concerns no one.
                _ => drop(self.node.step(convert::message_to_raft(message, kind))),
            }
        }
        Ok(())
    }

    /// `None` of a message that is out of date.
    fn examine(&self, message: &PeerMessage) -> Result<Option<Kind>, Refused> {
        let kind = guard::check(message, self.id, &self.members)?;
        let installing = self.installing.is_some();
        let current = guard::check_against(message, kind, &self.node, self.held.must_sync(), installing)?;
        Ok(current.then_some(kind))
    }

    fn propose(&mut self) {
        let (proposals, empty): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.proposals).into_iter().partition(|proposal| !proposal.data.is_empty());
        self.outputs.dropped.extend(empty.iter().map(|proposal| proposal.id));
        if proposals.is_empty() {
            return;
        }
        let entries: Vec<Entry> =
            proposals.iter().map(|proposal| Entry { data: proposal.data.clone(), ..Entry::default() }).collect();
        let mut message = Message { from: self.id, ..Message::default() };
        message.set_msg_type(MessageType::MsgPropose);
        message.set_entries(entries.into());
        // A follower would forward it, and the leader then couldn't say what became of it.
        if self.leading() && self.node.raft.step(message).is_ok() {
            let term = self.node.raft.term;
            let first = self.node.raft.raft_log.last_index() + 1 - proposals.len() as u64;
            self.undecided.extend((first..).zip(proposals).map(|(index, proposal)| (index, (term, proposal.id))));
        } else {
            self.outputs.dropped.extend(proposals.iter().map(|proposal| proposal.id));
        }
    }

    /// The library drops reads without a word when it doesn't lead or has committed nothing in its term, so it is
    /// asked only when neither holds.
    fn ask_reads(&mut self) {
        if !self.reads.any_waiting() {
            return;
        }
        if self.knows_another_leader() {
            self.ask_leader();
        } else if !self.leading() {
            self.outputs.lost_reads.append(&mut self.reads.lose());
        } else if self.node.raft.commit_to_current_term() {
            let context = self.reads.ask(self.ticks);
            self.node.read_index(context);
        }
    }

    fn transfer(&mut self, to: Option<u64>) {
        if !self.leading() {
            return;
        }
        let voters = |id: &u64| *id != self.id && self.node.raft.prs().conf().voters().contains(*id);
        let best = || {
            let active = self.members.iter().filter(|id| voters(id));
            active.max_by_key(|id| {
                self.node.raft.prs().get(**id).map(|progress| (progress.recent_active, progress.matched))
            })
        };
        if let Some(to) = to.filter(voters).or_else(|| best().copied()) {
            self.node.transfer_leader(to);
        }
    }

    fn applied(&mut self, index: u64) {
        self.applied_index = self.applied_index.max(index);
        self.applied_goal = self.applied_goal.max(index);
    }

    /// After each change of the library's state: tell it how far the state machine got, and overrule its dice.
    fn settle(&mut self) {
        let log = &self.node.raft.raft_log;
        let applied = self.applied_goal.min(log.committed).min(log.persisted);
        if applied > log.applied {
            self.node.advance_apply_to(applied);
        }
        self.timeout.spread(&mut self.node);
    }

    fn snapshot_stored(&mut self, metadata: SnapshotMetadata) {
        let newest = self.node.store().snapshot_index();
        if metadata.index <= newest || metadata.index > self.applied_index {
            return;
        }
        let base = self.compaction_base(metadata.index);
        let storage = self.node.mut_store();
        storage.set_snapshot(metadata.clone());
        storage.compact(base);
        let (base_index, base_term) = storage.base();
        self.outputs.compact = Some(Compaction { snapshot: metadata, base_index, base_term });
    }

    /// The last entry to forget: the trailing ones stay, and so does what a live follower still needs, as long as
    /// that isn't several times as much.
    fn compaction_base(&self, snapshot: u64) -> u64 {
        let storage = self.node.store();
        let usual = storage.trailing_base(snapshot, self.trailing);
        let bytes = self.trailing.bytes.saturating_mul(4);
        let most = storage.trailing_base(snapshot, Trailing { entries: u64::MAX, bytes });
        let needed = self.node.raft.prs().iter().filter(|(id, progress)| **id != self.id && progress.recent_active);
        let needed = needed.map(|(_, progress)| progress.matched).min().filter(|_| self.leading());
        let base = needed.map_or(usual, |needed| usual.min(needed.max(most)));
        base.min(self.node.raft.raft_log.applied)
    }

    fn note_role(&mut self) {
        let raft = &self.node.raft;
        let leader = (raft.leader_id != 0).then_some(raft.leader_id);
        let role = Role { term: raft.term, leader, leading: self.leading() };
        if role == self.role {
            return;
        }
        if role.term != self.role.term || !role.leading {
            self.outputs.lost_reads.append(&mut self.reads.lose_asked());
        }
        self.told_commit.clear();
        self.role = role;
        self.outputs.role = Some(role);
    }

    fn take_ready(&mut self, mut ready: Ready) {
        let number = ready.number();
        let messages = ready.take_messages();
        self.send(messages);
        let snapshot = convert::snapshot_from_raft(ready.snapshot());
        if let Some(metadata) = &snapshot {
            self.node.mut_store().install(metadata.clone());
            self.members = guard::members_of(metadata);
            self.undecided = self.undecided.split_off(&(metadata.index + 1));
            self.installing = Some(number);
            self.applied_goal = self.applied_goal.max(metadata.index);
            self.outputs.install = Some(metadata.clone());
        }
        let entries: Vec<LogEntry> = ready.entries().iter().map(convert::entry_from_raft).collect();
        let new_entries = ready.take_entries();
        self.node.mut_store().append(new_entries);
        self.take_committed(ready.take_committed_entries());
        for state in ready.take_read_states() {
            self.confirmed(&state.request_ctx, state.index);
        }
        let write = self.write(&ready, entries, snapshot);
        let messages = ready.take_persisted_messages();
        self.held.push(number, write.as_ref().map(|write| write.must_sync), messages);
        self.outputs.write = write;
        self.node.advance_append_async(ready);
        let released = self.held.released();
        self.release(released);
    }

    fn take_committed(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            let mut proposal = None;
            if let Some((term, id)) = self.undecided.remove(&entry.index) {
                if term == entry.term {
                    proposal = Some(id);
                } else {
                    self.outputs.dropped.push(id);
                }
            }
            let Entry { index, term, data, .. } = entry;
            self.outputs.committed.push(Committed { index, term, data, proposal });
        }
    }

    /// A commit index that changed alone rides along with the next write, or goes after a while.
    fn write(&mut self, ready: &Ready, entries: Vec<LogEntry>, snapshot: Option<SnapshotMetadata>) -> Option<Write> {
        let hard_state = convert::hard_state_from_raft(&self.node.raft.hard_state());
        let changed = hard_state != self.written;
        let since = *self.unwritten_since.get_or_insert(self.ticks);
        if !changed {
            self.unwritten_since = None;
        }
        let due = changed && self.ticks - since >= LAZY_COMMIT_TICKS;
        if !ready.must_sync() && !due {
            return None;
        }
        self.unwritten_since = None;
        self.written = hard_state;
        let hard_state = changed.then_some(hard_state);
        Some(Write { number: ready.number(), hard_state, entries, snapshot, must_sync: ready.must_sync() })
    }

    /// The library hears of it before anybody can answer to the messages: a fresh leader must have no unpersisted
    /// entries.
    fn release(&mut self, released: Option<(u64, Vec<Message>)>) {
        let Some((number, messages)) = released else { return };
        self.node.on_persist_ready(number);
        if self.installing.is_some_and(|installing| installing <= number) {
            self.installing = None;
        }
        self.send(messages);
    }

    fn send(&mut self, messages: Vec<Message>) {
        for message in messages {
            if matches!(message.get_msg_type(), MessageType::MsgAppend | MessageType::MsgHeartbeat) {
                self.told_commit.insert(message.to, message.commit);
            }
            let message = convert::message_from_raft(message);
            if message.snapshot.is_some() {
                self.outputs.send_snapshot.push(message);
            } else {
                batch::push(&mut self.outputs.messages, message, MESSAGE_BYTES);
            }
        }
    }
}

/// What raft-rs would answer with a panic.
fn check_recovered(settings: &Settings, recovered: &Recovered) -> Result<(), Failure> {
    let contradiction = |reason, left, right| Err(Failure::Contradiction { reason, left, right });
    let configuration = &recovered.configuration;
    if guard::check_configuration(configuration, settings.id).is_err() {
        return contradiction("the member isn't part of its own group", settings.id, configuration.voters.len() as u64);
    }
    let applied = recovered.snapshot.as_ref().map_or(recovered.base_index, |snapshot| snapshot.index);
    let (commit, last) = (recovered.hard_state.commit, recovered.last_index());
    if recovered.hard_state.term == 0 {
        return contradiction("a member's term is never 0", 0, 0);
    }
    if commit > last {
        return contradiction("more is committed than the log holds", commit, last);
    }
    if applied > commit || applied < recovered.base_index {
        return contradiction("the snapshot isn't between the log's base and its commit index", applied, commit);
    }
    Ok(())
}
