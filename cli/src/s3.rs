//! S3, as `millgrid cp` uses it. Endpoint, region and credentials are those of the AWS SDK's own environment.

use std::{env, fmt, io::Write, os::unix::fs::PermissionsExt, path::Path};

use aws_sdk_s3::{
    Client,
    error::ProvideErrorMetadata,
    primitives::{ByteStream, Length},
    types::{CompletedMultipartUpload, CompletedPart},
};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use futures::{StreamExt, TryStreamExt, stream};

use crate::failure::Failure;

/// Files above this size go up in parts.
const PART_BYTES: u64 = 32 << 20;
/// An upload has at most so many parts, by S3's rules.
const MAX_PARTS: u64 = 10_000;
/// Parts on their way at once.
const PARALLEL: usize = 4;

/// `s3://bucket/key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The bucket.
    pub bucket: String,
    /// The key; empty or with a `/` at its end: a prefix.
    pub key: String,
}

impl Location {
    /// None for what is not on S3.
    pub fn parse(text: &str) -> Result<Option<Self>, Failure> {
        let Some(rest) = text.strip_prefix("s3://") else { return Ok(None) };
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(Failure::usage("", format!("`{text}` has no bucket")).hint("write `s3://bucket/key`"));
        }
        Ok(Some(Self { bucket: bucket.to_owned(), key: key.to_owned() }))
    }

    /// Whether it stands for all below it.
    pub fn is_prefix(&self) -> bool {
        self.key.is_empty() || self.key.ends_with('/')
    }

    /// A key below this prefix.
    pub fn join(&self, name: &str) -> Self {
        let separator = if self.is_prefix() { "" } else { "/" };
        Self { bucket: self.bucket.clone(), key: format!("{}{separator}{name}", self.key) }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}

/// A connection to S3.
pub struct Store {
    client: Client,
}

impl Store {
    /// Configured by the environment, else, with the context `dev`, by the grid that it stands for; connects when it is
    /// used.
    pub async fn connect(dev: bool) -> Self {
        let http =
            aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
        let own = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"].iter().any(|name| env::var_os(name).is_some());
        let mut loader = aws_config::defaults(aws_config::BehaviorVersion::latest()).http_client(http);
        let endpoint = if dev && !own { crate::dev::s3_endpoint() } else { None };
        // A bucket of an endpoint of one's own is no host name.
        let own = own || endpoint.is_some();
        if let Some(endpoint) = endpoint {
            let dev_s3::Credentials { access_key, secret_key } = endpoint.credentials;
            let credentials = aws_sdk_s3::config::Credentials::new(access_key, secret_key, None, None, "millgrid dev");
            loader = loader.endpoint_url(endpoint.url).region(aws_config::Region::new(endpoint.region));
            loader = loader.credentials_provider(credentials);
        }
        let config = loader.load().await;
        let config = aws_sdk_s3::config::Builder::from(&config).force_path_style(own).build();
        Self { client: Client::from_conf(config) }
    }

    /// Copies a file up.
    pub async fn put(&self, file: &Path, to: &Location) -> Result<(), Failure> {
        let size = std::fs::metadata(file).map_err(|error| Failure::file("read", file, &error))?.len();
        if size > PART_BYTES {
            return self.put_parts(file, size, to).await;
        }
        let body = ByteStream::from_path(file)
            .await
            .map_err(|error| Failure::local(format!("can't read `{}`: {error}", file.display())))?;
        let put = self.client.put_object().bucket(&to.bucket).key(&to.key).body(body);
        put.send().await.map_err(|error| failure(&error, "write", to))?;
        Ok(())
    }

    async fn put_parts(&self, file: &Path, size: u64, to: &Location) -> Result<(), Failure> {
        let begin = self.client.create_multipart_upload().bucket(&to.bucket).key(&to.key);
        let upload = begin.send().await.map_err(|error| failure(&error, "write", to))?;
        let id = upload.upload_id().unwrap_or_default();
        match self.parts(file, size, to, id).await {
            Ok(parts) => {
                let done = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
                let complete = self.client.complete_multipart_upload().bucket(&to.bucket).key(&to.key).upload_id(id);
                complete.multipart_upload(done).send().await.map_err(|error| failure(&error, "write", to))?;
                Ok(())
            }
            Err(failed) => {
                // Parts of an upload that is never completed cost money; the first failure is what is told.
                let abort = self.client.abort_multipart_upload().bucket(&to.bucket).key(&to.key).upload_id(id);
                let _ = abort.send().await;
                Err(failed)
            }
        }
    }

