//! The disk's own limit: what one append and fdatasync takes with nothing around it.

use std::{fs::File, os::unix::fs::FileExt, path::Path, time::Instant};

use anyhow::Context;

use crate::figure::median;

/// Appends of which the one in the middle counts.
const SYNCS: usize = 300;
/// Bytes of each: about what one submit takes in a log.
const BYTES: usize = 512;

/// The median time of an append that is made durable, in milliseconds, on the disk that this folder is on.
pub fn median_sync_ms(folder: &Path) -> anyhow::Result<f64> {
    let path = folder.join("sync-reference");
    let file = File::create(&path).context("can't write beside the grid")?;
    // Into blocks that the file has already, so that nothing but the data itself is synced: a file that grows is slower.
    file.write_all_at(&vec![1; SYNCS * BYTES], 0)?;
    file.sync_all()?;
    let mut times = Vec::with_capacity(SYNCS);
    for number in 0..SYNCS {
        let start = Instant::now();
        file.write_all_at(&[7; BYTES], (number * BYTES) as u64)?;
        file.sync_data()?;
        times.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    std::fs::remove_file(&path)?;
    Ok(median(times))
}
