//! Data in and out of a task's directory, by way of S3.
//!
//! Inputs are fetched before a task starts ([`Stage::stage_in`]). Outputs are uploaded when it has succeeded, but
//! not completed ([`Stage::stage_out`]): nobody can see them until the grid has accepted that attempt and a
//! worker, this one or another, completes them ([`Stage::publish`]). [`logs`] uploads what tasks wrote.
//!
//! *Invariant*: no file outside a task's directory is read or written on the word of a job or of a task.

mod bundle;
mod cache;
mod download;
mod failure;
mod input;
pub mod logs;
mod manifest;
mod notes;
mod object;
mod output;
mod place;
mod publish;
mod select;
mod upload;

use std::{
    env,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aws_config::{BehaviorVersion, Region, timeout::TimeoutConfig};
use aws_sdk_s3::{
    Client,
    config::retry::RetryConfig,
    primitives::{ByteStream, Length},
};
use aws_smithy_http_client::tls;
use bytes::Bytes;
use tokio::sync::Semaphore;

pub use failure::StageFailure;
use object::ObjectUrl;

/// Bytes of a part of an object, in either direction.
const PART_LEN: u64 = 8 << 20;
/// Parts under way at once, in both directions together; each is held in memory.
const MAX_TRANSFERS: usize = 8;
/// Small requests under way at once, for each call.
const MAX_REQUESTS: usize = 16;
/// How often the SDK tries a request in all.
const SDK_ATTEMPTS: u32 = 4;
/// Until the head of a response, once for each try.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(60);

/// How staging reaches S3, and where it may put things.
#[derive(Debug, Clone)]
pub struct Settings {
    /// An S3 endpoint other than AWS's own; buckets are then in the path.
    pub s3_endpoint: Option<String>,
    /// Absent: what the environment says, else `us-east-1`.
    pub region: Option<String>,
    /// For fetched objects and for files in the making; best on the file system of the tasks' directories.
    pub cache_dir: PathBuf,
}

/// An object, or all objects below a prefix, that a task finds in its directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedInput {
    /// `s3://bucket/key`, or a prefix when it ends in `/`.
    pub source: String,
    /// Relative to the task's directory; of a prefix, the folder.
    pub path: String,
    /// Only this version will do.
    pub etag: Option<String>,
}

/// Files that a task leaves for others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedOutput {
    /// Relative to the task's directory; `*` stays within one folder, `**` doesn't.
    pub glob: String,
    /// `s3://bucket/prefix`, to which the path below the glob's literal folder is appended.
    pub prefix: String,
    /// Whether it is fine that nothing matches.
    pub optional: bool,
}

/// Whose an upload is; travels as the object's metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadLabels {
    /// Id of the grid.
    pub cluster: String,
    /// Id of the job.
    pub job: u64,
    /// Index of the task, as the user wrote it.
    pub index: u64,
    /// Number of the attempt.
    pub attempt: u32,
}

/// Access to S3 and to the cache; cheap to clone.
#[derive(Clone)]
pub struct Stage {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    cache: cache::Cache,
    cache_dir: PathBuf,
    transfers: Semaphore,
}

impl Stage {
    /// Prepares access; makes no request. Credentials come from the usual places (environment, profile, role).
    ///
    /// # Errors
    ///
    /// When the cache's directory can't be made or read.
    pub async fn new(settings: Settings) -> anyhow::Result<Stage> {
        let https = aws_smithy_http_client::Builder::new()
            .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
            .build_https();
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .http_client(https)
            .retry_config(RetryConfig::standard().with_max_attempts(SDK_ATTEMPTS))
            .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT_TIMEOUT).build());
        if let Some(region) = settings.region {
            loader = loader.region(Region::new(region));
        } else if env::var_os("AWS_REGION").is_none() && env::var_os("AWS_DEFAULT_REGION").is_none() {
            loader =
                loader.region(aws_config::meta::region::RegionProviderChain::default_provider().or_else("us-east-1"));
        }
        let foreign = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"].iter().any(|name| env::var_os(name).is_some());
        let path_style = settings.s3_endpoint.is_some() || foreign;
        let shared = loader.load().await;
        let mut config = aws_sdk_s3::config::Builder::from(&shared).force_path_style(path_style);
        if let Some(endpoint) = settings.s3_endpoint {
            config = config.endpoint_url(endpoint);
        }
        Stage::with_client(Client::from_conf(config.build()), settings.cache_dir).await
    }

    async fn with_client(client: Client, cache_dir: PathBuf) -> anyhow::Result<Stage> {
        let cache = cache::Cache::open(&cache_dir)?;
        let transfers = Semaphore::new(MAX_TRANSFERS);
        Ok(Stage { inner: Arc::new(Inner { client, cache, cache_dir, transfers }) })
    }

    /// Stores a small object.
    pub async fn put_object(&self, url: &str, body: Bytes) -> Result<(), StageFailure> {
        let ObjectUrl { bucket, key } = ObjectUrl::parse(url)?;
        let request = self.client().put_object().bucket(bucket).key(key).body(ByteStream::from(body));
        request.send().await.map(drop).map_err(|error| StageFailure::of_request(url, &error))
    }

    /// Stores the first `length` bytes of a file as an object.
    async fn put_file(&self, url: &str, path: &Path, length: u64) -> Result<(), StageFailure> {
        let ObjectUrl { bucket, key } = ObjectUrl::parse(url)?;
        let body = ByteStream::read_from().path(path).length(Length::Exact(length)).build().await;
        let body = body.map_err(|error| StageFailure::permanent(url, error))?;
        let request = self.client().put_object().bucket(bucket).key(key).body(body);
        request.send().await.map(drop).map_err(|error| StageFailure::of_request(url, &error))
    }

    fn client(&self) -> &Client {
        &self.inner.client
    }
}

#[cfg(test)]
mod tests;
