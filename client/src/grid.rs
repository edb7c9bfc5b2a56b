//! The handle on a grid: one call at a time, retried until it has an answer or no time is left.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};
use tonic::{Code, Response, Status, transport::Channel};

use crate::{
    backoff::Pauses,
    connections::{Connection, Connections},
    error::{Answer, Error, Trouble},
    services::{Cluster, Jobs, Queues, Workers},
    settings::Settings,
};

/// A coordinator that is connected but says nothing for so long is left for another; the request's id makes
/// that safe.
const TRY_TIMEOUT: Duration = Duration::from_secs(10);

/// Who waits is told after so long that nobody answers.
const SILENCE_TO_TELL: Duration = Duration::from_secs(5);

/// A grid, through whichever of its coordinators answers. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Grid {
    connections: Arc<Connections>,
    timeout: Duration,
    deadline: Option<Instant>,
}

/// The most telling thing that is known when the time of a call runs out; later variants tell more.
enum Best {
    /// Nobody was reached.
    Nobody(String),
    /// A coordinator was reached that refuses this certificate, or has one that is not accepted.
    Stranger { endpoint: String, problem: String },
    /// A coordinator had the request and said nothing.
    Silence,
    /// A coordinator answered that it can't at present.
    Said(Box<Answer>),
}

impl std::fmt::Display for Best {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nobody(why) => f.write_str(why),
            Self::Stranger { endpoint, problem } => write!(f, "{endpoint}: {problem}"),
            Self::Silence => f.write_str("connected, but without an answer"),
            Self::Said(answer) => f.write_str(&answer.message),
        }
    }
}

impl Best {
    fn learn(&mut self, news: Self) {
        if news.weight() >= self.weight() {
            *self = news;
        }
    }

    fn weight(&self) -> u8 {
        match self {
            Self::Nobody(_) => 0,
            Self::Stranger { .. } => 1,
            Self::Silence => 2,
            Self::Said(_) => 3,
        }
    }

    /// The error to end with.
    fn into_error(self, waited: Duration, request_id: &str) -> Error {
        let request_id = request_id.to_owned();
        match self {
            Self::Nobody(last) => Error::Unreachable { waited, last, request_id },
            Self::Stranger { endpoint, problem } => Error::Identity { endpoint, problem },
            Self::Silence => Error::TimedOut { waited, request_id },
            Self::Said(answer) if answer.code == Code::DeadlineExceeded => Error::TimedOut { waited, request_id },
            Self::Said(answer) if answer.code == Code::Aborted => Error::Refused(answer),
            Self::Said(answer) => Error::Unavailable { waited, answer },
        }
    }
}

impl Grid {
    /// Checks the settings. Connections are made when they are needed.
    ///
    /// # Errors
    /// [`Error::Settings`] when an endpoint is no https URL or the certificates can't be read.
    pub fn connect(settings: Settings) -> Result<Self, Error> {
        let connections = Arc::new(Connections::new(&settings)?);
        Ok(Self { connections, timeout: settings.timeout, deadline: None })
    }

    /// The same grid, with everything over at `deadline`: calls, streams and their retries.
    pub fn until(&self, deadline: Instant) -> Self {
        Self { deadline: Some(deadline), ..self.clone() }
    }

