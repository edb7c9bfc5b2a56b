//! How running tasks end: their process does, or says that it has nothing left of them.

use super::{Phase, Process, Table};
use crate::{
    cgroup::Slot,
    clock::wall_ms,
    process::{self, Reaped},
    protocol::{End, Exited, Key},
    servers::Word,
};

impl Table {
    /// A main process has ended, and has not been reaped: kills what it left, reaps it and tells the agent.
    ///
    /// False when it was no task's.
    pub fn reap(&mut self, pid: i32, now_ms: u64) -> bool {
        process::signal_group(pid, libc::SIGKILL);
        let Some(key) = self.pids.remove(&pid) else {
            let _ = process::reap(pid);
            self.servers.reaped(pid, now_ms);
            return false;
        };
        // It may end before anybody has heard why it could not become the task's.
        if let Word::Unable(end, detail) = self.servers.hear(pid)
            && let Some(Process { signal: 0, phase: Phase::Running { failure, .. }, .. }) = self.processes.get_mut(&key)
        {
            *failure = Some((end, detail));
        }
        let spent_ms = self.servers.gone(pid);
        // Only an id that is no child of ours could fail, and `pids` has none of these.
        let unknown = Reaped { exit_code: 0, signal: libc::SIGKILL, cpu_ms: 0, max_memory_kib: 0 };
        let used = || {
            let of_all = process::reap(pid).unwrap_or(unknown);
            Reaped { cpu_ms: of_all.cpu_ms.saturating_sub(spent_ms), ..of_all }
        };
        self.ended(key, used, now_ms);
        true
    }

    /// There is something to read on the stream of a forked task. Where it says that it has succeeded and left nothing
    /// behind, that is its end, and its process is a spare again.
    pub fn hear(&mut self, pid: i32, now_ms: u64) {
        let word = self.servers.hear(pid);
        let Some((key, process)) = self.pids.get(&pid).and_then(|key| Some((*key, self.processes.get_mut(key)?)))
        else {
            return self.servers.let_go(pid);
        };
        let Phase::Running { failure, slot, .. } = &mut process.phase else { return self.servers.let_go(pid) };
        match word {
            // Limits by cgroup are for all that a process ever touched. And one that was signalled may still end of that.
            Word::Over(used)
                if (process.signal, process.reason) == (0, None)
                    && slot.is_none()
                    && self.servers.take_back(pid, used, now_ms) =>
            {
                self.pids.remove(&pid);
                return self.ended(key, || used, now_ms);
            }
            Word::Unable(end, detail) if process.signal == 0 => *failure = Some((end, detail)),
            Word::Over(_) | Word::Unable(..) | Word::Nothing => {}
        }
        // Then it ends, and that is the task's end.
        self.servers.let_go(pid);
    }

    /// A running task is over. What it has used is asked for when the board no longer has its process, whose id may
    /// be anyone's from then on.
    fn ended(&mut self, key: Key, used: impl FnOnce() -> Reaped, now_ms: u64) {
        let Some(process) = self.processes.get_mut(&key) else { return };
        let Phase::Running { failure, slot, .. } = std::mem::replace(&mut process.phase, Phase::Starting) else {
            return;
        };
        let (place, timer) = (process.place, process.timer.take());
        let (start_time_ms, run_ms) = (process.start_time_ms, now_ms.saturating_sub(process.start_boot_ms));
        let mut reason = process.reason;
        if slot.is_some_and(Slot::release_and_was_out_of_memory) {
            reason = Some(reason.unwrap_or(End::OutOfMemory));
        }
        if let Some(due) = timer {
            self.timers.remove(&(due, key));
        }
        self.free_place(place);
        let used = used();
        let exited = match failure {
            Some((end, detail)) => Exited { end: end.into(), detail, ..Exited::default() },
            None => Exited {
                key: Some(key),
                end: reason.unwrap_or(if used.signal == 0 { End::ExitCode } else { End::Signal }).into(),
                exit_code: used.exit_code,
                signal: used.signal,
                start_time_ms,
                end_time_ms: wall_ms(),
                run_ms,
                cpu_ms: used.cpu_ms,
                max_memory_kib: used.max_memory_kib,
                detail: String::new(),
            },
        };
        self.finish(key, exited);
    }
}
