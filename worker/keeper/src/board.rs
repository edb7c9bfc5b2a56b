//! The process ids of the main processes that live, in memory that the guardian shares.
//!
//! A place is taken before a process is made; the process writes its own id there before its program starts, so
//! that there is no moment at which the keeper's death would leave a task unknown.
#![allow(unsafe_code)]

use std::{
    io, ptr,
    sync::atomic::{AtomicI32, Ordering},
};

/// Places on the board: more processes are never alive at once. 256 KiB, of which only used pages exist.
pub(crate) const PLACES: usize = 64 << 10;

/// A shared mapping; never unmapped, since threads hold places in it as long as the keeper lives.
#[derive(Clone, Copy)]
pub(crate) struct Board {
    places: &'static [AtomicI32],
}

impl Board {
    /// Maps an empty board.
    pub fn new() -> io::Result<Board> {
        let length = PLACES * size_of::<AtomicI32>();
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at an address of the system's choice, zeroed, and never unmapped.
        unsafe {
            let start = libc::mmap(ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
            if start == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            Ok(Board { places: std::slice::from_raw_parts(start.cast(), PLACES) })
        }
    }

    /// The place of that number.
    pub fn place(&self, number: u32) -> &'static AtomicI32 {
        &self.places[number as usize]
    }

    /// Makes the place free. Before its process is reaped, else the guardian might kill a stranger.
    pub fn clear(&self, number: u32) {
        self.place(number).store(0, Ordering::Release);
    }

    /// The process ids entered.
    pub fn entered(&self) -> impl Iterator<Item = i32> {
        self.places.iter().map(|place| place.load(Ordering::Acquire)).filter(|pid| *pid > 1)
    }
}
