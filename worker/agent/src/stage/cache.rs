//! Fetched objects on the worker's disk, by bucket, key and ETag; bounded, the longest unused go first.

use std::{
    collections::HashMap,
    fs::{self, File, FileTimes},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// The cache may fill this part of its file system.
const SHARE: u64 = 4;
/// A cached file has this time of change, and a file that a task wrote into (links share their bytes) another.
const STAMP: Duration = Duration::from_secs(1_000_000_000);

/// The objects of one directory.
pub(super) struct Cache {
    directory: PathBuf,
    limit: u64,
    entries: Mutex<HashMap<String, Entry>>,
}

#[derive(Default)]
struct Entry {
    /// Held while the object is fetched and while it is placed into a task's directory.
    lock: Arc<AsyncMutex<()>>,
    /// Bytes; absent until it was fetched.
    size: Option<u64>,
    used: Option<SystemTime>,
}

/// One object, for one user at a time.
pub(super) struct Claim<'a> {
    cache: &'a Cache,
    name: String,
    _held: OwnedMutexGuard<()>,
}

impl Cache {
    /// Takes over what earlier processes left in `directory/objects`.
    pub fn open(directory: &Path) -> io::Result<Cache> {
        let directory = directory.join("objects");
        fs::create_dir_all(&directory)?;
        let mut entries = HashMap::new();
        for file in fs::read_dir(&directory)? {
            let file = file?;
            let metadata = file.metadata()?;
            match file.file_name().into_string() {
                Ok(name) if !name.ends_with(PARTIAL) => {
                    let (size, used) = (Some(metadata.len()), metadata.accessed().ok());
                    entries.insert(name, Entry { size, used, ..Entry::default() });
                }
                _ => fs::remove_file(file.path())?,
            }
        }
        let space = rustix::fs::statvfs(&directory)?;
        let limit = space.f_blocks.saturating_mul(space.f_frsize) / SHARE;
        Ok(Cache { directory, limit, entries: Mutex::new(entries) })
    }

    /// The object, once nobody else is fetching or placing it.
    pub async fn claim(&self, bucket: &str, key: &str, etag: &str) -> Claim<'_> {
        let name = blake3::hash([bucket, "\0", key, "\0", etag].concat().as_bytes()).to_hex().to_string();
        let lock = self.entries().entry(name.clone()).or_default().lock.clone();
        Claim { cache: self, name, _held: lock.lock_owned().await }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for `coming` bytes, except at the cost of what is in use.
    fn evict(&self, coming: u64) {
        let mut entries = self.entries();
        let mut total = coming + entries.values().filter_map(|entry| entry.size).sum::<u64>();
        while total > self.limit {
            let idle = |entry: &Entry| entry.size.is_some() && Arc::strong_count(&entry.lock) == 1;
            let oldest = entries.iter().filter(|(_, entry)| idle(entry)).min_by_key(|(_, entry)| entry.used);
            let Some(name) = oldest.map(|(name, _)| name.clone()) else { return };
            let size = entries.remove(&name).and_then(|entry| entry.size).unwrap_or(0);
            if let Err(error) = fs::remove_file(self.directory.join(&name)) {
                tracing::warn!(%error, name, "cannot remove a cached object");
            }
            total = total.saturating_sub(size);
        }
    }
}

const PARTIAL: &str = ".partial";

impl Claim<'_> {
    /// The cached file, if it is there and as it was.
    pub fn file(&self) -> Option<PathBuf> {
        let path = self.path();
        let size = self.cache.entries().get(&self.name)?.size?;
        let intact = fs::metadata(&path)
            .is_ok_and(|found| found.len() == size && found.modified().is_ok_and(|time| time == stamp()));
        if !intact {
            let _ = fs::remove_file(&path);
            self.note(|entry| entry.size = None);
            return None;
        }
        self.note(|entry| entry.used = Some(SystemTime::now()));
        Some(path)
    }

    /// An empty file to fetch `size` bytes into.
    pub fn create(&self, size: u64) -> io::Result<File> {
        self.cache.evict(size);
        File::options().create(true).truncate(true).read(true).write(true).open(self.partial())
    }

    /// The file is complete.
    pub fn keep(&self, file: &File, size: u64) -> io::Result<PathBuf> {
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o444))?;
        file.set_times(FileTimes::new().set_modified(stamp()))?;
        fs::rename(self.partial(), self.path())?;
        self.note(|entry| (entry.size, entry.used) = (Some(size), Some(SystemTime::now())));
        Ok(self.path())
    }

    fn note(&self, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.cache.entries().get_mut(&self.name) {
            change(entry);
        }
    }

    fn path(&self) -> PathBuf {
        self.cache.directory.join(&self.name)
    }

    fn partial(&self) -> PathBuf {
        self.cache.directory.join(format!("{}{PARTIAL}", self.name))
    }
}

fn stamp() -> SystemTime {
    SystemTime::UNIX_EPOCH + STAMP
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Write;

    use super::*;

    async fn fill(cache: &Cache, key: &str, content: &[u8]) -> PathBuf {
        let claim = cache.claim("b", key, "e").await;
        let mut file = claim.create(content.len() as u64).unwrap();
        file.write_all(content).unwrap();
        claim.keep(&file, content.len() as u64).unwrap()
    }

    #[tokio::test]
    async fn an_object_is_found_again_by_its_version_alone() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path()).unwrap();
        let path = fill(&cache, "k", b"content").await;
        assert_eq!(cache.claim("b", "k", "e").await.file(), Some(path.clone()));
        assert_eq!(cache.claim("b", "k", "other").await.file(), None);
        // By the next process too.
        let cache = Cache::open(directory.path()).unwrap();
        assert_eq!(cache.claim("b", "k", "e").await.file(), Some(path));
    }

    #[tokio::test]
    async fn what_a_task_changed_is_not_given_to_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path()).unwrap();
        let path = fill(&cache, "k", b"content").await;
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        fs::write(&path, b"CONTENT").unwrap();
        assert_eq!(cache.claim("b", "k", "e").await.file(), None);
    }

    #[tokio::test]
    async fn the_longest_unused_goes_first_and_what_is_in_use_stays() {
        let directory = tempfile::tempdir().unwrap();
        let mut cache = Cache::open(directory.path()).unwrap();
        cache.limit = 10;
        let first = fill(&cache, "1", b"1234").await;
        let second = fill(&cache, "2", b"1234").await;
        let held = cache.claim("b", "1", "e").await;
        let third = fill(&cache, "3", b"1234").await;
        assert!(first.exists() && !second.exists() && third.exists());
        drop(held);
        fill(&cache, "4", b"1234").await;
        assert!(!first.exists() && third.exists());
    }
}
