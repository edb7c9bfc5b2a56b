//! Time limits, and the signals around them.

use std::time::Duration;

use e2e::{Grid, text};

use crate::SOON;

#[test]
fn a_task_over_its_time_is_asked_to_end() {
    let grid = Grid::shared();
    let id = grid.submit_shell(&["--time", "1s"], "trap 'echo asked; exit 0' TERM; while :; do sleep 0.05; done");
    let job = grid.wait_for_end(id, SOON);
    assert_eq!((text(&job, "state"), text(&job, "cause")), ("failed", "time_limit"), "{job}");
    assert_eq!(grid.millgrid(["logs", &id.to_string()]).ok().stdout, "asked\n");
}

#[test]
fn a_task_that_doesnt_listen_is_killed_after_the_grace() {
    let grid = Grid::shared();
    let id = grid.submit_shell(&["--time", "1s"], "trap '' TERM; while :; do sleep 0.05; done");
    let job = grid.wait_for_end(id, Duration::from_secs(60));
    assert_eq!(text(&job, "cause"), "time_limit", "{job}");
    let seconds = grid.task(id)["seconds"].as_f64().unwrap();
    assert!((30.0..45.0).contains(&seconds), "1 s and the grace of 30 s: {seconds}");
}

#[test]
fn a_task_knows_its_deadline() {
    let grid = Grid::shared();
    let output = grid.millgrid(["run", "--time", "1h", "--", "sh", "-c", "test -n \"$MILLGRID_DEADLINE\""]);
    output.ok();
}

#[test]
fn time_limits_are_retried_when_asked_for() {
    let grid = Grid::shared();
    let id = grid.submit_shell(&["--time", "1s", "--retries", "1"], "test {attempt} = 2 || sleep 600");
    let job = grid.wait_for_end(id, SOON);
    assert_eq!(text(&job, "state"), "succeeded", "{job}");
    assert_eq!(text(&grid.task(id)["attempt_list"][0], "cause"), "time_limit");
}
