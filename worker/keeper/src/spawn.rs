//! Makes a process: a clone that shares memory until its program is loaded, as posix_spawn does it.
//!
//! Not posix_spawn itself, because the new process must ask to die with the keeper (`PR_SET_PDEATHSIG`) and
//! enter itself on the [`crate::board`] before its program runs, and must say which step failed. The signal of
//! the parent's death follows the *thread* that made the process, so that thread must live as long as the keeper.
#![allow(unsafe_code)]

use std::{
    ffi::CStr,
    io,
    os::raw::{c_char, c_int, c_void},
    ptr,
    sync::atomic::{AtomicI32, Ordering},
};

use crate::{prepare::Prepared, protocol::End, servers::CONTROL};

/// Bytes of the stack on which the new process prepares itself; it needs about 1 KiB.
const STACK_LEN: usize = 64 << 10;
/// What a shell calls a program it can't load: look this far for a zero byte before running it by `/bin/sh`.
const SNIFFED: usize = 128;
/// Arguments of a script without an interpreter line; more than these it can't get.
const MAX_SCRIPT_ARGUMENTS: usize = 4096;

/// The stack of a process in the making; one per spawning thread, reused.
pub(crate) struct Stack {
    bottom: *mut c_void,
}

// SAFETY: the mapping belongs to whoever has the value.
unsafe impl Send for Stack {}

impl Stack {
    /// Maps a stack.
    pub fn new() -> io::Result<Stack> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
        // SAFETY: a new private mapping, at an address of the system's choice.
        let bottom =
            unsafe { libc::mmap(ptr::null_mut(), STACK_LEN, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if bottom == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Stack { bottom }) }
    }

    fn top(&mut self) -> *mut c_void {
        // SAFETY: one past the end of the mapping.
        unsafe { self.bottom.byte_add(STACK_LEN) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length, and no process uses it: a clone returns only after that.
        unsafe { libc::munmap(self.bottom, STACK_LEN) };
    }
}

/// The outcome of a clone: there is a process to reap in either case.
pub(crate) struct Spawned {
    pub pid: i32,
    /// Its program did not start; it has ended.
    pub failure: Option<(End, String)>,
}

/// Makes a process and returns when its program is loaded, or could not be.
///
/// `place` receives the process id before the program starts; `control` becomes its descriptor
/// [`crate::servers::CONTROL`]. Fails when there is no process at all. All signals
/// must be blocked in the calling thread, which must never end.
pub(crate) fn spawn(
    prepared: &Prepared,
    place: &AtomicI32,
    cgroup: Option<c_int>,
    control: Option<c_int>,
    stack: &mut Stack,
) -> io::Result<Spawned> {
    let mut birth = Birth { prepared, place, cgroup, control, parent: std::process::id() as i32, failed: None };
    // SAFETY: the new process runs `be_born` on a stack of its own, in our memory, while this thread waits: so
    // `birth` outlives its use. `be_born` makes only system calls and touches nothing but `birth`, `place` and
    // its stack. CLONE_SIGHAND is absent: what it does to signals is its own.
    let pid = unsafe {
        libc::clone(
            be_born,
            stack.top(),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
            ptr::from_mut(&mut birth).cast(),
        )
    };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: written by the new process, behind the compiler's back, before this thread went on.
    let failed = unsafe { ptr::read_volatile(&birth.failed) };
    Ok(Spawned {
        pid,
        failure: failed.map(|(step, errno)| {
            let command = String::from_utf8_lossy(prepared.command());
            explain(&command, &prepared.directory.to_string_lossy(), step, errno)
        }),
    })
}

struct Birth<'a> {
    prepared: &'a Prepared,
    place: &'a AtomicI32,
    cgroup: Option<c_int>,
    control: Option<c_int>,
    parent: i32,
    failed: Option<(Step, c_int)>,
}

/// What is done before a process is a task's.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    Group,
    Cgroup,
    Orphaned,
    Stdout,
    Stderr,
    Control,
    Directory,
    Signals,
    Program,
}

/// The first and last thing a new process does in our memory. Never returns into it.
extern "C" fn be_born(birth: *mut c_void) -> c_int {
    // SAFETY: `spawn` passes a pointer to its `Birth` and waits until this process no longer uses it.
    unsafe {
        let birth = &mut *birth.cast::<Birth<'_>>();
        let failed = prepare_and_run(birth);
        ptr::write_volatile(&mut birth.failed, Some(failed));
        libc::_exit(127)
    }
}

