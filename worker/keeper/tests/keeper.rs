//! The keeper as agents see it: real processes, through the socket.
#![allow(clippy::unwrap_used)]

mod ahead;
mod bench;
mod fork_servers;
mod grid;

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use grid::{Keeper, exists, key, spawn, until};
use worker_keeper::{
    Client, boottime_ms,
    protocol::{End, Exited, Forget, SetTimeLimit, Spawn, Stop, from_agent::Message, from_keeper},
};

/// Runs `argv` to its end and compares it.
#[track_caller]
fn check(argv: &[&str], end: End, code: i32) -> Exited {
    let mut keeper = Keeper::start();
    let spawn = spawn(&keeper, 1, argv);
    check_spawn(&mut keeper, spawn, end, code)
}

#[track_caller]
fn check_spawn(keeper: &mut Keeper, spawn: Spawn, end: End, code: i32) -> Exited {
    let key = spawn.key.unwrap();
    keeper.send([Message::Spawn(spawn)]);
    let exited = keeper.exited(key);
    let found = if exited.signal > 0 { exited.signal } else { exited.exit_code };
    assert_eq!((exited.end(), found), (end, code), "{exited:?}");
    exited
}

#[test]
fn an_exit_code_is_reported_with_its_times() {
    let exited = check(&["sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; exit 7"], End::ExitCode, 7);
    assert!(exited.cpu_ms > 0 && exited.max_memory_kib > 100, "{exited:?}");
    assert!(exited.end_time_ms >= exited.start_time_ms && exited.start_time_ms > 0);
    check(&["true"], End::ExitCode, 0);
}

#[test]
fn a_signal_is_reported() {
    check(&["sh", "-c", "kill -SEGV $$"], End::Signal, libc::SIGSEGV);
}

#[test]
fn a_missing_command_is_not_found() {
    let exited = check(&["no-such-program"], End::CommandNotFound, 0);
    assert_eq!(exited.detail, "`no-such-program` was not found");
    check(&["./no-such-program"], End::CommandNotFound, 0);
    check(&["/etc/passwd/x"], End::CommandNotFound, 0);
    check(&[""], End::CommandNotFound, 0);
}

#[test]
fn what_may_not_be_executed_is_not_executable() {
    check(&["/etc/passwd"], End::CommandNotExecutable, 0);
    check(&["/etc"], End::CommandNotExecutable, 0);
    let mut keeper = Keeper::start();
    let binary = keeper.directory().join("garbage");
    executable(&binary, b"\x01\x02\x00\x03\n");
    let spawn = spawn(&keeper, 1, &[binary.to_str().unwrap()]);
    check_spawn(&mut keeper, spawn, End::CommandNotExecutable, 0);
}

#[test]
fn a_directory_that_cannot_be_entered_is_named() {
    let mut keeper = Keeper::start();
    let spawn = Spawn { directory: "/no/such".into(), ..spawn(&keeper, 1, &["true"]) };
    let exited = check_spawn(&mut keeper, spawn, End::CommandNotExecutable, 0);
    assert!(exited.detail.contains("`/no/such`"), "{exited:?}");
}

#[test]
fn a_text_without_an_interpreter_line_is_a_script() {
    let mut keeper = Keeper::start();
    let script = keeper.directory().join("script");
    executable(&script, b"echo \"$0 $1\"; exit 5\n");
    let spawn = spawn(&keeper, 1, &[script.to_str().unwrap(), "one"]);
    check_spawn(&mut keeper, spawn.clone(), End::ExitCode, 5);
    assert_eq!(fs::read_to_string(&spawn.stdout_path).unwrap(), format!("{} one\n", script.display()));
}

fn executable(path: &Path, content: &[u8]) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_process_finds_what_it_was_given_and_nothing_else() {
    let mut keeper = Keeper::start();
    let script = "pwd; env | grep -v -e ^PWD= -e ^SHLVL= -e ^_= -e ^OLDPWD= | sort; cat; ls /proc/$$/fd; \
                  grep -e ^SigBlk /proc/$$/status; echo err >&2";
    let spawn = spawn(&keeper, 1, &["/bin/sh", "-c", script]);
    check_spawn(&mut keeper, spawn.clone(), End::ExitCode, 0);
    let expected =
        format!("{}\nA=b c\nPATH=/usr/local/bin:/usr/bin:/bin\n0\n1\n2\nSigBlk:\t0000000000000000\n", spawn.directory);
    assert_eq!(fs::read_to_string(&spawn.stdout_path).unwrap(), expected);
    assert_eq!(fs::read_to_string(&spawn.stderr_path).unwrap(), "err\n");
}

