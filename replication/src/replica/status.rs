//! A replica at one moment.

use raft::{ProgressState, StateRole};

use super::Replica;
use crate::{Follower, FollowerState, Standing, Status};

impl Replica {
    /// Where this replica stands, for `cluster status` and metrics.
    pub fn status(&self) -> Status {
        let raft = &self.node.raft;
        let storage = self.node.store();
        let learner = raft.prs().conf().learners().contains(&self.id);
        let standing = match raft.state {
            StateRole::Leader => Standing::Leader,
            StateRole::Candidate | StateRole::PreCandidate => Standing::Candidate,
            StateRole::Follower if learner => Standing::Learner,
            StateRole::Follower => Standing::Follower,
        };
        Status {
            id: self.id,
            term: raft.term,
            standing,
            leader: (raft.leader_id != 0).then_some(raft.leader_id),
            commit_index: raft.raft_log.committed,
            applied_index: self.applied_index,
            last_index: raft.raft_log.last_index(),
            persisted_index: raft.raft_log.persisted,
            first_index: storage.base().0 + 1,
            log_bytes: storage.bytes(),
            uncommitted_bytes: raft.uncommitted_size() as u64,
            snapshot_index: storage.snapshot_index(),
            waiting_reads: self.reads.count(),
            followers: self.members.iter().filter(|id| **id != self.id).map(|id| self.follower(*id)).collect(),
        }
    }

    fn follower(&self, id: u64) -> Follower {
        let raft = &self.node.raft;
        let patience = raft.election_timeout() as u64;
        let active = self.heard.get(&id).is_some_and(|heard| self.ticks - heard < patience);
        let progress = raft.prs().get(id).filter(|_| raft.state == StateRole::Leader);
        let state = match progress.map(|progress| progress.state) {
            None | Some(ProgressState::Probe) => FollowerState::Probe,
            Some(ProgressState::Replicate) => FollowerState::Replicate,
            Some(ProgressState::Snapshot) => FollowerState::Snapshot,
        };
        Follower { id, matched_index: progress.map_or(0, |progress| progress.matched), active, state }
    }
}
