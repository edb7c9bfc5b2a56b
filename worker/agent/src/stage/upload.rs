//! One file as a multipart upload that is not completed.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path, sync::Arc};

use aws_sdk_s3::{
    primitives::ByteStream,
    types::{ChecksumAlgorithm, ChecksumType},
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use proto::v1;

use super::{MAX_TRANSFERS, PART_LEN, Stage, StageFailure, UploadLabels, object::ObjectUrl, place, select::Selected};

/// S3's bound on the parts of an upload (docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html).
const MAX_PARTS: u64 = 10_000;

impl Stage {
    /// Uploads a file; the object appears when the upload is completed.
    pub(super) async fn upload(
        &self,
        directory: &Path,
        selected: &Selected,
        labels: &UploadLabels,
    ) -> Result<v1::ManifestEntry, StageFailure> {
        let Selected { path, object } = selected;
        let (file, size) = open(directory, path)?;
        let file = Arc::new(file);
        let url = object.to_string();
        let created = self
            .client()
            .create_multipart_upload()
            .bucket(&object.bucket)
            .key(&object.key)
            .set_metadata(Some(labels.metadata()))
            .checksum_algorithm(ChecksumAlgorithm::Crc32C)
            .checksum_type(ChecksumType::FullObject)
            .send()
            .await
            .map_err(|error| StageFailure::of_request(&url, &error))?;
        let Some(upload_id) = created.upload_id() else {
            return Err(StageFailure::transient(&url, "S3 named no upload"));
        };
        let length = part_len(size);
        let parts: Result<Vec<Part>, StageFailure> = stream::iter(0..size.div_ceil(length).max(1))
            .map(|number| self.send_part(object, upload_id, &file, number, length.min(size - number * length), length))
            .buffered(MAX_TRANSFERS)
            .try_collect()
            .await;
        match parts {
            Ok(parts) => Ok(v1::ManifestEntry {
                bucket: object.bucket.clone(),
                key: object.key.clone(),
                path: path.clone(),
                size,
                checksum: parts.iter().fold(0, |whole, part| crc32c::crc32c_combine(whole, part.checksum, part.length)),
                upload_id: upload_id.to_owned(),
                part_etags: parts.into_iter().map(|part| part.etag).collect(),
            }),
            Err(failure) => {
                self.abort(object, upload_id).await;
                Err(failure)
            }
        }
    }

    async fn send_part(
        &self,
        object: &ObjectUrl,
        upload_id: &str,
        file: &Arc<File>,
        number: u64,
        length: u64,
        stride: u64,
    ) -> Result<Part, StageFailure> {
        let url = object.to_string();
        let _permit = self.inner.transfers.acquire().await.expect("the semaphore is never closed");
        let file = file.clone();
        let read = tokio::task::spawn_blocking(move || read(&file, number * stride, length)).await;
        let read = read.map_err(io::Error::other).and_then(|read| read);
        let (bytes, checksum) = read.map_err(|error| StageFailure::of_disk(&url, &error))?;
        let length = bytes.len();
        let output = self
            .client()
            .upload_part()
            .bucket(&object.bucket)
            .key(&object.key)
            .upload_id(upload_id)
            .part_number(number as i32 + 1)
            .checksum_algorithm(ChecksumAlgorithm::Crc32C)
            .checksum_crc32_c(base64(checksum))
            .body(ByteStream::from(bytes))
            .send()
            .await
            .map_err(|error| StageFailure::of_request(&url, &error))?;
        let etag = output.e_tag().ok_or_else(|| StageFailure::transient(&url, "S3 told no ETag of a part"))?;
        Ok(Part { etag: etag.to_owned(), checksum, length })
    }

    /// Frees what an upload takes. If that fails the bucket's lifecycle rule does it.
    pub(super) async fn abort(&self, object: &ObjectUrl, upload_id: &str) {
        let request = self.client().abort_multipart_upload().bucket(&object.bucket).key(&object.key);
        if let Err(error) = request.upload_id(upload_id).send().await {
            tracing::debug!(%object, error = %super::failure::describe(&error), "cannot abort an upload");
        }
    }
}

impl UploadLabels {
    /// As the user metadata of an object.
    pub(super) fn metadata(&self) -> std::collections::HashMap<String, String> {
        let UploadLabels { cluster, job, index, attempt } = self;
        let pairs = [
            ("millgrid-cluster", cluster.clone()),
            ("millgrid-job", job.to_string()),
            ("millgrid-index", index.to_string()),
            ("millgrid-attempt", attempt.to_string()),
        ];
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

struct Part {
    etag: String,
    checksum: u32,
    length: usize,
}

/// A CRC as S3 writes it.
pub(super) fn base64(checksum: u32) -> String {
    aws_smithy_types::base64::encode(checksum.to_be_bytes())
}

/// Parts have one length, and it grows with files of which there would be too many.
fn part_len(size: u64) -> u64 {
    const STEP: u64 = 1 << 20;
    PART_LEN.max(size.div_ceil(MAX_PARTS).next_multiple_of(STEP))
}

fn open(directory: &Path, path: &str) -> Result<(File, u64), StageFailure> {
    let file = place::open_beneath(directory, path).map_err(|error| match error.raw_os_error() {
        Some(libc::EXDEV) => StageFailure::permanent(path, "leads out of the task's directory"),
        Some(libc::ELOOP | libc::EACCES | libc::ENOENT) => StageFailure::permanent(path, error),
        _ => StageFailure::of_disk(path, &error),
    })?;
    let metadata = file.metadata().map_err(|error| StageFailure::of_disk(path, &error))?;
    if !metadata.is_file() {
        return Err(StageFailure::permanent(path, "not a regular file"));
    }
    Ok((file, metadata.len()))
}

fn read(file: &File, offset: u64, length: u64) -> io::Result<(Bytes, u32)> {
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, offset)?;
    let checksum = crc32c::crc32c(&bytes);
    Ok((bytes.into(), checksum))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_never_too_many_parts() {
        for size in [0, 1, PART_LEN, PART_LEN * MAX_PARTS, PART_LEN * MAX_PARTS + 1, 5 << 40] {
            let length = part_len(size);
            assert!(size.div_ceil(length) <= MAX_PARTS && length >= PART_LEN, "{size}: {length}");
        }
        assert_eq!(part_len(PART_LEN * MAX_PARTS), PART_LEN);
    }
}
