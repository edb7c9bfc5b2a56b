//! Tasks whose processes come from a fork server: the one that the Python package brings along.

use std::{
    fs,
    time::{Duration, Instant},
};

use worker_keeper::protocol::{End, Exited, SetForkServer, Spawn, Stop, from_agent::Message, from_keeper};

use super::grid::{Keeper, exists, key, spawn, until};

const PROGRAM: &str = r#"
import os, sys
sys.path.insert(0, os.environ["RUNNER"])
import runner
tasks = runner.serve(int(os.environ["MILLGRID_FORK_SERVER"]))
while tasks:
    tasks.become_next()
    exec(os.environ["BODY"])
    sys.stdout.flush()
    if "AGAIN" not in os.environ or not tasks.hand_in():
        os._exit(0)
"#;
const RUNNER: &str = concat!("RUNNER=", env!("CARGO_MANIFEST_DIR"), "/../../python/src/millgrid/_calls");
const PATH: &str = "PATH=/usr/local/bin:/usr/bin:/bin";
/// What a task does whose server is the one above.
const FORKED: &str = "print('forked', os.getppid(), os.getpid(), os.getpgid(0), os.getcwd(), os.environ['A'])";

fn set(keeper: &mut Keeper, program: &'static str) -> u32 {
    let definition = SetForkServer {
        id: "server".into(),
        argv: ["python3", "-u", "-c", program].map(Into::into).into(),
        env: vec![PATH.into(), RUNNER.into()],
        directory: "/".into(),
        log_path: keeper.directory().join("server.log").to_str().unwrap().into(),
    };
    keeper.send([Message::SetForkServer(definition)]);
    keeper.pid()
}

/// An order that either way ends at once, and says how it was started.
fn order(keeper: &Keeper, job: u64, body: &str) -> Spawn {
    let mut order = spawn(keeper, job, &["echo", "loaded"]);
    order.env.push(format!("BODY={body}").into());
    order.fork_server = "server".into();
    order
}

/// One whose process does another task after it, if it comes from the server.
fn order_with_another(keeper: &Keeper, job: u64, group: &'static str, body: &str) -> Spawn {
    let mut order = order(keeper, job, body);
    order.env.push("AGAIN=1".into());
    order.group = group.into();
    order
}

fn stdout(keeper: &Keeper, job: u64) -> String {
    fs::read_to_string(keeper.directory().join(format!("{job}.stdout"))).unwrap_or_default()
}

/// Runs tasks until one comes from the server; its number.
fn warm(keeper: &mut Keeper, first: u64) -> u64 {
    let forked = (first..first + 10_000).find(|job| {
        let order = order(keeper, *job, FORKED);
        keeper.send([Message::Spawn(order)]);
        let exited = keeper.exited(key(*job));
        assert_eq!((exited.end(), exited.exit_code), (End::ExitCode, 0), "{exited:?}");
        stdout(keeper, *job).starts_with("forked")
    });
    forked.unwrap_or_else(|| panic!("{:?}", fs::read_to_string(keeper.directory().join("server.log"))))
}

fn processes_of(keeper: &Keeper) -> Vec<u32> {
    let children = format!("/proc/{0}/task", keeper.pid());
    let threads = fs::read_dir(children).unwrap().flatten();
    let of_thread = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("children")).unwrap_or_default();
    threads
        .flat_map(|thread| of_thread(thread).split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<u32>>())
        .filter(|pid| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"python3")))
        .collect()
}

#[test]
fn a_warm_task_is_a_child_of_the_keeper_with_what_was_ordered() {
    let mut keeper = Keeper::start();
    let parent = set(&mut keeper, PROGRAM);
    let job = warm(&mut keeper, 1);
    let told = stdout(&keeper, job);
    let words: Vec<&str> = told.trim_end().splitn(6, ' ').collect();
    let directory = keeper.directory().canonicalize().unwrap();
    assert_eq!(words[1], parent.to_string());
    assert_eq!(words[2], words[3], "it leads a group");
    assert_eq!((words[4], words[5]), (directory.to_str().unwrap(), "b c"));
}

#[test]
fn a_warm_task_ends_as_any_other() {
    let mut keeper = Keeper::start();
    set(&mut keeper, PROGRAM);
    warm(&mut keeper, 1);
    let mut exited = |job, body| {
        let order = order(&keeper, job, body);
        keeper.send([Message::Spawn(order)]);
        keeper.exited(key(job))
    };
    let (failed, crashed) = (exited(20_001, "os._exit(7)"), exited(20_002, "os.kill(os.getpid(), 11)"));
    assert_eq!((failed.end(), failed.exit_code), (End::ExitCode, 7));
    assert_eq!((crashed.end(), crashed.signal), (End::Signal, libc::SIGSEGV));
}

