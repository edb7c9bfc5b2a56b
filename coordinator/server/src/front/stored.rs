//! Logs that lie on S3: in bundles of small ones, or in objects of their own.

mod bundle;

use std::{sync::Arc, time::Duration};

use aws_sdk_s3::{
    Client,
    config::{BehaviorVersion, Region, timeout::TimeoutConfig},
};
use aws_smithy_http_client::{Builder, tls};
use bytes::Bytes;

use proto::internal::StoredLog;
use proto::v1::{LogStream, ReadLogsResponse};
use tokio::{
    sync::{OnceCell, mpsc},
    time::sleep,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use tracing::{debug, warn};

use super::Answers;
use crate::{config::Config, status};

/// Bytes of one piece, and of one read.
const PIECE: usize = 64 << 10;
const READ: u64 = 1 << 20;
/// A bundle comes up to a second or so after the end it belongs to: it is waited for so often and so long.
const TRIES: u32 = 12;
const RETRY_DELAY: Duration = Duration::from_millis(300);
/// One request to S3; its client makes up to three.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// The grid's own objects.
pub struct Stored {
    bucket: String,
    prefix: String,
    endpoint: Option<String>,
    client: OnceCell<Client>,
}

/// Why bytes can't be had.
#[derive(Debug, thiserror::Error)]
enum Missing {
    /// Not there, or not yet.
    #[error("no such object")]
    Absent,
    /// This grid stores none.
    #[error("this grid stores no logs of ended tasks")]
    NoStore,
    /// S3 says no, or nothing.
    #[error("the log can't be read from S3: {0}")]
    Refused(String),
}

/// What one stream of one attempt is.
struct Piece {
    stream: LogStream,
    attempt: u32,
    length: u64,
    from: u64,
}

impl Stored {
    /// Where `config` says that they are. Connects when first asked.
    pub fn new(config: &Config) -> Self {
        let location = config.grid_prefix.strip_prefix("s3://").unwrap_or_default();
        let (bucket, prefix) = location.split_once('/').unwrap_or((location, ""));
        Self {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            endpoint: config.s3_endpoint.clone(),
            client: OnceCell::new(),
        }
    }

    /// The pieces of a log that its caller asked for; what is not to be found counts as lost.
    pub fn read(self: Arc<Self>, log: StoredLog) -> Answers<ReadLogsResponse> {
        let (sender, receiver) = mpsc::channel(4);
        tokio::spawn(async move {
            // The receiver is gone: its caller hung up.
            let _ = self.send(&log, &sender).await;
        });
        Box::pin(ReceiverStream::new(receiver))
    }

    async fn send(&self, log: &StoredLog, sender: &mpsc::Sender<Result<ReadLogsResponse, Status>>) -> Result<(), Gone> {
        let attempt = log.attempt.unwrap_or_default();
        let asked = log.stream();
        for (stream, length, offset) in [
            (LogStream::Stdout, log.stdout_bytes, log.stdout_offset),
            (LogStream::Stderr, log.stderr_bytes, log.stderr_offset),
        ] {
            if asked != LogStream::Unspecified && asked != stream {
                continue;
            }
            let from = if offset < 0 { length.saturating_sub(offset.unsigned_abs()) } else { offset as u64 };
            let piece = Piece { stream, attempt: attempt.attempt, length, from: from.min(length) };
            let at = match self.send_stream(log, &piece, sender).await? {
                Ok(at) => at,
                Err(Missing::Absent) => piece.from,
                Err(missing) => {
                    let (code, hint) = match missing {
                        Missing::NoStore => {
                            (Code::FailedPrecondition, "set `grid_prefix` in the configuration of the coordinators")
                        }
                        _ => (
                            Code::Unavailable,
                            "call again; the coordinators read it with the credentials of their environment",
                        ),
                    };
                    warn!(%missing, bucket = self.bucket, "can't read a stored log");
                    let refused = status::refused(code, "LOG_STORE", &missing.to_string(), hint, "");
                    sender.send(Err(refused)).await.map_err(|_| Gone)?;
                    return Ok(());
                }
            };
            let last = ReadLogsResponse {
                stream: stream as i32,
                attempt: attempt.attempt,
                offset: at,
                data: Bytes::new(),
                lost_bytes: length - at,
                end: true,
            };
            sender.send(Ok(last)).await.map_err(|_| Gone)?;
        }
        Ok(())
    }

    /// Sends what there is of one stream; says up to where.
    async fn send_stream(
        &self,
        log: &StoredLog,
        piece: &Piece,
        sender: &mpsc::Sender<Result<ReadLogsResponse, Status>>,
    ) -> Result<Result<u64, Missing>, Gone> {
        if piece.from >= piece.length {
            return Ok(Ok(piece.from));
        }
        let (key, begin, stored) = match self.locate(log, piece.stream).await {
            Ok(place) => place,
            Err(missing) => return Ok(Err(missing)),
        };
        let end = piece.length.min(stored);
        let mut at = piece.from;
        while at < end {
            let count = READ.min(end - at);
            let bytes = match self.get_when_there(&key, &range(begin + at, count)).await {
                Ok((bytes, _)) if !bytes.is_empty() => bytes,
                Ok(_) | Err(Missing::Absent) => break,
                Err(refused) => return Ok(Err(refused)),
            };
            for data in bytes.chunks(PIECE) {
                let response = ReadLogsResponse {
                    stream: piece.stream as i32,
                    attempt: piece.attempt,
                    offset: at,
                    data: bytes.slice_ref(data),
                    lost_bytes: 0,
                    end: false,
                };
                sender.send(Ok(response)).await.map_err(|_| Gone)?;
                at += data.len() as u64;
            }
        }
        Ok(Ok(at))
    }

    /// The object, where in it the stream begins, and how many bytes of it there are.
    async fn locate(&self, log: &StoredLog, stream: LogStream) -> Result<(String, u64, u64), Missing> {
        let attempt = log.attempt.unwrap_or_default();
        if log.bundle == 0 {
            let name = if stream == LogStream::Stdout { "stdout" } else { "stderr" };
            let key = format!(
                "{}logs/{}/{}.{}.{}.{name}",
                self.prefix, log.session, attempt.job_id, attempt.ordinal, attempt.attempt
            );
            return Ok((key, 0, u64::MAX));
        }
        let key = format!("{}logs/{}/{}", self.prefix, log.session, log.bundle);
        let (tail, size) = self.get_when_there(&key, &format!("bytes=-{}", bundle::TAIL)).await?;
        let index = match bundle::index(&tail, size) {
            Some(bundle::Index::Here(index)) => index,
            Some(bundle::Index::At { offset, length }) => {
                let (bytes, _) = self.get(&key, &range(offset, length)).await?;
                bundle::parse(&bytes).ok_or(Missing::Absent)?
            }
            None => return Err(Missing::Absent),
        };
        let (offset, length) = bundle::find(&index, &attempt, stream).ok_or(Missing::Absent)?;
        Ok((key, offset, length))
    }

    async fn get_when_there(&self, key: &str, range: &str) -> Result<(Bytes, u64), Missing> {
        let mut tries = 1;
        loop {
            match self.get(key, range).await {
                // S3's refusals and silences are tried again by its own client.
                Err(Missing::Absent) if tries < TRIES => {
                    debug!(key, "a log isn't there yet");
                    tries += 1;
                    sleep(RETRY_DELAY).await;
                }
                done => return done,
            }
        }
    }

    /// The bytes, and the size of the whole object.
    async fn get(&self, key: &str, range: &str) -> Result<(Bytes, u64), Missing> {
        if self.bucket.is_empty() {
            return Err(Missing::NoStore);
        }
        let client = self.client.get_or_init(|| connect(self.endpoint.clone())).await;
        let answer = client.get_object().bucket(&self.bucket).key(key).range(range).send().await;
        let object = answer.map_err(|error| match error.raw_response().map(|raw| raw.status().as_u16()) {
            // 416: shorter than asked for.
            Some(404 | 416) => Missing::Absent,
            _ => Missing::Refused(with_causes(&error)),
        })?;
        let total = object.content_range().and_then(|text| text.rsplit_once('/')?.1.parse().ok());
        let read = object.body.collect().await.map_err(|error| Missing::Refused(error.to_string()))?;
        let bytes = read.into_bytes();
        let size = total.unwrap_or(bytes.len() as u64);
        Ok((bytes, size))
    }
}

/// The caller hung up.
struct Gone;

fn range(offset: u64, length: u64) -> String {
    format!("bytes={offset}-{}", offset + length.max(1) - 1)
}

async fn connect(endpoint: Option<String>) -> Client {
    let timeouts = TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT_TIMEOUT).build();
    let http = Builder::new().tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring)).build_https();
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http).timeout_config(timeouts);
    if std::env::var_os("AWS_REGION").is_none() && endpoint.is_some() {
        loader = loader.region(Region::new("us-east-1"));
    }
    let shared = loader.load().await;
    let mut config = aws_sdk_s3::config::Builder::from(&shared);
    if let Some(endpoint) = endpoint {
        config = config.endpoint_url(endpoint).force_path_style(true);
    }
    Client::from_conf(config.build())
}

/// An error and all its causes, in one line for people.
fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
