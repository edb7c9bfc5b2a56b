//! How the grid is shared: by weights among queues, and with room kept for what is large.

use std::time::{Duration, Instant};

use e2e::{Grid, Options, text, until, whole};

use crate::SOON;

/// How long shares are measured: what the promise is about.
const WINDOW: Duration = Duration::from_secs(60);

#[test]
fn saturated_queues_share_by_their_weights() {
    let grid = Grid::start_alone(Options { workers: 2, cpus: 2, ..Options::default() });
    grid.millgrid(["queue", "create", "three", "--weight", "3"]).ok();
    grid.millgrid(["queue", "create", "one", "--weight", "1"]).ok();
    let submit = |queue: &str| grid.submit(&["--queue", queue, "--array", "0-99999", "--", "sleep", "0.1"]);
    let jobs = [submit("one"), submit("three")];
    let ended = || jobs.map(|id| whole(&grid.job(id)["tasks"], "succeeded"));
    until("both run", SOON, || ended().iter().all(|count| *count >= 10));
    let (start, before) = (Instant::now(), ended());
    until("they ran for a while", WINDOW + SOON, || start.elapsed() >= WINDOW);
    let after = ended();
    let counts = [after[0] - before[0], after[1] - before[1]];
    grid.millgrid(["cancel", &jobs[0].to_string(), &jobs[1].to_string()]).ok();
    assert!(counts.iter().all(|count| *count >= 100), "too few ends to tell: {counts:?}");
    let part = counts[1] as f64 / (counts[0] + counts[1]) as f64;
    assert!((0.7125..=0.7875).contains(&part), "3 of 4 within 5 %: {part} of {counts:?}");
    for id in jobs {
        grid.wait_for_end(id, SOON);
    }
}

#[test]
fn a_large_job_gets_its_room_and_only_short_ones_go_before_it() {
    let grid = Grid::start(Options { workers: 1, cpus: 2, ..Options::default() });
    let (gate, file) = (grid.file("room-gate").display().to_string(), grid.file("room").display().to_string());
    let script = format!("until test -e {gate}; do sleep 0.05; done");
    let first = grid.submit_shell(&["--time", "10m"], &script);
    until("it runs", SOON, || text(&grid.job(first), "state") == "running");
    let write = |word: &str| format!("echo {word} >> {file}");
    let large = grid.submit_shell(&["--cpus", "2"], &write("large"));
    // One cpu is free all the time, and small ones keep coming; nobody knows how long they take.
    let endless = grid.submit_shell(&["--array", "0-9"], &write("small"));
    let short = grid.submit_shell(&["--time", "5s"], &write("short"));
    assert_eq!(text(&grid.wait_for_end(short, SOON), "state"), "succeeded", "it is over long before there is room");
    assert_eq!(grid.lines("room"), ["short"]);
    assert_eq!((text(&grid.job(large), "state"), text(&grid.job(endless), "state")), ("queued", "queued"));
    std::fs::write(grid.file("room-gate"), "").unwrap();
    for id in [first, large, endless] {
        assert_eq!(text(&grid.wait_for_end(id, SOON), "state"), "succeeded");
    }
    assert_eq!(grid.lines("room")[..2], ["short", "large"]);
}