#[test]
fn a_warm_task_is_stopped_with_all_it_started_and_has_its_time_limit() {
    let mut keeper = Keeper::start();
    set(&mut keeper, PROGRAM);
    warm(&mut keeper, 1);
    let body =
        "import subprocess; print(subprocess.Popen(['sleep', '1000']).pid, flush=True); __import__('time').sleep(1000)";
    let long = order(&keeper, 20_001, body);
    keeper.send([Message::Spawn(long)]);
    let pid = keeper.started(key(20_001));
    until("it has started its child", || stdout(&keeper, 20_001).ends_with('\n'));
    let child: u32 = stdout(&keeper, 20_001).trim().parse().unwrap();
    keeper.send([Message::Stop(Stop { key: Some(key(20_001)), immediately: true })]);
    assert_eq!(keeper.exited(key(20_001)).end(), End::Stopped);
    until("both are gone", || !exists(pid) && !exists(child));

    let limited = Spawn { time_limit_ms: 50, ..order(&keeper, 20_002, "__import__('time').sleep(1000)") };
    keeper.send([Message::Spawn(limited)]);
    assert_eq!(keeper.exited(key(20_002)).end(), End::TimeLimit);
}

#[test]
fn tasks_go_on_when_a_server_or_its_spare_is_killed() {
    let mut keeper = Keeper::start();
    set(&mut keeper, PROGRAM);
    let mut job = warm(&mut keeper, 1) + 1;
    for _ in 0..2 {
        // The first time both are killed, the second time whatever is there then.
        let killed = processes_of(&keeper);
        for pid in killed.iter().map(|pid| rustix::process::Pid::from_raw(*pid as i32).unwrap()) {
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
        until("they are dead", || !killed.iter().any(|pid| exists(*pid)));
        for _ in 0..5 {
            let order = order(&keeper, job, FORKED);
            keeper.send([Message::Spawn(order)]);
            let exited = keeper.exited(key(job));
            assert_eq!((exited.end(), exited.exit_code), (End::ExitCode, 0), "{exited:?}");
            job += 1;
        }
    }
}

#[test]
fn a_server_that_cannot_be_started_or_ends_at_once_costs_no_task() {
    for program in ["raise SystemExit(3)", "import time; time.sleep(1000)"] {
        let mut keeper = Keeper::start();
        set(&mut keeper, program);
        for job in 1..20 {
            let order = order(&keeper, job, FORKED);
            keeper.send([Message::Spawn(order)]);
            assert_eq!(keeper.exited(key(job)).end(), End::ExitCode);
            assert_eq!(stdout(&keeper, job), "loaded\n");
        }
    }
    let mut keeper = Keeper::start();
    let unknown = order(&keeper, 1, FORKED);
    keeper.send([Message::Spawn(unknown)]);
    assert_eq!(keeper.exited(key(1)).end(), End::ExitCode);
}

#[test]
fn a_server_that_hangs_is_killed_when_it_is_given_up() {
    let mut keeper = Keeper::start();
    set(&mut keeper, "import time; time.sleep(1000)");
    let first = order(&keeper, 1, FORKED);
    keeper.send([Message::Spawn(first)]);
    keeper.exited(key(1));
    until("its program is there", || !processes_of(&keeper).is_empty());
    // A keeper knows 16: those that are newer take its place.
    let others = (0..16).map(|number: u8| SetForkServer {
        id: vec![number].into(),
        argv: vec!["true".into()],
        ..SetForkServer::default()
    });
    keeper.send(others.map(Message::SetForkServer));
    until("it is dead", || processes_of(&keeper).is_empty());
}

#[test]
fn a_killed_keeper_takes_its_servers_and_their_tasks_along() {
    let mut keeper = Keeper::start();
    set(&mut keeper, PROGRAM);
    warm(&mut keeper, 1);
    let long = order(&keeper, 20_001, "__import__('time').sleep(1000)");
    keeper.send([Message::Spawn(long)]);
    let pid = keeper.started(key(20_001));
    let others = processes_of(&keeper);
    assert!(others.len() >= 2, "{others:?}");
    keeper.kill();
    until("nothing is left", || !exists(pid) && !others.iter().any(|pid| exists(*pid)));
}

#[test]
fn many_warm_tasks_end_each_once() {
    let mut keeper = Keeper::start();
    set(&mut keeper, PROGRAM);
    warm(&mut keeper, 1);
    let (first, count) = (20_000, 300);
    let orders: Vec<Message> = (first..first + count).map(|job| Message::Spawn(order(&keeper, job, FORKED))).collect();
    keeper.send(orders);
    let mut ended = std::collections::BTreeSet::new();
    while ended.len() < count as usize {
        if let from_keeper::Message::Exited(exited) = keeper.receive() {
            assert_eq!((exited.end(), exited.exit_code), (End::ExitCode, 0), "{exited:?}");
            assert!(ended.insert(exited.key.unwrap().job_id));
        }
    }
    let forked = (first..first + count).filter(|job| stdout(&keeper, *job).starts_with("forked")).count();
    assert!(forked as u64 > count * 9 / 10, "{forked}");
}

/// The process of a task from the server, and its end. Where a fork took too long the task came from elsewhere; then
/// another one, of a number that is higher by 1,000.
fn done_by(keeper: &mut Keeper, job: u64, body: &str) -> (String, Exited) {
    done_in(keeper, job, "mine", body)
}

fn done_in(keeper: &mut Keeper, job: u64, group: &'static str, body: &str) -> (String, Exited) {
    let order = order_with_another(keeper, job, group, &format!("print(os.getpid()); {body}"));
    keeper.send([Message::Spawn(order)]);
    let exited = keeper.exited(key(job));
    let told = stdout(keeper, job).trim().to_owned();
    if told == "loaded" { done_in(keeper, job + 1_000, group, body) } else { (told, exited) }
}

#[test]
fn a_process_that_left_nothing_behind_does_the_next_task() {
    let mut keeper = Keeper::start();
    set(&mut keeper, PROGRAM);
    warm(&mut keeper, 1);
    let (first, exited) = done_by(&mut keeper, 20_001, "os.environ['MINE'] = '1'; os.chdir('/')");
    assert_eq!((exited.end(), exited.exit_code, exited.signal), (End::ExitCode, 0, 0), "{exited:?}");
    assert!(exited.max_memory_kib > 1_000, "{exited:?}");
    assert!(exited.start_time_ms > 0 && exited.end_time_ms >= exited.start_time_ms, "{exited:?}");
    let told = "print(os.getcwd(), 'MINE' in os.environ, end='')";
    let (again, _) = done_by(&mut keeper, 20_002, told);
    let directory = keeper.directory().canonicalize().unwrap();
    assert_eq!(again, format!("{first}\n{} False", directory.to_str().unwrap()));

    // Its end is an end as any other's when it is killed, or fails, and it is told once.
    let (third, killed) = done_by(&mut keeper, 20_003, "sys.stdout.flush(); os.kill(os.getpid(), 9)");
    assert_eq!((&*third, killed.end(), killed.signal), (&*first, End::Signal, libc::SIGKILL));
    let (fourth, _) = done_by(&mut keeper, 20_004, "");
    assert_ne!(fourth, first);
    let (fifth, failed) = done_by(&mut keeper, 20_005, "sys.stdout.flush(); os._exit(7)");
    assert_eq!((&*fifth, failed.end(), failed.exit_code), (&*fourth, End::ExitCode, 7));
}

#[test]
fn tasks_of_different_groups_and_of_none_share_no_process() {
    let mut keeper = Keeper::start();
    set(&mut keeper, PROGRAM);
    warm(&mut keeper, 1);
    let mut processes = std::collections::BTreeSet::new();
    for (job, group) in (20_001..).zip(["mine", "yours", "", "", "mine", "yours"]) {
        let (process, exited) = done_in(&mut keeper, job, group, "");
        assert_eq!((exited.end(), exited.exit_code), (End::ExitCode, 0), "{exited:?}");
        processes.insert(process);
    }
    assert_eq!(processes.len(), 4, "{processes:?}");
}

#[test]
fn the_highest_memory_of_a_task_is_its_own() {
    let mut keeper = Keeper::start();
    set(&mut keeper, PROGRAM);
    warm(&mut keeper, 1);
    let (first, large) = done_by(&mut keeper, 20_001, "data = bytearray(100 << 20); del data");
    let (second, small) = done_by(&mut keeper, 20_002, "");
    assert_eq!(first, second);
    assert!(large.max_memory_kib > 100 << 10 && small.max_memory_kib < 50 << 10, "{large:?} {small:?}");
}

#[test]
fn the_cpu_time_of_a_task_is_its_own() {
    let mut keeper = Keeper::start();
    set(&mut keeper, PROGRAM);
    warm(&mut keeper, 1);
    let busy = "import time; until = time.process_time() + 0.5\nwhile time.process_time() < until: pass";
    let (first, one) = done_by(&mut keeper, 20_001, busy);
    let (second, other) = done_by(&mut keeper, 20_002, "sys.stdout.flush(); os._exit(7)");
    assert_eq!((&*first, other.exit_code), (&*second, 7));
    assert!(one.cpu_ms >= 500 && other.cpu_ms < 250, "{one:?} {other:?}");
}

#[test]
fn a_process_that_claims_to_be_done_and_goes_on_is_ended() {
    let mut keeper = Keeper::start();
    set(&mut keeper, PROGRAM);
    warm(&mut keeper, 1);
    let (first, exited) =
        done_by(&mut keeper, 20_001, "sys.stdout.flush(); tasks.say(0, 1, 1); __import__('time').sleep(1000)");
    assert_eq!((exited.end(), exited.exit_code), (End::ExitCode, 0), "{exited:?}");
    // First it is kept for a while, then it has a while to end.
    let until = Instant::now() + Duration::from_secs(60);
    while exists(first.parse().unwrap()) {
        assert!(Instant::now() < until, "it lives on");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_child_that_returns_from_a_task_is_not_taken_for_it() {
    let mut keeper = Keeper::start();
    set(&mut keeper, PROGRAM);
    warm(&mut keeper, 1);
    let (_, exited) =
        done_by(&mut keeper, 20_001, "pid = os.fork(); pid and (os.waitpid(pid, 0), sys.stdout.flush(), os._exit(9))");
    assert_eq!((exited.end(), exited.exit_code), (End::ExitCode, 9), "{exited:?}");
    let (_, exited) = done_by(&mut keeper, 20_002, "");
    assert_eq!((exited.end(), exited.exit_code), (End::ExitCode, 0), "{exited:?}");
}

#[test]
fn a_task_that_nobody_can_look_at_has_succeeded_nevertheless() {
    let mut keeper = Keeper::start();
    set(&mut keeper, PROGRAM);
    warm(&mut keeper, 1);
    let body = "sys.stdout = type('Mute', (), {'write': print, 'flush': lambda self: None})()";
    let (first, exited) = done_by(&mut keeper, 20_001, &format!("sys.stdout.flush(); {body}"));
    assert_eq!((exited.end(), exited.exit_code), (End::ExitCode, 0), "{exited:?}");
    until("its process is gone", || !exists(first.parse().unwrap()));
}

#[test]
fn what_is_left_behind_ends_with_its_task() {
    let mut keeper = Keeper::start();
    set(&mut keeper, PROGRAM);
    warm(&mut keeper, 1);
    let traces = [
        "import threading, time; threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()",
        "import subprocess; subprocess.Popen(['sleep', '1000'])",
        "import subprocess; subprocess.run(['true'])",
        "kept = open('/dev/null')",
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        "import signal; signal.alarm(1000)",
        "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))",
        "os.umask(0o77)",
        "os.nice(1)",
        "import atexit; atexit.register(print)",
        "import colorsys, atexit; atexit.register(print)",
        "import signal; signal.signal(signal.SIGINT, print)",
        "kept = bytearray(100 << 20)",
        "sys.stdout = sys.stderr",
        "sys.setrecursionlimit(5000)",
    ];
    for (job, body) in (20_001..).zip(traces) {
        let (first, exited) = done_by(&mut keeper, 2 * job, body);
        assert_eq!((exited.end(), exited.exit_code), (End::ExitCode, 0), "{body}: {exited:?}");
        let (second, _) = done_by(&mut keeper, 2 * job + 1, "");
        assert!(!first.is_empty() && first != second, "{body}");
        until("its process is gone", || !exists(first.parse().unwrap()));
    }
}

#[test]
fn a_task_that_is_stopped_when_it_is_over_ends_once() {
    let mut keeper = Keeper::start();
    set(&mut keeper, PROGRAM);
    warm(&mut keeper, 1);
    for job in 20_001..20_101 {
        let order = order_with_another(&keeper, job, "mine", "");
        keeper.send([Message::Spawn(order)]);
        keeper.started(key(job));
        keeper.send([Message::Stop(Stop { key: Some(key(job)), immediately: true })]);
        let exited = keeper.exited(key(job));
        assert!(matches!(exited.end(), End::Stopped | End::ExitCode), "{exited:?}");
        let next = order_with_another(&keeper, job + 1_000, "mine", "");
        keeper.send([Message::Spawn(next)]);
        // Everything that is told until then.
        loop {
            match keeper.receive() {
                from_keeper::Message::Exited(other) if other.key == Some(key(job + 1_000)) => {
                    break assert_eq!((other.end(), other.exit_code), (End::ExitCode, 0), "{other:?}");
                }
                from_keeper::Message::Exited(other) => panic!("it ended again: {other:?}"),
                _ => {}
            }
        }
    }
    // Whatever became of them, the next is not ended in their place.
    let (_, exited) = done_by(&mut keeper, 20_200, "");
    assert_eq!((exited.end(), exited.exit_code), (End::ExitCode, 0), "{exited:?}");
}

#[test]
fn a_process_that_cannot_become_its_task_says_why_as_any_other() {
    let mut keeper = Keeper::start();
    set(&mut keeper, PROGRAM);
    let missing = || "/no/such/place".to_owned();
    for (job, forked) in [(20_001, false), (20_002, true)] {
        if forked {
            warm(&mut keeper, 1);
        }
        let nowhere = Spawn { directory: missing(), ..order(&keeper, job, "") };
        keeper.send([Message::Spawn(nowhere)]);
        let exited = keeper.exited(key(job));
        assert_eq!((exited.end(), exited.exit_code), (End::CommandNotExecutable, 0), "{exited:?}");
        assert!(exited.detail.contains("cannot change to directory `/no/such/place`"), "{exited:?}");
        let mute = Spawn { stdout_path: missing(), ..order(&keeper, job + 10, "") };
        keeper.send([Message::Spawn(mute)]);
        let exited = keeper.exited(key(job + 10));
        assert_eq!((exited.end(), exited.exit_code), (End::NotStarted, 0), "{exited:?}");
        assert!(exited.detail.contains("Stdout"), "{exited:?}");
    }
}

#[test]
fn a_task_whose_process_is_killed_before_it_begins_did_not_start() {
    let mut keeper = Keeper::start();
    set(&mut keeper, PROGRAM);
    warm(&mut keeper, 1);
    until("a process waits", || processes_of(&keeper).len() >= 2);
    let signal = |keeper: &Keeper, signal| {
        for pid in processes_of(keeper).iter().map(|pid| rustix::process::Pid::from_raw(*pid as i32).unwrap()) {
            rustix::process::kill_process(pid, signal).unwrap();
        }
    };
    signal(&keeper, rustix::process::Signal::STOP);
    let order = order(&keeper, 20_001, FORKED);
    keeper.send([Message::Spawn(order)]);
    keeper.started(key(20_001));
    signal(&keeper, rustix::process::Signal::KILL);
    let exited = keeper.exited(key(20_001));
    assert_eq!((exited.end(), exited.signal), (End::NotStarted, 0), "{exited:?}");
}

#[test]
fn nonsense_on_its_stream_is_no_end() {
    let mut keeper = Keeper::start();
    set(&mut keeper, PROGRAM);
    warm(&mut keeper, 1);
    let body =
        "os.write(tasks.stream.fileno(), b'done'); sys.stdout.flush(); __import__('time').sleep(0.2); os._exit(5)";
    let (_, exited) = done_by(&mut keeper, 20_001, body);
    assert_eq!((exited.end(), exited.exit_code), (End::ExitCode, 5), "{exited:?}");
}

#[test]
fn many_short_tasks_share_a_few_processes() {
    let mut keeper = Keeper::start();
    set(&mut keeper, PROGRAM);
    warm(&mut keeper, 1);
    let (first, count) = (20_000, 300);
    let body = "print(os.getpid())";
    // Two at a time, each started by the end of one before.
    let orders: Vec<Message> = (first..first + count)
        .map(|job| {
            let after = (job >= first + 2).then(|| key(job - 2));
            Message::Spawn(Spawn { after, ..order_with_another(&keeper, job, "mine", body) })
        })
        .collect();
    keeper.send(orders);
    let mut ended = std::collections::BTreeSet::new();
    while ended.len() < count as usize {
        if let from_keeper::Message::Exited(exited) = keeper.receive() {
            assert_eq!((exited.end(), exited.exit_code), (End::ExitCode, 0), "{exited:?}");
            assert!(ended.insert(exited.key.unwrap().job_id));
        }
    }
    let processes: std::collections::BTreeSet<String> =
        (first..first + count).map(|job| stdout(&keeper, job)).collect();
    assert!(processes.len() < 100, "{}", processes.len());
    until("there are no more than it keeps", || processes_of(&keeper).len() <= 10);
}
