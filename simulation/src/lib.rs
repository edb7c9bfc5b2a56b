//! A whole grid on one thread, from a seed, with faults.
//!
//! Three coordinators (the real replica, write-ahead log, snapshots and core), workers (the real agent's core above a
//! simulated keeper), clients and an S3 live in one [`World`] with one queue of events. Messages are delayed, lost and
//! repeated; processes crash, lose power, are paused and cut off; workers die in each phase. What the crates that run
//! in production decide is decided by the same code here.
//!
//! *Invariant*: the same seed gives the same history, to the bit; no clock, no thread and no hash order is used.

mod call;
mod client;
mod faults;
mod figures;
mod member;
mod network;
mod oracle;
mod plant;
mod random;
mod store;
mod worker;
mod workload;
mod world;

pub use figures::Figures;
pub use oracle::Violation;
pub use plant::Plant;
pub use world::{Run, World};

/// Runs one seed: a time with faults, then healing, then the wait for every job's end.
pub fn run(seed: u64, plant: Option<Plant>) -> Run {
    World::new(seed, plant).run()
}