    /// When everything has to be over, if [`Grid::until`] said so.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Jobs and their tasks.
    pub fn jobs(&self) -> Jobs<'_> {
        Jobs { grid: self }
    }

    /// Queues.
    pub fn queues(&self) -> Queues<'_> {
        Queues { grid: self }
    }

    /// Workers.
    pub fn workers(&self) -> Workers<'_> {
        Workers { grid: self }
    }

    /// The coordinators themselves.
    pub fn cluster(&self) -> Cluster<'_> {
        Cluster { grid: self }
    }

    /// Calls until there is an answer, or the time is over. `attempt` must be safe to repeat: a read, or a
    /// write with a request id.
    pub async fn call<T, F, A>(&self, attempt: F) -> Result<T, Error>
    where
        F: Fn(Channel) -> A,
        A: Future<Output = Result<Response<T>, Status>>,
    {
        self.call_as("", attempt).await
    }

    /// [`Grid::call`] for a write, whose id is told in errors.
    pub async fn call_as<T, F, A>(&self, request_id: &str, attempt: F) -> Result<T, Error>
    where
        F: Fn(Channel) -> A,
        A: Future<Output = Result<Response<T>, Status>>,
    {
        let over = Instant::now() + self.timeout;
        self.call_until(Some(self.deadline.unwrap_or(over)), request_id, attempt).await.map(|(_, value)| value)
    }

    /// A live connection to the coordinator that was good last, or to the next that can be reached, tried
    /// until the timeout. For streams that a caller looks after by itself; see [`Grid::discard`].
    pub async fn connection(&self) -> Result<Connection, Error> {
        let over = self.deadline.unwrap_or(Instant::now() + self.timeout);
        let connected = self.call_until(Some(over), "", |_| async { Ok(Response::new(())) }).await;
        connected.map(|(connection, ())| connection)
    }

    /// Says that a connection is of no use any more: the next call makes a new one, elsewhere if it can.
    pub async fn discard(&self, connection: &Connection) {
        self.connections.discard(connection).await;
    }

    pub(crate) fn pauses(&self) -> Pauses {
        Pauses::new(self.connections.len())
    }

    /// Tries until `deadline` (none: for ever).
    pub(crate) async fn call_until<T, F, A>(
        &self,
        deadline: Option<Instant>,
        request_id: &str,
        attempt: F,
    ) -> Result<(Connection, T), Error>
    where
        F: Fn(Channel) -> A,
        A: Future<Output = Result<Response<T>, Status>>,
    {
        let started = Instant::now();
        let mut pauses = self.pauses();
        // Tries that ended at the certificates: when every endpoint had its turn, waiting is of no use.
        let mut strangers = 0;
        let mut told = false;
        let mut best = Best::Nobody(format!("{}: not tried yet", self.connections.url(self.connections.good())));
        loop {
            let now = Instant::now();
            if deadline.is_some_and(|deadline| now >= deadline) {
                return Err(best.into_error(started.elapsed(), request_id));
            }
            let try_until = deadline.map_or(now + TRY_TIMEOUT, |deadline| deadline.min(now + TRY_TIMEOUT));
            let (slot, trouble) = match self.try_once(try_until, request_id, &attempt).await {
                Ok(done) => return Ok(done),
                Err(failed) => failed,
            };
            let url = self.connections.url(slot);
            tracing::debug!(url, ?trouble, "a try failed");
            match trouble {
                Trouble::Final(answer) => return Err(Error::Refused(answer)),
                Trouble::Passing(answer) => {
                    strangers = 0;
                    best.learn(Best::Said(answer));
                }
                Trouble::Silence => best.learn(Best::Silence),
                Trouble::Transport(why) => best.learn(Best::Nobody(format!("{url}: {why}"))),
                Trouble::Identity(problem) => {
                    strangers += 1;
                    best.learn(Best::Stranger { endpoint: url.to_owned(), problem });
                    if strangers >= self.connections.len() {
                        return Err(best.into_error(started.elapsed(), request_id));
                    }
                }
            }
            if !told && started.elapsed() > SILENCE_TO_TELL {
                told = true;
                tracing::warn!("no coordinator answers; still trying ({best})");
            }
            let wake = Instant::now() + pauses.next_pause();
            tokio::time::sleep_until(deadline.map_or(wake, |deadline| wake.min(deadline))).await;
        }
    }

    /// One try, at the endpoint that was good last; the next goes elsewhere when this one fails.
    async fn try_once<T, F, A>(
        &self,
        until: Instant,
        request_id: &str,
        attempt: &F,
    ) -> Result<(Connection, T), (usize, Trouble)>
    where
        F: Fn(Channel) -> A,
        A: Future<Output = Result<Response<T>, Status>>,
    {
        let slot = self.connections.good();
        let connection = match timeout_at(until, self.connections.get(slot)).await {
            Ok(Ok(connection)) => connection,
            failed => {
                self.connections.rotate(slot);
                let too_late = || Trouble::Transport("no connection in time".to_owned());
                return Err((slot, failed.map_or_else(|_| too_late(), |made| made.err().unwrap_or_else(too_late))));
            }
        };
        let trouble = match timeout_at(until, attempt(connection.channel.clone())).await {
            Ok(Ok(response)) => return Ok((connection, response.into_inner())),
            Ok(Err(status)) => Trouble::from_status(&status, request_id),
            Err(_) => Trouble::Silence,
        };
        match trouble {
            // An answer came over a sound connection; only its sender can't help.
            Trouble::Final(_) => {}
            Trouble::Passing(_) => self.connections.rotate(slot),
            _ => self.connections.discard(&connection).await,
        }
        Err((slot, trouble))
    }
}
