//! What is checked of a peer's message before the library sees it: the library answers nonsense with a panic.

use std::collections::BTreeSet;

use proto::internal::{Configuration, LogEntry, PeerMessage, SnapshotMetadata};
use raft::{RawNode, StateRole, eraftpb::MessageType};

use super::storage::MemoryStorage;

/// Beyond any term or index that will ever be; room for what the library adds.
const HIGHEST: u64 = 1 << 62;
const CONTEXT_BYTES: usize = 64;

/// Why a peer's message was refused. It changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A kind that no peer of this release sends, or that only a member may say to itself.
    #[error("a message of kind {kind} isn't taken from a peer")]
    Kind {
        /// Its number.
        kind: u32,
    },
    /// It is for another member.
    #[error("the message is for member {to}")]
    Receiver {
        /// Whom it is for.
        to: u64,
    },
    /// The sender is no member.
    #[error("member {from} isn't part of this group")]
    Sender {
        /// Who sent it.
        from: u64,
    },
    /// A field has a value that can't be.
    #[error("field {field} of a message can't be {value}")]
    Field {
        /// Its name.
        field: &'static str,
        /// Its value, or its length.
        value: u64,
    },
    /// Entries that aren't a piece of a log.
    #[error("the entries of a message aren't a piece of a log at index {index}")]
    Entries {
        /// The first bad one.
        index: u64,
    },
    /// Metadata of a snapshot that can't be installed.
    #[error("a snapshot can't be installed: {reason}")]
    Snapshot {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The leader counts on an entry that this member acknowledged and doesn't have: its disk lost it. A human must
    /// look.
    #[error("the leader counts on entry {index} but the log ends at {last}: this disk lost what it acknowledged")]
    Lost {
        /// What the leader counts on.
        index: u64,
        /// What is there.
        last: u64,
    },
    /// It comes at a moment when it can't be answered; the peer will say it again.
    #[error("a message of kind {kind} can't be taken while a write is on its way to the disk")]
    Untimely {
        /// Its number.
        kind: u32,
    },
}

/// The kinds of message that peers send; the numbers are raft-rs's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Append,
    AppendResponse,
    RequestVote,
    RequestVoteResponse,
    Snapshot,
    Heartbeat,
    HeartbeatResponse,
    TimeoutNow,
    /// Never reaches the library: see `asked`.
    ReadAsked,
    /// Neither does this.
    ReadAnswered,
    RequestPreVote,
    RequestPreVoteResponse,
}

impl Kind {
    fn new(number: u32) -> Option<Kind> {
        Some(match number {
            3 => Kind::Append,
            4 => Kind::AppendResponse,
            5 => Kind::RequestVote,
            6 => Kind::RequestVoteResponse,
            7 => Kind::Snapshot,
            8 => Kind::Heartbeat,
            9 => Kind::HeartbeatResponse,
            14 => Kind::TimeoutNow,
            15 => Kind::ReadAsked,
            16 => Kind::ReadAnswered,
            17 => Kind::RequestPreVote,
            18 => Kind::RequestPreVoteResponse,
            // Proposals are not forwarded: their sender couldn't be told what became of them.
            _ => return None,
        })
    }

    pub(super) fn number(self) -> u32 {
        self.message_type() as u32
    }

    pub(super) fn message_type(self) -> MessageType {
        match self {
            Kind::Append => MessageType::MsgAppend,
            Kind::AppendResponse => MessageType::MsgAppendResponse,
            Kind::RequestVote => MessageType::MsgRequestVote,
            Kind::RequestVoteResponse => MessageType::MsgRequestVoteResponse,
            Kind::Snapshot => MessageType::MsgSnapshot,
            Kind::Heartbeat => MessageType::MsgHeartbeat,
            Kind::HeartbeatResponse => MessageType::MsgHeartbeatResponse,
            Kind::TimeoutNow => MessageType::MsgTimeoutNow,
            Kind::ReadAsked => MessageType::MsgReadIndex,
            Kind::ReadAnswered => MessageType::MsgReadIndexResp,
            Kind::RequestPreVote => MessageType::MsgRequestPreVote,
            Kind::RequestPreVoteResponse => MessageType::MsgRequestPreVoteResponse,
        }
    }
}

