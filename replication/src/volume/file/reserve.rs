//! Space kept back on a disk, for what must be written when nothing else can.

use std::{
    fs::{self, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// A file of a data directory that holds nothing but room. It is given up when the log finds the disk full, and made
/// again when there is room for it. Shared by the log, which gives it up, and by who looks after the disk.
#[derive(Clone, Debug)]
pub struct Reserve(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: PathBuf,
    bytes: u64,
    /// Locked while the file is made or removed.
    held: Mutex<bool>,
}

impl Reserve {
    /// The reserve of a directory, as an earlier process left it.
    pub(crate) fn of(directory: &Path, bytes: u64) -> Reserve {
        let file = directory.join("reserve");
        // One that is shorter was being made when the process died.
        let held = fs::metadata(&file).is_ok_and(|metadata| metadata.len() == bytes);
        Reserve(Arc::new(Inner { file, bytes, held: Mutex::new(held) }))
    }

    /// Its size when it is held.
    pub fn bytes(&self) -> u64 {
        self.0.bytes
    }

    /// Whether it is there to be given up.
    pub fn is_held(&self) -> bool {
        *self.held()
    }

    /// Bytes that are free on its disk, itself not counted.
    pub fn free_bytes(&self) -> io::Result<u64> {
        let directory = self.0.file.parent().unwrap_or(Path::new("."));
        let disk = statvfs(directory)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// Makes it, if it isn't held. Its space is really taken: a sparse file would reserve nothing.
    ///
    /// # Errors
    /// What the system says: the disk is too full, or its file system can't do this.
    pub fn make(&self) -> io::Result<()> {
        let mut held = self.held();
        if *held {
            return Ok(());
        }
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&self.0.file)?;
        let made = fallocate(&file, FallocateFlags::empty(), 0, self.0.bytes).map_err(io::Error::from);
        if let Err(error) = made.and_then(|()| file.set_len(self.0.bytes)) {
            // What was taken before it failed goes back: a part is of no use.
            fs::remove_file(&self.0.file)?;
            return Err(error);
        }
        *held = true;
        Ok(())
    }

    /// Gives its space back; whether there was any.
    pub(super) fn release(&self) -> bool {
        let mut held = self.held();
        std::mem::take(&mut *held) && fs::remove_file(&self.0.file).is_ok()
    }

    fn held(&self) -> MutexGuard<'_, bool> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether there was no room.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::MetadataExt;

    use super::*;

    const BYTES: u64 = 1 << 20;

    #[test]
    fn it_takes_its_space_and_gives_it_back_once() {
        let folder = tempfile::tempdir().unwrap();
        let reserve = Reserve::of(folder.path(), BYTES);
        assert!(!reserve.is_held() && !reserve.release());
        reserve.make().unwrap();
        reserve.make().unwrap();
        let file = fs::metadata(folder.path().join("reserve")).unwrap();
        assert_eq!(file.len(), BYTES);
        assert!(file.blocks() * 512 >= BYTES, "{} blocks", file.blocks());
        assert!(reserve.is_held() && Reserve::of(folder.path(), BYTES).is_held());
        assert!(reserve.clone().release() && !reserve.is_held() && !reserve.release());
        assert!(!folder.path().join("reserve").exists());
        reserve.make().unwrap();
        assert!(reserve.is_held());
    }

    #[test]
    fn one_of_another_size_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("reserve");
        for size in [10, 2 * BYTES] {
            fs::write(&file, vec![1; size as usize]).unwrap();
            let reserve = Reserve::of(folder.path(), BYTES);
            assert!(!reserve.is_held());
            reserve.make().unwrap();
            assert_eq!(fs::metadata(&file).unwrap().len(), BYTES);
        }
    }
}
