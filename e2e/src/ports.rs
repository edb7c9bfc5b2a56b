//! Ports that no other grid of this run has.

use std::{
    process,
    sync::atomic::{AtomicU32, Ordering},
};

/// Grids that one test program has at a time, at most.
const SLOTS: u32 = 25;

/// A `--port-base`. Grids of one program are kept apart here; those of others are shifted by `millgrid dev` itself.
///
/// The offsets of the listeners (+100, +1000, +2000, three ports each) make blocks of 200: all below what the
/// system gives out by itself.
pub fn next() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let slot = NEXT.fetch_add(1, Ordering::Relaxed) % SLOTS;
    let block = process::id() % 5;
    u16::try_from(11_000 + block * 200 + slot * 4).expect("it is below 12,000")
}
