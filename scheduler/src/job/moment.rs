//! A time that may not have come, in eight bytes: every job has two of them.

/// Milliseconds since the Unix epoch, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment(i64);

impl Moment {
    /// No worker and no leader ever says this time.
    pub const NONE: Self = Self(i64::MIN);

    pub fn get(self) -> Option<i64> {
        (self != Self::NONE).then_some(self.0)
    }

    /// Sets it, unless it is set.
    pub fn set_once(&mut self, time_ms: i64) {
        if *self == Self::NONE {
            *self = Some(time_ms).into();
        }
    }
}

impl From<Option<i64>> for Moment {
    fn from(time_ms: Option<i64>) -> Self {
        Self(time_ms.map_or(i64::MIN, |time_ms| time_ms.max(i64::MIN + 1)))
    }
}
