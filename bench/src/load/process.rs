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

/// Processor time of the coordinators and of this program over a span, to be read beside a rate: it tells what a call
/// costs even when something else runs on the machine.
pub struct Meter {
    names: Vec<(String, u64)>,
    before: Vec<f64>,
}

impl Meter {
    /// Begins now.
    pub fn start(processes: Vec<(String, u64)>) -> anyhow::Result<Self> {
        let before = processes.iter().map(|(_, pid)| cpu_seconds(*pid)).collect::<anyhow::Result<_>>()?;
        Ok(Self { names: processes, before })
    }

    /// What each has used since for one of so many calls, microseconds.
    pub fn each(&self, calls: f64) -> anyhow::Result<String> {
        let mut texts = Vec::new();
        for ((name, pid), before) in self.names.iter().zip(&self.before) {
            texts.push(format!("{name} {:.1}", (cpu_seconds(*pid)? - before) * 1e6 / calls));
        }
        Ok(format!("cpu each, us: {}", texts.join(", ")))
    }
}
