//! Log time: a duration that stands still while nobody leads (`design.md` 4.3).

/// How a leader continues log time from the last stamp by its own clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    log_ms: u64,
    local_ms: u64,
}

impl Clock {
    /// Begins at `log_ms`, the state's time once the first entry of the term was applied.
    pub(crate) fn starting(log_ms: u64, local_ms: u64) -> Self {
        Self { log_ms, local_ms }
    }

    /// Log time at the local time `now_ms`.
    pub(crate) fn at(&self, now_ms: u64) -> u64 {
        self.log_ms + now_ms.saturating_sub(self.local_ms)
    }
}
