//! Outputs out of a task's directory: uploaded, seen by nobody yet.

use std::path::Path;

use futures::{StreamExt, stream};
use proto::v1;

use super::{MAX_TRANSFERS, ResolvedOutput, Stage, StageFailure, UploadLabels, object::ObjectUrl, select};

impl Stage {
    /// Uploads what the task left and returns what [`Stage::publish`] needs to make it visible. When one upload
    /// fails the others are taken back.
    pub async fn stage_out(
        &self,
        directory: &Path,
        outputs: &[ResolvedOutput],
        labels: &UploadLabels,
        grid_prefix: &str,
    ) -> Result<v1::Manifest, StageFailure> {
        if select::leaves_nothing(directory, outputs) {
            return Ok(v1::Manifest::default());
        }
        let (walked, wanted) = (directory.to_owned(), outputs.to_vec());
        let selected = tokio::task::spawn_blocking(move || select::select(&walked, &wanted)).await;
        let selected = selected.map_err(|stopped| StageFailure::transient("outputs", stopped))??;

        let mut uploads = stream::iter(selected)
            .map(|file| async move { self.upload(directory, &file, labels).await })
            .buffered(MAX_TRANSFERS);
        let mut entries = Vec::new();
        let mut failed = None;
        while let Some(uploaded) = uploads.next().await {
            match uploaded {
                Ok(entry) => entries.push(entry),
                Err(failure) => {
                    failed = Some(failure);
                    break;
                }
            }
        }
        drop(uploads);
        let stored = match failed {
            Some(failure) => Err(failure),
            None => {
                self.store_manifest(v1::Manifest { entries: entries.clone(), ..Default::default() }, grid_prefix).await
            }
        };
        if stored.is_err() {
            // Those that were cut off in the middle are left to the bucket's lifecycle rule.
            stream::iter(entries).for_each_concurrent(MAX_TRANSFERS, |entry| self.take_back(entry)).await;
        }
        stored
    }

    async fn take_back(&self, entry: v1::ManifestEntry) {
        let object = ObjectUrl { bucket: entry.bucket, key: entry.key };
        self.abort(&object, &entry.upload_id).await;
    }
}
