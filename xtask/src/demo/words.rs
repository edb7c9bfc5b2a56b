//! The count that the grid's is compared with.

use std::collections::BTreeMap;

use anyhow::Context;

/// How often each word is there. A word is a run of ASCII letters, in lower case.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<String, u64>);

impl Counts {
    /// Counts a text.
    pub fn add(&mut self, text: &[u8]) {
        for word in text.split(|byte| !byte.is_ascii_alphabetic()).filter(|word| !word.is_empty()) {
            let word = String::from_utf8_lossy(word).to_lowercase();
            *self.0.entry(word).or_default() += 1;
        }
    }

    /// Reads lines of a count and a word.
    pub fn parse(table: &str) -> anyhow::Result<Self> {
        let line = |line: &str| {
            let (count, word) = line.split_once(' ')?;
            Some((word.to_owned(), count.parse().ok()?))
        };
        let lines = table.lines().map(|text| line(text).with_context(|| format!("`{text}` is no count and word")));
        lines.collect::<anyhow::Result<_>>().map(Self)
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Without repeats.
    pub fn different(&self) -> usize {
        self.0.len()
    }

    /// The first word whose count is another one there.
    pub fn difference(&self, expected: &Self) -> Option<String> {
        let count = |counts: &Self, word: &str| counts.0.get(word).copied().unwrap_or_default();
        let words = self.0.keys().chain(expected.0.keys());
        let mut different = words.filter(|word| count(self, word) != count(expected, word));
        different.next().map(|word| format!("`{word}`: {} there, {} here", count(self, word), count(expected, word)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_runs_of_letters_whatever_their_case() {
        let mut counts = Counts::default();
        counts.add("To be, or not to BE: 2b \u{e4}".as_bytes());
        let expected = Counts::parse("2 be\n1 or\n1 not\n2 to\n1 b\n").expect("it is a table");
        assert_eq!(counts.difference(&expected), None);
        assert_eq!((counts.total(), counts.different()), (7, 5));
    }

    #[test]
    fn a_difference_is_found_on_either_side() {
        let counts = |text: &str| Counts::parse(text).expect("it is a table");
        assert!(counts("1 a\n").difference(&counts("2 a\n")).is_some());
        assert!(counts("1 a\n").difference(&counts("")).is_some());
        assert!(counts("").difference(&counts("1 a\n")).is_some());
        assert!(Counts::parse("x\n").is_err());
    }
}
