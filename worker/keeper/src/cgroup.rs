//! Memory and cpu limits by cgroup v2, where this process may use it.
//!
//! Used only when the keeper's own cgroup holds nobody but this worker (as under systemd with `Delegate=yes`)
//! and can be written: then its processes move into a leaf, as the rule of no inner processes wants it
//! (cgroup-v2.rst), and the tasks get leaves beside it. Those are reused: making one costs more than a process.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::fd::{AsRawFd, RawFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

/// Where the worker's own processes go.
const OWN: &str = "millgrid-worker";
/// Length of the accounting period of cpu.max, microseconds (the kernel's default).
const PERIOD_US: u64 = 100_000;
/// Cpu below a tenth of a period's hundredth is refused by the kernel (1 ms).
const MIN_QUOTA_US: u64 = 1_000;

/// The cgroups of one keeper.
pub(crate) struct Cgroups {
    root: PathBuf,
    memory: bool,
    cpu: bool,
    slots: Mutex<Slots>,
}

#[derive(Default)]
struct Slots {
    free: Vec<PathBuf>,
    made: u32,
}

/// A cgroup that holds one task.
pub(crate) struct Slot {
    cgroups: Arc<Cgroups>,
    path: PathBuf,
    procs: File,
    oom_kills: u64,
}

impl Cgroups {
    /// `None` where limits can't be set this way.
    pub fn find() -> Option<Arc<Cgroups>> {
        let mount = mount(&fs::read_to_string("/proc/self/mountinfo").ok()?)?;
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
        Cgroups::at(mount.join(own)).ok().flatten()
    }

    fn at(root: PathBuf) -> io::Result<Option<Arc<Cgroups>>> {
        let offered = fs::read_to_string(root.join("cgroup.controllers"))?;
        let has = |controller| offered.split_whitespace().any(|offered| offered == controller);
        let (memory, cpu) = (has("memory"), has("cpu"));
        let inhabitants = fs::read_to_string(root.join("cgroup.procs"))?;
        if !memory || !inhabitants.lines().all(is_of_this_worker) {
            return Ok(None);
        }
        fs::create_dir_all(root.join(OWN))?;
        for pid in inhabitants.lines() {
            fs::write(root.join(OWN).join("cgroup.procs"), pid)?;
        }
        fs::write(root.join("cgroup.subtree_control"), if cpu { "+memory +cpu" } else { "+memory" })?;
        Ok(Some(Arc::new(Cgroups { root, memory, cpu, slots: Mutex::default() })))
    }

    /// A cgroup with these limits; 0: none. `None` when there is nothing to limit.
    pub fn slot(self: &Arc<Self>, memory_mib: u64, cpu_milli: u64) -> io::Result<Option<Slot>> {
        let limits = (self.memory && memory_mib > 0) || (self.cpu && cpu_milli > 0);
        if !limits {
            return Ok(None);
        }
        let path = match self.free_slot() {
            Some(path) => path,
            None => self.make_slot()?,
        };
        let max = if memory_mib > 0 { (memory_mib << 20).to_string() } else { "max".into() };
        fs::write(path.join("memory.max"), max)?;
        if self.cpu {
            let quota = (cpu_milli.saturating_mul(PERIOD_US) / 1_000).max(MIN_QUOTA_US);
            let max = if cpu_milli > 0 { format!("{quota} {PERIOD_US}") } else { format!("max {PERIOD_US}") };
            fs::write(path.join("cpu.max"), max)?;
        }
        let procs = OpenOptions::new().write(true).open(path.join("cgroup.procs"))?;
        let oom_kills = oom_kills(&path)?;
        Ok(Some(Slot { cgroups: self.clone(), path, procs, oom_kills }))
    }

    fn free_slot(&self) -> Option<PathBuf> {
        let mut slots = self.slots();
        // What a task left behind may still be dying.
        let empty = slots.free.iter().position(|path| {
            fs::read_to_string(path.join("cgroup.events")).is_ok_and(|events| field(&events, "populated") == Some(0))
        })?;
        Some(slots.free.swap_remove(empty))
    }

    fn make_slot(&self) -> io::Result<PathBuf> {
        let number = {
            let mut slots = self.slots();
            slots.made += 1;
            slots.made
        };
        let path = self.root.join(format!("millgrid-slot-{number}"));
        fs::create_dir_all(&path)?;
        // All of a task dies when one process of it was out of memory; and it doesn't escape into swap.
        fs::write(path.join("memory.oom.group"), "1")?;
        match fs::write(path.join("memory.swap.max"), "0") {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(path),
        }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().expect("a panic ends the process")
    }
}

impl Slot {
    /// The file into which a new process writes itself.
    pub fn entrance(&self) -> RawFd {
        self.procs.as_raw_fd()
    }

    /// Moves a process into it.
    pub fn admit(&self, pid: i32) -> io::Result<()> {
        (&self.procs).write_all(pid.to_string().as_bytes())
    }

    /// Kills what is left in it and gives it back; whether the kernel killed for want of memory.
    pub fn release_and_was_out_of_memory(self) -> bool {
        // Absent before Linux 5.14; the process group has been killed already.
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
        let killed = oom_kills(&self.path).is_ok_and(|kills| kills > self.oom_kills);
        self.cgroups.slots().free.push(self.path);
        killed
    }
}

/// The agent and the keeper are one binary.
fn is_of_this_worker(pid: &str) -> bool {
    let program = |process: &str| fs::read_link(format!("/proc/{process}/exe"));
    matches!((program(pid), program("self")), (Ok(theirs), Ok(ours)) if theirs == ours)
}

fn oom_kills(path: &Path) -> io::Result<u64> {
    Ok(field(&fs::read_to_string(path.join("memory.events"))?, "oom_kill").unwrap_or(0))
}

/// From a flat keyed file.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Where the unified hierarchy is mounted, from proc_pid_mountinfo(5).
fn mount(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        (right.split(' ').next()? == "cgroup2").then(|| left.split(' ').nth(4).map(PathBuf::from))?
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_unified_hierarchy_is_found_among_the_others() {
        let mountinfo = "32 25 0:27 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                         33 32 0:28 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu\n\
                         41 32 0:36 / /sys/fs/cgroup/unified rw,relatime shared:17 - cgroup2 cgroup2 rw\n";
        assert_eq!(mount(mountinfo), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(mount("33 32 0:28 / /sys/fs/cgroup rw - cgroup cgroup rw\n"), None);
    }

    #[test]
    fn events_are_read_by_their_whole_name() {
        let events = "low 0\nhigh 3\nmax 7\noom 2\noom_kill 4\noom_group_kill 1\n";
        assert_eq!(field(events, "oom_kill"), Some(4));
        assert_eq!(field(events, "oom"), Some(2));
        assert_eq!(field(events, "kill"), None);
    }
}
