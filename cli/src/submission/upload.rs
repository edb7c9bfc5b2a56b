//! Chunks are stored before the job that refers to them, several at once.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use proto::v1::UploadBlobRequest;

use crate::failure::Failure;

/// Chunks on their way at once: enough to share an entry of the log, few enough to bound memory.
const PARALLEL: usize = 8;

/// Stores every chunk once.
pub async fn upload(grid: &client::Grid, chunks: Vec<Bytes>) -> Result<(), Failure> {
    let mut seen = BTreeSet::new();
    let fresh: Vec<Bytes> = chunks.into_iter().filter(|chunk| seen.insert(*blake3::hash(chunk).as_bytes())).collect();
    let uploads = fresh.into_iter().map(|data| async move {
        let expected = blake3::hash(&data);
        let stored = grid.jobs().upload(UploadBlobRequest { data }).await?;
        if stored.hash.as_ref() != expected.as_bytes() {
            return Err(Failure::local("the grid stored a piece under another hash than its own"));
        }
        Ok(())
    });
    stream::iter(uploads).buffer_unordered(PARALLEL).try_collect().await
}
