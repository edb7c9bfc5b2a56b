//! What tasks write, as they write it: both streams, each to ours.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, stream};
use proto::v1::{self, LogStream, ReadLogsRequest, TaskState};
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    failure::Failure,
    outcome,
    terminal::{self, Sink},
};

/// Tasks of an array that are followed at once.
const PARALLEL: usize = 16;
/// When a job has ended and nothing came of its logs for so long, nothing more will.
const GRACE: Duration = Duration::from_secs(5);
/// A line longer than this is written in pieces.
const MAX_LINE_BYTES: usize = 64 << 10;

/// Which logs, and how to show them.
#[derive(Debug, Clone)]
pub struct Selection {
    /// One stream, or both.
    pub stream: LogStream,
    /// Number of the attempt; 0: the latest.
    pub attempt: u32,
    /// Both streams to stderr, where stdout is for something else.
    pub all_to_stderr: bool,
    /// No remarks.
    pub quiet: bool,
}

/// Writes the log of one task where it belongs.
pub struct Printer {
    /// `42.7 | ` in front of each line, when there are several.
    prefix: Option<String>,
    selection: Selection,
    stdout: Part,
    stderr: Part,
}

#[derive(Default)]
struct Part {
    /// The line that has not ended yet, with a prefix alone.
    line: Vec<u8>,
    /// Bytes of a character that has not ended yet, on a terminal.
    rest: Vec<u8>,
}

impl Printer {
    /// Of one task: `several` puts its name in front of each line.
    pub fn new(job: u64, index: u64, several: bool, selection: &Selection) -> Self {
        let prefix = several.then(|| format!("{job}.{index} | "));
        Self { prefix, selection: selection.clone(), stdout: Part::default(), stderr: Part::default() }
    }

    /// Writes a piece.
    pub fn piece(&mut self, stream: LogStream, data: &[u8], lost_bytes: u64) -> Result<(), Failure> {
        self.bytes(stream, data)?;
        if lost_bytes > 0 {
            let name = if stream == LogStream::Stdout { "stdout" } else { "stderr" };
            let task = self.prefix.as_deref().unwrap_or_default();
            let note = format!("{task}{lost_bytes} bytes of {name} died with their worker");
            terminal::note(self.selection.quiet, &note);
        }
        Ok(())
    }

    fn bytes(&mut self, stream: LogStream, data: &[u8]) -> Result<(), Failure> {
        let (part, sink) = match stream {
            LogStream::Stderr => (&mut self.stderr, Sink::Stderr),
            _ if self.selection.all_to_stderr => (&mut self.stdout, Sink::Stderr),
            _ => (&mut self.stdout, Sink::Stdout),
        };
        let Some(prefix) = &self.prefix else { return Ok(sink.write(data, &mut part.rest)?) };
        part.line.extend_from_slice(data);
        let mut text = Vec::with_capacity(data.len() + prefix.len());
        while let Some(end) = part.line.iter().position(|byte| *byte == b'\n') {
            text.extend_from_slice(prefix.as_bytes());
            text.extend(part.line.drain(..=end));
        }
        if part.line.len() > MAX_LINE_BYTES {
            text.extend_from_slice(prefix.as_bytes());
            text.append(&mut part.line);
            text.push(b'\n');
        }
        Ok(sink.write(&text, &mut part.rest)?)
    }

    /// Ends a last line that has no newline.
    pub fn finish(&mut self) -> Result<(), Failure> {
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            let part = if stream == LogStream::Stdout { &self.stdout } else { &self.stderr };
            if !part.line.is_empty() {
                self.bytes(stream, b"\n")?;
            }
        }
        Ok(())
    }
}

/// A request for what one task writes.
pub fn request(job_id: u64, index: u64, selection: &Selection, follow: bool) -> ReadLogsRequest {
    let (attempt, stream) = (selection.attempt, selection.stream.into());
    ReadLogsRequest { job_id, index, attempt, stream, follow, ..ReadLogsRequest::default() }
}

/// Copies a task's log to its end. A task that never started has none.
pub async fn copy(
    grid: &client::Grid,
    request: ReadLogsRequest,
    printer: &mut Printer,
    moved: &AtomicU64,
) -> Result<(), Failure> {
    let mut logs = grid.jobs().logs(request);
    loop {
        match logs.next().await {
            Ok(Some(piece)) => {
                moved.fetch_add(1, Ordering::Relaxed);
                printer.piece(piece.stream, &piece.data, piece.lost_bytes)?;
            }
            Ok(None) => return printer.finish(),
            Err(error) => {
                printer.finish()?;
                return Err(error.into());
            }
        }
    }
}

/// Copies the logs of several tasks side by side.
pub async fn tasks(
    grid: &client::Grid,
    requests: Vec<ReadLogsRequest>,
    several: bool,
    selection: &Selection,
) -> Result<(), Failure> {
    let copies = requests.into_iter().map(|request| async move {
        let mut printer = Printer::new(request.job_id, request.index, several, selection);
        copy(grid, request, &mut printer, &AtomicU64::new(0)).await
    });
    stream::iter(copies).buffer_unordered(PARALLEL).try_collect().await
}

