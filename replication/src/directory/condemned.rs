//! The mark on a disk that failed to sync: it outlives the process, and whoever restarts it.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
};

const MARK: &str = "sync-failed";

const TEXT: &str = "An fsync on this disk failed. What was written before may be lost although it can be read, so this \
                    member must never be started from this directory again. Give it an empty directory on a good disk.\n";

/// Leaves the mark, as durable as the disk still allows: a sync of it may well fail too, and until the machine
/// restarts the mark is seen all the same.
pub(super) fn condemn(directory: &Path) -> io::Result<()> {
    let mut file = match OpenOptions::new().write(true).create_new(true).open(directory.join(MARK)) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        made => made?,
    };
    file.write_all(TEXT.as_bytes())?;
    let written = file.sync_all();
    let named = File::open(directory)?.sync_all();
    written.and(named)
}

/// Whether the mark is there.
pub(super) fn is_condemned(directory: &Path) -> bool {
    // What can't be looked at is not to be trusted either; a name that isn't there is the one good answer.
    !matches!(directory.join(MARK).try_exists(), Ok(false))
}
