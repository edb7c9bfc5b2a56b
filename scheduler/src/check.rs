//! Invariants.
use crate::State;
/// An invariant that doesn't hold: a bug.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{invariant}: {detail}")]
pub struct Violation {
    /// Which, in a few words.
    pub invariant: &'static str,
    /// What was found.
    pub detail: String,
}
impl State {
    /// Every invariant.
    pub fn check(&self) -> Result<(), Violation> { unimplemented!() }
}
