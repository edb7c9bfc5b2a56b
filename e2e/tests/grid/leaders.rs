//! Coordinators that die, stop for a while, or all go at once.

use std::time::{Duration, Instant};

use e2e::{Grid, Options, Running, Test, text, until, whole};

use crate::SOON;

/// Kills of the leader under load.
const KILLS: usize = 5;

fn kill_leader(grid: &Test) -> String {
    let leader = grid.leader();
    grid.dev("kill", &["leader"]).ok();
    leader
}

#[test]
fn a_running_array_survives_its_leader_again_and_again() {
    let grid = Grid::start(Options::default());
    let mut acknowledged = Vec::new();
    for round in 0..KILLS {
        let name = format!("survives-{round}");
        let file = grid.file(&name).display().to_string();
        let array = grid.submit_shell(&["--array", "0-1999"], &format!("echo {{index}} >> {file}"));
        grid.wait_for_lines(&name, 100, SOON);
        let killed = kill_leader(&grid);
        // The client's own retry carries it over the change of leader.
        let submit = grid.millgrid(["submit", "--timeout", "20s", "--", "true"]).ok();
        acknowledged.push(submit.id());
        let job = grid.wait_for_end(array, 4 * SOON);
        assert_eq!(whole(&job["tasks"], "succeeded"), 2000, "{job}");
        let mut ran: Vec<u32> = grid.lines(&name).iter().map(|line| line.parse().unwrap()).collect();
        ran.sort_unstable();
        assert_eq!(ran, (0..2000).collect::<Vec<u32>>(), "each started once");
        acknowledged.push(array);
        grid.dev("restart", &[&killed]).ok();
        grid.check_replicas();
    }
    for id in acknowledged {
        assert_eq!(text(&grid.wait_for_end(id, SOON), "state"), "succeeded", "job {id}");
    }
}

#[test]
fn who_follows_a_task_sees_each_line_once_whatever_happens_to_leaders() {
    let grid = Grid::start(Options::default());
    let file = grid.file("followed").display().to_string();
    let script = format!("for n in 1 2 3 4 5 6 7 8; do echo line $n; echo line $n >> {file}; sleep 0.5; done; exit 5");
    let run = grid.start_millgrid(["run", "--", "sh", "-c", &script]);
    grid.wait_for_lines("followed", 2, SOON);
    let killed = kill_leader(&grid);
    let output = run.output().exits(5);
    let expected: Vec<String> = (1..=8).map(|number| format!("line {number}")).collect();
    assert_eq!(output.stdout.lines().collect::<Vec<_>>(), expected);
    grid.dev("restart", &[&killed]).ok();
}

#[test]
fn all_workers_are_back_soon_after_a_change_of_leader() {
    let options = Options { workers: 4, cpus: 1, ..Options::default() };
    let grid = Grid::start_alone(options);
    let started = |grid: &Test| -> Vec<u64> {
        let name = |worker| format!("by-worker-{worker}");
        (1..=4).map(|worker| grid.file(&name(worker)).metadata().map_or(0, |file| file.len())).collect()
    };
    let file = grid.file("by-").display().to_string();
    // A task starts in STATE/WORKER/tasks/ATTEMPT/work.
    let script = format!("echo x >> {file}$(basename $(dirname $(dirname $(dirname $PWD)))); sleep 0.05");
    let array = grid.submit_shell(&["--array", "0-9999"], &script);
    until("all workers work", SOON, || started(&grid).iter().all(|count| *count > 0));
    for _ in 0..3 {
        let killed = kill_leader(&grid);
        // Those that are told to start something by the next leader; what they had ahead is a handful.
        grid.millgrid(["submit", "--", "true"]).ok();
        let before = started(&grid);
        let more = |grid: &Test| started(grid).iter().zip(&before).all(|(now, before)| *now > before + 40);
        // A worker that nobody answers gives its stream up after 7 s.
        until("all workers go on working", Duration::from_secs(6), || more(&grid));
        grid.dev("restart", &[&killed]).ok();
        grid.check_replicas();
    }
    grid.millgrid(["cancel", &array.to_string()]).ok();
}

#[test]
fn cancel_and_release_get_through_a_change_of_leader() {
    let grid = Grid::start(Options { workers: 1, ..Options::default() });
    let running = grid.submit(&["--", "sleep", "600"]);
    let held = grid.submit(&["--hold", "--", "true"]);
    grid.wait_for_state(running, "running", SOON);
    let killed = kill_leader(&grid);
    let cancel = grid.start_millgrid(["cancel", &running.to_string()]);
    let release = grid.start_millgrid(["job", "release", &held.to_string()]);
    cancel.output().ok();
    release.output().ok();
    assert_eq!(text(&grid.wait_for_end(running, SOON), "state"), "cancelled");
    assert_eq!(text(&grid.wait_for_end(held, SOON), "state"), "succeeded");
    grid.dev("restart", &[&killed]).ok();
}

#[test]
fn what_is_submitted_while_there_is_no_leader_is_one_job_each() {
    let grid = Grid::start(Options::default());
    let killed = kill_leader(&grid);
    let submit = |number: usize| {
        let label = format!("number={number}");
        Running::start(&mut grid.command(["submit", "--label", "subject=failover", "--label", &label, "--", "true"]))
    };
    let running: Vec<Running> = (0..20).map(submit).collect();
    let mut ids: Vec<u64> = running.into_iter().map(|running| running.output().ok().id()).collect();
    ids.sort_unstable();
    let list = grid.millgrid(["ls", "--all", "-l", "subject=failover", "-o", "id"]).ok().stdout;
    let mut listed: Vec<u64> = list.lines().map(|line| line.parse().unwrap()).collect();
    listed.sort_unstable();
    assert_eq!(listed, ids);
    grid.dev("restart", &[&killed]).ok();
}

