//! Tasks whose processes come from a fork server: the one that the Python package brings along.

use std::fs;

use worker_keeper::protocol::{End, SetForkServer, Spawn, Stop, from_agent::Message, from_keeper};

use super::grid::{Keeper, exists, key, spawn, until};

const PROGRAM: &str = r#"
import os, sys
sys.path.insert(0, os.environ["RUNNER"])
import runner
if runner.serve(int(os.environ["MILLGRID_FORK_SERVER"])) is not None:
    exec(os.environ["BODY"])
    sys.stdout.flush()
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
