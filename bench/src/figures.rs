//! What is measured; `bench/README.md` says it for people.

mod array;
mod failover;
mod spawn;
mod start;

use std::time::Duration;

use crate::figure::Figure;

/// Figures that are measured together.
pub struct Measurement {
    /// Their names.
    pub names: &'static [&'static str],
    /// Starts what it needs and stops it again.
    pub measure: fn() -> anyhow::Result<Vec<Figure>>,
}

/// All of them. What ends soon comes first.
pub const MEASUREMENTS: [Measurement; 4] = [
    Measurement { names: &["start_ms"], measure: start::measure },
    Measurement { names: &["array_accept_ms", "array_memory_mib", "array_cancel_ms"], measure: array::measure },
    Measurement { names: &["spawn_ratio"], measure: spawn::measure },
    Measurement { names: &["failover_s", "failover_worst_s"], measure: failover::measure },
];

/// For what must come to an end at all; the figures say how soon.
const PATIENCE: Duration = Duration::from_secs(120);

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
