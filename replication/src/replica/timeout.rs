//! Election timeouts drawn from the seed.

use raft::{RawNode, StateRole};

use super::storage::MemoryStorage;
use crate::draw::Draw;

/// The library draws its timeouts from the thread's generator, at every change of term or role; this draws anew on
/// the same occasions and overrules it after each step.
pub(super) struct Timeout {
    draw: Draw,
    election: usize,
    current: usize,
    seen: (u64, StateRole),
}

impl Timeout {
    pub(super) fn new(seed: u64, election: usize) -> Timeout {
        let mut timeout = Timeout { draw: Draw::new(seed), election, current: 0, seen: (0, StateRole::Follower) };
        timeout.redraw();
        timeout
    }

    /// A campaign that came to nothing waits for another while.
    pub(super) fn ticked(&mut self, node: &RawNode<MemoryStorage>) {
        if node.raft.election_elapsed == 0 {
            self.redraw();
        }
    }

    pub(super) fn spread(&mut self, node: &mut RawNode<MemoryStorage>) {
        let now = (node.raft.term, node.raft.state);
        if now != self.seen {
            self.seen = now;
            self.redraw();
        }
        node.raft.set_randomized_election_timeout(self.current);
    }

    fn redraw(&mut self) {
        self.current = self.election + self.draw.below(self.election as u64) as usize;
    }
}
