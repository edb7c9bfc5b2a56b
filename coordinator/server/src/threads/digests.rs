//! The thread that computes digests of whole states, at a pace that leaves the processors to the rest.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread::{JoinHandle, sleep},
    time::{Duration, Instant},
};

use coordinator_core::Input;
use scheduler::State;
use tracing::info;

use crate::inbox::Inbox;

/// A computation that takes longer is worth a word.
const SLOW: Duration = Duration::from_secs(1);

/// A state, and the index after which it is.
pub struct Message {
    /// The index.
    pub index: u64,
    /// The state.
    pub state: Box<State>,
}

/// Starts the thread. It ends when its senders are gone.
pub fn start(core: Arc<Inbox>) -> std::io::Result<(Sender<Message>, JoinHandle<()>)> {
    let (sender, inbox): (_, Receiver<Message>) = channel();
    let handle = super::spawn_in_background("digests", move || {
        for Message { index, state } in inbox {
            let begun = Instant::now();
            let mut piece = Instant::now();
            let digest = state.digest_of_all(|| {
                sleep(piece.elapsed());
                piece = Instant::now();
            });
            drop(state);
            let took = begun.elapsed();
            if took > SLOW {
                info!(index, seconds = took.as_secs_f64(), "digest of the whole state computed");
            }
            core.push(Input::Digested { index, digest, took_ms: took.as_millis() as u64 });
        }
    })?;
    Ok((sender, handle))
}
