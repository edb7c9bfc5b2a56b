//! Coordinators in this process, over loopback, with real certificates and real disks.

#![allow(clippy::unwrap_used)]

#[path = "coordinator/bad_input.rs"]
mod bad_input;
#[path = "coordinator/cluster.rs"]
mod cluster;
#[path = "coordinator/digests.rs"]
mod digests;
#[path = "coordinator/history.rs"]
mod history;
#[path = "coordinator/http.rs"]
mod http;
#[path = "coordinator/roles.rs"]
mod roles;
#[path = "coordinator/streams.rs"]
mod streams;
#[path = "coordinator/support.rs"]
mod support;
