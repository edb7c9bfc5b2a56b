//! What this machine has.

use std::path::Path;

/// Cpus that this process may use.
pub fn cpus() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |count| count.get() as f64)
}

/// Memory, in MiB: of the machine, or of the cgroup when that is less.
pub fn memory_mib() -> u64 {
    let machine = meminfo("MemTotal:").unwrap_or(0);
    let limit = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    limit.map_or(machine, |bytes: u64| machine.min(bytes >> 20))
}

/// Memory that could be had without swapping, in MiB.
pub fn free_memory_mib() -> u64 {
    meminfo("MemAvailable:").unwrap_or(0)
}

fn meminfo(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib >> 10)
}

/// Free space of the file system of a directory, in GiB.
pub fn free_disk_gib(directory: &Path) -> u64 {
    rustix::fs::statvfs(directory).map_or(0, |stat| (stat.f_bavail * stat.f_frsize) >> 30)
}

/// Milliseconds since the Unix epoch.
pub fn wall_ms() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_something() {
        assert!(cpus() >= 1.0 && memory_mib() > 0 && free_memory_mib() > 0);
        assert!(free_memory_mib() <= meminfo("MemTotal:").unwrap_or(0));
    }
}