#[test]
fn no_signal_stays_ignored_in_a_process() {
    let mut keeper = Keeper::start();
    let spawn = spawn(&keeper, 1, &["grep", "^SigIgn", "/proc/self/status"]);
    check_spawn(&mut keeper, spawn.clone(), End::ExitCode, 0);
    let status = fs::read_to_string(&spawn.stdout_path).unwrap();
    let ignored = u64::from_str_radix(status.trim_start_matches("SigIgn:").trim(), 16).unwrap();
    // 32 and 33 belong to the C library, which lets nobody touch them.
    assert_eq!(ignored & !(0b11 << 31), 0, "{status}");
}

#[test]
fn the_time_limit_is_a_sigterm_and_then_a_sigkill() {
    let mut keeper = Keeper::start();
    let gentle = Spawn { time_limit_ms: 100, grace_ms: 60_000, ..spawn(&keeper, 1, &["sleep", "100"]) };
    let exited = check_spawn(&mut keeper, gentle, End::TimeLimit, libc::SIGTERM);
    assert!((100..5_000).contains(&exited.run_ms), "{exited:?}");

    let script = "trap '' TERM; echo ready; while :; do sleep 0.01; done";
    let stubborn = Spawn { time_limit_ms: 300, grace_ms: 200, ..spawn(&keeper, 2, &["sh", "-c", script]) };
    let exited = check_spawn(&mut keeper, stubborn, End::TimeLimit, libc::SIGKILL);
    assert!((500..5_000).contains(&exited.run_ms), "{exited:?}");
}

#[test]
fn a_running_process_is_given_another_time_limit() {
    let mut keeper = Keeper::start();
    let limit = |job, time_limit_ms| Message::SetTimeLimit(SetTimeLimit { key: Some(key(job)), time_limit_ms });
    let late = ["sh", "-c", "sleep 1.5; exit 5"];
    for (job, argv, time_limit_ms) in [(1, &late[..], 1_000), (2, &late, 1_000), (3, &["sleep", "1000"], 0)] {
        let spawn = Spawn { time_limit_ms, ..spawn(&keeper, job, argv) };
        keeper.send([Message::Spawn(spawn)]);
        keeper.started(key(job));
    }
    // Extended, lifted, and shortened to what is over; of a process that isn't there.
    keeper.send([limit(1, 60_000), limit(2, 0), limit(3, 1), limit(4, 1)]);
    let shortened = keeper.exited(key(3));
    assert_eq!((shortened.end(), shortened.signal), (End::TimeLimit, libc::SIGTERM), "{shortened:?}");
    assert!(shortened.run_ms < 5_000, "{shortened:?}");
    let mut codes = [0; 2];
    for job in [1, 2] {
        // They end together, in any order.
        let from_keeper::Message::Exited(exited) = keeper.receive() else { panic!("expected the end of {job}") };
        codes[exited.key.unwrap().job_id as usize - 1] = exited.exit_code;
    }
    assert_eq!(codes, [5, 5]);
}

#[test]
fn a_new_time_limit_holds_when_no_agent_is_there_and_changes_no_grace() {
    let mut keeper = Keeper::start();
    let pid = keeper.spawn_sleeping(1);
    let limit = |job, time_limit_ms| Message::SetTimeLimit(SetTimeLimit { key: Some(key(job)), time_limit_ms });
    keeper.send([limit(1, 700)]);
    keeper.settle();
    keeper.disconnect();
    until("the process is dead", || !exists(pid));
    let exited = keeper.connect_and_find_ended(key(1));
    assert_eq!(exited.end(), End::TimeLimit);
    assert!((700..5_000).contains(&exited.run_ms), "{exited:?}");

    let script = "trap '' TERM; echo ready; while :; do sleep 0.01; done";
    let stubborn = Spawn { grace_ms: 200, ..spawn(&keeper, 2, &["sh", "-c", script]) };
    keeper.send([Message::Spawn(stubborn.clone())]);
    until("the trap is set", || fs::read_to_string(&stubborn.stdout_path).is_ok_and(|text| text == "ready\n"));
    keeper.send([Message::Stop(Stop { key: stubborn.key, immediately: false }), limit(2, 0)]);
    let exited = keeper.exited(key(2));
    assert_eq!((exited.end(), exited.signal), (End::Stopped, libc::SIGKILL), "{exited:?}");
}

#[test]
fn a_stopped_process_gets_its_grace_unless_it_is_to_be_immediate() {
    let mut keeper = Keeper::start();
    let script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done";
    for (job, immediately, end) in [(1, false, 9), (2, true, libc::SIGKILL)] {
        let spawn = Spawn { grace_ms: 60_000, ..spawn(&keeper, job, &["sh", "-c", script]) };
        keeper.send([Message::Spawn(spawn.clone())]);
        until("the trap is set", || fs::read_to_string(&spawn.stdout_path).is_ok_and(|text| text == "ready\n"));
        keeper.send([Message::Stop(Stop { key: spawn.key, immediately })]);
        let exited = keeper.exited(key(job));
        assert_eq!((exited.end(), exited.exit_code + exited.signal), (End::Stopped, end), "{exited:?}");
    }
}

