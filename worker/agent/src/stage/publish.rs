//! Making outputs visible.

use std::time::Duration;

use aws_sdk_s3::types::{ChecksumType, CompletedMultipartUpload, CompletedPart};
use futures::{StreamExt, TryStreamExt, stream};
use proto::v1;

use super::{
    MAX_REQUESTS, Stage, StageFailure, UploadLabels,
    failure::{Trouble, describe, trouble},
    object::ObjectUrl,
    upload::base64,
};

/// Between two tries while S3 has trouble: doubling, from and to.
const RETRY_DELAYS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

impl Stage {
    /// Completes the uploads of an accepted attempt, perhaps another worker's, perhaps for the second time.
    ///
    /// Returns what `Published` carries: the ETags in the manifest's order, or, when the manifest isn't inline, the one
    /// word under which they are stored. Goes on trying for as long
    /// as S3 has trouble of its own: who gives up drops the future. A failure says that these uploads can't be
    /// completed any more.
    pub async fn publish(
        &self,
        manifest: &v1::Manifest,
        labels: &UploadLabels,
        grid_prefix: &str,
    ) -> Result<Vec<String>, StageFailure> {
        let mut delay = RETRY_DELAYS.0;
        let entries = loop {
            match self.load_manifest(manifest, grid_prefix).await {
                Ok(entries) => break entries,
                Err(failure) if failure.retryable => pause(&mut delay, &failure.detail).await,
                // Another attempt writes another manifest.
                Err(failure) => return Err(StageFailure { retryable: true, ..failure }),
            }
        };
        let etags: Vec<String> = stream::iter(entries)
            .map(|entry| async move { self.complete(&entry, labels).await })
            .buffered(MAX_REQUESTS)
            .try_collect()
            .await?;
        if manifest.hash.is_empty() {
            return Ok(etags);
        }
        loop {
            match self.store_etags(etags.clone(), grid_prefix).await {
                Ok(word) => return Ok(vec![word]),
                // The objects stand: to give them up now would make the task run again for nothing.
                Err(failure) => pause(&mut delay, &failure.detail).await,
            }
        }
    }

    async fn complete(&self, entry: &v1::ManifestEntry, labels: &UploadLabels) -> Result<String, StageFailure> {
        let object = ObjectUrl { bucket: entry.bucket.clone(), key: entry.key.clone() };
        let parts = entry
            .part_etags
            .iter()
            .enumerate()
            .map(|(number, etag)| CompletedPart::builder().part_number(number as i32 + 1).e_tag(etag).build());
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts.collect())).build();
        let mut delay = RETRY_DELAYS.0;
        loop {
            let request = self
                .client()
                .complete_multipart_upload()
                .bucket(&object.bucket)
                .key(&object.key)
                .upload_id(&entry.upload_id)
                .checksum_crc32_c(base64(entry.checksum))
                .checksum_type(ChecksumType::FullObject)
                .multipart_upload(parts.clone());
            let error = match request.send().await {
                Ok(output) => return Ok(output.e_tag().unwrap_or_default().to_owned()),
                Err(error) => error,
            };
            let said = describe(&error);
            if trouble(&error) == Trouble::Transient {
                pause(&mut delay, &format!("{object}: {said}")).await;
                continue;
            }
            match self.completed_before(&object, labels).await {
                Settled::Ours(etag) => return Ok(etag),
                Settled::NotOurs => {
                    return Err(StageFailure::transient(&object.to_string(), format!("cannot be completed: {said}")));
                }
                Settled::Unknown(why) => pause(&mut delay, &format!("{object}: {why}")).await,
            }
        }
    }

    /// Whether the object there is the one that the upload was to become.
    async fn completed_before(&self, object: &ObjectUrl, labels: &UploadLabels) -> Settled {
        match self.client().head_object().bucket(&object.bucket).key(&object.key).send().await {
            Ok(output) if output.metadata().is_some_and(|found| labels.are_in(found)) => {
                Settled::Ours(output.e_tag().unwrap_or_default().to_owned())
            }
            Ok(_) => Settled::NotOurs,
            Err(error) if trouble(&error) == Trouble::Transient => Settled::Unknown(describe(&error)),
            Err(_) => Settled::NotOurs,
        }
    }
}

enum Settled {
    /// With this ETag.
    Ours(String),
    NotOurs,
    /// S3 has trouble of its own.
    Unknown(String),
}

impl UploadLabels {
    fn are_in(&self, found: &std::collections::HashMap<String, String>) -> bool {
        self.metadata().iter().all(|(name, value)| found.get(name) == Some(value))
    }
}

async fn pause(delay: &mut Duration, why: &str) {
    tracing::warn!(why, ?delay, "cannot publish yet");
    tokio::time::sleep(*delay).await;
    *delay = (*delay * 2).min(RETRY_DELAYS.1);
}
