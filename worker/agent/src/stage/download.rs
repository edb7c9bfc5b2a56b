//! One object into the cache: its parts side by side, then its checksum.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use aws_sdk_s3::{operation::head_object::HeadObjectOutput, types::ChecksumMode};
use aws_smithy_checksums::ChecksumAlgorithm;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use super::{
    MAX_TRANSFERS, PART_LEN, Stage, StageFailure,
    cache::Claim,
    failure::{Trouble, trouble},
    object::ObjectUrl,
};

/// A body may break off, and an object may be replaced while it is read: so often in all it is tried.
const TRIES: u32 = 4;
const RETRY_DELAY: Duration = Duration::from_millis(200);

struct Head {
    size: u64,
    etag: String,
    /// Of the whole object, where S3 has one: the algorithm and its value in base64.
    checksum: Option<(ChecksumAlgorithm, String)>,
}

impl Stage {
    /// The cached file of an object, fetched if need be; valid while the claim is held.
    pub(super) async fn fetch(
        &self,
        object: &ObjectUrl,
        etag: Option<&str>,
    ) -> Result<(Claim<'_>, PathBuf), StageFailure> {
        let url = object.to_string();
        let mut tries = 0;
        loop {
            tries += 1;
            let head = self.head(object, etag).await?;
            let claim = self.inner.cache.claim(&object.bucket, &object.key, &head.etag).await;
            if let Some(file) = claim.file() {
                return Ok((claim, file));
            }
            let file = Arc::new(claim.create(head.size).map_err(|error| StageFailure::of_disk(&url, &error))?);
            match self.fill(object, &head, &file).await {
                Ok(()) => {
                    verify(&url, &head, file.clone()).await?;
                    let path = claim.keep(&file, head.size).map_err(|error| StageFailure::of_disk(&url, &error))?;
                    return Ok((claim, path));
                }
                Err(Broken::Failed(failure)) => return Err(failure),
                // Replaced between two requests; unless it was pinned, the newer one will do.
                Err(Broken::Changed) if etag.is_some() => {
                    return Err(StageFailure::permanent(&url, "the object was replaced since"));
                }
                Err(Broken::Changed) if tries < TRIES => {}
                Err(Broken::Changed) => {
                    return Err(StageFailure::transient(&url, "the object is replaced again and again"));
                }
            }
        }
    }

    async fn head(&self, object: &ObjectUrl, etag: Option<&str>) -> Result<Head, StageFailure> {
        let url = object.to_string();
        let request = self
            .client()
            .head_object()
            .bucket(&object.bucket)
            .key(&object.key)
            .set_if_match(etag.map(str::to_owned))
            .checksum_mode(ChecksumMode::Enabled);
        let output = request.send().await.map_err(|error| StageFailure::of_request(&url, &error))?;
        let size = output.content_length().and_then(|size| u64::try_from(size).ok());
        let (Some(size), Some(etag)) = (size, output.e_tag()) else {
            return Err(StageFailure::transient(&url, "S3 told neither size nor ETag"));
        };
        Ok(Head { size, etag: etag.to_owned(), checksum: checksum(&output) })
    }

    async fn fill(&self, object: &ObjectUrl, head: &Head, file: &Arc<File>) -> Result<(), Broken> {
        let starts = (0..head.size.div_ceil(PART_LEN)).map(|part| part * PART_LEN);
        stream::iter(starts)
            .map(|start| async move {
                let bytes = self.part(object, head, start).await?;
                let file = file.clone();
                let written = tokio::task::spawn_blocking(move || file.write_all_at(&bytes, start)).await;
                written
                    .map_err(io::Error::other)
                    .and_then(|written| written)
                    .map_err(|error| Broken::Failed(StageFailure::of_disk(&object.to_string(), &error)))
            })
            .buffer_unordered(MAX_TRANSFERS)
            .try_collect()
            .await
    }

    async fn part(&self, object: &ObjectUrl, head: &Head, start: u64) -> Result<Bytes, Broken> {
        let length = PART_LEN.min(head.size - start);
        let url = object.to_string();
        let _permit = self.inner.transfers.acquire().await.expect("the semaphore is never closed");
        let mut tries = 0;
        loop {
            tries += 1;
            let request = self
                .client()
                .get_object()
                .bucket(&object.bucket)
                .key(&object.key)
                .if_match(&head.etag)
                .range(format!("bytes={start}-{}", start + length - 1));
            let output = request.send().await.map_err(|error| match trouble(&error) {
                Trouble::Changed => Broken::Changed,
                _ => Broken::Failed(StageFailure::of_request(&url, &error)),
            })?;
            let what = match output.body.collect().await.map(|body| body.into_bytes()) {
                Ok(bytes) if bytes.len() as u64 == length => return Ok(bytes),
                Ok(bytes) => format!("{} bytes came instead of {length}", bytes.len()),
                Err(error) => error.to_string(),
            };
            if tries == TRIES {
                return Err(Broken::Failed(StageFailure::transient(&url, what)));
            }
            tokio::time::sleep(RETRY_DELAY * tries).await;
        }
    }
}

enum Broken {
    /// It is another version now.
    Changed,
    Failed(StageFailure),
}

fn checksum(output: &HeadObjectOutput) -> Option<(ChecksumAlgorithm, String)> {
    let known = [
        (ChecksumAlgorithm::Crc64Nvme, output.checksum_crc64_nvme()),
        (ChecksumAlgorithm::Crc32c, output.checksum_crc32_c()),
        (ChecksumAlgorithm::Crc32, output.checksum_crc32()),
        (ChecksumAlgorithm::Sha256, output.checksum_sha256()),
        (ChecksumAlgorithm::Sha1, output.checksum_sha1()),
    ];
    // One with a `-N` behind it is a checksum of the checksums of N parts, whose borders aren't told.
    known.into_iter().find_map(|(algorithm, value)| {
        value.filter(|value| !value.contains('-')).map(|value| (algorithm, value.to_owned()))
    })
}

async fn verify(url: &str, head: &Head, file: Arc<File>) -> Result<(), StageFailure> {
    let Some((algorithm, expected)) = head.checksum.clone() else { return Ok(()) };
    let name = algorithm.as_str();
    let found = tokio::task::spawn_blocking(move || digest(&file, algorithm)).await.map_err(io::Error::other);
    let found = found.and_then(|found| found).map_err(|error| StageFailure::of_disk(url, &error))?;
    if found == expected {
        return Ok(());
    }
    Err(StageFailure::transient(url, format!("its {name} is {expected}, that of what arrived {found}")))
}

fn digest(file: &File, algorithm: ChecksumAlgorithm) -> io::Result<String> {
    let mut checksum = algorithm.into_impl();
    let mut reader = file;
    io::Seek::rewind(&mut reader)?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(aws_smithy_types::base64::encode(checksum.finalize())),
            length => checksum.update(&buffer[..length]),
        }
    }
}
