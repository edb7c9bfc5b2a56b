//! Cancel, and what it does to what runs.

use e2e::{Grid, text, until, whole};
use serde_json::Value;

use crate::SOON;

#[test]
fn queued_tasks_are_cancelled_when_cancel_returns() {
    let grid = Grid::shared();
    let id = grid.submit(&["--array", "0-9", "--hold", "--", "true"]);
    grid.millgrid(["cancel", &format!("{id}.0-3")]).ok();
    let job = grid.job(id);
    assert_eq!((whole(&job["tasks"], "cancelled"), whole(&job["tasks"], "queued")), (4, 6));
    assert_eq!(text(&job, "state"), "queued");
    grid.millgrid(["cancel", &id.to_string(), "--reason", "not needed"]).ok();
    let job = grid.job(id);
    assert_eq!((whole(&job["tasks"], "cancelled"), text(&job, "state")), (10, "cancelled"));
}

#[test]
fn a_running_task_gets_a_term_signal() {
    let grid = Grid::shared();
    let file = grid.file("terminated").display().to_string();
    let script = format!("trap 'echo asked >> {file}; exit 0' TERM; echo up >> {file}; while :; do sleep 0.05; done");
    let id = grid.submit_shell(&[], &script);
    grid.wait_for_lines("terminated", 1, SOON);
    grid.millgrid(["cancel", &id.to_string()]).ok();
    let job = grid.wait_for_end(id, SOON);
    assert_eq!((text(&job, "state"), text(&job, "cause")), ("cancelled", "cancelled"));
    assert_eq!(grid.lines("terminated"), ["up", "asked"]);
}

#[test]
fn what_a_task_started_goes_with_it() {
    let grid = Grid::shared();
    let file = grid.file("children").display().to_string();
    let id = grid.submit_shell(&[], &format!("sleep 987 & echo $! >> {file}; wait"));
    grid.wait_for_lines("children", 1, SOON);
    let pid = grid.lines("children")[0].clone();
    grid.millgrid(["cancel", &id.to_string()]).ok();
    grid.wait_for_end(id, SOON);
    let gone = || !std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|text| text.contains("987"));
    until("the child of the task is gone", SOON, gone);
}

#[test]
fn cancel_of_what_ended_is_fine_and_says_so() {
    let grid = Grid::shared();
    let id = grid.submit(&["--", "true"]);
    grid.wait_for_end(id, SOON);
    let output = grid.millgrid(["cancel", &id.to_string()]).ok();
    assert!(!output.stderr.is_empty(), "it says that there was nothing to cancel");
    assert_eq!(grid.job(id)["state"], "succeeded");
}

#[test]
fn a_cancelled_array_stops_what_runs_and_what_waits() {
    let grid = Grid::shared();
    let id = grid.submit(&["--array", "0-99", "--", "sleep", "600"]);
    until("some run", SOON, || whole(&grid.job(id)["tasks"], "running") >= 1);
    grid.millgrid(["cancel", &id.to_string()]).ok();
    let job = grid.wait_for_end(id, SOON);
    assert_eq!((whole(&job["tasks"], "cancelled"), &job["exit_code"]), (100, &Value::Null), "{job}");
}

#[test]
fn retry_gives_the_same_job_new_attempts() {
    let grid = Grid::shared();
    let file = grid.file("may-pass").display().to_string();
    let id = grid.submit_shell(&["--array", "0-2"], &format!("test {{index}} != 1 || test -e {file}"));
    let job = grid.wait_for_end(id, SOON);
    assert_eq!((whole(&job["tasks"], "failed"), whole(&job["tasks"], "succeeded")), (1, 2), "{job}");
    std::fs::write(grid.file("may-pass"), "").unwrap();
    grid.millgrid(["retry", &id.to_string(), "--failed"]).ok();
    let job = grid.wait_for_state(id, "succeeded", SOON);
    assert_eq!(whole(&job["tasks"], "succeeded"), 3);
    let attempts: Vec<u64> = grid.tasks(id).iter().map(|task| whole(task, "attempt")).collect();
    assert!(attempts[1] >= 2 && attempts[0] == 1 && attempts[2] == 1, "{attempts:?}");
}
