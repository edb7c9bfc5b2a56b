//! Connections to coordinators.

use std::{
    future::Future,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::config::Config;

/// Time to connect, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A silent connection is asked for a sign of life this often, and given up when none comes in as much time again.
const KEEP_ALIVE: Duration = Duration::from_secs(3);

/// A call beside the session's stream is given up and made again after this long.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two tries of one call.
const CALL_AGAIN: Duration = Duration::from_millis(200);
/// A call that nobody could answer for so long fails: the task may do better on another worker.
const CALL_PATIENCE: Duration = Duration::from_secs(60);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A URL or a certificate that can't be used.
    #[error("the key `endpoints`, `ca`, `cert` or `key` can't be used: {0}")]
    Settings(#[source] tonic::transport::Error),
    /// Nobody answers there.
    #[error("no connection to {endpoint}: {source}")]
    Unreachable {
        /// URL that was tried.
        endpoint: String,
        /// What the transport said.
        source: tonic::transport::Error,
    },
}

/// The coordinators, and which of them is asked next.
#[derive(Debug)]
pub struct Coordinators {
    endpoints: Vec<Endpoint>,
    next: AtomicUsize,
    /// For the session's stream, with its URL.
    session: Mutex<Option<(Channel, String)>>,
    /// For calls beside it.
    calls: Mutex<Option<Channel>>,
}

impl Coordinators {
    /// Checks the settings; connects to nothing yet. `spread` decides which coordinator is asked first.
    pub fn new(config: &Config, spread: u64) -> Result<Self, Failure> {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&config.ca_pem))
            .identity(Identity::from_pem(&config.cert_pem, &config.key_pem));
        let endpoint = |url: &String| {
            Endpoint::from_shared(url.clone())?
                .connect_timeout(CONNECT_TIMEOUT)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(KEEP_ALIVE)
                .keep_alive_timeout(KEEP_ALIVE)
                .keep_alive_while_idle(true)
                .tls_config(tls.clone())
        };
        let endpoints =
            config.endpoints.iter().map(endpoint).collect::<Result<Vec<_>, _>>().map_err(Failure::Settings)?;
        let next = AtomicUsize::new(spread as usize % endpoints.len());
        Ok(Self { endpoints, next, session: Mutex::new(None), calls: Mutex::new(None) })
    }

    /// The connection for the session's stream: the same as before, so that a change of leader costs no handshake;
    /// with `elsewhere` a new one, to another coordinator.
    pub async fn session_channel(&self, elsewhere: bool) -> Result<(Channel, String), Failure> {
        let kept = self.session.lock().expect("nothing panics under this lock").take().filter(|_| !elsewhere);
        let channel = match kept {
            Some(channel) => channel,
            None => self.connect(elsewhere).await?,
        };
        *self.session.lock().expect("nothing panics under this lock") = Some(channel.clone());
        Ok(channel)
    }

    /// A new connection; to another coordinator than the last time with `elsewhere`.
    async fn connect(&self, elsewhere: bool) -> Result<(Channel, String), Failure> {
        let index = match elsewhere {
            true => self.next.fetch_add(1, Ordering::Relaxed) + 1,
            false => self.next.load(Ordering::Relaxed),
        };
        let endpoint = &self.endpoints[index % self.endpoints.len()];
        let url = endpoint.uri().to_string();
        match endpoint.connect().await {
            Ok(channel) => Ok((channel, url)),
            Err(source) => Err(Failure::Unreachable { endpoint: url, source }),
        }
    }

    /// A connection to the coordinator at `url`, if that is one of ours and not where we are.
    pub async fn elsewhere(&self, url: &str, here: &str) -> Option<(Channel, String)> {
        let named = |endpoint: &&Endpoint| same(&endpoint.uri().to_string(), url);
        let endpoint = self.endpoints.iter().find(named).filter(|_| !same(url, here))?;
        match endpoint.connect().await {
            Ok(channel) => Some((channel, endpoint.uri().to_string())),
            Err(failure) => {
                tracing::debug!(url, "no connection: {failure}");
                None
            }
        }
    }

    /// The next stream of the session goes over this connection.
    pub fn keep(&self, channel: (Channel, String)) {
        *self.session.lock().expect("nothing panics under this lock") = Some(channel);
    }

    /// A connection for calls beside the session's stream; kept until [`Self::discard`].
    async fn channel(&self) -> Result<Channel, Failure> {
        if let Some(channel) = self.calls.lock().expect("nothing panics under this lock").clone() {
            return Ok(channel);
        }
        let (channel, _) = self.connect(false).await?;
        *self.calls.lock().expect("nothing panics under this lock") = Some(channel.clone());
        Ok(channel)
    }

    /// The connection for calls was no good: the next one goes elsewhere.
    fn discard(&self) {
        self.next.fetch_add(1, Ordering::Relaxed);
        *self.calls.lock().expect("nothing panics under this lock") = None;
    }
}

fn same(one: &str, other: &str) -> bool {
    one.trim_end_matches('/') == other.trim_end_matches('/')
}

/// A call that failed for good.
#[derive(Debug)]
pub struct Refused(pub tonic::Status);

impl Refused {
    /// As the reason why an attempt can't start.
    pub fn failure(&self, subject: &str) -> worker_core::Failure {
        let retryable = passing(&self.0);
        let detail = format!("{subject}: {}", self.0.message());
        worker_core::Failure { cause: proto::v1::Cause::StageIn, detail, retryable }
    }
}

impl Coordinators {
    /// Makes a call, again and elsewhere while nobody can answer it, for at most [`CALL_PATIENCE`].
    pub async fn call<T, F>(&self, call: impl Fn(Channel) -> F) -> Result<T, Refused>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let start = tokio::time::Instant::now();
        loop {
            let answer = match self.channel().await {
                Ok(channel) => tokio::time::timeout(CALL_TIMEOUT, call(channel))
                    .await
                    .unwrap_or_else(|_| Err(tonic::Status::deadline_exceeded("no coordinator answered in time"))),
                Err(failure) => Err(tonic::Status::unavailable(failure.to_string())),
            };
            match answer {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) if passing(&status) && start.elapsed() < CALL_PATIENCE => {
                    self.discard();
                    tokio::time::sleep(CALL_AGAIN).await;
                }
                Err(status) => return Err(Refused(status)),
            }
        }
    }
}

fn passing(status: &tonic::Status) -> bool {
    use tonic::Code;
    matches!(
        status.code(),
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::ResourceExhausted
            | Code::Unknown
            | Code::Cancelled
    )
}
