//! The thread that reads: from memory, from the disk, and at last from another member.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
};

use bytes::Bytes;
use coordinator_core::Input;
use scheduler::{Archive, Segment};
use tracing::{error, warn};

use super::{Parts, keeping};
use crate::history::{Expected, Recent};

/// One thing for the thread to do.
pub enum Message {
    /// Read these and answer the core.
    Read { ticket: u64, segments: Vec<(u32, Segment)> },
    /// What the other members gave of what was not here, in the order in which it is missing.
    Fetched { reading: Reading, fetched: Vec<Option<Bytes>> },
    /// End the thread.
    Stop,
}

/// One question of the core's.
pub struct Reading {
    ticket: u64,
    segments: Vec<(u32, Expected)>,
    /// One for each segment, once it was found.
    found: Vec<Option<Arc<Archive>>>,
}

/// Starts the thread. It ends at [`Message::Stop`].
pub fn start(parts: Parts, keeper: Sender<keeping::Message>) -> std::io::Result<(Sender<Message>, JoinHandle<()>)> {
    let (sender, inbox): (_, Receiver<Message>) = channel();
    let mut thread = Thread { parts, keeper, myself: sender.clone(), recent: Recent::default() };
    let handle = super::super::spawn("archives", move || {
        for message in inbox {
            match message {
                Message::Read { ticket, segments } => thread.read(ticket, &segments),
                Message::Fetched { reading, fetched } => thread.fetched(reading, fetched),
                Message::Stop => return,
            }
        }
    })?;
    Ok((sender, handle))
}

struct Thread {
    parts: Parts,
    keeper: Sender<keeping::Message>,
    /// The way to itself.
    myself: Sender<Message>,
    recent: Recent,
}

impl Thread {
    fn read(&mut self, ticket: u64, segments: &[(u32, Segment)]) {
        let segments: Vec<_> = segments.iter().map(|(number, segment)| (*number, Expected::from(segment))).collect();
        let found = segments.iter().map(|(number, expected)| self.find(*number, expected)).collect();
        let reading = Reading { ticket, segments, found };
        let missing = reading.missing();
        if missing.is_empty() {
            return self.answer(reading);
        }
        let myself = self.myself.clone();
        self.parts.fetcher.fetch(missing, move |fetched| {
            // Gone: the process is ending.
            let _ = myself.send(Message::Fetched { reading, fetched });
        });
    }

    fn find(&mut self, number: u32, expected: &Expected) -> Option<Arc<Archive>> {
        if let Some(archive) = self.recent.get(number) {
            return Some(archive);
        }
        match self.parts.files.read(number, Some(expected)) {
            Ok(data) => self.decode(number, &data),
            Err(unreadable) => {
                if unreadable.is_damage() {
                    warn!(%unreadable, "a segment of the history is lost here; the other members are asked for it");
                }
                None
            }
        }
    }

    fn fetched(&mut self, mut reading: Reading, fetched: Vec<Option<Bytes>>) {
        for ((number, _), data) in reading.missing().into_iter().zip(fetched) {
            let Some(data) = data else { continue };
            let archive = self.decode(number, &data);
            for (place, _) in reading.segments.iter().enumerate().filter(|(_, (other, _))| *other == number) {
                reading.found[place].clone_from(&archive);
            }
            // Gone: the process is ending.
            let _ = self.keeper.send(keeping::Message::Mend { number, data });
        }
        self.answer(reading);
    }

    /// `data` is what was cut: its checksum is right.
    fn decode(&mut self, number: u32, data: &Bytes) -> Option<Arc<Archive>> {
        match Archive::read(number, data) {
            Ok(archive) => {
                let archive = Arc::new(archive);
                self.recent.put(number, Arc::clone(&archive), archive.bytes());
                Some(archive)
            }
            Err(malformed) => {
                error!(number, %malformed, "this release can't read a segment of the history");
                None
            }
        }
    }

    fn answer(&self, reading: Reading) {
        let archives = reading.found.into_iter().collect();
        self.parts.core.push(Input::HistoryRead { ticket: reading.ticket, archives });
    }
}

impl Reading {
    fn missing(&self) -> Vec<(u32, Expected)> {
        let places = self.segments.iter().zip(&self.found);
        places.filter(|(_, found)| found.is_none()).map(|(segment, _)| *segment).collect()
    }
}
