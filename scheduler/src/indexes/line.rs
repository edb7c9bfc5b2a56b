//! An ordered set of turns, dense: jobs stand in line by the million, and most of those in front of and behind one
//! have the numbers next to it.

use imbl::OrdMap;

use super::Turn;

/// Turns in order. Numbers that share all but their last six bits share a word.
#[derive(Debug, Clone, Default)]
pub(crate) struct Line {
    words: OrdMap<Turn, u64>,
    len: usize,
}

/// The turns of one word, from both ends.
struct Bits {
    at: Turn,
    word: u64,
}

impl Iterator for Bits {
    type Item = Turn;

    fn next(&mut self) -> Option<Turn> {
        let bit = (self.word != 0).then(|| self.word.trailing_zeros())?;
        self.word &= self.word - 1;
        Some((self.at.0, self.at.1 << 6 | u64::from(bit)))
    }
}

impl DoubleEndedIterator for Bits {
    fn next_back(&mut self) -> Option<Turn> {
        let bit = (self.word != 0).then(|| 63 - self.word.leading_zeros())?;
        self.word &= !(1 << bit);
        Some((self.at.0, self.at.1 << 6 | u64::from(bit)))
    }
}

/// Where a turn is: its word, and its bit there.
fn place((priority, job): Turn) -> (Turn, u32) {
    ((priority, job >> 6), (job & 63) as u32)
}

impl Line {
    pub fn insert(&mut self, turn: Turn) {
        let (at, bit) = place(turn);
        let word = self.words.entry(at).or_default();
        self.len += usize::from(*word >> bit & 1 == 0);
        *word |= 1 << bit;
    }

    pub fn remove(&mut self, turn: Turn) {
        let (at, bit) = place(turn);
        let Some(word) = self.words.get_mut(&at) else { return };
        self.len -= usize::from(*word >> bit & 1 == 1);
        *word &= !(1 << bit);
        if *word == 0 {
            self.words.remove(&at);
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    pub fn get_min(&self) -> Option<Turn> {
        self.iter().next()
    }

    /// The first at or behind a turn.
    pub fn get_next(&self, turn: Turn) -> Option<Turn> {
        let (at, bit) = place(turn);
        let rest = self.words.get(&at).map_or(0, |word| word & u64::MAX << bit);
        let (at, word) = match rest {
            0 => self.words.range((at.0, at.1 + 1)..).next().map(|(at, word)| (*at, *word))?,
            rest => (at, rest),
        };
        Bits { at, word }.next()
    }

    /// Those before a turn, in order.
    pub fn before(&self, turn: Turn) -> impl DoubleEndedIterator<Item = Turn> + '_ {
        let (end, bit) = place(turn);
        let last = self.words.get(&end).map_or(0, |word| word & !(u64::MAX << bit));
        let words = self.words.range(..end).map(|(at, word)| Bits { at: *at, word: *word });
        words.chain(std::iter::once(Bits { at: end, word: last })).flatten()
    }

    pub fn iter(&self) -> impl Iterator<Item = Turn> + '_ {
        self.words.iter().flat_map(|(at, word)| Bits { at: *at, word: *word })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_line_is_a_set_in_order() {
        let mut line = Line::default();
        let mut plain: BTreeSet<Turn> = BTreeSet::new();
        let mut seed = 7u64;
        for step in 0..6_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let turn = ((seed >> 60) as i32 - 8, seed >> 33 & 0x1ff);
            if seed >> 40 & 3 == 0 {
                line.remove(turn);
                plain.remove(&turn);
            } else {
                line.insert(turn);
                plain.insert(turn);
            }
            assert_eq!((line.len(), line.is_empty()), (plain.len(), plain.is_empty()));
            assert_eq!(line.get_next(turn), plain.range(turn..).next().copied());
            assert_eq!(line.before(turn).next_back(), plain.range(..turn).next_back().copied());
            if step % 100 == 0 {
                assert!(line.iter().eq(plain.iter().copied()));
                assert!(line.before(turn).eq(plain.range(..turn).copied()));
                assert!(line.before(turn).rev().eq(plain.range(..turn).rev().copied()));
                assert_eq!(line.get_min(), plain.first().copied());
            }
        }
        for turn in &plain {
            line.remove(*turn);
        }
        assert!(line.is_empty() && line.get_min().is_none());
    }
}
