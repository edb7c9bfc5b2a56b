//! Sees to it that a keeper which dies without a word takes its tasks along.
//!
//! The kernel kills the main process of each task then, but not the processes these made. The guardian is a
//! fork of the keeper that waits for its death at the end of a pipe, kills the process groups on the [`Board`],
//! and holds the keeper's lock until they are gone: who gets the lock finds no task of a predecessor.
#![allow(unsafe_code)]

use std::{
    io::{self, PipeReader, PipeWriter},
    os::fd::{AsRawFd, RawFd},
    time::Duration,
};

use crate::{board::Board, descriptors::close_range};

/// How long the guardian waits for what it killed, in steps of a millisecond: a process may hang in the kernel.
const PATIENCE: u32 = 2_000;

/// The pipe whose writing end only the keeper holds.
pub(crate) struct Guardian {
    reader: PipeReader,
    _writer: PipeWriter,
    lock: RawFd,
    board: Board,
}

impl Guardian {
    /// For the keeper that holds the lock on the open file `lock`, which must stay open.
    pub fn new(lock: RawFd, board: Board) -> io::Result<Guardian> {
        let (reader, writer) = io::pipe()?;
        Ok(Guardian { reader, _writer: writer, lock, board })
    }

    /// Starts the guardian process and returns its id; again when it died.
    pub fn start(&self) -> io::Result<i32> {
        // SAFETY: the new process calls only `watch`, which makes nothing but system calls: other threads'
        // locks, held at the fork, don't matter to it.
        match unsafe { libc::fork() } {
            0 => self.watch(),
            pid if pid > 0 => Ok(pid),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn watch(&self) -> ! {
        // SAFETY: system calls on plain numbers and valid buffers.
        unsafe {
            // A session of its own: what is sent to the keeper's group is not meant for the guardian.
            libc::setsid();
            let mut all = std::mem::MaybeUninit::uninit();
            libc::sigfillset(all.as_mut_ptr());
            libc::sigprocmask(libc::SIG_SETMASK, all.as_ptr(), std::ptr::null_mut());
            libc::prctl(libc::PR_SET_NAME, c"keeper-guard".as_ptr());
            close_all_but([self.reader.as_raw_fd(), self.lock]);
            let mut byte = 0u8;
            // Nothing is ever written: it returns 0 when the keeper is gone.
            while libc::read(self.reader.as_raw_fd(), std::ptr::from_mut(&mut byte).cast(), 1) < 0 {}
            for pid in self.board.entered() {
                libc::kill(-pid, libc::SIGKILL);
            }
            for _ in 0..PATIENCE {
                if !self.board.entered().any(|pid| libc::kill(-pid, 0) == 0) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            libc::_exit(0)
        }
    }
}

/// Sockets and the caller's output must not stay open because of the guardian.
fn close_all_but(mut kept: [RawFd; 2]) {
    kept.sort_unstable();
    let mut from = 0;
    for file in kept.map(|file| file as libc::c_uint) {
        if from < file {
            close_range(from, file - 1);
        }
        from = file + 1;
    }
    close_range(from, libc::c_uint::MAX);
}