#[test]
fn what_a_process_leaves_in_its_group_dies_with_it() {
    let mut keeper = Keeper::start();
    let spawn = spawn(&keeper, 1, &["sh", "-c", "sleep 100 & echo $!; exit 3"]);
    check_spawn(&mut keeper, spawn.clone(), End::ExitCode, 3);
    let child: u32 = fs::read_to_string(&spawn.stdout_path).unwrap().trim().parse().unwrap();
    until("the child is dead", || !exists(child));
}

#[test]
fn a_process_that_takes_more_memory_than_it_asked_for_is_out_of_memory() {
    let mut keeper = Keeper::start();
    // 64 MiB in the shell's own variable; a read-only limit of 16.
    let script = "x=$(head -c 67108864 /dev/zero | tr '\\0' x); sleep 100";
    let spawn = Spawn { memory_mib: 16, ..spawn(&keeper, 1, &["sh", "-c", script]) };
    check_spawn(&mut keeper, spawn, End::OutOfMemory, libc::SIGKILL);
}

#[test]
fn the_deadline_kills_all_even_when_no_agent_is_there() {
    let mut keeper = Keeper::start();
    let pid = keeper.spawn_sleeping(1);
    keeper.set_session(1, boottime_ms() + 200);
    keeper.disconnect();
    until("the process is dead", || !exists(pid));
    let exited = keeper.connect_and_find_ended(key(1));
    assert_eq!((exited.end(), exited.signal), (End::Expired, libc::SIGKILL));

    // The session is void: nothing starts in it any more.
    let late = spawn(&keeper, 2, &["true"]);
    check_spawn(&mut keeper, late, End::NotStarted, 0);
}

#[test]
fn the_deadline_is_told_to_an_agent_that_is_there() {
    let mut keeper = Keeper::start();
    keeper.spawn_sleeping(1);
    keeper.set_session(1, boottime_ms() + 50);
    assert!(matches!(keeper.receive(), from_keeper::Message::Expired(_)));
    assert_eq!(keeper.exited(key(1)).end(), End::Expired);
}

#[test]
fn another_session_ends_the_processes_of_the_one_before() {
    let mut keeper = Keeper::start();
    let pid = keeper.spawn_sleeping(1);
    keeper.set_session(1, boottime_ms() + 60_000);
    keeper.set_session(2, boottime_ms() + 60_000);
    assert_eq!(keeper.exited(key(1)).end(), End::Expired);
    assert!(!exists(pid));
    let old = spawn(&keeper, 2, &["true"]);
    let exited = check_spawn(&mut keeper, old, End::NotStarted, 0);
    assert_eq!(exited.detail, "not of the present session");
}

#[test]
fn a_returning_agent_finds_everything_until_it_forgets() {
    let mut keeper = Keeper::start();
    let pid = keeper.spawn_sleeping(1);
    let ended = Spawn { memo: "memo".into(), ..spawn(&keeper, 2, &["sh", "-c", "exit 4"]) };
    check_spawn(&mut keeper, ended, End::ExitCode, 4);
    keeper.disconnect();

    let mut welcome = keeper.connect();
    assert_eq!((welcome.session, welcome.connection), (1, 1));
    welcome.processes.sort_by_key(|process| process.key);
    let [running, ended] = welcome.processes.try_into().unwrap();
    assert_eq!((running.key, running.pid, running.exited), (Some(key(1)), pid, None));
    assert_eq!((ended.key, &ended.memo[..]), (Some(key(2)), &b"memo"[..]));
    assert_eq!(ended.exited.unwrap().exit_code, 4);

    // Only what has ended can be forgotten.
    keeper.send([Message::Forget(Forget { keys: vec![key(1), key(2), key(3)] })]);
    keeper.settle();
    let welcome = keeper.connect();
    assert_eq!(welcome.processes.iter().map(|process| process.key.unwrap()).collect::<Vec<_>>(), [key(1)]);
    assert!(exists(pid));
}

#[test]
fn a_repeated_order_starts_nothing_and_is_answered_again() {
    let mut keeper = Keeper::start();
    let spawn = spawn(&keeper, 1, &["sh", "-c", "echo once"]);
    check_spawn(&mut keeper, spawn.clone(), End::ExitCode, 0);
    check_spawn(&mut keeper, spawn.clone(), End::ExitCode, 0);
    assert_eq!(fs::read_to_string(&spawn.stdout_path).unwrap(), "once\n");
}

