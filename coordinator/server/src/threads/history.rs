//! The threads of the history: one stores segments and gets those that are missing, one reads them back. Neither waits
//! for the network, and what is read doesn't wait for what is stored.

mod keeping;
mod reading;

use std::{
    sync::{Arc, mpsc::Sender},
    thread::JoinHandle,
};

use bytes::Bytes;
use scheduler::{Segment, Segments};

use crate::{
    ending::Ending,
    history::{Counts, Fetcher, Files},
    inbox::Inbox,
};

/// What the threads need.
#[derive(Clone)]
pub struct Parts {
    /// The folder.
    pub files: Arc<Files>,
    /// The other members.
    pub fetcher: Fetcher,
    /// The core thread's inbox.
    pub core: Arc<Inbox>,
    /// Who can end the process.
    pub ending: Ending,
    /// What the metrics say.
    pub counts: Arc<Counts>,
}

/// The way to the threads. They end with it.
pub struct History {
    keeper: Sender<keeping::Message>,
    reader: Sender<reading::Message>,
}

/// Starts both threads.
pub fn start(parts: Parts) -> std::io::Result<(History, [JoinHandle<()>; 2])> {
    let (keeper, keeping) = keeping::start(parts.clone())?;
    let (reader, reading) = reading::start(parts, keeper.clone())?;
    Ok((History { keeper, reader }, [keeping, reading]))
}

impl History {
    /// Makes a segment durable that this coordinator has just cut.
    pub fn store(&self, number: u32, data: Bytes) {
        // Gone: it ended with a failure, which ends the process. The same below.
        let _ = self.keeper.send(keeping::Message::Store { number, data });
    }

    /// Says which of all `segments` are here, and gets the rest.
    pub fn keep(&self, segments: Segments) {
        let _ = self.keeper.send(keeping::Message::Keep { segments });
    }

    /// Answers the core with the decoded segments.
    pub fn read(&self, ticket: u64, segments: Vec<(u32, Segment)>) {
        let _ = self.reader.send(reading::Message::Read { ticket, segments });
    }
}

impl Drop for History {
    fn drop(&mut self) {
        // Each also has a way to itself, for what is fetched, and would wait for ever.
        let _ = self.keeper.send(keeping::Message::Stop);
        let _ = self.reader.send(reading::Message::Stop);
    }
}

#[cfg(test)]
mod tests;
