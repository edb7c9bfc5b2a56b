//! How the process ends, and who may say so.

use std::sync::Arc;

use tokio::sync::watch;
use tracing::error;

/// Why the process ends; its exit code is what a supervisor acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It was asked to.
    Stopped,
    /// The world broke in some other way.
    Failed,
    /// The configuration can't be used.
    Configuration,
    /// An fsync failed: nothing may restart this member on this disk.
    Sync,
    /// The log or a snapshot is corrupt.
    Corrupt,
    /// This replica's state isn't that of the others.
    Diverged,
}

impl Exit {
    /// The exit code.
    pub fn code(self) -> i32 {
        match self {
            Exit::Stopped => 0,
            Exit::Failed => 1,
            Exit::Configuration => 2,
            Exit::Sync => 70,
            Exit::Corrupt => 71,
            Exit::Diverged => 72,
        }
    }

    /// How a failure of the disk ends the process.
    pub fn of(failure: &replication::Failure) -> Exit {
        match failure.exit_code() {
            70 => Exit::Sync,
            71 => Exit::Corrupt,
            _ => Exit::Failed,
        }
    }
}

/// Any thread may end the process; the first word counts.
#[derive(Clone)]
pub struct Ending {
    exit: Arc<watch::Sender<Option<Exit>>>,
}

impl Default for Ending {
    fn default() -> Self {
        Self { exit: Arc::new(watch::Sender::new(None)) }
    }
}

impl Ending {
    /// Ends the process. The caller does nothing more that others could build on.
    pub fn end(&self, exit: Exit) {
        self.exit.send_if_modified(|present| {
            let first = present.is_none();
            present.get_or_insert(exit);
            first
        });
    }

    /// Ends the process because of `failure`.
    pub fn fail(&self, failure: &replication::Failure) {
        error!(%failure, "this coordinator can't go on");
        self.end(Exit::of(failure));
    }

    /// How the process ends, once somebody has said so.
    pub fn decided(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Waits until somebody ends the process.
    pub async fn wait(&self) -> Exit {
        let mut receiver = self.exit.subscribe();
        match receiver.wait_for(Option::is_some).await {
            Ok(exit) => exit.unwrap_or(Exit::Failed),
            Err(_) => Exit::Failed,
        }
    }
}
