//! The thread that stores: what was cut here, and what is fetched because it is missing or damaged.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use coordinator_core::Input;
use replication::Failure;
use scheduler::Segments;
use tracing::{info, warn};

use super::Parts;
use crate::history::Expected;

/// After a segment could not be stored, or nobody gave it.
const PAUSE: Duration = Duration::from_secs(1);
/// Between two that are fetched: at half a mebibyte each the disk and the network stay with the log.
const FETCH_PACE: Duration = Duration::from_millis(10);
/// Between two that are verified after a start.
const VERIFY_PACE: Duration = Duration::from_millis(50);
/// Bytes of segments that wait for room on the disk. What is beyond is fetched from the others later.
const WAITING_BYTES: usize = 64 << 20;

/// One thing for the thread to do.
pub enum Message {
    /// This segment was cut here.
    Store { number: u32, data: Bytes },
    /// These are all there are.
    Keep { segments: Segments },
    /// A reader found the file missing or damaged, and got it.
    Mend { number: u32, data: Bytes },
    /// What came of fetching a missing one.
    Fetched { number: u32, expected: Expected, data: Option<Bytes> },
    /// End the thread.
    Stop,
}

/// Starts the thread. It ends at [`Message::Stop`].
pub fn start(parts: Parts) -> std::io::Result<(Sender<Message>, JoinHandle<()>)> {
    let (sender, inbox) = channel();
    let thread = Thread::new(parts, sender.clone());
    let handle = super::super::spawn("history", move || {
        let ending = thread.parts.ending.clone();
        if let Err(failure) = thread.run(&inbox) {
            ending.fail(&failure);
        }
    })?;
    Ok((sender, handle))
}

struct Thread {
    parts: Parts,
    /// The way to itself.
    myself: Sender<Message>,
    /// How many segments there are, as far as is known here.
    segments: u32,
    /// Those that the disk didn't take, oldest first.
    waiting: VecDeque<(u32, Bytes)>,
    waiting_bytes: usize,
    store_at: Instant,
    /// That the disk takes nothing was told.
    troubled: bool,
    missing: BTreeMap<u32, Expected>,
    /// The next one that is fetched is the first missing one from here on: one that nobody has holds up no other.
    cursor: u32,
    fetching: bool,
    fetch_at: Instant,
    /// Those of which the content was not read since the start.
    unverified: BTreeMap<u32, Expected>,
    verify_at: Instant,
}

impl Thread {
    fn new(parts: Parts, myself: Sender<Message>) -> Self {
        let now = Instant::now();
        Self {
            parts,
            myself,
            segments: 0,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            store_at: now,
            troubled: false,
            missing: BTreeMap::new(),
            cursor: 0,
            fetching: false,
            fetch_at: now,
            unverified: BTreeMap::new(),
            verify_at: now,
        }
    }

