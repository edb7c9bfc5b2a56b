//! What tasks wrote, to the grid's own objects: small logs in bundles, large ones in objects of their own.
//!
//! A bundle's number is known as soon as a log is assigned to it, since the end of the task carries it; its
//! object appears a second or so later. A log is read from its spool when it is uploaded, and the spool is free
//! to go only after that. Until then a note on disk says what was promised, for the agent after this one.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use proto::v1::AttemptKey;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc},
};

use super::{
    Stage, StageFailure,
    bundle::Bundle,
    notes::{Note, Notes},
};

pub use super::notes::{LeftLog, Leftover, leftovers};

/// A log of at least so many bytes is an object of its own, and that of the other stream with it.
const LARGE: u64 = 256 << 10;
/// A bundle is closed when it has so many bytes,
const BUNDLE_LEN: u64 = 4 << 20;
/// or when so much time has passed since its first log.
const BUNDLE_AGE: Duration = Duration::from_secs(1);
/// The same once the machine is about to be taken back.
const HURRIED_AGE: Duration = Duration::from_millis(100);
/// Uploads under way at once.
const MAX_UPLOADS: usize = 4;
/// Between two tries: doubling, from and to.
const RETRY_DELAYS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Numbers set aside on disk at once.
const RESERVE: u32 = 1_000;

/// The logs of one session on their way to S3; cheap to clone.
#[derive(Clone)]
pub struct LogUploads {
    inner: Arc<Inner>,
}

struct Inner {
    stage: Stage,
    /// `s3://bucket/prefix/logs/`
    folder: String,
    session: u64,
    notes: Notes,
    runtime: Handle,
    uploads: Semaphore,
    uploaded: mpsc::UnboundedSender<AttemptKey>,
    hurried: AtomicBool,
    open: Mutex<Open>,
}

/// The bundle to which logs are assigned now.
struct Open {
    number: u32,
    bytes: u64,
    spools: Vec<Spools>,
    note: Note,
    numbers: Numbers,
}

