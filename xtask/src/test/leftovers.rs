//! Processes that a test run left behind.

use std::{fs, path::Path};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

/// Kills every process that names a path below `root` in its command line or environment, or works there; each is
/// described.
pub fn kill(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut killed = Vec::new();
    for entry in fs::read_dir("/proc").context("can't list the processes")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // A process that ended meanwhile has nothing to read.
        let Ok(command) = fs::read(entry.path().join("cmdline")) else { continue };
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        let root_text = root.to_string_lossy();
        let named = command.contains(&*root_text) || String::from_utf8_lossy(&environment).contains(&*root_text);
        let works_there = fs::read_link(entry.path().join("cwd")).is_ok_and(|folder| folder.starts_with(root));
        if !works_there && !named {
            continue;
        }
        if let Some(pid) = Pid::from_raw(pid).filter(|pid| *pid != rustix::process::getpid()) {
            killed.push(format!("{} {command}", pid.as_raw_nonzero()));
            // It may have ended by itself by now.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    Ok(killed)
}