    fn run(mut self, inbox: &Receiver<Message>) -> Result<(), Failure> {
        loop {
            let next = match self.due_at() {
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => inbox.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            match next {
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Ok(message) => self.take(message)?,
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.do_what_is_due(Instant::now())?;
            self.count();
        }
    }

    /// When there is something to do without being told.
    fn due_at(&self) -> Option<Instant> {
        let store = (!self.waiting.is_empty()).then_some(self.store_at);
        let fetch = (!self.missing.is_empty() && !self.fetching).then_some(self.fetch_at);
        let verify = (!self.unverified.is_empty()).then_some(self.verify_at);
        [store, fetch, verify].into_iter().flatten().min()
    }

    fn do_what_is_due(&mut self, now: Instant) -> Result<(), Failure> {
        if now >= self.store_at
            && let Some((number, data)) = self.waiting.pop_front()
        {
            self.waiting_bytes -= data.len();
            self.store(number, data)?;
        }
        if now >= self.fetch_at && !self.fetching {
            self.fetch_next();
        }
        if now >= self.verify_at
            && let Some((number, expected)) = self.unverified.pop_first()
        {
            self.verify_at = now + VERIFY_PACE;
            self.verify(number, expected);
        }
        Ok(())
    }

    fn take(&mut self, message: Message) -> Result<(), Failure> {
        match message {
            Message::Store { number, data } => {
                self.segments = self.segments.max(number);
                self.store(number, data)
            }
            Message::Keep { segments } => {
                self.keep(&segments);
                Ok(())
            }
            Message::Mend { number, data } => {
                self.missing.insert(number, Expected::of(&data));
                self.store_fetched(number, &data)
            }
            Message::Fetched { number, expected, data } => {
                self.fetching = false;
                // Another state may have come from a snapshot meanwhile.
                if self.missing.get(&number) != Some(&expected) {
                    return Ok(());
                }
                match data {
                    Some(data) => self.store_fetched(number, &data),
                    None => {
                        self.fetch_at = Instant::now() + PAUSE;
                        self.cursor = number.saturating_add(1);
                        Ok(())
                    }
                }
            }
            Message::Stop => Ok(()),
        }
    }

    /// Stores one that was cut here, now or when there is room. A log that is replayed cuts again what is here.
    fn store(&mut self, number: u32, data: Bytes) -> Result<(), Failure> {
        let expected = Expected::of(&data);
        let here = self.parts.files.has(number, &expected) && self.parts.files.read(number, Some(&expected)).is_ok();
        if here {
            self.missing.remove(&number);
            self.held(number, number);
            return Ok(());
        }
        match self.parts.files.store(number, &data) {
            Ok(()) => self.stored(number),
            Err(failure) if failure.exit_code() == 1 => {
                self.in_trouble(number, &failure);
                self.store_at = Instant::now() + PAUSE;
                self.wait(number, data);
            }
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    fn wait(&mut self, number: u32, data: Bytes) {
        if self.waiting_bytes + data.len() > WAITING_BYTES {
            self.missing.insert(number, Expected::of(&data));
            return;
        }
        self.waiting_bytes += data.len();
        // One that is tried again comes from the front.
        let place = self.waiting.partition_point(|(other, _)| *other < number);
        self.waiting.insert(place, (number, data));
    }

    /// Stores one that another member gave. Without room it is fetched again later.
    fn store_fetched(&mut self, number: u32, data: &Bytes) -> Result<(), Failure> {
        match self.parts.files.store(number, data) {
            Ok(()) => {
                self.fetch_at = Instant::now() + FETCH_PACE;
                self.stored(number);
                if self.missing.is_empty() {
                    info!(segments = self.segments, "nothing of the history is missing here any more");
                }
                Ok(())
            }
            Err(failure) if failure.exit_code() == 1 => {
                self.in_trouble(number, &failure);
                self.fetch_at = Instant::now() + PAUSE;
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }

    fn stored(&mut self, number: u32) {
        self.missing.remove(&number);
        if std::mem::take(&mut self.troubled) {
            info!(number, "the disk takes segments of the history again");
        }
        self.held(number, number);
    }

    /// Says once that the disk takes nothing: it is tried every second.
    fn in_trouble(&mut self, number: u32, failure: &Failure) {
        if !std::mem::replace(&mut self.troubled, true) {
            warn!(number, %failure, "can't store a segment of the history; it is tried again");
        }
    }

    fn keep(&mut self, segments: &Segments) {
        self.segments = u32::try_from(segments.len()).expect("segments are numbered by u32");
        self.missing.clear();
        self.unverified.clear();
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        let mut held: Option<(u32, u32)> = None;
        for (number, segment) in (1..).zip(segments) {
            let expected = Expected::from(segment);
            if self.parts.files.has(number, &expected) {
                self.unverified.insert(number, expected);
                held = match held {
                    Some((first, last)) if last + 1 == number => Some((first, number)),
                    Some((first, last)) => {
                        ranges.push((first, last));
                        Some((number, number))
                    }
                    None => Some((number, number)),
                };
            } else if self.waiting.iter().all(|(waiting, _)| *waiting != number) {
                self.missing.insert(number, expected);
            }
        }
        for (first, last) in ranges.into_iter().chain(held) {
            self.held(first, last);
        }
        if !self.missing.is_empty() {
            let (missing, of) = (self.missing.len(), self.segments);
            info!(missing, of, "segments of the history are missing here; the other members are asked for them");
        }
    }

    fn held(&self, first: u32, last: u32) {
        // Before it is told: whoever hears of it may look at once.
        self.count();
        self.parts.core.push(Input::SegmentsHeld { first, last });
    }

    fn count(&self) {
        let lacking = (self.missing.len() + self.waiting.len()) as u64;
        let segments = u64::from(self.segments);
        self.parts.counts.set(segments, segments.saturating_sub(lacking));
    }

    fn fetch_next(&mut self) {
        let next = self.missing.range(self.cursor..).next().or_else(|| self.missing.first_key_value());
        let Some((&number, &expected)) = next else { return };
        self.fetching = true;
        let myself = self.myself.clone();
        self.parts.fetcher.fetch(vec![(number, expected)], move |mut fetched| {
            // Gone: the process is ending.
            let _ = myself.send(Message::Fetched { number, expected, data: fetched.pop().flatten() });
        });
    }

    fn verify(&mut self, number: u32, expected: Expected) {
        if let Err(unreadable) = self.parts.files.read(number, Some(&expected)) {
            warn!(%unreadable, "a segment of the history is lost here; the other members are asked for it");
            self.missing.insert(number, expected);
        }
    }
}
