//! What is measured; `bench/README.md` says it for people.

mod array;
mod dispatch;
mod failover;
mod grid_start;
mod latency;
mod million;
mod reads;
mod sessions;
mod spawn;
mod submits;

use std::time::Duration;

use crate::figure::{Bar, Figure};

/// Figures that are measured together.
pub struct Measurement {
    /// Their names, and what they must be.
    pub bars: &'static [Bar],
    /// Starts what it needs and stops it again.
    pub measure: fn() -> anyhow::Result<Vec<Figure>>,
}

/// All of them.
pub const MEASUREMENTS: [Measurement; 10] = [
    Measurement { bars: &[spawn::RATIO], measure: spawn::measure },
    Measurement { bars: &dispatch::BARS, measure: dispatch::measure },
    Measurement { bars: &submits::BARS, measure: submits::measure },
    Measurement { bars: &latency::BARS, measure: latency::measure },
    Measurement { bars: &array::BARS, measure: array::measure },
    Measurement { bars: &million::BARS, measure: million::measure },
    Measurement { bars: &sessions::BARS, measure: sessions::measure },
    Measurement { bars: &reads::BARS, measure: reads::measure },
    Measurement { bars: &failover::BARS, measure: failover::measure },
    Measurement { bars: &[grid_start::START], measure: grid_start::measure },
];

/// For what must come to an end at all; the figures say how soon.
const PATIENCE: Duration = Duration::from_secs(120);

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
