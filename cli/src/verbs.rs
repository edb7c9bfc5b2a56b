//! One file for each verb: its arguments, and what it does.

pub mod cancel;
pub mod cluster;
pub mod cp;
pub mod explain;
pub mod job;
pub mod license;
pub mod logs;
pub mod ls;
pub mod queue;
pub mod retry;
pub mod run;
pub mod show;
pub mod submit;
pub mod version;
pub mod wait;
pub mod worker;
