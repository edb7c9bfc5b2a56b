//! What a task wrote, read through any number of broken connections, each byte once.

use bytes::Bytes;
use proto::v1::{LogStream, ReadLogsRequest, ReadLogsResponse, job_service_client::JobServiceClient};
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::Streaming;

use crate::{Answer, Connection, Error, Grid, backoff::Pauses, error::Trouble};

/// Some bytes of a task's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Standard output or standard error.
    pub stream: LogStream,
    /// Number of the attempt that wrote it.
    pub attempt: u32,
    /// Of the first byte.
    pub offset: u64,
    /// May be empty, at an end or where bytes were lost.
    pub data: Bytes,
    /// Bytes behind these that died with their worker.
    pub lost_bytes: u64,
    /// No more will come of this stream of this attempt.
    pub end: bool,
}

/// The log of one task.
pub struct Logs {
    grid: Grid,
    request: ReadLogsRequest,
    open: Option<(Connection, Streaming<ReadLogsResponse>)>,
    pauses: Pauses,
    /// Whether the open stream was asked for one attempt although its caller wants all that follow.
    narrowed: bool,
    /// Whether the attempt that is read is not the first: its streams begin at 0, whatever the caller asked.
    later: bool,
    /// Of the attempt that was read last.
    attempt: u32,
    stdout: Position,
    stderr: Position,
}

/// How far a stream of the present attempt was read.
#[derive(Clone, Copy, Default)]
struct Position {
    /// Of the next byte; none when nothing came yet.
    next: Option<u64>,
    ended: bool,
}

impl Logs {
    pub(crate) fn new(grid: Grid, request: ReadLogsRequest) -> Self {
        let pauses = grid.pauses();
        let (stdout, stderr) = (Position::default(), Position::default());
        Self { grid, request, open: None, pauses, narrowed: false, later: false, attempt: 0, stdout, stderr }
    }

    /// The next piece; none at the end. Waits through any outage until the grid's deadline
    /// ([`Grid::until`]), else for ever.
    pub async fn next(&mut self) -> Result<Option<Piece>, Error> {
        let started = Instant::now();
        // What a coordinator gave as the reason to ask again: better than none, should time run out.
        let mut passing = None;
        loop {
            let deadline = self.grid.deadline();
            let request = self.resumed();
            let (connection, stream) = match &mut self.open {
                Some(open) => open,
                closed => {
                    self.narrowed = request.attempt != self.request.attempt;
                    closed.insert(open(&self.grid, request).await.map_err(|error| late(error, passing.take()))?)
                }
            };
            let message = match deadline {
                None => stream.message().await,
                Some(deadline) => match timeout_at(deadline, stream.message()).await {
                    Ok(message) => message,
                    Err(_) => {
                        let waited = started.elapsed();
                        return Err(late(Error::TimedOut { waited, request_id: String::new() }, passing));
                    }
                },
            };
            match message {
                Ok(Some(message)) => {
                    self.pauses = self.grid.pauses();
                    match self.take(message) {
                        Taken::Piece(piece) => return Ok(Some(piece)),
                        Taken::Nothing => {}
                        Taken::Skipped => self.open = None,
                    }
                    continue;
                }
                Ok(None) if self.narrowed && self.request.follow => {
                    // The attempt that was resumed is read to its end; there may be a later one. Asked from here on,
                    // the coordinator sends nothing of this one again.
                    (self.stdout.ended, self.stderr.ended) = (true, true);
                    self.narrowed = false;
                    let request = ReadLogsRequest { attempt: self.request.attempt, ..self.resumed() };
                    self.open = Some(open(&self.grid, request).await?);
                    continue;
                }
                Ok(None) => return Ok(None),
                Err(status) => match Trouble::from_status(&status, "") {
                    Trouble::Final(answer) => return Err(Error::Refused(answer)),
                    Trouble::Passing(answer) => passing = Some(answer),
                    Trouble::Transport(_) | Trouble::Identity(_) | Trouble::Silence => {}
                },
            }
            self.grid.discard(connection).await;
            self.open = None;
            let wake = Instant::now() + self.pauses.next_pause();
            sleep_until(deadline.map_or(wake, |deadline| wake.min(deadline))).await;
        }
    }

    /// The request that goes on where this one stands.
    fn resumed(&self) -> ReadLogsRequest {
        let from = |position: Position, asked: i64| match position.next {
            Some(next) => next as i64,
            None if self.later => 0,
            None => asked,
        };
        let mut request = self.request;
        request.stdout_offset = from(self.stdout, request.stdout_offset);
        request.stderr_offset = from(self.stderr, request.stderr_offset);
        // Offsets hold for the attempt that was being read alone.
        if self.attempt != 0 {
            request.attempt = self.attempt;
        }
        request
    }

    /// Drops what was read before, and keeps account.
    fn take(&mut self, message: ReadLogsResponse) -> Taken {
        if message.attempt < self.attempt {
            return Taken::Nothing;
        }
        if message.attempt > self.attempt {
            self.later = self.attempt != 0;
            self.attempt = message.attempt;
            (self.stdout, self.stderr) = (Position::default(), Position::default());
        }
        let stream = message.stream();
        let begin = if self.later { Some(0) } else { None };
        let position = match stream {
            LogStream::Stdout => &mut self.stdout,
            LogStream::Stderr => &mut self.stderr,
            LogStream::Unspecified => return Taken::Nothing,
        };
        if position.ended {
            return Taken::Nothing;
        }
        let expected = position.next.or(begin).unwrap_or(message.offset);
        if message.offset > expected && !self.narrowed {
            // The offsets were those of an earlier attempt. Asked for by its number, this one comes whole.
            return Taken::Skipped;
        }
        let known = usize::try_from(expected.saturating_sub(message.offset)).unwrap_or(usize::MAX);
        let data = message.data.slice(known.min(message.data.len())..);
        let offset = expected.max(message.offset);
        position.next = Some(offset + data.len() as u64 + message.lost_bytes);
        position.ended = message.end;
        if data.is_empty() && message.lost_bytes == 0 && !message.end {
            return Taken::Nothing;
        }
        let (attempt, lost_bytes, end) = (message.attempt, message.lost_bytes, message.end);
        Taken::Piece(Piece { stream, attempt, offset, data, lost_bytes, end })
    }
}

/// What a message came to.
enum Taken {
    Piece(Piece),
    /// It was known before.
    Nothing,
    /// It begins behind bytes that are not known.
    Skipped,
}

/// The end of patience, with the reason if there was one.
fn late(error: Error, passing: Option<Box<Answer>>) -> Error {
    match (error, passing) {
        (Error::TimedOut { waited, .. }, Some(answer)) => Error::Unavailable { waited, answer },
        (error, _) => error,
    }
}

async fn open(grid: &Grid, request: ReadLogsRequest) -> Result<(Connection, Streaming<ReadLogsResponse>), Error> {
    let attempt = |channel| async move { JobServiceClient::new(channel).read_logs(request).await };
    grid.call_until(grid.deadline(), "", attempt).await
}
