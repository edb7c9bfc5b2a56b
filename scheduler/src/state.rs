//! The state and the one way to change it.
use crate::*;
use proto::internal::{Command, Entry};
/// Everything that the grid knows.
#[derive(Debug, Clone)]
pub struct State {}
impl State {
    /// An empty grid with the queue `default`.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self { unimplemented!() }
    /// Applies the next entry of the log.
    pub fn apply(&mut self, index: u64, entry: &Entry) -> Applied { unimplemented!() }
    /// Index of the last entry that was applied.
    pub fn applied_index(&self) -> u64 { unimplemented!() }
    /// Log time in milliseconds.
    pub fn time_ms(&self) -> u64 { unimplemented!() }
    /// The leader's wall clock at the last entry, milliseconds since the Unix epoch.
    pub fn wall_ms(&self) -> i64 { unimplemented!() }
    /// The digest after the last entry.
    pub fn digest(&self) -> [u8; 32] { unimplemented!() }
    /// The digest after a marked entry.
    pub fn mark(&self, index: u64) -> Option<[u8; 32]> { unimplemented!() }
    /// The newest mark.
    pub fn last_mark(&self) -> Option<(u64, [u8; 32])> { unimplemented!() }
    /// Log time at which a `Tick` has something to do.
    pub fn next_timer_ms(&self) -> Option<u64> { unimplemented!() }
    /// What apply would refuse now.
    pub fn check_command(&self, command: &Command) -> Result<(), Rejection> { unimplemented!() }
    /// The outcome of a request that was accepted before.
    pub fn answered(&self, command: &Command) -> Option<Outcome> { unimplemented!() }
}
