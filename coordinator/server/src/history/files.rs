//! The folder of segments: files that appear whole or not at all.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use replication::{Failure, Reserve};

use super::format::{self, Expected, Header};

const PREFIX: &str = "segment-";
const UNFINISHED: &str = ".new";

/// Why a segment can't be read here. Another member has it.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// There is no file.
    #[error("{} isn't there", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// The file isn't what it should be.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The disk doesn't give it.
    #[error("can't read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Unreadable {
    /// Whether it is worth a word: a file that isn't there is what a new member has.
    pub fn is_damage(&self) -> bool {
        !matches!(self, Unreadable::Missing { .. })
    }
}

/// The folder. One thread stores, any thread reads.
#[derive(Debug)]
pub struct Files {
    path: PathBuf,
    directory: File,
    /// So much is left free for the log.
    spare: Option<Reserve>,
}

impl Files {
    /// Opens the folder, or makes it, and removes what is unfinished. A file gets its name after its bytes are durable;
    /// what is left to be made durable after a crash are the names.
    ///
    /// # Errors
    /// [`Failure::Io`] and [`Failure::Sync`].
    pub fn open(path: &Path, spare: Option<Reserve>) -> Result<Files, Failure> {
        match fs::create_dir(path) {
            Ok(()) => {
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
                let opened = File::open(parent).map_err(failed("open", parent))?;
                opened.sync_all().map_err(sync_failed(parent))?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed("create", path)(error)),
        }
        let directory = File::open(path).map_err(failed("open", path))?;
        for entry in fs::read_dir(path).map_err(failed("list", path))? {
            let entry = entry.map_err(failed("list", path))?;
            if entry.file_name().to_string_lossy().ends_with(UNFINISHED) {
                fs::remove_file(entry.path()).map_err(failed("remove", &entry.path()))?;
            }
        }
        directory.sync_all().map_err(sync_failed(path))?;
        Ok(Files { path: path.to_owned(), directory, spare })
    }

    /// Makes a segment durable under its number, in place of what had it.
    ///
    /// # Errors
    /// [`Failure::Io`]: it can be tried again, when there is room, say. [`Failure::Sync`] is final.
    pub fn store(&self, number: u32, data: &[u8]) -> Result<(), Failure> {
        let file = format::encode(number, data);
        let path = self.file(number);
        let unfinished = self.path.join(format!("{}{UNFINISHED}", name(number)));
        let written = self.write(&unfinished, &file);
        if let Err(failure) = written {
            // What failed to be written may well fail to be removed; the next try writes over it.
            let _ = fs::remove_file(&unfinished);
            return Err(failure);
        }
        fs::rename(&unfinished, &path).map_err(failed("rename", &unfinished))?;
        self.directory.sync_all().map_err(sync_failed(&self.path))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), Failure> {
        if let Some(spare) = &self.spare {
            let free = spare.free_bytes().map_err(failed("look at the disk of", path))?;
            if free < spare.bytes().saturating_add(bytes.len() as u64) {
                return Err(failed("write", path)(io::ErrorKind::StorageFull.into()));
            }
        }
        let mut file = File::create(path).map_err(failed("create", path))?;
        file.write_all(bytes).map_err(failed("write", path))?;
        file.sync_data().map_err(sync_failed(path))
    }

    /// Whether there is a file of this number whose header and length are those of the segment. Its content is
    /// verified when it is read.
    pub fn has(&self, number: u32, expected: &Expected) -> bool {
        let mut bytes = [0; Header::BYTES];
        let read = File::open(self.file(number)).and_then(|mut file| {
            file.read_exact(&mut bytes)?;
            Ok(file.metadata()?.len())
        });
        match (read, Header::decode(&bytes)) {
            (Ok(length), Ok(header)) => {
                header.number == number
                    && header.is == *expected
                    && length == Header::BYTES as u64 + u64::from(header.compressed)
            }
            _ => false,
        }
    }

    /// A segment's bytes, verified; without `expected`, by what its file says of itself.
    pub fn read(&self, number: u32, expected: Option<&Expected>) -> Result<Bytes, Unreadable> {
        let path = self.file(number);
        let file = match fs::read(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Unreadable::Missing { path }),
            Err(source) => return Err(Unreadable::Io { path, source }),
        };
        match format::decode(&file) {
            Ok((header, _)) if header.number != number => {
                Err(Unreadable::Damaged { path, reason: "it is another segment" })
            }
            Ok((header, _)) if expected.is_some_and(|expected| *expected != header.is) => {
                Err(Unreadable::Damaged { path, reason: "it is not the segment that the state knows" })
            }
            Ok((_, data)) => Ok(data),
            Err(reason) => Err(Unreadable::Damaged { path, reason }),
        }
    }

    fn file(&self, number: u32) -> PathBuf {
        self.path.join(name(number))
    }
}

fn name(number: u32) -> String {
    format!("{PREFIX}{number:010}")
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Failure + use<> {
    let path = path.to_owned();
    move |source| Failure::Io { doing, path, source }
}

fn sync_failed(path: &Path) -> impl FnOnce(io::Error) -> Failure + use<> {
    let path = path.to_owned();
    move |source| Failure::Sync { path, source }
}

#[cfg(test)]
mod tests;