#[test]
fn the_newest_connection_wins() {
    let mut keeper = Keeper::start();
    let (mut newer, _) = Client::connect(keeper.directory()).unwrap();
    let closed = keeper.client().receive(Duration::from_secs(10)).unwrap_err();
    assert_eq!(closed.kind(), std::io::ErrorKind::UnexpectedEof);
    newer.send([Message::Spawn(spawn(&keeper, 1, &["true"]))]).unwrap();
    assert!(newer.receive(Duration::from_secs(10)).unwrap().is_some());
}

#[test]
fn garbage_costs_its_sender_the_connection_and_nobody_else_anything() {
    use std::io::{Read, Write};
    let mut keeper = Keeper::start();
    let pid = keeper.spawn_sleeping(1);
    let mut garbage = worker_keeper::connect(keeper.directory()).unwrap();
    garbage.write_all(&[0xff; 64]).unwrap();
    // The welcome, and then the end of the stream.
    let _ = garbage.read_to_end(&mut Vec::new());
    assert_eq!(keeper.connect().processes[0].pid, pid);
}

#[test]
fn a_killed_keeper_takes_its_tasks_and_their_children_along() {
    let mut keeper = Keeper::start();
    let spawn = spawn(&keeper, 1, &["sh", "-c", "sleep 100 & echo $!; wait"]);
    keeper.send([Message::Spawn(spawn.clone())]);
    let task = keeper.started(key(1));
    until("the child is there", || fs::read_to_string(&spawn.stdout_path).is_ok_and(|text| text.ends_with('\n')));
    let child: u32 = fs::read_to_string(&spawn.stdout_path).unwrap().trim().parse().unwrap();
    keeper.kill();
    // A successor in the same directory has the lock only when nothing of the old one is left.
    keeper.restart();
    assert!(!exists(task) && !exists(child));
    assert_eq!(keeper.connect().processes, []);
}

#[test]
fn sigterm_and_shutdown_leave_no_process_and_no_socket() {
    for by_signal in [true, false] {
        let mut keeper = Keeper::start();
        let pid = keeper.spawn_sleeping(1);
        if by_signal {
            keeper.terminate();
        } else {
            keeper.send([Message::Shutdown(Default::default())]);
        }
        assert_eq!(keeper.wait(), Some(0));
        assert!(!exists(pid));
        assert!(!keeper.directory().join("keeper.sock").exists() && !keeper.directory().join("keeper.pid").exists());
    }
}

#[test]
fn there_is_one_keeper_per_directory() {
    let keeper = Keeper::start();
    let failure = worker_keeper::run(keeper.directory()).unwrap_err();
    assert!(matches!(failure, worker_keeper::Failure::AlreadyRunning { .. }), "{failure}");
}

#[test]
fn a_hangup_does_not_reach_the_tasks_or_end_the_keeper() {
    let mut keeper = Keeper::start();
    let pid = keeper.spawn_sleeping(1);
    keeper.signal(libc::SIGHUP);
    let next = spawn(&keeper, 2, &["true"]);
    check_spawn(&mut keeper, next, End::ExitCode, 0);
    assert!(exists(pid));
}

#[test]
fn a_thousand_quick_processes_end_each_once() {
    let mut keeper = Keeper::start();
    keeper.send((1..=1000).map(|job| Message::Spawn(spawn(&keeper, job, &["/bin/true"]))).collect::<Vec<_>>());
    let mut ended = std::collections::BTreeSet::new();
    let start = Instant::now();
    while ended.len() < 1000 {
        assert!(start.elapsed() < Duration::from_secs(60), "{} ended", ended.len());
        if let from_keeper::Message::Exited(exited) = keeper.receive() {
            assert_eq!((exited.end(), exited.exit_code), (End::ExitCode, 0), "{exited:?}");
            assert!(ended.insert(exited.key.unwrap()), "twice: {exited:?}");
        }
    }
    let status = fs::read_to_string(format!("/proc/{}/status", keeper.pid())).unwrap();
    let resident = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    println!("keeper after 1000 unforgotten processes: {resident}");
}

/// Not a test: the process that [`Keeper::start`] makes of this program.
#[test]
fn keeper_process() {
    if let Some(directory) = std::env::var_os("KEEPER_DIRECTORY") {
        worker_keeper::run(Path::new(&directory)).unwrap();
        std::process::exit(0);
    }
}

/// The command that becomes a keeper.
fn keeper_command(directory: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "keeper_process", "--nocapture"]).env("KEEPER_DIRECTORY", directory);
    // As the agent starts it: a group of its own.
    command.process_group(0);
    command
}
