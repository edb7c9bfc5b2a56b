//! A directory in memory that crashes on request.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    path::PathBuf,
};

use super::Volume;
use crate::draw::Draw;

/// A directory in memory. It knows what a disk would have kept, and loses the rest when told to.
#[derive(Clone, Debug, Default)]
pub struct MemoryVolume {
    files: BTreeMap<u64, MemoryFile>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    changes: Vec<NameChange>,
    created: u64,
    sync_fails: bool,
    sync_lies: bool,
}

/// How the machine below a [`MemoryVolume`] fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process died: all it wrote can be read, but what wasn't synced still isn't.
    Process,
    /// The power failed: of what wasn't synced nothing, a part, or a part with holes is left.
    Power {
        /// What is lost is drawn from it.
        seed: u64,
    },
}

#[derive(Clone, Debug, Default)]
struct MemoryFile {
    bytes: Vec<u8>,
    synced: usize,
}

#[derive(Clone, Debug)]
enum NameChange {
    Set(String, u64),
    Remove(String),
}

impl MemoryVolume {
    /// An empty one.
    pub fn new() -> MemoryVolume {
        MemoryVolume::default()
    }

    /// Crashes. Names are lost as a journal loses them: all from some change on.
    pub fn crash(&mut self, crash: Crash) {
        self.sync_fails = false;
        let Crash::Power { seed } = crash else { return };
        let mut draw = Draw::new(seed);
        let kept = draw.below(self.changes.len() as u64 + 1) as usize;
        let mut names = std::mem::take(&mut self.durable_names);
        for change in self.changes.drain(..).take(kept) {
            change.apply(&mut names);
        }
        self.files.retain(|inode, _| names.values().any(|named| named == inode));
        for file in self.files.values_mut() {
            file.lose_power(&mut draw);
        }
        self.durable_names = names.clone();
        self.names = names;
    }

    /// The next sync fails, as a broken disk's does.
    pub fn fail_next_sync(&mut self) {
        self.sync_fails = true;
    }

    /// Whether syncs say that they worked and do nothing: for planted bugs.
    pub fn set_sync_lies(&mut self, lies: bool) {
        self.sync_lies = lies;
    }

    /// Flips the bits of `mask` in one byte, as a decaying disk does.
    ///
    /// # Panics
    /// If there is no such byte.
    pub fn flip(&mut self, name: &str, offset: u64, mask: u8) {
        let inode = self.names[name];
        let file = self.files.get_mut(&inode).expect("a name has a file");
        file.bytes[offset as usize] ^= mask;
    }

    /// Cuts a file to `length` bytes.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn cut(&mut self, name: &str, length: u64) {
        let inode = self.names[name];
        let file = self.files.get_mut(&inode).expect("a name has a file");
        file.bytes.truncate(length as usize);
        file.synced = file.synced.min(file.bytes.len());
    }

    fn file(&self, name: &str) -> io::Result<&MemoryFile> {
        let inode = self.names.get(name).ok_or(ErrorKind::NotFound)?;
        Ok(self.files.get(inode).ok_or(ErrorKind::NotFound)?)
    }

    fn file_mut(&mut self, name: &str) -> io::Result<&mut MemoryFile> {
        let inode = self.names.get(name).ok_or(ErrorKind::NotFound)?;
        Ok(self.files.get_mut(inode).ok_or(ErrorKind::NotFound)?)
    }

    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.changes.push(change);
    }

    /// `true`: the sync has to do its work.
    fn begin_sync(&mut self) -> io::Result<bool> {
        if std::mem::take(&mut self.sync_fails) {
            return Err(io::Error::other("the disk is broken"));
        }
        Ok(!self.sync_lies)
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            NameChange::Set(name, inode) => {
                names.retain(|_, named| named != inode);
                names.insert(name.clone(), *inode);
            }
            NameChange::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

impl MemoryFile {
    fn lose_power(&mut self, draw: &mut Draw) {
        let unsynced = self.bytes.len() - self.synced;
        let kept = match draw.below(4) {
            0 => 0,
            1 => unsynced,
            _ => draw.below(unsynced as u64 + 1) as usize,
        };
        self.bytes.truncate(self.synced + kept);
        // Pages reach the disk in any order: the file may have grown while some of it never arrived.
        if kept > 0 && draw.below(3) == 0 {
            let from = draw.below(kept as u64) as usize;
            let length = 1 + draw.below((kept - from) as u64) as usize;
            self.bytes[self.synced + from..self.synced + from + length].fill(0);
        }
        self.synced = self.bytes.len();
    }
}

impl Volume for MemoryVolume {
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.names.keys().cloned().collect())
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        if self.names.contains_key(name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        self.created += 1;
        self.files.insert(self.created, MemoryFile::default());
        self.change(NameChange::Set(name.to_owned(), self.created));
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.file_mut(name)?.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        if self.begin_sync()? {
            let file = self.file_mut(name)?;
            file.synced = file.bytes.len();
        }
        Ok(())
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        if self.begin_sync()? {
            self.changes.clear();
            self.durable_names = self.names.clone();
            let durable = &self.durable_names;
            self.files.retain(|inode, _| durable.values().any(|named| named == inode));
        }
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let inode = *self.names.get(from).ok_or(ErrorKind::NotFound)?;
        self.change(NameChange::Set(to.to_owned(), inode));
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        if !self.names.contains_key(name) {
            return Err(ErrorKind::NotFound.into());
        }
        self.change(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        Ok(self.file(name)?.bytes.len() as u64)
    }

    fn read(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let bytes = &self.file(name)?.bytes;
        let from = bytes.len().min(offset as usize);
        let to = bytes.len().min(from + length);
        Ok(bytes[from..to].to_vec())
    }

    fn forget_cached(&mut self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(name)
    }
}
