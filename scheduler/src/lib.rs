//! The rules of the grid: jobs, tasks, attempts, queues, sessions and leases as a pure state machine.
//!
//! [`State::apply`] is the only way to change anything; it is given the entries of a replicated log, in order,
//! and makes the same of them on every replica. [`plan`] is what the leader alone runs: it reads a state and
//! proposes grants, which are commands like any other, checked again when they are applied.
//!
//! *Invariant*: no clock, no thread, no randomness, no I/O, no iteration over a hash table, and no floating
//! point in `apply`. *Invariant*: what is derived (module `indexes`) decides nothing, and isn't in a snapshot.
//!
//! In reading order: `limits`, `outcome`, `ask`, `job` (the record of a job and of its tasks), `session`, `queue`, `state`,
//! `apply` (a file per command), `plan`, `explain`, `view`, `history`, `rules`, `check`, `snapshot`.

mod apply;
mod ask;
mod blobs;
mod check;
mod digest;
mod explain;
mod history;
mod indexes;
mod job;
mod licenses;
pub mod limits;
mod outcome;
mod plan;
mod queue;
mod rejection;
mod requests;
mod rules;
mod session;
mod shape;
mod snapshot;
mod state;
mod streams;
mod usage;
mod view;

pub use check::Violation;
pub use explain::Pool;
pub use history::{Archive, Detail, Segment, Segments};
pub use job::Gone;
pub use outcome::{Applied, Decided, End, Event, Outcome, SessionEnd, Verdict};
pub use plan::{Cursor, Plan, plan};
pub use rejection::{Code, Rejection};
pub use rules::{NEWEST_RULES, OLDEST_RULES};
pub use snapshot::Malformed;
pub use state::State;
pub use view::{Backlog, Instruction, JobFilter, JobSubmissionView, LogLocation, Page, SessionView};
