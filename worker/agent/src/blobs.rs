//! Pieces of data that jobs refer to by their hash, fetched from the grid.

use std::{
    collections::{BTreeMap, VecDeque},
    fs, io,
    path::{Component, Path},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use proto::v1::{Blob, Cause, FetchBlobRequest, LocalFile, worker_session_service_client::WorkerSessionServiceClient};
use worker_core::Failure;

use crate::{connection::Coordinators, prepare};

/// Bytes of blobs kept in memory: an array's tasks all want the same ones.
const KEPT_BYTES: usize = 32 << 20;
/// Of a file that is small.
const SMALL_BYTES: usize = 64 << 10;

/// Fetches blobs, and keeps the newest.
#[derive(Debug, Clone)]
pub struct Blobs {
    grid: Arc<Coordinators>,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    chunks: BTreeMap<Bytes, Bytes>,
    order: VecDeque<Bytes>,
    bytes: usize,
}

impl Blobs {
    /// Fetches from these coordinators.
    pub fn new(grid: Arc<Coordinators>) -> Self {
        Self { grid, kept: Arc::default() }
    }

    /// Writes a file that travels along into a task's directory.
    pub async fn place(&self, work: &Path, file: &LocalFile) -> Result<(), Failure> {
        let relative = Path::new(&file.path);
        if !relative.components().all(|component| matches!(component, Component::Normal(_))) {
            let detail = format!("the path `{}` of a local file leaves the task's directory", file.path);
            return Err(Failure { cause: Cause::StageIn, detail, retryable: false });
        }
        let (path, in_folder) = (work.join(relative), relative.components().count() > 1);
        let content = self.fetch(file.blob.as_ref().unwrap_or(&Blob::default())).await?;
        let (executable, small) = (file.executable, content.len() <= SMALL_BYTES);
        let write = move || -> io::Result<()> {
            if let Some(parent) = path.parent().filter(|_| in_folder) {
                fs::create_dir_all(parent)?;
            }
            prepare::write(&path, &content, executable)
        };
        // What is small is written sooner than another thread wakes up.
        let written = match small {
            true => write(),
            false => tokio::task::spawn_blocking(write).await.map_err(io::Error::other).and_then(|written| written),
        };
        written.map_err(|error| prepare::system(&format!("write `{}`", file.path), &error))
    }

    async fn fetch(&self, blob: &Blob) -> Result<Vec<u8>, Failure> {
        let mut content = Vec::with_capacity(usize::try_from(blob.size).unwrap_or(0).min(KEPT_BYTES));
        for hash in &blob.chunk_hashes {
            content.extend_from_slice(&self.chunk(hash).await?);
        }
        Ok(content)
    }

    async fn chunk(&self, hash: &Bytes) -> Result<Bytes, Failure> {
        if let Some(chunk) = self.lock().chunks.get(hash) {
            return Ok(chunk.clone());
        }
        let request = FetchBlobRequest { hash: hash.clone() };
        let response = self.grid.call(|channel| {
            let request = request.clone();
            async move { WorkerSessionServiceClient::new(channel).fetch_blob(request).await }
        });
        let data = response.await.map_err(|status| status.failure("a local file of the job"))?.data;
        if blake3::hash(&data).as_bytes() != hash.as_ref() {
            let detail = "a local file of the job arrived damaged".to_owned();
            return Err(Failure { cause: Cause::StageIn, detail, retryable: true });
        }
        self.lock().keep(hash.clone(), data.clone());
        Ok(data)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn keep(&mut self, hash: Bytes, data: Bytes) {
        let length = data.len();
        if self.chunks.insert(hash.clone(), data).is_none() {
            self.bytes += length;
            self.order.push_back(hash);
        }
        while self.bytes > KEPT_BYTES
            && let Some(oldest) = self.order.pop_front()
        {
            self.bytes -= self.chunks.remove(&oldest).map_or(0, |data| data.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded() {
        let mut kept = Kept::default();
        for number in 0..200u8 {
            kept.keep(vec![number].into(), vec![0; 1 << 20].into());
        }
        assert_eq!((kept.bytes, kept.chunks.len()), (KEPT_BYTES, KEPT_BYTES >> 20));
        assert!(kept.chunks.contains_key(&vec![199][..]) && !kept.chunks.contains_key(&vec![0][..]));
    }
}
