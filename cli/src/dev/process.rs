use std::{fs, sync::LazyLock};

use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

/// A process that can't be mistaken for a later one with the same number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    pub pid: i32,
    /// Clock ticks from the boot to its start.
    start: u64,
    /// Which boot: after another one the same numbers mean nothing.
    boot: String,
}

/// A line of the process table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    pub pid: i32,
    /// `R`, `S`, `D`, `T`, `Z`, ...
    pub state: char,
    pub parent: i32,
    pub session: i32,
    start: u64,
}

static BOOT: LazyLock<String> = LazyLock::new(|| {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
});

impl ProcessId {
    /// The process that has this number now, and hasn't ended.
    pub fn of(pid: i32) -> Option<Self> {
        Stat::of(pid).filter(|stat| !stat.is_dead()).map(|stat| stat.id())
    }

    /// What the process table says of it, unless it has ended.
    pub fn stat(&self) -> Option<Stat> {
        let stat = Stat::of(self.pid)?;
        (stat.start == self.start && self.boot == *BOOT && !stat.is_dead()).then_some(stat)
    }

    pub fn is_alive(&self) -> bool {
        self.stat().is_some()
    }

    /// Sends a signal to this very process; whether it was there to get it.
    pub fn signal(&self, signal: Signal) -> bool {
        let Some(pid) = Pid::from_raw(self.pid) else { return false };
        // The descriptor stands for one process: checked after it was opened, the number can't change hands.
        let Ok(descriptor) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { return false };
        self.is_alive() && rustix::process::pidfd_send_signal(descriptor, signal).is_ok()
    }
}

impl Stat {
    fn of(pid: i32) -> Option<Self> {
        Self::parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The program's name, in parentheses, may hold anything, parentheses too.
    fn parse(pid: i32, text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_whitespace().collect();
        Some(Self {
            pid,
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            start: fields.get(19)?.parse().ok()?,
        })
    }

    /// A zombie is dead: it only waits for its parent to look.
    fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }

    pub fn id(&self) -> ProcessId {
        ProcessId { pid: self.pid, start: self.start, boot: BOOT.clone() }
    }

    /// Its command line.
    pub fn arguments(&self) -> Vec<Vec<u8>> {
        let bytes = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        bytes.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()
    }

    /// Its environment when it was started; empty for other users' processes.
    pub fn environment(&self) -> Vec<u8> {
        fs::read(format!("/proc/{}/environ", self.pid)).unwrap_or_default()
    }
}

/// Every process that hasn't ended.
pub fn all() -> Vec<Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(Stat::of).filter(|stat| !stat.is_dead()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_is_known_by_its_start_and_not_by_its_number_alone() {
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let id = ProcessId::of(child.id() as i32).unwrap();
        assert!(id.is_alive());
        let later = ProcessId { start: id.start + 1, ..id.clone() };
        assert!(!later.is_alive() && !later.signal(Signal::KILL));
        let before_the_boot = ProcessId { boot: "another".into(), ..id.clone() };
        assert!(!before_the_boot.signal(Signal::KILL));
        assert!(child.try_wait().unwrap().is_none());
        assert!(id.signal(Signal::KILL));
        // Not waited for yet: a zombie.
        while Stat::of(id.pid).unwrap().state != 'Z' {
            std::thread::yield_now();
        }
        assert!(!id.is_alive());
        child.wait().unwrap();
    }

    #[test]
    fn a_name_may_look_like_the_rest_of_the_line() {
        let text = "7 (a) R 1 2) S 3 7 5 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1";
        let stat = Stat::parse(7, text).unwrap();
        assert_eq!((stat.state, stat.parent, stat.session, stat.start), ('S', 3, 5, 4242));
    }
}
