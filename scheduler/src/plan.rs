//! The leader's planner.
use std::collections::BTreeSet;
use proto::internal::{GrantRun, assign_publications::Assignment};
use crate::State;
/// Where a plan that ran out of budget goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Cursor;
/// What a plan proposes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// At most [`crate::limits::GRANTS_IN_AN_ENTRY`] tasks.
    pub grants: Vec<GrantRun>,
    /// Publications whose session died, and who is to complete them.
    pub publications: Vec<Assignment>,
    /// Where to go on.
    pub cursor: Cursor,
    /// Whether everything was looked at.
    pub finished: bool,
}
/// Plans.
pub fn plan(state: &State, heard: &BTreeSet<u64>, cursor: Cursor, budget: usize) -> Plan { unimplemented!() }
