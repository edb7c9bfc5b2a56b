//! The processes of a grid, as the system sees them.

use std::{fs, path::Path};

use rustix::process::{Pid, Signal, kill_process};

/// Every process that names a path below `folder` in its command line or its environment, or works there.
/// The caller itself and processes that have ended but were not waited for are left out.
pub fn processes_of(folder: &Path) -> Vec<String> {
    find(folder).into_iter().map(|(pid, command)| format!("{pid} {command}")).collect()
}

/// Kills all of them, once each; how many there were.
pub fn kill_processes_of(folder: &Path) -> usize {
    let found = find(folder);
    for (pid, _) in &found {
        if let Some(pid) = i32::try_from(*pid).ok().and_then(Pid::from_raw) {
            // An error means that it ended meanwhile.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    found.len()
}

fn find(folder: &Path) -> Vec<(u32, String)> {
    let folder_text = folder.to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if pid == std::process::id() {
            continue;
        }
        // One that ended meanwhile has nothing to read.
        let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
        let (command, environment) = (read("cmdline"), read("environ"));
        let names = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(&folder_text);
        let works_there = fs::read_link(entry.path().join("cwd")).is_ok_and(|place| place.starts_with(folder));
        if names(&command) || names(&environment) || works_there {
            found.push((pid, String::from_utf8_lossy(&command).replace('\0', " ")));
        }
    }
    found
}
