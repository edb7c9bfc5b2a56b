//! What a replica starts from: the log and the snapshots, checked against each other.

use proto::internal::{Configuration, HardState, LogEntry, SnapshotMetadata};

use crate::{Failure, LogContents, Snapshots, Volume};

/// What a replica starts from.
#[derive(Clone, Debug, PartialEq)]
pub struct Recovered {
    /// Term, vote and commit.
    pub hard_state: HardState,
    /// Who is a member.
    pub configuration: Configuration,
    /// Load the state machine from it before the first step; an empty state if absent.
    pub snapshot: Option<SnapshotMetadata>,
    /// The last entry that is no longer in the log; at most the snapshot's index.
    pub base_index: u64,
    /// Its term.
    pub base_term: u64,
    /// All entries behind the base.
    pub entries: Vec<LogEntry>,
}

impl Recovered {
    /// The last entry of the log, or what stands for it.
    pub fn last_index(&self) -> u64 {
        self.entries.last().map_or(self.base_index, |entry| entry.index)
    }

    /// The term of an entry in the log, or of its base.
    pub fn term(&self, index: u64) -> Option<u64> {
        if index == self.base_index {
            return Some(self.base_term);
        }
        let offset = index.checked_sub(self.base_index + 1)?;
        self.entries.get(usize::try_from(offset).ok()?).map(|entry| entry.term)
    }
}

/// Chooses the newest snapshot that the log vouches for. A snapshot that was received but that the log never heard
/// of (the crash came between) is removed: the leader sends it again.
///
/// # Errors
/// [`Failure::Contradiction`] if the log relies on a snapshot that isn't there, or on another one.
pub fn recover<V: Volume>(contents: LogContents, snapshots: &mut Snapshots<V>) -> Result<Recovered, Failure> {
    let LogContents { hard_state, configuration, base_index, base_term, snapshot: relied, entries } = contents;
    let mut recovered = Recovered { hard_state, configuration, snapshot: None, base_index, base_term, entries };
    for metadata in snapshots.list().to_vec() {
        match recovered.term(metadata.index) {
            Some(term) if term == metadata.term => recovered.snapshot = Some(metadata),
            Some(term) if metadata.index <= recovered.hard_state.commit => {
                let reason = "a snapshot and the log disagree on the term of a committed entry";
                return Err(Failure::Contradiction { reason, left: metadata.term, right: term });
            }
            None if metadata.index < base_index => {}
            Some(_) | None => snapshots.discard(&metadata)?,
        }
    }
    let newest = recovered.snapshot.as_ref().map_or(0, |snapshot| snapshot.index);
    let relied = relied.map_or(0, |snapshot| snapshot.index);
    if newest < base_index.max(relied) {
        let reason = "the log relies on a snapshot that is missing";
        return Err(Failure::Contradiction { reason, left: relied, right: newest });
    }
    // The commit index is written lazily; what a snapshot covers was committed.
    recovered.hard_state.commit = recovered.hard_state.commit.max(newest);
    if let Some(members) = recovered.snapshot.as_ref().and_then(|snapshot| snapshot.configuration.clone()) {
        recovered.configuration = members;
    }
    Ok(recovered)
}
