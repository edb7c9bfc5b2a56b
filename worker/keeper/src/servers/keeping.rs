//! The thread that starts servers and has them make spares.

use std::{
    io,
    os::{fd::AsRawFd, unix::net::UnixStream},
    sync::atomic::AtomicI32,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::OwnedFd,
};

use super::{Deed, VARIABLE};
use crate::{
    clock::boottime_ms,
    prepare::Prepared,
    protocol::{SetForkServer, Spawn},
    shared::Shared,
    signals,
    spawn::{self, Stack},
};

/// Works for as long as the keeper lives: servers die with this very thread.
pub(crate) fn run(shared: &Shared, mut stack: Stack) -> ! {
    signals::block_all();
    loop {
        let deeds = shared.lock().servers.deeds(boottime_ms());
        for deed in deeds {
            match deed {
                Deed::Start(id) => {
                    let (definition, number) = {
                        let mut table = shared.lock();
                        (table.servers.definition(&id), table.begin_making())
                    };
                    let started = definition.ok_or_else(|| io::ErrorKind::NotFound.into());
                    let started = started.and_then(|definition| start(definition, &mut stack));
                    let mut table = shared.lock();
                    table.servers.started(&id, started, boottime_ms());
                    table.end_making(number);
                    drop(table);
                    shared.entered.notify_all();
                }
                Deed::Fork(id) => shared.lock().servers.fork(&id, boottime_ms()),
            }
        }
        let (coming, due) = {
            let table = shared.lock();
            (table.servers.coming(), table.servers.next_due_ms())
        };
        let ready = wait(shared, &coming, due);
        let mut table = shared.lock();
        for (number, (id, _)) in coming.iter().enumerate() {
            if ready.contains(&number) {
                table.servers.came(id, boottime_ms());
            }
        }
        drop(table);
        shared.forked.notify_all();
    }
}

/// Waits for a word of a spare, for [`Shared::wake_servers`], or until something is due; which of the streams spoke.
fn wait(shared: &Shared, coming: &[(bytes::Bytes, OwnedFd)], due_ms: Option<u64>) -> Vec<usize> {
    let served = shared.servers_fd();
    let mut files: Vec<PollFd<'_>> = vec![PollFd::new(&served, PollFlags::IN)];
    files.extend(coming.iter().map(|(_, stream)| PollFd::new(stream, PollFlags::IN)));
    let timeout = due_ms.map(|due| Duration::from_millis(due.saturating_sub(boottime_ms()) + 1));
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    // An interruption is as good as a wake.
    let _ = poll(&mut files, timeout.as_ref());
    let spoke = |file: &PollFd<'_>| !file.revents().is_empty();
    let ready = files[1..].iter().enumerate().filter(|(_, file)| spoke(file)).map(|(number, _)| number).collect();
    let woken = spoke(&files[0]);
    drop(files);
    if woken {
        shared.servers_woken();
    }
    ready
}

/// Starts a server's program; its process, and our end of its socket.
fn start(definition: SetForkServer, stack: &mut Stack) -> io::Result<(i32, UnixStream)> {
    let SetForkServer { argv, mut env, directory, log_path, .. } = definition;
    env.push(format!("{VARIABLE}={}", super::CONTROL).into());
    let (stdout_path, stderr_path) = (log_path.clone(), log_path);
    let spawn = Spawn { argv, env, directory, stdout_path, stderr_path, ..Spawn::default() };
    let prepared = Prepared::new(&spawn).map_err(|(_, detail)| io::Error::other(detail))?;
    let (ours, theirs) = UnixStream::pair()?;
    // Not on the board: it ends with the keeper's thread, and by the end of its socket.
    let spawned = spawn::spawn(&prepared, &AtomicI32::new(0), None, Some(theirs.as_raw_fd()), stack)?;
    Ok((spawned.pid, ours))
}
