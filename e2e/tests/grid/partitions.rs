//! Members of a grid that can't reach each other: each is a machine of its own on a network with cuts.

use std::time::{Duration, Instant};

use e2e::{Cluster, Network, Output, Place, Running, text, until, whole};

use crate::SOON;

/// A client that was told to be patient gets through a change of leader within.
const PATIENT: [&str; 3] = ["submit", "--timeout", "20s"];

/// A grid with a worker on hosts of their own, and a second client; `None` where that isn't permitted.
fn grid() -> Option<Cluster> {
    let network = Network::of(&["c1", "c2", "c3", "worker-1", "client", "witness"])?;
    let mut grid = Cluster::prepare(Place::Network(network));
    grid.start_with_worker();
    Some(grid)
}

/// `millgrid` on the host that is on the cut-off leader's side, which it alone asks.
fn ask(grid: &Cluster, leader: &str, arguments: &[&str]) -> Running {
    // A coordinator waits 3 s for a leader before it says that there is none.
    let only = ["--endpoint", &grid.endpoint(leader), "--timeout", "4s"];
    grid.start_millgrid_on("witness", [&only, arguments].concat())
}

/// Nobody there could be asked, and nothing was said that might be out of date.
#[track_caller]
fn says_nothing(output: Running) {
    let output: Output = output.output().exits(5);
    assert_eq!(output.stdout, "");
}

/// Submits until there is an answer, and lets it run.
#[track_caller]
fn goes_on(grid: &Cluster) -> u64 {
    let id = grid.millgrid(PATIENT.iter().chain(&["--", "true"])).ok().id();
    grid.wait_for_state(id, "succeeded", SOON);
    id
}

#[test]
fn a_leader_that_is_cut_off_is_replaced_and_answers_nothing_meanwhile() {
    let Some(grid) = grid() else { return };
    let before = goes_on(&grid);
    let held = grid.submit(&["--hold", "--", "true"]).to_string();
    let leader = grid.leader();
    let [one, other] = grid.others(&leader);
    grid.network().split(&[&leader, "witness"], &[one, other, "worker-1", "client"]);
    // At once, while it still takes itself for the leader.
    let asked = [
        ask(&grid, &leader, &["show", &held]),
        ask(&grid, &leader, &["ls", "--all"]),
        ask(&grid, &leader, &["submit", "--request-id", "cut-off", "--", "true"]),
        ask(&grid, &leader, &["cancel", &held]),
    ];
    let during = goes_on(&grid);
    assert_ne!(grid.leader(), leader);
    grid.millgrid(["job", "release", &held]).ok();
    asked.into_iter().for_each(says_nothing);
    // When it has noticed, and what it still has of that job is no longer so.
    let asked = [ask(&grid, &leader, &["show", &held]), ask(&grid, &leader, &["submit", "--", "true"])];
    asked.into_iter().for_each(says_nothing);

    grid.network().heal();
    grid.check_replicas();
    for id in [before, during, held.parse().unwrap()] {
        grid.wait_for_state(id, "succeeded", SOON);
    }
    // What it didn't acknowledge is a job once it is asked for again, and one only.
    let again = grid.submit(&["--request-id", "cut-off", "--", "true"]);
    grid.wait_for_state(again, "succeeded", SOON);
    let listed = grid.millgrid(["ls", "--all", "-o", "id"]).ok().stdout;
    let mut ids: Vec<u64> = listed.lines().map(|line| line.parse().unwrap()).collect();
    ids.sort_unstable();
    let mut expected = vec![before, during, held.parse().unwrap(), again];
    expected.sort_unstable();
    assert_eq!(ids, expected);
}

#[test]
fn a_leader_that_hears_nobody_or_is_heard_by_nobody_holds_nothing_up() {
    let Some(grid) = grid() else { return };
    let mut acknowledged = vec![goes_on(&grid)];
    let leader = grid.leader();
    grid.network().cut(&grid.others(&leader), &[&leader]);
    acknowledged.push(goes_on(&grid));
    assert_ne!(grid.leader(), leader, "it hears no acknowledgement");
    grid.network().heal();
    grid.check_replicas();

    let leader = grid.leader();
    grid.network().cut(&[&leader], &grid.others(&leader));
    acknowledged.push(goes_on(&grid));
    assert_ne!(grid.leader(), leader, "no heartbeat of its arrives");
    grid.network().heal();
    grid.check_replicas();
    for id in acknowledged {
        assert_eq!(text(&grid.job(id), "state"), "succeeded");
    }
}

#[test]
fn a_worker_that_is_cut_off_for_ten_seconds_loses_nothing() {
    let Some(grid) = grid() else { return };
    let submit = |name: &str, wait: &str| {
        let file = grid.file(name).display().to_string();
        let script = format!("echo up >> {file}; {wait}; echo end >> {file}");
        let id = grid.submit(&["--", "sh", "-c", &script]);
        until("it runs", SOON, || grid.lines(name) == ["up"]);
        id
    };
    let gate = |name: &str| grid.file(&format!("{name}-gate"));
    let wait = |name: &str| format!("until test -e {}; do sleep 0.05; done", gate(name).display());
    let unheard = submit("unheard", &wait("unheard"));
    let through = submit("through", &wait("through"));
    grid.network().split(&["worker-1"], &["c1", "c2", "c3"]);
    let cut = Instant::now();
    // One ends while nobody can be told, the other after that.
    std::fs::write(gate("unheard"), "").unwrap();
    until("it ended", SOON, || grid.lines("unheard") == ["up", "end"]);
    assert_eq!(text(&grid.job(unheard), "state"), "running");
    until("it was away for 10 s", SOON, || cut.elapsed() >= Duration::from_secs(10));
    grid.network().heal();
    assert!(cut.elapsed() < Duration::from_secs(20), "the machine is too slow to tell: {:?}", cut.elapsed());
    grid.wait_for_state(unheard, "succeeded", SOON);
    assert_eq!(text(&grid.job(through), "state"), "running");
    std::fs::write(gate("through"), "").unwrap();
    grid.wait_for_state(through, "succeeded", SOON);
    for (id, name) in [(unheard, "unheard"), (through, "through")] {
        assert_eq!(grid.lines(name), ["up", "end"]);
        assert_eq!(whole(&grid.job(id)["task_list"][0], "attempt"), 1);
    }
    grid.check_replicas();
}

#[test]
fn a_client_that_reaches_one_follower_alone_has_the_whole_grid() {
    let Some(grid) = grid() else { return };
    let leader = grid.leader();
    let [follower, other] = grid.others(&leader);
    grid.network().split(&["client"], &[&leader, other, "worker-1"]);
    grid.millgrid(["run", "--timeout", "20s", "--", "sh", "-c", "exit 7"]).exits(7);
    let only = ["--endpoint", &grid.endpoint(follower)];
    let id = grid.millgrid([&["submit"], &only[..], &["--", "true"]].concat()).ok().id();
    grid.millgrid([&["wait", &id.to_string()], &only[..]].concat()).ok();
    let status = grid.millgrid([&["cluster", "status", "-o", "json"], &only[..]].concat()).ok().json();
    assert_eq!(text(&status, "leader"), leader, "nobody had to step down for it");
    grid.network().heal();
    grid.check_replicas();
}
