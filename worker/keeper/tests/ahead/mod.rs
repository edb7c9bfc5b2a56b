//! Orders ahead, as agents see them: a process that waits for the end of another.

use std::{collections::BTreeMap, fs};

use worker_keeper::{
    boottime_ms,
    protocol::{End, Exited, SetTimeLimit, Spawn, Stop, Withdraw, from_agent::Message, from_keeper},
};

use crate::grid::{Keeper, exists, key, spawn, until};

fn after(keeper: &Keeper, job: u64, argv: &[&str], process: u64) -> Message {
    Message::Spawn(Spawn { after: Some(key(process)), ..spawn(keeper, job, argv) })
}

fn stop(job: u64) -> Message {
    Message::Stop(Stop { key: Some(key(job)), immediately: true })
}

/// What the keeper says next: `+1` is the start of job 1, `-1` its end.
fn heard(keeper: &mut Keeper) -> String {
    match keeper.receive() {
        from_keeper::Message::Started(started) => format!("+{}", started.key.unwrap().job_id),
        from_keeper::Message::Exited(exited) => format!("-{}", exited.key.unwrap().job_id),
        from_keeper::Message::Expired(_) => "expired".into(),
        from_keeper::Message::Welcome(_) => "welcome".into(),
    }
}

/// The ends that the keeper tells next, of two jobs in any order.
fn ends(keeper: &mut Keeper) -> BTreeMap<u64, Exited> {
    let mut end = || match keeper.receive() {
        from_keeper::Message::Exited(exited) => (exited.key.unwrap().job_id, exited),
        other => panic!("{other:?}"),
    };
    BTreeMap::from([end(), end()])
}

#[test]
fn a_process_starts_when_the_one_before_is_reaped_however_it_ended() {
    let mut keeper = Keeper::start();
    let pid = keeper.spawn_sleeping(1);
    // It fails if the one before is there, even as a zombie.
    let alone = ["sh", "-c", &format!("test ! -e /proc/{pid}")];
    let next = after(&keeper, 2, &alone, 1);
    keeper.send([next, stop(1)]);
    assert_eq!(keeper.exited(key(1)).end(), End::Stopped);
    let exited = keeper.exited(key(2));
    assert_eq!((exited.end(), exited.exit_code), (End::ExitCode, 0), "{exited:?}");
}

#[test]
fn a_thousand_processes_run_one_after_the_other() {
    let mut keeper = Keeper::start();
    let first = spawn(&keeper, 1, &["/bin/true"]);
    let order = |job| {
        let before = (job > 1).then(|| key(job - 1));
        Message::Spawn(Spawn { key: Some(key(job)), after: before, ..first.clone() })
    };
    keeper.send((1..=1000).map(order).collect::<Vec<_>>());
    for job in 1..=1000 {
        assert_eq!((heard(&mut keeper), heard(&mut keeper)), (format!("+{job}"), format!("-{job}")));
    }
}

#[test]
fn what_has_ended_or_is_not_known_is_not_waited_for() {
    let mut keeper = Keeper::start();
    let one = spawn(&keeper, 1, &["true"]);
    keeper.send([Message::Spawn(one)]);
    keeper.exited(key(1));
    let orders = [after(&keeper, 2, &["true"], 1), after(&keeper, 3, &["true"], 99)];
    keeper.send(orders);
    let mut all: Vec<String> = (0..4).map(|_| heard(&mut keeper)).collect();
    all.sort();
    assert_eq!(all, ["+2", "+3", "-2", "-3"]);
}

#[test]
fn a_repeat_that_waits_for_nothing_starts_it_now() {
    let mut keeper = Keeper::start();
    keeper.spawn_sleeping(1);
    let orders = [after(&keeper, 2, &["sh", "-c", "exit 6"], 1), after(&keeper, 2, &["true"], 1)];
    keeper.send(orders);
    keeper.settle();
    let now = Message::Spawn(Spawn { key: Some(key(2)), session: 1, ..Spawn::default() });
    keeper.send([now]);
    assert_eq!(keeper.exited(key(2)).exit_code, 6, "what was ordered first counts");
    // The first has nobody behind it any more: another may wait for it.
    let next = after(&keeper, 3, &["true"], 1);
    keeper.send([next, stop(1)]);
    assert_eq!([heard(&mut keeper), heard(&mut keeper), heard(&mut keeper)], ["-1", "+3", "-3"]);
}