/// Returns only when a step failed.
///
/// # Safety
///
/// Runs in a process that shares its parent's memory: system calls only.
unsafe fn prepare_and_run(birth: &Birth<'_>) -> (Step, c_int) {
    let prepared = birth.prepared;
    // SAFETY: system calls on valid, null-terminated strings; the signal set is initialised by sigemptyset.
    unsafe {
        if libc::setpgid(0, 0) != 0 {
            return (Step::Group, errno());
        }
        birth.place.store(libc::getpid(), Ordering::Release);
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 || libc::getppid() != birth.parent {
            return (Step::Orphaned, errno());
        }
        if let Some(file) = birth.cgroup
            && libc::write(file, b"0".as_ptr().cast(), 1) != 1
        {
            return (Step::Cgroup, errno());
        }
        if !redirect(&prepared.stdout, libc::STDOUT_FILENO) {
            return (Step::Stdout, errno());
        }
        if !redirect(&prepared.stderr, libc::STDERR_FILENO) {
            return (Step::Stderr, errno());
        }
        if let Some(control) = birth.control
            && !hand_down(control, CONTROL)
        {
            return (Step::Control, errno());
        }
        if libc::chdir(prepared.directory.as_ptr()) != 0 {
            return (Step::Directory, errno());
        }
        // Handled signals become default by themselves at exec, and the keeper ignores none.
        let mut none = std::mem::MaybeUninit::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        if libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut()) != 0 {
            return (Step::Signals, errno());
        }
        (Step::Program, execute(prepared))
    }
}

unsafe fn redirect(path: &CStr, onto: c_int) -> bool {
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND | libc::O_CLOEXEC;
    // SAFETY: a valid path and plain numbers.
    unsafe {
        let file = libc::open(path.as_ptr(), flags, 0o644);
        file >= 0 && libc::dup2(file, onto) >= 0
    }
}

/// Gives the program a descriptor under this number.
unsafe fn hand_down(file: c_int, number: c_int) -> bool {
    // SAFETY: plain numbers. A copy is not closed when the program is loaded; the descriptor itself would be.
    unsafe { if file == number { libc::fcntl(file, libc::F_SETFD, 0) == 0 } else { libc::dup2(file, number) >= 0 } }
}

/// As execvp does: the first that can be loaded; one that may not be is remembered, in case none can.
unsafe fn execute(prepared: &Prepared) -> c_int {
    let (arguments, environment) = (prepared.arguments.pointers(), prepared.environment.pointers());
    let mut forbidden = false;
    for program in &prepared.programs {
        // SAFETY: null-terminated arrays of null-terminated strings.
        unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
        match errno() {
            libc::EACCES => forbidden = true,
            libc::ENOENT | libc::ENOTDIR | libc::ESTALE | libc::ENODEV | libc::ETIMEDOUT => {}
            // SAFETY: as this function.
            libc::ENOEXEC => return unsafe { execute_by_shell(program, arguments, environment) },
            other => return other,
        }
    }
    if forbidden { libc::EACCES } else { libc::ENOENT }
}

/// An executable text without an interpreter line is a script of `/bin/sh`; anything else is not executable.
unsafe fn execute_by_shell(program: &CStr, arguments: &[*const c_char], environment: &[*const c_char]) -> c_int {
    let mut start = [0u8; SNIFFED];
    // SAFETY: a valid path, and a buffer of the length given.
    let length = unsafe {
        let file = libc::open(program.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        libc::read(file, start.as_mut_ptr().cast(), SNIFFED)
    };
    // Not readable but executable: the shell will say so. A zero byte within the first line: no text.
    let start = &start[..usize::try_from(length).unwrap_or(0)];
    let line = start.iter().position(|byte| *byte == b'\n').unwrap_or(start.len());
    if start[..line].contains(&0) || arguments.len() > MAX_SCRIPT_ARGUMENTS {
        return libc::ENOEXEC;
    }
    // `arguments` ends in null and begins with the name that the script's own path replaces.
    let mut shell = [ptr::null::<c_char>(); MAX_SCRIPT_ARGUMENTS + 2];
    shell[0] = c"/bin/sh".as_ptr();
    shell[1] = program.as_ptr();
    let rest = &arguments[1..];
    shell[2..2 + rest.len()].copy_from_slice(rest);
    // SAFETY: `shell` is null-terminated, since `rest` is.
    unsafe { libc::execve(shell[0], shell.as_ptr(), environment.as_ptr()) };
    errno()
}

fn errno() -> c_int {
    // SAFETY: the thread's own errno; a process in the making shares that of the thread that waits for it.
    unsafe { *libc::__errno_location() }
}

/// Why one that failed there did not start, as the agent is told.
pub(crate) fn explain(command: &str, directory: &str, step: Step, errno: c_int) -> (End, String) {
    let reason = io::Error::from_raw_os_error(errno);
    let of_machine = matches!(errno, libc::ENOMEM | libc::EAGAIN | libc::EMFILE | libc::ENFILE | libc::EIO);
    match step {
        Step::Program if of_machine => (End::NotStarted, format!("cannot load `{command}`: {reason}")),
        Step::Program if matches!(errno, libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::ENAMETOOLONG) => {
            (End::CommandNotFound, format!("`{command}` was not found"))
        }
        Step::Program => (End::CommandNotExecutable, format!("`{command}` cannot be executed: {reason}")),
        Step::Directory if !of_machine => {
            (End::CommandNotExecutable, format!("cannot change to directory `{directory}`: {reason}"))
        }
        step => (End::NotStarted, format!("cannot prepare the process ({step:?}): {reason}")),
    }
}
