//! The words of the command line: sizes, times, arrays, selectors, pairs and paths (interfaces, section 2).
//!
//! Parsers here are pure; what they refuse names the word and what would be right.

pub mod array;
pub mod duration;
pub mod needs;
pub mod numbers;
pub mod pairs;
pub mod resources;
pub mod retrying;
pub mod selector;
pub mod staging;
pub mod words;

/// Why a word isn't what it should be: one sentence, with the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);

impl Malformed {
    fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }
}
