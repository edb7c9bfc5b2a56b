//! What a job was asked to be, apart from its name and size: shared by all jobs that ask for the same.

use std::{collections::BTreeMap, sync::Arc};

use crate::shape::Shape;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Terms {
    pub owner: Arc<str>,
    pub queue: Arc<str>,
    pub shape: Shape,
    pub priority: i32,
    pub retries: u32,
    pub max_running: u32,
    pub max_failures: u32,
    pub min_backoff_ms: u64,
    pub max_backoff_ms: u64,
    pub at_most_once: bool,
    pub has_outputs: bool,
    pub is_array: bool,
    pub labels: BTreeMap<String, String>,
}