    async fn parts(&self, file: &Path, size: u64, to: &Location, id: &str) -> Result<Vec<CompletedPart>, Failure> {
        let part_bytes = PART_BYTES.max(size.div_ceil(MAX_PARTS));
        let parts = (0..size.div_ceil(part_bytes)).map(|number| async move {
            let offset = number * part_bytes;
            let length = part_bytes.min(size - offset);
            let read = ByteStream::read_from().path(file).offset(offset).length(Length::Exact(length)).build().await;
            let body = read.map_err(|error| Failure::local(format!("can't read `{}`: {error}", file.display())))?;
            let number = number as i32 + 1;
            let put = self.client.upload_part().bucket(&to.bucket).key(&to.key).upload_id(id).part_number(number);
            let put = put.body(body).send().await.map_err(|error| failure(&error, "write", to))?;
            Ok::<_, Failure>(CompletedPart::builder().part_number(number).set_e_tag(put.e_tag).build())
        });
        stream::iter(parts).buffered(PARALLEL).try_collect().await
    }

    /// Copies an object down. The file appears whole, under its name, or not at all.
    pub async fn get(&self, from: &Location, file: &Path) -> Result<(), Failure> {
        let got = self.client.get_object().bucket(&from.bucket).key(&from.key).send().await;
        let mut got = got.map_err(|error| failure(&error, "read", from))?;
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let unwritable = |error: &std::io::Error| Failure::file("write", file, error);
        std::fs::create_dir_all(folder).map_err(|error| unwritable(&error))?;
        // A temporary file is its owner's alone; what is copied is as readable as any new file.
        let as_new = std::fs::Permissions::from_mode(0o666);
        let partial = tempfile::Builder::new().permissions(as_new).tempfile_in(folder);
        let mut partial = partial.map_err(|error| unwritable(&error))?;
        while let Some(piece) =
            got.body.try_next().await.map_err(|error| Failure::local(format!("can't read {from}: {error}")))?
        {
            partial.write_all(&piece).map_err(|error| unwritable(&error))?;
        }
        partial.persist(file).map_err(|error| unwritable(&error.error))?;
        Ok(())
    }

    /// A small object, whole.
    pub async fn read(&self, from: &Location) -> Result<Vec<u8>, Failure> {
        let got = self.client.get_object().bucket(&from.bucket).key(&from.key).send().await;
        let got = got.map_err(|error| failure(&error, "read", from))?;
        let body = got.body.collect().await.map_err(|error| Failure::local(format!("can't read {from}: {error}")))?;
        Ok(body.to_vec())
    }

    /// All objects below a prefix.
    pub async fn list(&self, prefix: &Location) -> Result<Vec<Location>, Failure> {
        let list = self.client.list_objects_v2().bucket(&prefix.bucket).prefix(&prefix.key);
        let mut pages = list.into_paginator().send();
        let mut objects = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| failure(&error, "list", prefix))?;
            let keys = page.contents().iter().filter_map(|object| object.key());
            objects.extend(keys.map(|key| Location { bucket: prefix.bucket.clone(), key: key.to_owned() }));
        }
        Ok(objects)
    }
}

fn failure<E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static>(
    error: &E,
    what: &str,
    at: &Location,
) -> Failure {
    match error.code() {
        Some("NoSuchKey" | "NotFound") => Failure::not_found(format!("there is no object {at}")),
        Some("NoSuchBucket") => Failure::not_found(format!("there is no bucket `{}`", at.bucket)),
        Some(code @ ("AccessDenied" | "InvalidAccessKeyId" | "SignatureDoesNotMatch")) => {
            Failure::denied(format!("can't {what} {at}: {code}"))
        }
        _ => Failure::local(format!("can't {what} {at}: {}", with_causes(error)))
            .hint("AWS_ENDPOINT_URL_S3, AWS_REGION and credentials come from the environment; `eval \"$(millgrid dev env)\"` sets them for a local grid"),
    }
}

/// An error and all its causes, in one line for people.
fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_buckets_and_keys() {
        let parse = |text: &str| Location::parse(text).unwrap();
        assert_eq!(parse("file"), None);
        let prefix = parse("s3://b/in/").unwrap();
        assert!(prefix.is_prefix() && parse("s3://b").unwrap().is_prefix());
        assert_eq!(prefix.join("x").to_string(), "s3://b/in/x");
        assert_eq!(parse("s3://b/in").unwrap().join("x").to_string(), "s3://b/in/x");
        assert!(Location::parse("s3:///k").is_err());
    }
}
