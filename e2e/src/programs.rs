//! Where the built programs are.

use std::{env, path::PathBuf};

/// `millgrid`, built into the folder that this test was built into.
pub fn millgrid() -> PathBuf {
    // A test program is in `release/deps`.
    let test = env::current_exe().unwrap();
    let program = test.parent().and_then(|deps| deps.parent()).unwrap().join("millgrid");
    assert!(program.exists(), "{} is not built: cargo build --release --locked --bins", program.display());
    program
}
