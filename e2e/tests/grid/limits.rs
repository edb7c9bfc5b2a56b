//! Time limits, and the signals around them.

use std::time::Duration;

use e2e::{Grid, text, whole};
use serde_json::Value;

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

#[test]
fn job_set_gives_a_running_task_more_time() {
    let grid = Grid::shared();
    let file = grid.file("more-time").display().to_string();
    let id = grid.submit_shell(&["--time", "6s"], &format!("echo up >> {file}; sleep 7; exit 4"));
    grid.wait_for_lines("more-time", 1, SOON);
    grid.millgrid(["job", "set", &id.to_string(), "--time", "1h"]).ok();
    assert_eq!(grid.job(id)["spec"]["time_limit"], 3600.0);
    let job = grid.wait_for_end(id, SOON);
    assert_eq!((text(&job, "cause"), &job["exit_code"]), ("exit_code", &4.into()), "{job}");
    let ended = grid.millgrid(["job", "set", &id.to_string(), "--time", "2h"]).exits(6);
    ended.complains(&["has ended"]);
}

#[test]
fn job_set_gives_a_running_task_less_time() {
    let grid = Grid::shared();
    let file = grid.file("less-time").display().to_string();
    let id = grid.submit_shell(&[], &format!("echo up >> {file}; exec sleep 600"));
    grid.wait_for_lines("less-time", 1, SOON);
    grid.millgrid(["job", "set", &id.to_string(), "--time", "1s"]).ok();
    let job = grid.wait_for_end(id, SOON);
    assert_eq!((text(&job, "state"), text(&job, "cause")), ("failed", "time_limit"), "{job}");
}

#[test]
fn a_job_that_never_starts_fails_when_its_time_in_the_queue_is_over() {
    let grid = Grid::shared();
    let id = grid.submit(&["--queue-time", "2s", "--constraint", "zone=nowhere", "--array", "0-2", "--", "true"]);
    let job = grid.wait_for_end(id, SOON);
    assert_eq!((text(&job, "state"), text(&job, "cause")), ("failed", "queue_time_limit"), "{job}");
    assert_eq!(whole(&job["tasks"], "failed"), 3, "{job}");
    // One that started in time has as long as it wants.
    let id = grid.submit(&["--queue-time", "20s", "--", "sleep", "1"]);
    assert_eq!(text(&grid.wait_for_end(id, SOON), "state"), "succeeded");
}

#[test]
fn a_job_ends_when_its_time_in_all_is_over() {
    let grid = Grid::shared();
    let file = grid.file("total").display().to_string();
    // One runs, the others wait for it; retries don't help.
    let options = ["--total-time", "4s", "--retries", "5", "--array", "0-2%1"];
    let id = grid.submit_shell(&options, &format!("echo up >> {file}; exec sleep 600"));
    let job = grid.wait_for_end(id, SOON);
    assert_eq!((text(&job, "state"), text(&job, "cause")), ("failed", "time_limit"), "{job}");
    assert_eq!(whole(&job["tasks"], "failed"), 3, "{job}");
    assert_eq!(grid.lines("total"), ["up"]);
}

#[test]
fn job_set_changes_what_is_named_and_nothing_else() {
    let grid = Grid::shared();
    let id = grid.submit(&["--hold", "--time", "1h", "--max-running", "3", "--array", "0-9", "--", "true"]).to_string();
    let set = ["job", "set", &id, "--time", "none", "--queue-time", "1d", "--max-failures", "2", "--priority", "7"];
    let job = grid.millgrid([&set[..], &["-o", "json"]].concat()).ok().json();
    assert_eq!(job["priority"], 7, "{job}");
    let spec = grid.job(id.parse().unwrap())["spec"].clone();
    let found = (&spec["time_limit"], &spec["queue_time_limit"], &spec["max_running"], &spec["max_failures"]);
    assert_eq!(found, (&Value::Null, &86_400.0.into(), &3.into(), &2.into()), "{spec}");
    grid.millgrid(["job", "set", &id]).exits(2).complains(&["nothing"]);
    grid.millgrid(["job", "set", &format!("{id}.3"), "--time", "1h"]).exits(2).complains(&["whole jobs"]);
    grid.millgrid(["job", "set", "99999999", "--time", "1h"]).exits(3);
    grid.millgrid(["cancel", &id]).ok();
}
