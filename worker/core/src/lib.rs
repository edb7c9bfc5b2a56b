//! What a worker's agent decides: its session with the grid, which tasks start when, and what is reported.
//!
//! Pure: a function of its inputs and of the time passed in. A driver steps [`Core`] with what happened, takes its
//! outputs and carries them out; the agent is one driver, the simulator another.
//!
//! *Invariant*: no I/O, no clock, no randomness, no iteration over hashed collections.

mod input;
mod key;
mod output;
pub mod timing;

pub use input::{Adopted, End, Exit, Failure, Input, PublishFailure, Settings, Standing};
pub use key::Key;
pub use output::{Output, Task};

/// The agent's decisions.
#[derive(Debug)]
pub struct Core {
    outputs: Vec<Output>,
}

impl Core {
    /// A core that waits for its keeper.
    pub fn new(settings: Settings) -> Self {
        let _ = settings;
        Self { outputs: Vec::new() }
    }

    /// Takes in what happened.
    ///
    /// `now_ms` is `CLOCK_BOOTTIME`, never going back; `wall_ms` milliseconds since the Unix epoch, for people alone.
    pub fn step(&mut self, input: Input, now_ms: u64, wall_ms: i64) {
        let _ = (input, now_ms, wall_ms);
    }

    /// What is to be done, in order. To be called once everything that was waiting has been stepped.
    pub fn outputs(&mut self, now_ms: u64) -> Vec<Output> {
        let _ = now_ms;
        std::mem::take(&mut self.outputs)
    }

    /// When `Input::Tick` is due; `None`: never, as things stand.
    pub fn next_timer_ms(&self) -> Option<u64> {
        None
    }
}
