//! The system calls on processes that nothing safe wraps.

use std::{io, mem};

/// How a reaped process ended and what it used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reaped {
    pub exit_code: i32,
    /// 0: it exited by itself.
    pub signal: i32,
    pub cpu_ms: u64,
    pub max_memory_kib: u64,
}

/// Waits until any child has ended and returns its id, without reaping it: until [`reap`] the id is not reused.
#[allow(unsafe_code)]
pub(crate) fn wait_for_any() -> io::Result<i32> {
    // SAFETY: siginfo_t is plain data for which zeroes are a valid value.
    let mut found: libc::siginfo_t = unsafe { mem::zeroed() };
    loop {
        // SAFETY: `found` is valid for writing.
        if unsafe { libc::waitid(libc::P_ALL, 0, &mut found, libc::WEXITED | libc::WNOWAIT) } == 0 {
            // SAFETY: waitid succeeded without WNOHANG, so the field of a SIGCHLD is there.
            return Ok(unsafe { found.si_pid() });
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Whether the child has ended and waits to be reaped.
#[allow(unsafe_code)]
pub(crate) fn has_ended(pid: i32) -> bool {
    // SAFETY: as in `wait_for_any`; with WNOHANG the process id stays 0 when there is nothing to report.
    unsafe {
        let mut found: libc::siginfo_t = mem::zeroed();
        let options = libc::WEXITED | libc::WNOWAIT | libc::WNOHANG;
        libc::waitid(libc::P_PID, pid as libc::id_t, &mut found, options) == 0 && found.si_pid() == pid
    }
}

/// Reaps a child that has ended. From here on its id may be anyone's.
#[allow(unsafe_code)]
pub(crate) fn reap(pid: i32) -> io::Result<Reaped> {
    let mut status = 0;
    // SAFETY: rusage is plain data; both pointers are valid for writing.
    let (reaped, usage) = unsafe {
        let mut usage: libc::rusage = mem::zeroed();
        (libc::wait4(pid, &mut status, libc::WNOHANG, &mut usage), usage)
    };
    if reaped != pid {
        return Err(io::Error::last_os_error());
    }
    let micros = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
    let signalled = libc::WIFSIGNALED(status);
    Ok(Reaped {
        exit_code: if signalled { 0 } else { libc::WEXITSTATUS(status) },
        signal: if signalled { libc::WTERMSIG(status) } else { 0 },
        cpu_ms: (micros(usage.ru_utime) + micros(usage.ru_stime)).div_ceil(1_000),
        max_memory_kib: usage.ru_maxrss as u64,
    })
}

/// Sends a signal to every process of the group that `pid` leads.
///
/// The caller makes sure that `pid` is not reaped: the id would be someone else's.
#[allow(unsafe_code)]
pub(crate) fn signal_group(pid: i32, signal: i32) {
    debug_assert!(pid > 1);
    // SAFETY: plain numbers. That the group may be gone is no error.
    unsafe { libc::kill(-pid, signal) };
}
