//! Between the library's messages and ours, field by field.

use bytes::Bytes;
use proto::internal::{Configuration, HardState, LogEntry, PeerMessage, SnapshotMetadata};
use raft::eraftpb::{
    ConfState, Entry, EntryType, HardState as RaftHardState, Message, MessageType, Snapshot,
    SnapshotMetadata as RaftSnapshotMetadata,
};

use super::guard::Kind;

/// Of a checked message; its kind is what the check found.
pub(super) fn message_to_raft(message: PeerMessage, kind: Kind) -> Message {
    let mut converted = Message {
        to: message.to,
        from: message.from,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        commit: message.commit,
        commit_term: message.commit_term,
        request_snapshot: message.request_snapshot,
        reject: message.reject,
        reject_hint: message.reject_hint,
        context: message.context,
        priority: message.priority,
        ..Message::default()
    };
    converted.set_msg_type(kind.message_type());
    converted.set_entries(message.entries.into_iter().map(entry_to_raft).collect::<Vec<_>>().into());
    if let Some(metadata) = &message.snapshot {
        converted.set_snapshot(snapshot_to_raft(metadata));
    }
    converted
}

pub(super) fn message_from_raft(mut message: Message) -> PeerMessage {
    let kind = message.get_msg_type();
    let snapshot = (kind == MessageType::MsgSnapshot).then(|| snapshot_from_raft(message.get_snapshot())).flatten();
    PeerMessage {
        kind: kind as u32,
        to: message.to,
        from: message.from,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        entries: message.take_entries().iter().map(entry_from_raft).collect(),
        commit: message.commit,
        commit_term: message.commit_term,
        snapshot,
        request_snapshot: message.request_snapshot,
        reject: message.reject,
        reject_hint: message.reject_hint,
        context: message.context,
        priority: message.priority,
    }
}

pub(super) fn entry_to_raft(entry: LogEntry) -> Entry {
    let mut converted =
        Entry { term: entry.term, index: entry.index, data: entry.data, context: entry.context, ..Entry::default() };
    converted.set_entry_type(EntryType::EntryNormal);
    converted
}

pub(super) fn entry_from_raft(entry: &Entry) -> LogEntry {
    LogEntry {
        kind: entry.get_entry_type() as u32,
        term: entry.term,
        index: entry.index,
        data: entry.data.clone(),
        context: entry.context.clone(),
    }
}

pub(super) fn hard_state_to_raft(state: &HardState) -> RaftHardState {
    RaftHardState { term: state.term, vote: state.vote, commit: state.commit, ..RaftHardState::default() }
}

pub(super) fn hard_state_from_raft(state: &RaftHardState) -> HardState {
    HardState { term: state.term, vote: state.vote, commit: state.commit }
}

pub(super) fn configuration_to_raft(configuration: &Configuration) -> ConfState {
    ConfState {
        voters: configuration.voters.clone(),
        learners: configuration.learners.clone(),
        voters_outgoing: configuration.voters_outgoing.clone(),
        learners_next: configuration.learners_next.clone(),
        auto_leave: configuration.auto_leave,
        ..ConfState::default()
    }
}

/// Size and checksum of the file travel where the library expects the content.
pub(super) fn snapshot_to_raft(metadata: &SnapshotMetadata) -> Snapshot {
    let mut converted = RaftSnapshotMetadata { index: metadata.index, term: metadata.term, ..Default::default() };
    converted.set_conf_state(configuration_to_raft(&metadata.configuration.clone().unwrap_or_default()));
    let mut file = metadata.size.to_le_bytes().to_vec();
    file.extend_from_slice(&metadata.checksum.to_le_bytes());
    let mut snapshot = Snapshot { data: Bytes::from(file), ..Snapshot::default() };
    snapshot.set_metadata(converted);
    snapshot
}

/// `None` of an empty one.
pub(super) fn snapshot_from_raft(snapshot: &Snapshot) -> Option<SnapshotMetadata> {
    let metadata = snapshot.get_metadata();
    if metadata.index == 0 {
        return None;
    }
    let members = metadata.get_conf_state();
    let (size, checksum) = snapshot.data.split_first_chunk::<8>()?;
    Some(SnapshotMetadata {
        index: metadata.index,
        term: metadata.term,
        configuration: Some(Configuration {
            voters: members.voters.clone(),
            learners: members.learners.clone(),
            voters_outgoing: members.voters_outgoing.clone(),
            learners_next: members.learners_next.clone(),
            auto_leave: members.auto_leave,
        }),
        size: u64::from_le_bytes(*size),
        checksum: u32::from_le_bytes(*checksum.first_chunk::<4>()?),
    })
}
