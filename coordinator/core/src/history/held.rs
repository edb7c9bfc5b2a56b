//! Numbers from 1, most of which follow one another.

use std::collections::BTreeMap;

/// A set of numbers, in runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Held(BTreeMap<u32, u32>);

impl Held {
    /// Adds all from `first` to `last`.
    pub(crate) fn insert(&mut self, first: u32, last: u32) {
        if first > last {
            return;
        }
        let (mut first, mut last) = (first, last);
        let touching: Vec<u32> = self
            .0
            .range(..=last.saturating_add(1))
            .rev()
            .take_while(|(_, end)| end.saturating_add(1) >= first)
            .map(|(start, _)| *start)
            .collect();
        for start in touching {
            let end = self.0.remove(&start).unwrap_or(start);
            (first, last) = (first.min(start), last.max(end));
        }
        self.0.insert(first, last);
    }

    /// Takes all from `first` to `last` out.
    pub(crate) fn remove(&mut self, first: u32, last: u32) {
        let touching: Vec<(u32, u32)> = self
            .0
            .range(..=last)
            .rev()
            .take_while(|(_, end)| **end >= first)
            .map(|(start, end)| (*start, *end))
            .collect();
        for (start, end) in touching {
            self.0.remove(&start);
            if start < first {
                self.0.insert(start, first - 1);
            }
            if end > last {
                self.0.insert(last + 1, end);
            }
        }
    }

    /// The highest up to which all from 1 are in it; 0: not even that one.
    pub(crate) fn through(&self) -> u32 {
        self.0.get(&1).copied().unwrap_or(0)
    }

    /// The lowest.
    pub(crate) fn first(&self) -> Option<u32> {
        self.0.keys().next().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_touch_are_joined_and_cut_again() {
        let mut held = Held::default();
        for (first, last) in [(3, 4), (8, 9), (1, 1), (5, 6)] {
            held.insert(first, last);
        }
        assert_eq!((held.through(), held.first(), held.0.len()), (1, Some(1), 3));
        held.insert(2, 2);
        assert_eq!((held.through(), held.0.len()), (6, 2));
        held.insert(4, 12);
        assert_eq!((held.through(), held.0.len()), (12, 1));
        held.remove(5, 6);
        assert_eq!((held.through(), held.0.get(&7)), (4, Some(&12)));
        held.remove(1, 20);
        assert_eq!((held.through(), held.first()), (0, None));
    }
}