struct Spools {
    key: AttemptKey,
    streams: [(&'static str, PathBuf, u64); 2],
}

impl Spools {
    fn new(key: AttemptKey, stdout: (PathBuf, u64), stderr: (PathBuf, u64)) -> Spools {
        Spools { key, streams: [("stdout", stdout.0, stdout.1), ("stderr", stderr.0, stderr.1)] }
    }

    fn noted(&self) -> LeftLog {
        let [(_, _, stdout), (_, _, stderr)] = self.streams;
        LeftLog { key: self.key, stdout, stderr }
    }
}

impl LogUploads {
    /// Uploads below `grid_prefix`, in the background of the present tokio runtime. The receiver yields the
    /// attempts whose spools are no longer needed.
    pub fn new(stage: Stage, grid_prefix: String, session: u64) -> (LogUploads, mpsc::UnboundedReceiver<AttemptKey>) {
        let (uploaded, receiver) = mpsc::unbounded_channel();
        let mut numbers = Numbers::open(&stage.inner.cache_dir, session);
        let notes = Notes::open(&stage.inner.cache_dir, session);
        let number = numbers.next();
        let open = Open { number, bytes: 0, spools: Vec::new(), note: notes.of_bundle(number), numbers };
        let inner = Inner {
            stage,
            folder: format!("{grid_prefix}logs/"),
            session,
            notes,
            runtime: Handle::current(),
            uploads: Semaphore::new(MAX_UPLOADS),
            uploaded,
            hurried: AtomicBool::new(false),
            open: Mutex::new(open),
        };
        (LogUploads { inner: Arc::new(inner) }, receiver)
    }

    /// Takes the logs of an ended attempt, each a spool and its length in bytes, and returns the number of the
    /// bundle they go into; 0: into objects of their own, or there is nothing to upload.
    pub fn assign(&self, key: AttemptKey, stdout: (PathBuf, u64), stderr: (PathBuf, u64)) -> u32 {
        let length = stdout.1 + stderr.1;
        let large = stdout.1.max(stderr.1) >= LARGE;
        let spools = Spools::new(key, stdout, stderr);
        if length == 0 {
            // Nobody to tell means nobody who minds.
            let _ = self.inner.uploaded.send(key);
            return 0;
        }
        if large {
            let mut note = self.inner.notes.of_one(&key);
            note.add(&spools.noted());
            self.start(0, vec![spools], self.inner.session, note);
            return 0;
        }
        self.inner.bundle(&self.inner, spools, length)
    }

    /// From now on no bundle waits long for company: the machine is about to be taken back.
    pub fn hurry(&self) {
        self.inner.hurried.store(true, Ordering::Relaxed);
        let number = self.inner.open.lock().unwrap_or_else(PoisonError::into_inner).number;
        self.inner.clone().close(number);
    }

    /// Uploads what an agent before this one has promised, under the names that it promised; `spools` are the paths of
    /// standard output and standard error.
    pub fn resume(&self, leftovers: Vec<Leftover>, spools: impl Fn(AttemptKey) -> (PathBuf, PathBuf)) {
        for leftover in leftovers {
            let note = Note::left(&self.inner.stage.inner.cache_dir, &leftover);
            let left = |log: &LeftLog| {
                let (stdout, stderr) = spools(log.key);
                Spools::new(log.key, (stdout, log.stdout), (stderr, log.stderr))
            };
            self.start(leftover.bundle, leftover.logs.iter().map(left).collect(), leftover.session, note);
        }
    }

    fn start(&self, bundle: u32, spools: Vec<Spools>, session: u64, note: Note) {
        let inner = self.inner.clone();
        self.inner.runtime.spawn(async move {
            match bundle {
                0 => inner.upload_alone(spools, session, note).await,
                number => inner.upload_bundle(number, spools, session, note).await,
            }
        });
    }
}

impl Inner {
    fn bundle(&self, shared: &Arc<Inner>, spools: Spools, length: u64) -> u32 {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let number = open.number;
        if open.spools.is_empty() {
            let inner = shared.clone();
            let age = if self.hurried.load(Ordering::Relaxed) { HURRIED_AGE } else { BUNDLE_AGE };
            self.runtime.spawn(async move {
                tokio::time::sleep(age).await;
                inner.close(number);
            });
        }
        open.bytes += length;
        // Before anybody is told of the number.
        open.note.add(&spools.noted());
        open.spools.push(spools);
        let full = open.bytes >= BUNDLE_LEN;
        drop(open);
        if full {
            shared.clone().close(number);
        }
        number
    }

    /// Closes the bundle if it is still open, and uploads it.
    fn close(self: Arc<Self>, number: u32) {
        let (spools, note) = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            if open.number != number || open.spools.is_empty() {
                return;
            }
            open.number = open.numbers.next();
            open.bytes = 0;
            let next = self.notes.of_bundle(open.number);
            (std::mem::take(&mut open.spools), std::mem::replace(&mut open.note, next))
        };
        let runtime = self.runtime.clone();
        runtime.spawn(async move { self.upload_bundle(number, spools, self.session, note).await });
    }

    async fn upload_bundle(&self, number: u32, spools: Vec<Spools>, session: u64, note: Note) {
        let _permit = self.uploads.acquire().await.expect("the semaphore is never closed");
        let url = format!("{}{session}/{number}", self.folder);
        let spools = Arc::new(spools);
        let mut delay = RETRY_DELAYS.0;
        loop {
            // Read for every try anew, not kept: S3 may be away for hours.
            let read = spools.clone();
            let stored = match tokio::task::spawn_blocking(move || bundle(&read)).await {
                Ok(body) => self.stage.put_object(&url, body.into()).await,
                Err(stopped) => Err(StageFailure::transient(&url, stopped)),
            };
            match stored {
                Ok(()) => break,
                // If access is denied an operator may grant it; the spools stay until then.
                Err(failure) => pause(&mut delay, &failure).await,
            }
        }
        self.settle(note, &spools);
    }

    /// They are stored: the note goes first, so that no later agent puts less under the same name.
    fn settle(&self, note: Note, spools: &[Spools]) {
        note.settle();
        for Spools { key, .. } in spools {
            let _ = self.uploaded.send(*key);
        }
    }

    async fn upload_alone(&self, spools: Vec<Spools>, session: u64, note: Note) {
        let _permit = self.uploads.acquire().await.expect("the semaphore is never closed");
        for Spools { key, streams } in &spools {
            let AttemptKey { job_id, ordinal, attempt } = key;
            for (stream, path, length) in streams.iter().filter(|(_, _, length)| *length > 0) {
                let url = format!("{}{session}/{job_id}.{ordinal}.{attempt}.{stream}", self.folder);
                let mut delay = RETRY_DELAYS.0;
                while let Err(failure) = self.stage.put_file(&url, path, *length).await {
                    if !failure.retryable {
                        tracing::error!(%failure, "a log is lost");
                        break;
                    }
                    pause(&mut delay, &failure).await;
                }
            }
        }
        self.settle(note, &spools);
    }
}

async fn pause(delay: &mut Duration, failure: &StageFailure) {
    tracing::warn!(%failure, ?delay, "cannot upload logs");
    tokio::time::sleep(*delay).await;
    *delay = (*delay * 2).min(RETRY_DELAYS.1);
}

fn bundle(spools: &[Spools]) -> Vec<u8> {
    let mut bundle = Bundle::default();
    for Spools { key, streams } in spools {
        for (stream, path, length) in streams.iter().filter(|(_, _, length)| *length > 0) {
            match read(path, *length) {
                Ok(body) => bundle.add(key, stream, &body),
                Err(error) => tracing::warn!(path = %path.display(), %error, "a log is lost"),
            }
        }
    }
    bundle.finish()
}

/// What the spool holds of `length` bytes; a process that outlived its task may have written more.
fn read(path: &Path, length: u64) -> io::Result<Vec<u8>> {
    let mut body = Vec::with_capacity(length as usize);
    File::open(path)?.take(length).read_to_end(&mut body)?;
    Ok(body)
}

/// The numbers of a session's bundles. An agent that is restarted in the same session must not use one twice, so
/// some are set aside in a file before they are used.
struct Numbers {
    file: PathBuf,
    next: u32,
    reserved: u32,
}

impl Numbers {
    fn open(directory: &Path, session: u64) -> Numbers {
        let name = |session: u64| format!("log-bundles-{session}");
        let file = directory.join(name(session));
        let next = fs::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1);
        // Those of sessions that are over.
        for other in fs::read_dir(directory).into_iter().flatten().flatten() {
            let other_name = other.file_name();
            if other_name.to_str().is_some_and(|other| other.starts_with("log-bundles-") && other != name(session)) {
                let _ = fs::remove_file(other.path());
            }
        }
        Numbers { file, next, reserved: next }
    }

    fn next(&mut self) -> u32 {
        if self.next >= self.reserved {
            self.reserved = self.next + RESERVE;
            let new = self.file.with_extension("new");
            let written = fs::write(&new, format!("{}\n", self.reserved)).and_then(|()| fs::rename(&new, &self.file));
            if let Err(error) = written {
                tracing::warn!(%error, path = %self.file.display(), "cannot set numbers aside");
            }
        }
        self.next += 1;
        self.next - 1
    }
}
