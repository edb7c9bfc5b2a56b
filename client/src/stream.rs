//! A stream of submits that outlives its connections.

use std::collections::VecDeque;

use proto::v1::{
    JobSpec, StreamJobsRequest, StreamJobsResponse, job_service_client::JobServiceClient, stream_jobs_response::Refused,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout_at},
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Streaming};

use crate::{Answer, Connection, Error, Grid, backoff::Pauses, error::Trouble, request_id};

/// Jobs that may be unanswered: as many as the grid keeps answers for, less what is on its way.
const UNANSWERED: usize = 4_096;
/// Jobs of one message, when there are so many.
const BATCH: usize = 256;

/// Submits jobs one after the other, each for itself, much faster than a call each: nobody waits for an answer before
/// the next one goes. Where a connection or a leader is lost, what has no answer is sent again under its number, and
/// nothing becomes two jobs.
///
/// Nothing goes on by itself: jobs are sent and answers taken while one of the methods is waited for.
///
/// ```no_run
/// # async fn example(grid: client::Grid, specs: Vec<proto::v1::JobSpec>) -> Result<(), client::Error> {
/// let mut stream = grid.jobs().stream();
/// for spec in specs {
///     stream.submit(spec).await?;
/// }
/// while let Some(decided) = stream.next().await? {
///     println!("{}: {:?}", decided.sequence, decided.job);
/// }
/// stream.close().await
/// # }
/// ```
pub struct JobStream {
    grid: Grid,
    id: String,
    /// Jobs without an answer; the first has the number `answered` + 1.
    unanswered: VecDeque<JobSpec>,
    answered: u64,
    /// How many of them were sent on the present connection.
    sent: usize,
    decided: VecDeque<Decided>,
    open: Option<Open>,
    pauses: Pauses,
}

/// What became of one job of a stream.
#[derive(Debug)]
pub struct Decided {
    /// Its number: 1 for the first that was submitted.
    pub sequence: u64,
    /// The job's number in the grid, or why it was refused.
    pub job: Result<u64, Box<Answer>>,
}

struct Open {
    connection: Connection,
    messages: mpsc::UnboundedSender<StreamJobsRequest>,
    answers: Streaming<StreamJobsResponse>,
}

impl JobStream {
    pub(crate) fn new(grid: Grid) -> Self {
        let pauses = grid.pauses();
        Self {
            grid,
            id: request_id(),
            unanswered: VecDeque::new(),
            answered: 0,
            sent: 0,
            decided: VecDeque::new(),
            open: None,
            pauses,
        }
    }

    /// Adds a job; its number. Waits for answers while too many have none.
    ///
    /// # Errors
    /// What ends the stream: the grid's deadline ([`Grid::until`]), or a refusal of all of it. A job that is refused
    /// is an answer, see [`Self::next`].
    pub async fn submit(&mut self, spec: JobSpec) -> Result<u64, Error> {
        while self.unanswered.len() >= UNANSWERED {
            self.exchange().await?;
        }
        self.unanswered.push_back(spec);
        if self.unanswered.len() - self.sent >= BATCH && self.open.is_some() {
            self.send();
        }
        Ok(self.answered + self.unanswered.len() as u64)
    }