#[test]
fn what_waits_can_be_withdrawn_and_what_was_begun_cannot() {
    let mut keeper = Keeper::start();
    let pid = keeper.spawn_sleeping(1);
    let withdraw = |job| Message::Withdraw(Withdraw { key: Some(key(job)) });
    let next = after(&keeper, 2, &["true"], 1);
    keeper.send([next, withdraw(2), withdraw(1), withdraw(7)]);
    let exited = keeper.exited(key(2));
    assert_eq!((exited.end(), exited.detail.as_str()), (End::NotStarted, "withdrawn before its turn came"));
    assert!(exists(pid));
    // It isn't kept, and doesn't start when the other ends.
    assert_eq!(keeper.connect().processes.iter().map(|one| one.key.unwrap()).collect::<Vec<_>>(), [key(1)]);
    keeper.send([stop(1)]);
    keeper.settle();
    assert!(!keeper.directory().join("2.stdout").exists());
}

#[test]
fn what_waits_is_stopped_and_expires_as_what_runs() {
    let mut keeper = Keeper::start();
    keeper.spawn_sleeping(1);
    let next = after(&keeper, 2, &["true"], 1);
    keeper.send([next, stop(2)]);
    assert_eq!(keeper.exited(key(2)).end(), End::Stopped);
    let next = after(&keeper, 3, &["true"], 1);
    keeper.send([next]);
    keeper.settle();
    keeper.set_session(1, boottime_ms() + 50);
    assert_eq!(heard(&mut keeper), "expired");
    let ends = ends(&mut keeper);
    assert_eq!((ends[&1].end(), ends[&3].end()), (End::Expired, End::Expired));
    assert_eq!(ends[&3].start_time_ms, 0);
}

#[test]
fn another_session_and_the_end_of_the_keeper_leave_nothing_that_waits() {
    let mut keeper = Keeper::start();
    keeper.spawn_sleeping(1);
    let next = after(&keeper, 2, &["true"], 1);
    keeper.send([next]);
    keeper.set_session(2, boottime_ms() + 60_000);
    let ends = ends(&mut keeper);
    assert_eq!((ends[&1].end(), ends[&2].end()), (End::Expired, End::Expired));
    let first = Spawn { session: 2, ..spawn(&keeper, 3, &["sleep", "1000"]) };
    let next = Spawn { session: 2, after: Some(key(3)), ..spawn(&keeper, 4, &["true"]) };
    keeper.send([Message::Spawn(first), Message::Spawn(next)]);
    let pid = keeper.started(key(3));
    keeper.send([Message::Shutdown(Default::default())]);
    assert_eq!(keeper.wait(), Some(0));
    assert!(!exists(pid) && !keeper.directory().join("4.stdout").exists());
}

#[test]
fn a_returning_agent_finds_what_waits_and_for_whom() {
    let mut keeper = Keeper::start();
    let pid = keeper.spawn_sleeping(1);
    let limit = Message::SetTimeLimit(SetTimeLimit { key: Some(key(2)), time_limit_ms: 100 });
    let next = after(&keeper, 2, &["sleep", "1000"], 1);
    keeper.send([next, limit]);
    keeper.settle();
    let welcome = keeper.connect();
    assert!(welcome.follows);
    let waiting = welcome.processes.iter().find(|process| process.key == Some(key(2))).unwrap();
    assert_eq!((waiting.after, waiting.pid, &waiting.exited), (Some(key(1)), 0, &None));
    // It starts when no agent is there, and has the limit that was set while it waited.
    keeper.disconnect();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid as i32).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
    until("its successor has been started", || fs::metadata(keeper.directory().join("2.stdout")).is_ok());
    let exited = keeper.connect_and_find_ended(key(2));
    assert_eq!(exited.end(), End::TimeLimit);
}
