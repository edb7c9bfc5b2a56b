//! The whole product, from outside: one file per subject, each test a sentence.
#![allow(clippy::unwrap_used)]

mod arrays;
mod bad_input;
mod cancelling;
mod cluster;
mod dependencies;
mod dev;
mod disks;
mod exit_codes;
mod explaining;
mod garbage;
mod health;
mod history;
mod identity;
mod json;
mod leaders;
mod limits;
mod logs;
mod needs;
mod partitions;
mod queues;
mod readme;
mod requests;
mod retries;
mod sharing;
mod staging;
mod submitting;
mod workers;

use std::time::Duration;

/// For what should be there at once, with room for a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// For what waits for a session to expire: 35 s, and up to 60 s from a change of leader.
const EXPIRY: Duration = Duration::from_secs(110);
