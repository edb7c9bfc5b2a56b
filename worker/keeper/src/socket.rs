//! The keeper's socket, in a directory whose path may be longer than a socket's address allows.

use std::{
    fs::File,
    io,
    os::{
        fd::AsRawFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use rustix::fs::Mode;

const NAME: &str = "keeper.sock";

/// Connects an agent to the keeper of a directory.
pub fn connect(directory: &Path) -> io::Result<UnixStream> {
    let (_open, path) = short(directory)?;
    UnixStream::connect(path)
}

/// Listens; only processes of the same user can connect. What a dead keeper left is replaced: the caller holds
/// the lock. Not while other threads make files: the mask for new ones is narrowed for a moment.
pub(crate) fn listen(directory: &Path) -> io::Result<UnixListener> {
    remove(directory)?;
    let (_open, path) = short(directory)?;
    let mask = rustix::process::umask(Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(mask);
    listener
}

/// Removes the socket; absent is fine.
pub(crate) fn remove(directory: &Path) -> io::Result<()> {
    match std::fs::remove_file(directory.join(NAME)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// A path of at most 108 bytes to the socket, valid while the file is open.
fn short(directory: &Path) -> io::Result<(File, PathBuf)> {
    let open = File::open(directory)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{NAME}", open.as_raw_fd()));
    Ok((open, path))
}
