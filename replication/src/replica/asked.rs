//! Reads at a follower: it asks the leader from which index on it may answer them.
//!
//! A request is a vote of confidence. Whoever asks in term T had voted for nobody in a later term when it asked; a
//! leader of T that takes the request hasn't either. If these two are a majority of the voters, nobody led a later term
//! when the read was asked for, and everything that was committed by then is below the leader's commit index, once that
//! covers an entry of T: no round to the others is needed. If they are none (five voters, or a learner that asks), the
//! read shares the next round of the leader's own.
//!
//! Both messages may be lost, late or repeated: the index is right for a read that was asked for before the request
//! left, whenever it arrives. Neither changes anything but the reads of the two.

use proto::internal::PeerMessage;
use raft::StateRole;

use super::{Replica, guard::Kind};
use crate::ReadReady;

#[cfg(test)]
mod tests;

/// A request that isn't answered is sent again after so long.
const REPEAT_TICKS: u64 = 2;

impl Replica {
    /// Whether there is somebody to ask.
    pub(super) fn knows_another_leader(&self) -> bool {
        let raft = &self.node.raft;
        raft.state == StateRole::Follower && raft.leader_id != 0 && raft.leader_id != self.id
    }

    /// Asks the leader for all reads that wait.
    pub(super) fn ask_leader(&mut self) {
        let context = self.reads.ask(self.ticks);
        self.tell(self.node.raft.leader_id, Kind::ReadAsked, context, 0);
    }

    /// Asks again for what was not answered in time.
    pub(super) fn ask_again(&mut self) {
        if self.knows_another_leader() {
            for context in self.reads.unanswered(self.ticks, REPEAT_TICKS) {
                self.tell(self.node.raft.leader_id, Kind::ReadAsked, context, 0);
            }
        }
    }

    /// A follower asks.
    pub(super) fn asked(&mut self, message: PeerMessage) {
        // Of another term: it asks its leader again, when it knows who that is. Before the first entry of this term is
        // committed the commit index may be older than what an earlier leader has acknowledged.
        let raft = &self.node.raft;
        if message.term != raft.term || !self.leading() || !raft.commit_to_current_term() {
            return;
        }
        if raft.prs().has_quorum(&[self.id, message.from].into_iter().collect()) {
            let index = raft.raft_log.committed;
            self.tell(message.from, Kind::ReadAnswered, message.context.to_vec(), index);
            self.tell_commit(message.from, index);
        } else {
            self.reads.wait_for(message.from, message.context.to_vec(), self.ticks);
        }
    }

    /// A follower that waits to get as far as this commit index hears of it at once, if it hasn't yet.
    fn tell_commit(&mut self, to: u64, commit: u64) {
        if self.told_commit.get(&to).is_none_or(|told| *told < commit) && self.node.raft.prs().get(to).is_some() {
            self.node.raft.send_append(to);
        }
    }

    /// The leader answers.
    pub(super) fn answered(&mut self, message: &PeerMessage) {
        if message.term == self.node.raft.term {
            self.confirmed(&message.context, message.index);
        }
    }

    /// A round is confirmed, of this replica's own or by the leader: everyone who shared it may go on.
    pub(super) fn confirmed(&mut self, context: &[u8], index: u64) {
        let answered = self.reads.answered(context);
        self.outputs.reads.extend(answered.own.into_iter().map(|context| ReadReady { context, index }));
        for (member, context) in answered.of_followers {
            self.tell(member, Kind::ReadAnswered, context, index);
        }
    }

    fn tell(&mut self, to: u64, kind: Kind, context: Vec<u8>, index: u64) {
        let (from, term, kind) = (self.id, self.node.raft.term, kind.number());
        let message = PeerMessage { kind, to, from, term, index, context: context.into(), ..PeerMessage::default() };
        self.outputs.messages.push(message);
    }
}
