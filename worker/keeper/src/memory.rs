//! Memory limits where the machine has no cgroup for them: a thread that looks a few times a second.

use std::{fs, thread, time::Duration};

use crate::{clock::boottime_ms, shared::Shared};

/// Between two looks. What a task can allocate in that time, it may have above its limit.
const INTERVAL: Duration = Duration::from_millis(200);

/// Looks at the memory of the processes that asked for a limit; sleeps while there is none.
pub(crate) fn run(shared: &Shared) -> ! {
    loop {
        let watched = {
            let mut table = shared.lock();
            loop {
                let watched = table.watched();
                if !watched.is_empty() {
                    break watched;
                }
                table = shared.to_watch.wait(table).expect("a panic ends the process");
            }
        };
        let members = members();
        for (leader, key, limit_mib) in watched {
            let group = || members.iter().filter(move |member| member.group == leader);
            let limit_kib = limit_mib.saturating_mul(1024);
            // Resident pages are cheap to read but count shared ones several times; so look again at what is above.
            let resident_kib: u64 = group().map(|member| member.resident_kib).sum();
            if resident_kib > limit_kib && group().map(Member::proportional_kib).sum::<u64>() > limit_kib {
                shared.lock().out_of_memory(leader, key, boottime_ms());
            }
        }
        thread::sleep(INTERVAL);
    }
}

struct Member {
    pid: u32,
    group: i32,
    resident_kib: u64,
}

impl Member {
    /// Each page shared by n processes counts one n-th.
    fn proportional_kib(&self) -> u64 {
        fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid))
            .ok()
            .and_then(|rollup| proportional(&rollup))
            .unwrap_or(self.resident_kib)
    }
}

/// Every process that can be seen.
fn members() -> Vec<Member> {
    let page_kib = rustix::param::page_size() as u64 / 1024;
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let (group, pages) = group_and_pages(&fs::read_to_string(entry.path().join("stat")).ok()?)?;
            Some(Member { pid, group, resident_kib: pages * page_kib })
        })
        .collect()
}

/// From proc_pid_stat(5): fields 5 and 24. The second field, a name in brackets, may contain anything.
fn group_and_pages(stat: &str) -> Option<(i32, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let group = fields.nth(2)?.parse().ok()?;
    Some((group, fields.nth(18)?.parse().ok()?))
}

fn proportional(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_name_with_brackets_and_blanks_does_not_confuse() {
        let stat = "77 (a) b) R 1 75 3 0 -1 4194304 8 9 10 11 12 13 14 15 16 17 18 19 20 21 4321 22";
        assert_eq!(group_and_pages(stat), Some((75, 4321)));
    }

    #[test]
    fn this_process_is_seen_with_its_memory() {
        let own = members().into_iter().find(|member| member.pid == std::process::id()).unwrap();
        assert!(own.resident_kib > 500, "{} KiB", own.resident_kib);
        assert!((100..=own.resident_kib * 2).contains(&own.proportional_kib()));
    }
}
