//! Spools of standard output and error, read live by whoever asks through a coordinator.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use proto::v1::{LogData, LogStream, ReadLog, WorkerMessage, worker_message};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use worker_core::Key;

use crate::sweeper::{STDERR, STDOUT};

/// A follower's question is answered after this long, whatever there is.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at a file that somebody follows. Nobody looks while nobody follows.
const LOOK: Duration = Duration::from_millis(50);
/// Most bytes of one answer.
const MAX_BYTES: u32 = 256 << 10;

/// All spools on this worker.
#[derive(Debug, Clone)]
pub struct Spools {
    tasks: Arc<PathBuf>,
    known: Arc<Mutex<BTreeMap<Key, Stage>>>,
}

/// Where an attempt's spools are. Not known at all: they are deleted, or never were here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// They may grow.
    Open,
    /// The process is gone: they are whole.
    Whole,
}

enum Found {
    Data(LogData),
    Nothing,
    Gone,
}

impl Spools {
    /// Spools below `STATE_DIR/tasks`.
    pub fn new(tasks: PathBuf) -> Self {
        Self { tasks: Arc::new(tasks), known: Arc::default() }
    }

    /// The directory of an attempt.
    pub fn directory(&self, key: Key) -> PathBuf {
        self.tasks.join(key.to_string())
    }

    /// The attempt will write.
    pub fn open(&self, key: Key) {
        self.lock().insert(key, Stage::Open);
    }

    /// The attempt writes no more: the lengths of its spools.
    pub fn close(&self, key: Key) -> (u64, u64) {
        self.lock().insert(key, Stage::Whole);
        let directory = self.directory(key);
        let length = |name| std::fs::metadata(directory.join(name)).map_or(0, |file| file.len());
        (length(STDOUT), length(STDERR))
    }

    /// The spools are about to be deleted.
    pub fn forget(&self, key: Key) {
        self.lock().remove(&key);
    }

    /// Answers a question, now or when there is something to say, but for a stream that has closed. `expected`: the
    /// attempt is held, so that spools which aren't there yet may come.
    pub fn answer(&self, request: ReadLog, expected: bool, answers: mpsc::UnboundedSender<WorkerMessage>) {
        let spools = self.clone();
        tokio::spawn(async move {
            let data = spools.read(&request, expected, &answers).await;
            let _ = answers.send(WorkerMessage { message: Some(worker_message::Message::LogData(data)) });
        });
    }

    async fn read(
        &self,
        request: &ReadLog,
        mut expected: bool,
        answers: &mpsc::UnboundedSender<WorkerMessage>,
    ) -> LogData {
        let until = Instant::now() + PATIENCE;
        let gone = LogData { request: request.request, gone: true, ..Default::default() };
        let Some(key) = request.attempt.map(Key::from) else { return gone };
        loop {
            let found = match self.look(key, request) {
                Ok(Found::Gone) if expected => Ok(Found::Nothing),
                found => {
                    // They have come; when they are gone again, they are gone.
                    expected = false;
                    found
                }
            };
            match found {
                Ok(Found::Data(data)) => return data,
                Ok(Found::Gone) => return gone,
                Ok(Found::Nothing) if request.follow && Instant::now() < until && !answers.is_closed() => {
                    sleep(LOOK).await;
                }
                Ok(Found::Nothing) => {
                    return LogData {
                        request: request.request,
                        offset: request.offset.max(0) as u64,
                        ..Default::default()
                    };
                }
                Err(error) => {
                    tracing::warn!(attempt = %key, "can't read its log: {error}");
                    return gone;
                }
            }
        }
    }

    fn look(&self, key: Key, request: &ReadLog) -> io::Result<Found> {
        // Before the length is read: what is whole now doesn't grow any more.
        let Some(stage) = self.lock().get(&key).copied() else { return Ok(Found::Gone) };
        let name = if request.stream() == LogStream::Stderr { STDERR } else { STDOUT };
        let file = match File::open(self.directory(key).join(name)) {
            Ok(file) => file,
            // Not started yet, or never.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let end = stage == Stage::Whole;
                let empty = LogData { request: request.request, end, ..Default::default() };
                return Ok(if end { Found::Data(empty) } else { Found::Nothing });
            }
            Err(error) => return Err(error),
        };
        let length = file.metadata()?.len();
        let offset = match u64::try_from(request.offset) {
            Ok(offset) => offset.min(length),
            Err(_) => length.saturating_sub(request.offset.unsigned_abs()),
        };
        let wanted = u64::from(request.max_bytes.clamp(1, MAX_BYTES)).min(length - offset);
        if wanted == 0 && stage == Stage::Open {
            return Ok(Found::Nothing);
        }
        let mut data = vec![0; wanted as usize];
        file.read_exact_at(&mut data, offset)?;
        // Forgotten meanwhile: the file may be another attempt's by now.
        if !self.lock().contains_key(&key) {
            return Ok(Found::Gone);
        }
        let end = stage == Stage::Whole && offset + wanted == length;
        Ok(Found::Data(LogData { request: request.request, offset, data: Bytes::from(data), end, gone: false }))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Stage>> {
        self.known.lock().expect("nothing panics under this lock")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::{fs, io::Write};

    const KEY: Key = Key { job: 1, ordinal: 0, attempt: 1 };

    async fn ask(spools: &Spools, offset: i64, follow: bool) -> LogData {
        question(spools, offset, follow, false).await
    }

    async fn question(spools: &Spools, offset: i64, follow: bool, expected: bool) -> LogData {
        let (sender, mut answers) = mpsc::unbounded_channel();
        let request = ReadLog {
            request: 9,
            attempt: Some(KEY.into()),
            stream: LogStream::Stdout.into(),
            offset,
            max_bytes: 4,
            follow,
        };
        spools.answer(request, expected, sender);
        match answers.recv().await.unwrap().message.unwrap() {
            worker_message::Message::LogData(data) => data,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_spool_is_read_in_pieces_followed_and_gone_in_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let spools = Spools::new(folder.path().to_owned());
        assert!(ask(&spools, 0, false).await.gone);
        assert!(!question(&spools, 0, false, true).await.gone, "it may come");
        spools.open(KEY);
        let data = ask(&spools, 0, false).await;
        assert!(!data.gone && !data.end && data.data.is_empty(), "it hasn't begun");
        fs::create_dir(spools.directory(KEY)).unwrap();
        let mut file = File::create(spools.directory(KEY).join(STDOUT)).unwrap();
        file.write_all(b"abcdef").unwrap();
        for (offset, expected, at) in [(0, "abcd", 0), (4, "ef", 4), (-3, "def", 3), (-100, "abcd", 0)] {
            let data = ask(&spools, offset, false).await;
            assert_eq!((data.data.as_ref(), data.offset, data.end), (expected.as_bytes(), at, false), "{offset}");
        }
        // A follower gets what is written while it waits, and hears of the end.
        let (data, _) = tokio::join!(ask(&spools, 6, true), async { file.write_all(b"gh").unwrap() });
        assert_eq!((data.data.as_ref(), data.offset), (b"gh".as_ref(), 6));
        let (data, lengths) = tokio::join!(ask(&spools, 8, true), async { spools.close(KEY) });
        assert_eq!((data.data.len(), data.end, lengths), (0, true, (8, 0)));
        assert!(!ask(&spools, 0, false).await.end, "there is more behind these four");
        spools.forget(KEY);
        assert!(ask(&spools, 0, true).await.gone);
    }
}
