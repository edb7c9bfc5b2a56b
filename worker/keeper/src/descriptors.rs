//! What the keeper does to file descriptors it was born with.
#![allow(unsafe_code)]

use std::{fs::File, io, os::fd::AsRawFd};

/// Closes the descriptors from `first` to `last`. Nothing that is used afterwards may be among them.
pub(crate) fn close_range(first: libc::c_uint, last: libc::c_uint) {
    // SAFETY: plain numbers; what uses the closed ones gets errors, see above.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
}

/// Keeps everything but the standard three from the programs that are started.
pub(crate) fn keep_from_programs() {
    // SAFETY: only marks the descriptors.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

/// Makes the standard input read nothing, here and in every process made from now on.
pub(crate) fn empty_stdin() -> io::Result<()> {
    let null = File::open("/dev/null")?;
    // SAFETY: two open descriptors; the standard library treats 0 as any other.
    match unsafe { libc::dup2(null.as_raw_fd(), libc::STDIN_FILENO) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
