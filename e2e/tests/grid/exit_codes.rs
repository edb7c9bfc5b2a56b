//! The exit codes of interfaces, section 2, as a matrix.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use e2e::{Grid, text};
use rustix::process::Signal;

use crate::SOON;

#[test]
fn run_ends_with_the_code_of_its_task() {
    let grid = Grid::shared();
    let file = grid.file("not-executable");
    std::fs::write(&file, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let file = file.display().to_string();
    let check = |code: i32, arguments: &[&str]| {
        grid.millgrid([&["run"], arguments].concat()).exits(code);
    };
    check(0, &["--", "true"]);
    check(1, &["--", "false"]);
    check(7, &["--", "sh", "-c", "exit 7"]);
    check(123, &["--", "sh", "-c", "exit 123"]);
    check(124, &["--time", "1s", "--", "sleep", "60"]);
    check(125, &["--in", "s3://dev/no-such-key", "--", "true"]);
    check(125, &["--out", "*.none=s3://dev/none/", "--", "true"]);
    check(126, &["--", &file]);
    check(127, &["--", "no-such-command-anywhere"]);
    check(137, &["--", "sh", "-c", "kill -KILL $$"]);
    check(143, &["--", "sh", "-c", "kill -TERM $$"]);
}

#[test]
fn submit_wait_and_wait_end_with_the_same_codes_as_run() {
    let grid = Grid::shared();
    grid.millgrid(["submit", "--wait", "--", "true"]).ok();
    grid.millgrid(["submit", "--wait", "--", "sh", "-c", "exit 9"]).exits(9);
    grid.millgrid(["submit", "--wait", "--", "no-such-command-anywhere"]).exits(127);
    let failing = grid.submit_shell(&[], "exit 11").to_string();
    grid.millgrid(["wait", &failing]).exits(11);
    // It is as well when the job ended long ago.
    grid.millgrid(["wait", &failing]).exits(11);
    let killed = grid.submit_shell(&[], "kill -INT $$").to_string();
    grid.millgrid(["wait", &killed]).exits(130);
}

#[test]
fn an_array_ends_with_the_highest_code_of_what_failed() {
    let grid = Grid::shared();
    grid.millgrid(["submit", "--wait", "--array", "0-4", "--", "sh", "-c", "exit $(({index} * 3))"]).exits(12);
    grid.millgrid(["submit", "--wait", "--array", "0-4", "--", "true"]).ok();
}

#[test]
fn wait_takes_several_jobs() {
    let grid = Grid::shared();
    let three = grid.submit_shell(&[], "exit 3").to_string();
    let five = grid.submit_shell(&[], "exit 5").to_string();
    let fine = grid.submit_shell(&[], "exit 0").to_string();
    grid.millgrid(["wait", &three, &five, &fine]).exits(5);
    grid.millgrid(["wait", &three, &five, "--any-outcome"]).ok();
    let long = grid.submit(&["--", "sleep", "600"]).to_string();
    let first = grid.millgrid(["wait", &long, &three, "--any"]).exits(3);
    assert!(first.elapsed < SOON, "{:?}", first.elapsed);
    grid.millgrid(["cancel", &long]).ok();
}

#[test]
fn a_time_out_is_124_and_the_job_goes_on() {
    let grid = Grid::shared();
    let id = grid.submit(&["--", "sleep", "600"]);
    grid.wait_for_state(id, "running", SOON);
    let output = grid.millgrid(["wait", &id.to_string(), "--timeout", "1s"]).exits(124);
    assert!(output.elapsed >= Duration::from_secs(1), "{:?}", output.elapsed);
    grid.millgrid(["run", "--timeout", "2s", "--label", "subject=time-out", "--", "sleep", "601"]).exits(124);
    let list = grid.millgrid(["ls", "-l", "subject=time-out", "-o", "json"]).ok().json();
    let running = &list[0];
    assert_eq!(grid.job(id)["state"], "running");
    assert!(matches!(text(running, "state"), "running" | "queued"), "{running}");
    grid.millgrid(["cancel", &id.to_string(), &running["id"].to_string()]).ok();
}

#[test]
fn what_was_cancelled_or_skipped_is_125() {
    let grid = Grid::shared();
    let cancelled = grid.submit(&["--hold", "--", "true"]).to_string();
    grid.millgrid(["cancel", &cancelled]).ok();
    grid.millgrid(["wait", &cancelled]).exits(125);
    let failed = grid.submit(&["--", "false"]).to_string();
    let skipped = grid.submit(&["--after", &failed, "--", "true"]).to_string();
    grid.millgrid(["wait", &skipped]).exits(125);
}

#[test]
fn an_interrupted_run_is_130_and_says_how_to_cancel() {
    let grid = Grid::shared();
    let mut run = grid.start_millgrid(["run", "--name", "interrupted", "--", "sleep", "600"]);
    let find = || {
        let list = grid.millgrid(["ls", "-o", "json", "--limit", "500"]).ok().json();
        let jobs = list.as_array().unwrap().clone();
        jobs.into_iter().find(|job| job["name"] == "interrupted" && job["state"] == "running")
    };
    let job = e2e::eventually("the job runs", SOON, find);
    assert!(run.is_running());
    run.signal(Signal::INT);
    let id = job["id"].as_u64().unwrap();
    run.output().exits(130).complains(&[&format!("millgrid cancel {id}")]);
    assert_eq!(grid.job(id)["state"], "running");
    grid.millgrid(["cancel", &id.to_string()]).ok();
}

#[test]
fn verbs_end_with_the_codes_of_the_table() {
    let grid = Grid::shared();
    let check = |code: i32, arguments: &[&str]| grid.millgrid(arguments).exits(code);
    check(0, &["ls"]);
    check(0, &["version"]);
    check(2, &["submit"]);
    check(2, &["submit", "--cpus", "zero", "--", "true"]);
    check(2, &["frobnicate"]);
    check(3, &["show", "999999"]);
    check(3, &["queue", "show", "no-such-queue"]);
    check(3, &["worker", "show", "no-such-worker"]);
    check(3, &["submit", "--queue", "no-such-queue", "--", "true"]);
    check(7, &["submit", "--cpus", "500000", "--", "true"]);
    check(7, &["submit", "--mem", "4000T", "--", "true"]);
    check(7, &["run", "--gpus", "1", "--", "true"]);
    let ended = grid.submit(&["--", "true"]);
    grid.wait_for_end(ended, SOON);
    check(6, &["job", "hold", &ended.to_string()]);
    grid.submit(&["--request-id", "exit-code-conflict", "--", "true"]);
    check(6, &["submit", "--request-id", "exit-code-conflict", "--", "false"]);
    let nobody = ["--endpoint", "https://127.0.0.1:9", "--timeout", "1s"];
    let output = check(5, &[&["ls"], &nobody[..]].concat());
    assert!(output.elapsed < Duration::from_secs(5), "{:?}", output.elapsed);
    check(5, &[&["submit"], &nobody[..], &["--", "true"]].concat());
}
