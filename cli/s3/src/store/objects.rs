use std::{fs::File, os::fd::OwnedFd, sync::Arc};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, Stat},
    io::Errno,
};

use super::{BENEATH, Error, Headers, Key, Record, Result, Spool, Store, open_folder, remove_file, spool::Spooled};
use crate::digest::{self, Digester};

/// Folders vanish when their last object does; a put that meets one that just vanished makes it again.
const ATTEMPTS: usize = 16;

/// What must hold of the object in place for a write to happen.
#[derive(Debug, Clone, Default)]
pub struct Condition {
    /// There is no object of that key.
    pub absent: bool,
    /// The object has this ETag; the empty one means any object.
    pub etag: Option<String>,
}

/// An object's file as it was when it was opened, whatever happens to its key since.
pub struct Opened {
    pub file: File,
    pub record: Record,
}

impl Store {
    pub fn open_object(&self, bucket: &str, key: &Key) -> Result<Opened> {
        let folder = self.bucket(bucket)?;
        // A named pipe in the folder must not block us: it is no object.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat2(&folder, key.as_str(), flags, Mode::empty(), BENEATH) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG | Errno::NXIO) => {
                return Err(Error::NoSuchKey(key.as_str().to_owned()));
            }
            Err(error) => return Err(error.into()),
        };
        let stat = rustix::fs::fstat(&file)?;
        if !is_file(&stat) {
            return Err(Error::NoSuchKey(key.as_str().to_owned()));
        }
        Ok(Opened { file: file.into(), record: self.record(bucket, key.as_str(), &stat) })
    }

    /// Makes a synced body the object of `key`. When this returns, it is that after a crash too.
    pub fn put(
        self: &Arc<Self>,
        bucket: &str,
        key: &Key,
        spool: Spool,
        headers: Headers,
        condition: &Condition,
        verify: impl FnOnce(&digest::Digests) -> Result<()>,
    ) -> Result<Record> {
        let spooled = spool.finish()?;
        verify(&spooled.digests)?;
        let stat = rustix::fs::fstat(&spooled.file)?;
        let record = Record {
            etag: digest::hex(&spooled.digests.md5),
            headers,
            checksums: spooled.digests.checksums.clone(),
            ..Record::by_hand(&stat)
        };
        self.commit(bucket, key, spooled, &record, condition)?;
        Ok(record)
    }

    /// Copies an object; its checksums are computed anew.
    pub fn copy(
        self: &Arc<Self>,
        source: Opened,
        bucket: &str,
        key: &Key,
        headers: Headers,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Record> {
        self.check_bucket(bucket)?;
        let mut spool = Spool::new(self, Digester::new(wanted))?;
        let mut file = source.file;
        spool.append_digested(&mut file)?;
        self.put(bucket, key, spool, headers, &Condition::default(), |_| Ok(()))
    }

    /// Removes the object; one that isn't there is removed already.
    pub fn delete(&self, bucket: &str, key: &Key) -> Result<()> {
        let folder = self.bucket(bucket)?;
        let (folders, name) = key.split();
        let _guard = self.lock_key((bucket, key));
        let parent = match open_parent(&folder, folders) {
            Ok(parent) => parent,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let Some(stat) = stat_file(&parent, name)? else { return Ok(()) };
        remove_file(&parent, name)?;
        self.remove_record(bucket, key, stat.st_ino);
        remove_folders(&folder, folders);
        Ok(())
    }

    /// The last step of every write: the record first, then the name.
    pub(super) fn commit(
        &self,
        bucket: &str,
        key: &Key,
        mut spooled: Spooled,
        record: &Record,
        condition: &Condition,
    ) -> Result<()> {
        let folder = self.bucket(bucket)?;
        let (folders, name) = key.split();
        let _guard = self.lock_key((bucket, key));
        let before = match open_parent(&folder, folders) {
            Ok(parent) => stat_file(&parent, name)?,
            Err(_) => None,
        };
        self.check(bucket, key, before.as_ref(), condition)?;
        self.write_record(bucket, key, record)?;
        match place(&folder, folders, name, &mut spooled) {
            Ok(()) => {}
            Err(error) => {
                self.remove_record(bucket, key, record.inode);
                return Err(match error {
                    Errno::ISDIR | Errno::NOTDIR | Errno::LOOP | Errno::NOTEMPTY | Errno::EXIST => {
                        Error::Collision(key.as_str().to_owned())
                    }
                    error => error.into(),
                });
            }
        }
        if let Some(before) = before.filter(|before| before.st_ino != record.inode) {
            self.remove_record(bucket, key, before.st_ino);
        }
        Ok(())
    }

    fn check(&self, bucket: &str, key: &Key, before: Option<&Stat>, condition: &Condition) -> Result<()> {
        let holds = match (before, &condition.etag) {
            (Some(_), _) if condition.absent => false,
            (_, None) => true,
            (None, Some(_)) => return Err(Error::NoSuchKey(key.as_str().to_owned())),
            (Some(stat), Some(etag)) => etag.is_empty() || self.record(bucket, key.as_str(), stat).etag == *etag,
        };
        if holds { Ok(()) } else { Err(Error::Precondition) }
    }
}

/// Renames the file to its place, making folders as needed, and syncs every folder that changed.
fn place(bucket: &OwnedFd, folders: Option<&str>, name: &str, spooled: &mut Spooled) -> rustix::io::Result<()> {
    let mut last = Errno::NOENT;
    for _ in 0..ATTEMPTS {
        let placed = make_folders(bucket, folders).and_then(|parent| {
            spooled.rename(&parent, name)?;
            rustix::fs::fsync(&parent)
        });
        match placed {
            Ok(()) => return Ok(()),
            Err(Errno::NOENT) => last = Errno::NOENT,
            // An empty folder is no object: it may stand in the way of none.
            Err(Errno::ISDIR) => {
                let parent = open_parent(bucket, folders)?;
                rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR)?;
                last = Errno::ISDIR;
            }
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

fn make_folders(bucket: &OwnedFd, folders: Option<&str>) -> rustix::io::Result<OwnedFd> {
    match open_parent(bucket, folders) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    let mut parent = bucket.try_clone().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    for part in folders.into_iter().flat_map(|folders| folders.split('/')) {
        match rustix::fs::mkdirat(&parent, part, Mode::from_raw_mode(0o777)) {
            Ok(()) => rustix::fs::fsync(&parent)?,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        parent = open_folder(&parent, part)?;
    }
    Ok(parent)
}

/// Removes the folders that an object's end left empty, innermost first.
fn remove_folders(bucket: &OwnedFd, folders: Option<&str>) {
    let mut rest = folders;
    while let Some(path) = rest {
        let (above, name) = match path.rsplit_once('/') {
            Some((above, name)) => (Some(above), name),
            None => (None, path),
        };
        let Ok(parent) = open_parent(bucket, above) else { return };
        if rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR).is_err() {
            return;
        }
        rest = above;
    }
}

fn open_parent(bucket: &OwnedFd, folders: Option<&str>) -> rustix::io::Result<OwnedFd> {
    open_folder(bucket, folders.unwrap_or("."))
}

fn stat_file(parent: &OwnedFd, name: &str) -> rustix::io::Result<Option<Stat>> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat).filter(is_file)),
        Err(Errno::NOENT | Errno::NAMETOOLONG) => Ok(None),
        Err(error) => Err(error),
    }
}

pub fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}
