//! Where a replica's files are: one flat directory, or its twin in memory.

use std::{io, path::PathBuf};

use crate::Failure;

mod file;
mod memory;

pub use self::file::{FileVolume, Reserve};
pub use self::memory::{Crash, MemoryVolume};

/// One flat directory of files that only grow. Nothing is durable before the sync that covers it: bytes by
/// [`Volume::sync`], names by [`Volume::sync_directory`].
pub trait Volume {
    /// All names, in order.
    fn names(&self) -> io::Result<Vec<String>>;
    /// Makes an empty file; an error if the name is taken.
    fn create(&mut self, name: &str) -> io::Result<()>;
    /// Writes all of it at the end of a file. After an error some of it may be there.
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Makes a file's bytes durable. After an error nothing is known about them, and a second try proves nothing.
    fn sync(&mut self, name: &str) -> io::Result<()>;
    /// Makes names durable.
    fn sync_directory(&mut self) -> io::Result<()>;
    /// Gives a file another name, in place of what had it.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// A file's length in bytes.
    fn length(&self, name: &str) -> io::Result<u64>;
    /// Up to `length` bytes from `offset` on; fewer only at the end.
    fn read(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>>;
    /// Drops what the system keeps of a file in memory, so that the next read shows what the disk has.
    fn forget_cached(&mut self, name: &str) -> io::Result<()>;
    /// The path to show for a name; for the directory itself when empty.
    fn path(&self, name: &str) -> PathBuf;
}

/// Syncs every file and the directory, then drops the page cache: what was read back after a crash of the process
/// need not have been on the disk, and what is read after this is.
pub(crate) fn settle<V: Volume>(volume: &mut V) -> Result<Vec<String>, Failure> {
    let names = volume.names().map_err(failed("list", volume.path("")))?;
    for name in &names {
        volume.sync(name).map_err(sync_failed(volume.path(name)))?;
    }
    volume.sync_directory().map_err(sync_failed(volume.path("")))?;
    for name in &names {
        volume.forget_cached(name).map_err(failed("drop the page cache of", volume.path(name)))?;
    }
    Ok(names)
}

/// Reads a whole file.
pub(crate) fn read_whole<V: Volume>(volume: &V, name: &str) -> Result<Vec<u8>, Failure> {
    let length = volume.length(name).map_err(failed("measure", volume.path(name)))?;
    let bytes = volume.read(name, 0, length as usize).map_err(failed("read", volume.path(name)))?;
    if bytes.len() as u64 == length {
        Ok(bytes)
    } else {
        let source = io::Error::from(io::ErrorKind::UnexpectedEof);
        Err(Failure::Io { doing: "read", path: volume.path(name), source })
    }
}

pub(crate) fn failed(doing: &'static str, path: PathBuf) -> impl FnOnce(io::Error) -> Failure {
    move |source| Failure::Io { doing, path, source }
}

pub(crate) fn sync_failed(path: PathBuf) -> impl FnOnce(io::Error) -> Failure {
    move |source| Failure::Sync { path, source }
}
