//! Who leads, as this member's replica knows it.

/// Who leads in which term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leadership {
    /// The present term.
    pub term: u64,
    /// The leader's id, as far as known.
    pub leader: Option<u64>,
    /// Whether it is this member.
    pub leading: bool,
}

impl Leadership {
    /// The leader, if it is known and another member.
    pub fn other_leader(&self) -> Option<u64> {
        self.leader.filter(|_| !self.leading)
    }
}
