//! The folder behind the endpoint. Everything here blocks, and is called off the asynchronous threads.
//!
//! ```text
//! ROOT/BUCKET/KEY                          an object
//! ROOT/.millgrid-s3/lock                   held by the process that serves ROOT
//! ROOT/.millgrid-s3/temporary/             bodies being written; emptied at start
//! ROOT/.millgrid-s3/records/BUCKET/H.INODE what the file INODE carries as the object of the key with hash H
//! ROOT/.millgrid-s3/uploads/ID/            an unfinished multipart upload
//! ROOT/.millgrid-s3/completed/ID.json      a finished one, kept for a day so that completing twice is answered
//! ```

mod error;
mod key;
mod listing;
mod objects;
mod record;
mod spool;
mod uploads;

use std::{
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, ResolveFlags};

pub use error::Error;
pub use key::{Key, Unusable};
pub use listing::{Entry, Listing, Query};
pub use objects::{Condition, Opened};
pub use record::{Headers, Record};
pub use spool::Spool;
pub use uploads::{Completion, Part, Upload};

use crate::serve::Failure;

type Result<T> = std::result::Result<T, Error>;

/// The folder beside the buckets; no bucket's name may begin with a dot.
const PRIVATE: &str = ".millgrid-s3";
/// Keys and uploads share this many locks, by hash.
const LOCKS: usize = 64;
/// Paths are resolved beneath their bucket, and never through a link.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// A root folder that this process alone serves.
pub struct Store {
    root: PathBuf,
    root_directory: OwnedFd,
    temporary_directory: OwnedFd,
    names: AtomicU64,
    key_locks: Locks,
    /// Taken before those of keys.
    upload_locks: Locks,
    /// Holds the advisory lock for as long as the process lives.
    _lock: File,
}

impl Store {
    /// Creates what is missing, takes the lock, and removes what a killed process left half-written.
    pub fn open(root: PathBuf) -> std::result::Result<Self, Failure> {
        let failure = |source: io::Error| Failure::Root { path: root.clone(), source };
        let private = root.join(PRIVATE);
        for folder in ["records", "uploads", "completed"] {
            fs::create_dir_all(private.join(folder)).map_err(failure)?;
        }
        let lock = File::create(private.join("lock")).map_err(failure)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(Failure::InUse(root)),
            Err(error) => return Err(failure(error.into())),
        }
        let temporary = private.join("temporary");
        match fs::remove_dir_all(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failure(error)),
            _ => fs::create_dir(&temporary).map_err(failure)?,
        }
        let directory = |path: &Path| {
            rustix::fs::open(path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|error| failure(error.into()))
        };
        let store = Self {
            root_directory: directory(&root)?,
            temporary_directory: directory(&temporary)?,
            names: AtomicU64::new(0),
            key_locks: Locks::new(),
            upload_locks: Locks::new(),
            _lock: lock,
            root: root.clone(),
        };
        store.forget_old_completions();
        Ok(store)
    }

    /// The names of all buckets and when each was last changed, in order.
    pub fn buckets(&self) -> Result<Vec<(String, SystemTime)>> {
        let mut buckets = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if is_bucket_name(&name) && entry.file_type()?.is_dir() {
                buckets.push((name, entry.metadata()?.modified()?));
            }
        }
        buckets.sort();
        Ok(buckets)
    }

    /// Makes an empty bucket.
    pub fn create_bucket(&self, bucket: &str) -> Result<()> {
        if !is_bucket_name(bucket) {
            return Err(Error::BucketName);
        }
        match rustix::fs::mkdirat(&self.root_directory, bucket, Mode::from_raw_mode(0o777)) {
            Ok(()) => Ok(rustix::fs::fsync(&self.root_directory)?),
            Err(rustix::io::Errno::EXIST) => Err(Error::BucketExists),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a bucket that holds no object.
    pub fn delete_bucket(&self, bucket: &str) -> Result<()> {
        let query = Query { limit: 1, ..Query::default() };
        if !self.list(bucket, &query)?.entries.is_empty() {
            return Err(Error::BucketNotEmpty);
        }
        // Folders without a file in them are no objects: they go with the bucket.
        remove_empty_folders(&self.root.join(bucket)).map_err(|error| match error.kind() {
            io::ErrorKind::DirectoryNotEmpty => Error::BucketNotEmpty,
            _ => error.into(),
        })?;
        match fs::remove_dir_all(self.private("records").join(bucket)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Whether the bucket is there.
    pub fn check_bucket(&self, bucket: &str) -> Result<()> {
        self.bucket(bucket).map(drop)
    }

    /// The bucket's folder, opened.
    fn bucket(&self, bucket: &str) -> Result<OwnedFd> {
        if !is_bucket_name(bucket) {
            return Err(Error::NoSuchBucket);
        }
        use rustix::io::Errno;
        match open_folder(&self.root_directory, bucket) {
            Ok(folder) => Ok(folder),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Err(Error::NoSuchBucket),
            Err(error) => Err(error.into()),
        }
    }

    fn private(&self, folder: &str) -> PathBuf {
        self.root.join(PRIVATE).join(folder)
    }

    /// A name that no other temporary file of this process has.
    fn temporary_name(&self) -> String {
        format!("{}", self.names.fetch_add(1, Ordering::Relaxed))
    }

    /// Writes a small file of our own whole, or not at all.
    fn write_private(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let temporary = self.private("temporary").join(self.temporary_name());
        fs::write(&temporary, content)?;
        fs::rename(&temporary, path)
    }

    /// Removes a folder of our own so that it is either there or gone.
    fn remove_private(&self, path: &Path) -> io::Result<()> {
        let temporary = self.private("temporary").join(self.temporary_name());
        fs::rename(path, &temporary)?;
        fs::remove_dir_all(&temporary)
    }

    fn lock_key(&self, of: impl Hash) -> MutexGuard<'_, ()> {
        self.key_locks.lock(of)
    }

    fn lock_upload(&self, id: &str) -> MutexGuard<'_, ()> {
        self.upload_locks.lock(id)
    }
}

/// One lock for each of many things, some of which share one.
struct Locks(Vec<Mutex<()>>);

impl Locks {
    fn new() -> Self {
        Self((0..LOCKS).map(|_| Mutex::new(())).collect())
    }

    fn lock(&self, of: impl Hash) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        of.hash(&mut hasher);
        let lock = &self.0[hasher.finish() as usize % LOCKS];
        // What a lock guards is on the disk, where a panic leaves nothing half-done.
        lock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_bucket_name(name: &str) -> bool {
    s3s::path::check_bucket_name(name)
}

fn open_folder(at: &OwnedFd, path: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::openat2(at, path, flags, Mode::empty(), BENEATH)
}

fn remove_empty_folders(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_empty_folders(&entry.path())?;
        }
    }
    fs::remove_dir(folder)
}

/// Removes a file if it is there.
fn remove_file(at: &OwnedFd, name: &str) -> rustix::io::Result<bool> {
    match rustix::fs::unlinkat(at, name, AtFlags::empty()) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(error) => Err(error),
    }
}
