//! A directory on a disk.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use rustix::fs::{Advice, FlockOperation, fadvise, flock};

use super::{Volume, failed, sync_failed};
use crate::Failure;

mod reserve;

pub use self::reserve::Reserve;

/// A directory on a disk, locked against other processes while it is open.
#[derive(Debug)]
pub struct FileVolume {
    path: PathBuf,
    directory: File,
    open: BTreeMap<String, File>,
    room: Room,
}

/// What a volume does on a disk that is almost full.
#[derive(Debug)]
enum Room {
    /// It uses the disk to its last byte.
    Disk,
    /// After the last byte it gives this up.
    Reserve(Reserve),
    /// It leaves as much as this free for those who have it.
    Spare(Reserve),
}

impl FileVolume {
    /// Opens a directory, and makes it if need be; its parent has to exist.
    ///
    /// # Errors
    /// [`Failure::InUse`] while another process, or another volume of this one, has it open.
    pub fn open(path: &Path) -> Result<FileVolume, Failure> {
        match fs::create_dir(path) {
            Ok(()) => {
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
                let parent_directory = File::open(parent).map_err(failed("open", parent.to_owned()))?;
                parent_directory.sync_all().map_err(sync_failed(parent.to_owned()))?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed("create", path.to_owned())(error)),
        }
        let directory = File::open(path).map_err(failed("open", path.to_owned()))?;
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(FileVolume { path: path.to_owned(), directory, open: BTreeMap::new(), room: Room::Disk }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(Failure::InUse { path: path.to_owned() }),
            Err(error) => Err(failed("lock", path.to_owned())(error.into())),
        }
    }

    /// The same, with a reserve that it gives up rather than fail on a full disk.
    pub fn with_reserve(self, reserve: Option<Reserve>) -> FileVolume {
        FileVolume { room: reserve.map_or(Room::Disk, Room::Reserve), ..self }
    }

    /// The same for what can wait: it fails as on a full disk while less than the reserve's size would be left free,
    /// so that it never takes what the log lives on.
    pub fn sparing(self, reserve: Option<Reserve>) -> FileVolume {
        FileVolume { room: reserve.map_or(Room::Disk, Room::Spare), ..self }
    }

    /// Whether what failed may be tried again, because the reserve made room.
    fn made_room(&self, error: &io::Error) -> bool {
        matches!(&self.room, Room::Reserve(reserve) if reserve::is_full(error) && reserve.release())
    }

    /// The file's handle for appending; kept open, because a log syncs the same file thousands of times a second.
    fn handle(&mut self, name: &str) -> io::Result<&File> {
        if !self.open.contains_key(name) {
            let file = OpenOptions::new().append(true).open(self.path.join(name))?;
            self.open.insert(name.to_owned(), file);
        }
        self.open.get(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Volume for FileVolume {
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.append(true).create_new(true);
        let file = match options.open(self.path.join(name)) {
            Err(error) if self.made_room(&error) => options.open(self.path.join(name))?,
            opened => opened?,
        };
        self.open.insert(name.to_owned(), file);
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        if let Room::Spare(reserve) = &self.room
            && reserve.free_bytes()? < reserve.bytes().saturating_add(bytes.len() as u64)
        {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let mut file = self.handle(name)?;
            match file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A part of it may be there, so that nothing but the rest may follow.
                Err(error) if self.made_room(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        match self.open.get(name) {
            Some(file) => file.sync_data(),
            // Not kept open: a file that nobody writes to gives its room back when it is removed.
            None => OpenOptions::new().append(true).open(self.path.join(name))?.sync_data(),
        }
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        self.directory.sync_all()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))?;
        self.open.remove(to);
        if let Some(file) = self.open.remove(from) {
            self.open.insert(to.to_owned(), file);
        }
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.open.remove(name);
        fs::remove_file(self.path.join(name))
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        Ok(fs::metadata(self.path.join(name))?.len())
    }

    fn read(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let file = File::open(self.path.join(name))?;
        let available = file.metadata()?.len().saturating_sub(offset);
        let mut bytes = vec![0; length.min(usize::try_from(available).unwrap_or(usize::MAX))];
        file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    fn forget_cached(&mut self, name: &str) -> io::Result<()> {
        let file = File::open(self.path.join(name))?;
        match fadvise(&file, 0, None, Advice::DontNeed) {
            // File systems in memory know no advice, and have nothing behind the cache to read.
            Ok(()) | Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::NOSYS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.path.clone() } else { self.path.join(name) }
    }
}
