//! Who reaches whom, how slowly.

use std::collections::BTreeSet;

use crate::random::Random;

/// A place that messages leave from and arrive at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Member(usize),
    Worker(usize),
    Client(usize),
}

/// The state of all links.
#[derive(Debug, Default)]
pub(crate) struct Network {
    /// Directed.
    cut: BTreeSet<(Place, Place)>,
    /// Of a thousand messages between members.
    pub(crate) loss_permille: u64,
    pub(crate) repeat_permille: u64,
    /// Longest delay, microseconds.
    pub(crate) delay_us: u64,
}

impl Network {
    pub(crate) fn calm(&mut self) {
        *self = Self { delay_us: 2_000, repeat_permille: 0, loss_permille: 0, cut: BTreeSet::new() };
    }

    pub(crate) fn cut(&mut self, from: Place, to: Place) {
        self.cut.insert((from, to));
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
    }

    pub(crate) fn reaches(&self, from: Place, to: Place) -> bool {
        from == to || !self.cut.contains(&(from, to))
    }

    /// Whether coordinators reach each other, quickly and without loss.
    pub(crate) fn is_calm_among_members(&self) -> bool {
        let of_members = |(from, to): &(Place, Place)| matches!((from, to), (Place::Member(_), Place::Member(_)));
        self.loss_permille == 0 && self.delay_us <= 2_000 && !self.cut.iter().any(of_members)
    }

    /// Whether a worker reaches every coordinator, and they it.
    pub(crate) fn reaches_all_members(&self, worker: usize) -> bool {
        !self.cut.iter().any(|(from, to)| [from, to].contains(&&Place::Worker(worker)))
    }

    /// How long a message is under way.
    pub(crate) fn delay(&self, random: &mut Random) -> u64 {
        50 + random.skewed(self.delay_us)
    }
}
