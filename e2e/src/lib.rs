//! A whole grid of real processes for a test, driven through the command line as its users drive it.
//!
//! A test takes [`Grid::shared`] when it only submits work, [`Grid::start`] when it breaks something, and
//! [`Grid::start_alone`] when it measures. However the test ends, the grid's replicas are compared and every
//! process of it is gone afterwards.

#![allow(clippy::unwrap_used)]

mod cluster;
mod document;
mod grid;
mod network;
mod output;
mod permission;
mod ports;
mod processes;
mod programs;
mod replicas;
mod transcript;
mod wait;

pub use cluster::{Cluster, Place};
pub use document::{check_fields, text, whole};
pub use grid::{Grid, Options, Test};
pub use network::Network;
pub use output::{Output, Running};
pub use processes::processes_of;
pub use programs::{Environment, bare_millgrid};
pub use transcript::{Block, blocks, matches};
pub use wait::{eventually, until};
