//! The keeper's own signals.
//!
//! SIGTERM and SIGINT end it; SIGHUP and SIGPIPE do nothing. They are *handled*, not ignored, since an ignored
//! signal would stay ignored in every task, while a handled one becomes default when the task's program loads.
#![allow(unsafe_code)]

use std::{
    mem,
    os::fd::{AsFd, AsRawFd},
    ptr,
    sync::atomic::{AtomicBool, AtomicI32, Ordering},
};

// A handler knows nothing but statics.
static ASKED_TO_END: AtomicBool = AtomicBool::new(false);
static WAKE: AtomicI32 = AtomicI32::new(-1);
static KEEPER: AtomicI32 = AtomicI32::new(0);

/// Installs the handlers; `wake` is written to when the keeper is asked to end.
pub(crate) fn install(wake: impl AsFd) {
    WAKE.store(wake.as_fd().as_raw_fd(), Ordering::SeqCst);
    KEEPER.store(std::process::id() as i32, Ordering::SeqCst);
    // Whatever the keeper's parent ignored must not be ignored by tasks.
    for signal in 1..=libc::SIGRTMAX() {
        handle(signal, libc::SIG_DFL);
    }
    let nothing = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
    let end = end as extern "C" fn(libc::c_int) as libc::sighandler_t;
    handle(libc::SIGHUP, nothing);
    handle(libc::SIGPIPE, nothing);
    handle(libc::SIGTERM, end);
    handle(libc::SIGINT, end);
}

/// Whether SIGTERM or SIGINT came.
pub(crate) fn asked_to_end() -> bool {
    ASKED_TO_END.load(Ordering::SeqCst)
}

/// Blocks every signal in this thread, as [`crate::spawn::spawn`] needs it.
pub(crate) fn block_all() {
    // SAFETY: the set is initialised by sigfillset.
    unsafe {
        let mut all = mem::MaybeUninit::uninit();
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), ptr::null_mut());
    }
}

fn handle(signal: libc::c_int, handler: libc::sighandler_t) {
    // SAFETY: zeroes are a valid sigaction. Signals that can't be handled are refused, which is fine.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(signal, &action, ptr::null_mut());
    }
}

extern "C" fn nothing(_: libc::c_int) {}

extern "C" fn end(_: libc::c_int) {
    // SAFETY: only calls that are allowed in a handler.
    unsafe {
        // A process in the making shares our memory and, for an instant, this handler.
        if libc::getpid() != KEEPER.load(Ordering::SeqCst) {
            return;
        }
        ASKED_TO_END.store(true, Ordering::SeqCst);
        let one = 1u64.to_ne_bytes();
        libc::write(WAKE.load(Ordering::SeqCst), one.as_ptr().cast(), one.len());
    }
}
