#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use coordinator_core::Input;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::transport::ClientTlsConfig;

use super::*;
use crate::{channels::Channels, history::Expected, inbox::Message};

/// The threads on a disk of their own, of a member that has no others to ask.
struct Alone {
    history: History,
    threads: [JoinHandle<()>; 2],
    parts: Parts,
    folder: TempDir,
    _runtime: Runtime,
}

impl Alone {
    fn start(folder: TempDir) -> Alone {
        let runtime = Runtime::new().unwrap();
        let channels = Channels::new(&[], 1, &ClientTlsConfig::new()).unwrap();
        let parts = Parts {
            files: Arc::new(Files::open(&folder.path().join("history"), None).unwrap()),
            fetcher: Fetcher::new(&channels, "test".to_owned(), runtime.handle().clone()),
            core: Arc::default(),
            ending: Ending::default(),
            counts: Arc::default(),
        };
        let (history, threads) = start(parts.clone()).unwrap();
        Alone { history, threads, parts, folder, _runtime: runtime }
    }

    fn new() -> Alone {
        Alone::start(tempfile::tempdir().unwrap())
    }

    /// Ends the threads as the core thread does.
    fn stop(self) -> TempDir {
        drop(self.history);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(self.parts.ending.decided(), None);
        self.folder
    }

    fn file(&self, number: u32) -> PathBuf {
        self.folder.path().join("history").join(format!("segment-{number:010}"))
    }

    /// What the core is told next.
    fn told(&self) -> Vec<Input> {
        let mut messages = Vec::new();
        while messages.is_empty() {
            let taken = self.parts.core.take(&mut messages, Duration::from_secs(60), Instant::now());
            assert!(!taken.closed);
        }
        let input = |message| match message {
            Message::Input(input) => input,
            _ => unreachable!("nobody calls"),
        };
        messages.into_iter().map(input).collect()
    }

    /// The segments that the core hears of, until there are `count`.
    fn held(&self, count: usize) -> Vec<u32> {
        let mut numbers = Vec::new();
        while numbers.len() < count {
            for input in self.told() {
                let Input::SegmentsHeld { first, last } = input else { unreachable!("{input:?}") };
                numbers.extend(first..=last);
            }
        }
        numbers
    }
}

fn data(number: u32) -> Bytes {
    Bytes::from(format!("segment {number}"))
}

fn segments(count: u32) -> Segments {
    let segment = |number| {
        let Expected { bytes, checksum } = Expected::of(&data(number));
        Segment { index: number.into(), bytes, checksum, jobs: 1 }
    };
    (1..=count).map(segment).collect()
}

#[test]
fn what_is_stored_is_held_and_is_there_after_a_restart() {
    let alone = Alone::new();
    (1..=3).for_each(|number| alone.history.store(number, data(number)));
    assert_eq!(alone.held(3), [1, 2, 3]);
    let alone = Alone::start(alone.stop());
    alone.history.keep(segments(3));
    assert_eq!(alone.held(3), [1, 2, 3]);
    // A replay of the log cuts it again.
    alone.history.store(3, data(3));
    assert_eq!(alone.held(1), [3]);
    alone.stop();
}

#[test]
fn only_what_is_there_and_right_is_held() {
    let alone = Alone::new();
    (1..=5).for_each(|number| alone.history.store(number, data(number)));
    alone.held(5);
    fs::remove_file(alone.file(2)).unwrap();
    fs::copy(alone.file(1), alone.file(4)).unwrap();
    let alone = Alone::start(alone.stop());
    alone.history.keep(segments(6));
    assert_eq!(alone.held(3), [1, 3, 5]);
    // It can't be said sooner than after the list was gone through.
    alone.history.store(6, data(6));
    assert_eq!(alone.held(1), [6]);
    assert_eq!((alone.parts.counts.segments(), alone.parts.counts.held()), (6, 4));
    alone.stop();
}

#[test]
fn a_segment_that_the_disk_does_not_take_is_stored_later() {
    let alone = Alone::new();
    let unfinished = alone.file(1).with_extension("new");
    fs::create_dir(&unfinished).unwrap();
    alone.history.store(1, data(1));
    alone.history.store(2, data(2));
    assert_eq!(alone.held(1), [2]);
    fs::remove_dir(&unfinished).unwrap();
    assert_eq!(alone.held(1), [1]);
    alone.stop();
}

#[test]
fn what_nobody_has_can_not_be_read_now() {
    let alone = Alone::new();
    let missing = segments(1).into_iter().map(|segment| (1, segment)).collect();
    alone.history.read(7, missing);
    assert!(matches!(alone.told()[..], [Input::HistoryRead { ticket: 7, archives: None }]));
    alone.stop();
}
