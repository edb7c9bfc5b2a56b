//! A coordinator process: network, disk and clock around [`coordinator_core::Core`].
//!
//! ```text
//!  gRPC port: front ---- own core, or one relay to the leader ----.
//!  peer port: relays of other fronts ------------------------> core thread <--> replica thread --> log thread
//!             messages of other replicas --------------------------------------^      |
//!  HTTP port: health, metrics                                snapshot thread <-----------'
//! ```
//!
//! *Invariants*: nothing is decided here that a fault could make wrong: it carries. Every connection has shown a
//! certificate and every method stands in one table, [`permissions::METHODS`]. No thread that consensus hangs on waits
//! for the network or for a caller, and every queue between them has a bound.

pub mod config;
pub mod ending;
pub mod identity;
pub mod member;
pub mod permissions;
pub mod serve;
pub mod status;
pub mod tls;

mod calls;
mod channels;
mod clock;
mod disk;
mod front;
mod history;
mod http;
mod inbox;
mod leadership;
mod listener;
mod metrics;
mod peers;
mod relay;
mod reports;
mod routes;
mod threads;

pub use metrics::Metrics;
