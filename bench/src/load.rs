//! The load program: clients and simulated workers, over the same gRPC and the same certificates as real ones.

pub mod authority;
pub mod check;
pub mod clients;
pub mod connection;
pub mod disk;
pub mod fleet;
pub mod grid;
mod metrics;
pub mod process;
mod worker;
