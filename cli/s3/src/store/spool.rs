use std::{
    fs::File,
    io::{self, Write},
    os::fd::OwnedFd,
    sync::Arc,
};

use rustix::fs::{AtFlags, Mode, OFlags};

use super::Store;
use crate::digest::{Digester, Digests};

/// A body on its way in: a temporary file that vanishes unless it is given its name.
pub struct Spool {
    store: Arc<Store>,
    name: Option<String>,
    file: File,
    digester: Digester,
}

/// A body that is complete and on the disk, still without its name.
pub struct Spooled {
    store: Arc<Store>,
    name: Option<String>,
    pub file: File,
    pub digests: Digests,
}

impl Spool {
    pub fn new(store: &Arc<Store>, digester: Digester) -> io::Result<Self> {
        let name = store.temporary_name();
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&store.temporary_directory, &name, flags, Mode::from_raw_mode(0o666))?;
        Ok(Self { store: Arc::clone(store), name: Some(name), file: file.into(), digester })
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digester.update(bytes);
        self.file.write_all(bytes)
    }

    /// Appends bytes that need no checksum; the kernel copies them.
    pub fn append(&mut self, from: &mut File) -> io::Result<u64> {
        io::copy(from, &mut self.file)
    }

    /// Appends bytes and computes their checksums.
    pub fn append_digested(&mut self, from: &mut File) -> io::Result<u64> {
        let mut buffer = vec![0; 256 << 10];
        let mut total = 0;
        loop {
            let length = io::Read::read(from, &mut buffer)?;
            if length == 0 {
                return Ok(total);
            }
            self.write(&buffer[..length])?;
            total += length as u64;
        }
    }

    /// Waits until every byte is on the disk.
    pub fn finish(mut self) -> io::Result<Spooled> {
        self.file.sync_all()?;
        let digester = std::mem::replace(&mut self.digester, Digester::new(|_| false));
        Ok(Spooled {
            store: Arc::clone(&self.store),
            name: self.name.take(),
            file: self.file.try_clone()?,
            digests: digester.finish(),
        })
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        remove(&self.store, self.name.take());
    }
}

impl Spooled {
    /// Gives the file its name in `folder`, in place of what has it now.
    pub fn rename(&mut self, folder: &OwnedFd, name: &str) -> rustix::io::Result<()> {
        let temporary = self.name.as_deref().unwrap_or_default();
        rustix::fs::renameat(&self.store.temporary_directory, temporary, folder, name)?;
        self.name = None;
        Ok(())
    }
}

impl Drop for Spooled {
    fn drop(&mut self) {
        remove(&self.store, self.name.take());
    }
}

fn remove(store: &Store, name: Option<String>) {
    if let Some(name) = name {
        // What can't be removed now goes at the next start.
        let _ = rustix::fs::unlinkat(&store.temporary_directory, name, AtFlags::empty());
    }
}
