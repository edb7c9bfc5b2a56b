//! The thread that owns the log: writes what waits, syncs once for all of it, and says so.

use std::{
    sync::{Arc, Mutex, PoisonError, mpsc::RecvTimeoutError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use replication::{Compaction, Failure, FileLog, Input, SnapshotFiles, Write};
use tracing::{info, warn};

use super::{
    queue::{self, Receiver, Sender},
    replica,
};
use crate::{ending::Ending, metrics::Metrics};

/// After so long without a write the log leaves its mark.
const IDLE: Duration = Duration::from_millis(100);
/// A sync that takes longer is worth a word.
const SLOW_SYNC: Duration = Duration::from_millis(500);

/// One thing for the log thread to do.
pub enum Message {
    /// Make this durable.
    Write(Write),
    /// Forget this.
    Compact(Compaction),
}

/// Starts the thread. It ends when its senders are gone, or with a failure, which ends the process: what it didn't
/// confirm is not acknowledged to anybody.
pub fn start(
    log: FileLog,
    snapshots: Arc<Mutex<SnapshotFiles>>,
    replica: Sender<replica::Message>,
    ending: Ending,
    metrics: Arc<Metrics>,
) -> std::io::Result<(Sender<Message>, JoinHandle<()>)> {
    let (sender, inbox) = queue::unbounded();
    let thread = Thread { log, snapshots, replica, metrics };
    let handle = super::spawn("log", move || {
        if let Err(failure) = thread.run(&inbox) {
            ending.fail(&failure);
        }
    })?;
    Ok((sender, handle))
}

struct Thread {
    log: FileLog,
    snapshots: Arc<Mutex<SnapshotFiles>>,
    replica: Sender<replica::Message>,
    metrics: Arc<Metrics>,
}

impl Thread {
    fn run(mut self, inbox: &Receiver<Message>) -> Result<(), Failure> {
        loop {
            let mut next = match inbox.recv(Some(IDLE)) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => {
                    self.log.idle()?;
                    // Nothing is left to say, until something comes.
                    inbox.recv(None).ok()
                }
                Err(RecvTimeoutError::Disconnected) => None,
            };
            if next.is_none() {
                return self.log.sync();
            }
            let (mut number, mut must_sync) = (None, false);
            let mut compaction = None;
            // A compaction keeps its place: what was written before it is durable before it, and nothing behind it.
            while compaction.is_none()
                && let Some(message) = next
            {
                match message {
                    Message::Write(write) => {
                        self.log.append(&write)?;
                        number = Some(write.number);
                        must_sync |= write.must_sync;
                    }
                    Message::Compact(wanted) => compaction = Some(wanted),
                }
                next = if compaction.is_none() { inbox.try_recv() } else { None };
            }
            if must_sync {
                let begun = Instant::now();
                self.log.sync()?;
                self.metrics.synced(begun.elapsed());
                if begun.elapsed() > SLOW_SYNC {
                    warn!(seconds = begun.elapsed().as_secs_f64(), "the disk is slow to sync");
                }
            }
            if let Some(number) = number {
                // The replica thread never waits for this one, so this can't be for ever; gone means ending.
                let _ = self.replica.send(replica::Message::Step(Input::Persisted { number }));
            }
            if let Some(compaction) = compaction {
                self.compact(&compaction)?;
            }
        }
    }

    fn compact(&mut self, compaction: &Compaction) -> Result<(), Failure> {
        self.log.compact(compaction)?;
        self.snapshots.lock().unwrap_or_else(PoisonError::into_inner).prune(compaction.snapshot.index)?;
        info!(
            through = compaction.base_index,
            snapshot = compaction.snapshot.index,
            bytes = self.log.size(),
            "log compacted"
        );
        Ok(())
    }
}