/// Follows all tasks of a job until it has ended and its logs are written; `changed` hears of each change of
/// the job. Returns the job as the watch saw it last.
pub async fn job(
    grid: &client::Grid,
    job: &v1::Job,
    selection: &Selection,
    mut changed: impl FnMut(&v1::Job),
) -> Result<v1::Job, Failure> {
    let several = job.task_count > 1;
    let mut followers = Followers::new(grid, job.id, several, selection);
    let request = v1::WatchJobsRequest { job_ids: vec![job.id], tasks: several, ..Default::default() };
    let mut watch = grid.jobs().watch(request);
    let mut last = job.clone();
    loop {
        let message = tokio::select! {
            message = watch.next() => message?,
            // A failure to write ends the command; a task's log that can't be read doesn't.
            ended = followers.next_ended() => { ended?; continue }
        };
        if let Some(newest) = message.jobs.into_iter().next_back() {
            changed(&newest);
            last = newest;
        }
        if several {
            if message.reset {
                followers.list(grid).await?;
            }
            for task in &message.tasks {
                followers.see(task);
            }
        } else if has_started(&last) {
            let index = only_index(grid, &last).await?;
            followers.begin(index);
        }
        if outcome::job_ended(&last) {
            break;
        }
    }
    if several {
        followers.list(grid).await?;
    }
    followers.finish().await?;
    Ok(last)
}

/// The index of the one task of a job, which need not be 0.
async fn only_index(grid: &client::Grid, job: &v1::Job) -> Result<u64, Failure> {
    let request = v1::ListTasksRequest { job_id: job.id, page_size: 1, ..v1::ListTasksRequest::default() };
    let page = grid.jobs().list_tasks(request).await?;
    Ok(page.tasks.first().map_or(0, |task| task.index))
}

/// Whether any task of a job has ever been given to a worker and may have written something.
fn has_started(job: &v1::Job) -> bool {
    let counts = job.tasks.unwrap_or_default();
    job.start_time.is_some() || counts.running + counts.leased + counts.succeeded + counts.failed > 0
}

struct Followers {
    grid: client::Grid,
    job: u64,
    several: bool,
    selection: Selection,
    begun: BTreeSet<u64>,
    copies: JoinSet<Result<(), Failure>>,
    places: Arc<Semaphore>,
    moved: Arc<AtomicU64>,
}

impl Followers {
    fn new(grid: &client::Grid, job: u64, several: bool, selection: &Selection) -> Self {
        Self {
            grid: grid.clone(),
            job,
            several,
            selection: selection.clone(),
            begun: BTreeSet::new(),
            copies: JoinSet::new(),
            places: Arc::new(Semaphore::new(PARALLEL)),
            moved: Arc::default(),
        }
    }

    fn see(&mut self, task: &v1::Task) {
        let wrote = matches!(task.state(), TaskState::Running | TaskState::Succeeded | TaskState::Failed);
        if wrote || (task.attempt > 0 && outcome::task_ended(task)) {
            self.begin(task.index);
        }
    }

    /// Tasks that a watch doesn't tell of, because they changed before it began.
    async fn list(&mut self, grid: &client::Grid) -> Result<(), Failure> {
        let states = [TaskState::Running, TaskState::Succeeded, TaskState::Failed, TaskState::Cancelled];
        let states = states.map(i32::from).to_vec();
        let request = v1::ListTasksRequest { job_id: self.job, states, ..v1::ListTasksRequest::default() };
        let pages = grid.jobs().each_page_of_tasks(request, |tasks| {
            tasks.iter().for_each(|task| self.see(task));
            true
        });
        Ok(pages.await?)
    }

    fn begin(&mut self, index: u64) {
        if !self.begun.insert(index) {
            return;
        }
        let request = request(self.job, index, &self.selection, true);
        let mut printer = Printer::new(self.job, index, self.several, &self.selection);
        let (grid, places, moved) = (self.grid.clone(), self.places.clone(), self.moved.clone());
        self.copies.spawn(async move {
            let _place = places.acquire_owned().await;
            copy(&grid, request, &mut printer, &moved).await
        });
    }

    /// Waits for a copy to end; for ever when there is none.
    async fn next_ended(&mut self) -> Result<(), Failure> {
        match self.copies.join_next().await {
            Some(ended) => self.judge(ended),
            None => std::future::pending().await,
        }
    }

    fn judge(&self, ended: Result<Result<(), Failure>, tokio::task::JoinError>) -> Result<(), Failure> {
        match ended {
            Ok(Err(Failure::Grid(error))) => {
                terminal::note(self.selection.quiet, &format!("a log can't be read: {error}"));
                Ok(())
            }
            Ok(other) => other,
            Err(failed) => Err(Failure::local(format!("a log reader failed: {failed}"))),
        }
    }

    /// Waits for the rest of the logs, as long as something comes.
    async fn finish(&mut self) -> Result<(), Failure> {
        loop {
            let before = self.moved.load(Ordering::Relaxed);
            match tokio::time::timeout(GRACE, self.copies.join_next()).await {
                Ok(None) => return Ok(()),
                Ok(Some(ended)) => self.judge(ended)?,
                Err(_) if self.moved.load(Ordering::Relaxed) != before => {}
                Err(_) => {
                    terminal::note(self.selection.quiet, "the end of the logs is not known; what there is was written");
                    return Ok(());
                }
            }
        }
    }
}
