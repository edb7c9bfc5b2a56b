//! What a process has used, as the kernel counts it.

use std::fs;

use anyhow::Context;

/// Processor time of a process so far, user and system, all threads, seconds.
pub fn cpu_seconds(pid: u64) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the process is gone")?;
    // The second field is the program's name in parentheses, which may hold anything.
    let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
    let mut fields = fields.split_whitespace().skip(11).map(str::parse::<u64>);
    let mut next = || fields.next().context("stat is short")?.context("stat has no number there");
    let ticks = next()? + next()?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// What the process has in memory, bytes.
pub fn resident_bytes(pid: u64) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the process is gone")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS is no number")?;
    Ok(kib * 1024.0)
}