/// What can be said of a message by itself.
pub(super) fn check(message: &PeerMessage, id: u64, members: &BTreeSet<u64>) -> Result<Kind, Refused> {
    let kind = Kind::new(message.kind).ok_or(Refused::Kind { kind: message.kind })?;
    if message.to != id {
        return Err(Refused::Receiver { to: message.to });
    }
    if message.from == id || !members.contains(&message.from) {
        return Err(Refused::Sender { from: message.from });
    }
    // The library takes a message of term 0 for its own.
    if message.term == 0 || message.term > HIGHEST {
        return Err(Refused::Field { field: "term", value: message.term });
    }
    let numbers = [
        ("log_term", message.log_term),
        ("index", message.index),
        ("commit", message.commit),
        ("commit_term", message.commit_term),
        ("reject_hint", message.reject_hint),
    ];
    for (field, value) in numbers {
        if value > HIGHEST {
            return Err(Refused::Field { field, value });
        }
    }
    if message.request_snapshot != 0 {
        return Err(Refused::Field { field: "request_snapshot", value: message.request_snapshot });
    }
    if message.context.len() > CONTEXT_BYTES {
        return Err(Refused::Field { field: "context", value: message.context.len() as u64 });
    }
    if message.snapshot.is_some() != (kind == Kind::Snapshot) {
        return Err(Refused::Field { field: "snapshot", value: u64::from(message.snapshot.is_some()) });
    }
    if !message.entries.is_empty() && kind != Kind::Append {
        return Err(Refused::Field { field: "entries", value: message.entries.len() as u64 });
    }
    if kind == Kind::Append {
        check_entries(message)?;
    }
    if let Some(metadata) = &message.snapshot {
        check_snapshot(metadata, message.term, id)?;
    }
    Ok(kind)
}

/// What can be said of a message only by a replica in its present state. `false`: it is out of date, drop it.
pub(super) fn check_against(
    message: &PeerMessage,
    kind: Kind,
    node: &RawNode<MemoryStorage>,
    must_sync: bool,
    installing: bool,
) -> Result<bool, Refused> {
    let raft = &node.raft;
    let last = raft.raft_log.last_index();
    let untimely = Refused::Untimely { kind: message.kind };
    match kind {
        Kind::Heartbeat if message.term >= raft.term && message.commit > last => {
            Err(Refused::Lost { index: message.commit, last })
        }
        Kind::AppendResponse if message.term == raft.term && raft.state == StateRole::Leader => {
            let matched = raft.prs().get(message.from).map_or(0, |progress| progress.matched);
            if !message.reject && message.index > last {
                return Err(Refused::Field { field: "index", value: message.index });
            }
            // What it matched in this term it can't have rejected later: the rejection is older. Stepping it would
            // move the library's probe below what matched (its bug 557).
            Ok(!(message.reject && (message.index <= matched || message.reject_hint < matched)))
        }
        // Nobody can have answered a request that is still held back.
        Kind::RequestVoteResponse if raft.state == StateRole::Candidate && must_sync => Err(untimely),
        Kind::Snapshot | Kind::TimeoutNow if installing => Err(untimely),
        _ => Ok(true),
    }
}

/// That it is a configuration without changes under way, and that `id` is in it.
pub(super) fn check_configuration(configuration: &Configuration, id: u64) -> Result<(), Refused> {
    let refuse = |reason| Err(Refused::Snapshot { reason });
    let voters = &configuration.voters;
    let all: BTreeSet<u64> = voters.iter().chain(&configuration.learners).copied().collect();
    if voters.is_empty() || all.len() != voters.len() + configuration.learners.len() || all.contains(&0) {
        return refuse("its members can't be");
    }
    if !configuration.voters_outgoing.is_empty() || !configuration.learners_next.is_empty() || configuration.auto_leave
    {
        return refuse("a change of members is under way, which this release doesn't know");
    }
    if !all.contains(&id) {
        return refuse("this member isn't in it");
    }
    Ok(())
}

/// Voters and learners as of a snapshot.
pub(super) fn members_of(metadata: &SnapshotMetadata) -> BTreeSet<u64> {
    let configuration = metadata.configuration.as_ref();
    configuration.into_iter().flat_map(|members| members.voters.iter().chain(&members.learners)).copied().collect()
}

fn check_entries(message: &PeerMessage) -> Result<(), Refused> {
    // The library takes term 0 for the term of whatever lies behind its log.
    if (message.index == 0) != (message.log_term == 0) || message.log_term > message.term {
        return Err(Refused::Field { field: "log_term", value: message.log_term });
    }
    let mut before = (message.index, message.log_term);
    for LogEntry { kind, term, index, .. } in &message.entries {
        if *kind != 0 || *index != before.0 + 1 || *term == 0 || *term < before.1 || *term > message.term {
            return Err(Refused::Entries { index: *index });
        }
        before = (*index, *term);
    }
    Ok(())
}

fn check_snapshot(metadata: &SnapshotMetadata, term: u64, id: u64) -> Result<(), Refused> {
    if metadata.index == 0 || metadata.index > HIGHEST || metadata.term == 0 || metadata.term > term {
        return Err(Refused::Snapshot { reason: "its index or term can't be" });
    }
    match &metadata.configuration {
        Some(configuration) => check_configuration(configuration, id),
        None => Err(Refused::Snapshot { reason: "its members are missing" }),
    }
}
