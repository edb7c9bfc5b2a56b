//! What the metrics say of the history.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many segments there are, and how many of them are on this disk.
#[derive(Debug, Default)]
pub struct Counts {
    segments: AtomicU64,
    held: AtomicU64,
}

impl Counts {
    /// Segments that this coordinator should have.
    pub fn segments(&self) -> u64 {
        self.segments.load(Ordering::Relaxed)
    }

    /// Those that are on its disk.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, segments: u64, held: u64) {
        self.segments.store(segments, Ordering::Relaxed);
        self.held.store(held, Ordering::Relaxed);
    }
}