#[test]
fn a_paused_leader_is_replaced_and_follows_when_it_wakes() {
    let grid = Grid::start(Options::default());
    let leader = grid.leader();
    let long = grid.submit_shell(&[], "sleep 5; echo slept");
    grid.dev("pause", &["leader"]).ok();
    let id = grid.millgrid(["submit", "--timeout", "20s", "--", "true"]).ok().id();
    assert_eq!(text(&grid.wait_for_end(id, SOON), "state"), "succeeded");
    assert_ne!(grid.leader(), leader);
    grid.dev("resume", &[&leader]).ok();
    grid.check_replicas();
    assert_eq!(text(&grid.wait_for_end(long, SOON), "state"), "succeeded");
    assert_eq!(whole(&grid.task(long), "attempt"), 1);
}

#[test]
fn a_running_task_survives_the_loss_of_all_coordinators() {
    let grid = Grid::start(Options::default());
    let file = grid.file("through").display().to_string();
    let script = format!("echo start >> {file}; sleep 8; echo end >> {file}");
    let running = grid.submit_shell(&["--array", "0-1"], &script);
    let ended = grid.submit(&["--", "true"]);
    let waiting = grid.submit(&["--after", &running.to_string(), "--", "true"]);
    let held = grid.submit(&["--hold", "--array", "0-9999", "--", "true"]);
    grid.wait_for_end(ended, SOON);
    grid.wait_for_lines("through", 2, SOON);
    let names = ["c1", "c2", "c3"];
    names.iter().for_each(|name| drop(grid.dev("kill", &[name]).ok()));
    let killed = Instant::now();
    grid.millgrid(["show", &ended.to_string(), "--timeout", "1s"]).exits(5);
    until("4 s have passed", SOON, || killed.elapsed() > Duration::from_secs(4));
    names.iter().for_each(|name| drop(grid.dev("restart", &[name]).ok()));
    let job = grid.wait_for_end(running, SOON);
    assert_eq!(text(&job, "state"), "succeeded", "{job}");
    assert_eq!(grid.lines("through"), ["start", "start", "end", "end"], "nothing was started again");
    for task in grid.tasks(running) {
        assert_eq!(whole(&task, "attempt"), 1, "{task}");
    }
    assert_eq!(text(&grid.wait_for_end(waiting, SOON), "state"), "succeeded");
    assert_eq!(text(&grid.job(ended), "state"), "succeeded");
    assert_eq!(whole(&grid.job(held)["tasks"], "queued"), 10_000);
}

#[test]
fn a_task_that_ends_while_nobody_listens_is_recorded() {
    let grid = Grid::start(Options::default());
    let file = grid.file("unheard").display().to_string();
    let id = grid.submit_shell(&[], &format!("echo up >> {file}; sleep 2; echo end >> {file}; exit 6"));
    grid.wait_for_lines("unheard", 1, SOON);
    let names = ["c1", "c2", "c3"];
    names.iter().for_each(|name| drop(grid.dev("kill", &[name]).ok()));
    grid.wait_for_lines("unheard", 2, SOON);
    names.iter().for_each(|name| drop(grid.dev("restart", &[name]).ok()));
    let job = grid.wait_for_end(id, SOON);
    assert_eq!((text(&job, "state"), &job["exit_code"]), ("failed", &6.into()));
    assert_eq!(whole(&grid.task(id), "attempt"), 1);
}

#[test]
fn without_a_majority_nothing_is_acknowledged() {
    let grid = Grid::start(Options::default());
    let leader = grid.leader();
    let others: Vec<&str> = ["c1", "c2", "c3"].into_iter().filter(|name| *name != leader).collect();
    others.iter().for_each(|name| drop(grid.dev("kill", &[name]).ok()));
    let request = ["submit", "--request-id", "minority", "--timeout", "3s", "--", "true"];
    let output = grid.millgrid(request);
    assert!(matches!(output.code, 5 | 124), "{output:?}");
    others.iter().for_each(|name| drop(grid.dev("restart", &[name]).ok()));
    // The same request afterwards is one job, whatever became of the first try.
    let id = grid.submit(&["--request-id", "minority", "--", "true"]);
    assert_eq!(text(&grid.wait_for_end(id, SOON), "state"), "succeeded");
    assert_eq!(grid.millgrid(["ls", "--all", "-o", "id"]).ok().stdout, format!("{id}\n"));
}

#[test]
fn a_follower_that_missed_much_catches_up() {
    let grid = Grid::start(Options::default());
    let leader = grid.leader();
    let follower = ["c1", "c2", "c3"].into_iter().find(|name| *name != leader).unwrap();
    grid.dev("kill", &[follower]).ok();
    let array = grid.submit(&["--array", "0-499", "--", "true"]);
    assert_eq!(whole(&grid.wait_for_end(array, SOON)["tasks"], "succeeded"), 500);
    grid.dev("restart", &[follower]).ok();
    grid.check_replicas();
    // It is as good as the others: it may lead, as soon as the leader knows that it has everything.
    let transfer = || grid.millgrid(["cluster", "transfer-leader", follower]).code;
    until("it takes over", SOON, || transfer() == 0);
    assert_eq!(grid.leader(), follower);
    assert_eq!(whole(&grid.job(array)["tasks"], "succeeded"), 500);
}