    /// The next answer, in the order of the submits; `None` when every job has had its own.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub async fn next(&mut self) -> Result<Option<Decided>, Error> {
        while self.decided.is_empty() && !self.unanswered.is_empty() {
            self.exchange().await?;
        }
        Ok(self.decided.pop_front())
    }

    /// An answer that is here already.
    pub fn take(&mut self) -> Option<Decided> {
        self.decided.pop_front()
    }

    /// Waits for all answers, and has the grid forget the stream. Answers that were not taken are lost.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub async fn close(mut self) -> Result<(), Error> {
        while !self.unanswered.is_empty() {
            self.exchange().await?;
        }
        if self.answered == 0 {
            return Ok(());
        }
        loop {
            let last = StreamJobsRequest {
                stream_id: self.id.clone(),
                first_sequence: self.answered + 1,
                specs: Vec::new(),
                answered_sequence: self.answered,
                last: true,
            };
            // A stream that broke says so when its end is waited for.
            let _ = self.connected().await?.messages.send(last);
            if self.receive().await?.is_none() && self.open.is_some() {
                return Ok(());
            }
        }
    }

    /// Sends what waits, and takes the next message of answers.
    async fn exchange(&mut self) -> Result<(), Error> {
        self.connected().await?;
        self.send();
        if let Some(message) = self.receive().await? {
            self.take_in(message);
        }
        Ok(())
    }

    async fn connected(&mut self) -> Result<&mut Open, Error> {
        if self.open.is_none() {
            self.sent = 0;
            let call = |channel| {
                let (messages, outgoing) = mpsc::unbounded_channel();
                async move {
                    let mut client = JobServiceClient::new(channel);
                    let answers = client.stream_jobs(UnboundedReceiverStream::new(outgoing)).await;
                    answers.map(|answers| tonic::Response::new((messages, answers.into_inner())))
                }
            };
            let (connection, (messages, answers)) = self.grid.call_until(self.grid.deadline(), "", call).await?;
            self.open = Some(Open { connection, messages, answers });
        }
        Ok(self.open.as_mut().expect("it was opened"))
    }

    /// Sends everything that wasn't sent on this connection.
    fn send(&mut self) {
        let Some(open) = &self.open else { return };
        while self.sent < self.unanswered.len() {
            let specs: Vec<JobSpec> = self.unanswered.range(self.sent..).take(BATCH).cloned().collect();
            let first_sequence = self.answered + self.sent as u64 + 1;
            self.sent += specs.len();
            let message = StreamJobsRequest {
                stream_id: self.id.clone(),
                first_sequence,
                specs,
                answered_sequence: self.answered,
                last: false,
            };
            // A stream that broke says so when its answers are asked for.
            let _ = open.messages.send(message);
        }
    }

    /// The next message; `None` when the connection is over, for good or to be made anew.
    async fn receive(&mut self) -> Result<Option<StreamJobsResponse>, Error> {
        let Some(open) = &mut self.open else { return Ok(None) };
        let started = Instant::now();
        let deadline = self.grid.deadline();
        let message = match deadline {
            None => open.answers.message().await,
            Some(deadline) => match timeout_at(deadline, open.answers.message()).await {
                Ok(message) => message,
                Err(_) => return Err(Error::TimedOut { waited: started.elapsed(), request_id: self.id.clone() }),
            },
        };
        match message {
            Ok(Some(message)) => {
                self.pauses = self.grid.pauses();
                return Ok(Some(message));
            }
            Ok(None) if self.unanswered.is_empty() => return Ok(None),
            Ok(None) => {}
            Err(status) => {
                if let Trouble::Final(answer) = Trouble::from_status(&status, &self.id) {
                    return Err(Error::Refused(answer));
                }
            }
        }
        self.grid.discard(&open.connection).await;
        self.open = None;
        let wake = Instant::now() + self.pauses.next_pause();
        sleep_until(deadline.map_or(wake, |deadline| wake.min(deadline))).await;
        Ok(None)
    }

    fn take_in(&mut self, message: StreamJobsResponse) {
        let mut refused = message.refused.into_iter().peekable();
        for run in message.accepted {
            while let Some(before) = refused.next_if(|refused| refused.sequence < run.first_sequence) {
                self.decide(before.sequence, Err(Box::new(answer(before, &self.id))));
            }
            for offset in 0..u64::from(run.count) {
                self.decide(run.first_sequence + offset, Ok(run.first_job_id + offset));
            }
        }
        for last in refused {
            self.decide(last.sequence, Err(Box::new(answer(last, &self.id))));
        }
    }

    fn decide(&mut self, sequence: u64, job: Result<u64, Box<Answer>>) {
        // What this stream has heard already, on another connection.
        if sequence != self.answered + 1 || self.unanswered.pop_front().is_none() {
            return;
        }
        self.answered = sequence;
        self.sent = self.sent.saturating_sub(1);
        self.decided.push_back(Decided { sequence, job });
    }
}

fn answer(refused: Refused, request_id: &str) -> Answer {
    Answer {
        code: Code::from_i32(refused.code),
        reason: refused.reason,
        message: refused.message,
        hint: refused.hint,
        field: refused.field,
        request_id: request_id.to_owned(),
        retry_after: None,
    }
}
