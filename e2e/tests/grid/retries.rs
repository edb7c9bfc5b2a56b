//! Retries and what they never do.

use e2e::{Grid, eventually, text, whole};

use crate::SOON;

#[test]
fn retries_are_attempts_after_the_first() {
    let grid = Grid::shared();
    let file = grid.file("attempts").display().to_string();
    let id = grid.submit_shell(&["--retries", "2"], &format!("echo $MILLGRID_ATTEMPT >> {file}; exit 3"));
    let job = grid.wait_for_end(id, SOON);
    assert_eq!((text(&job, "state"), &job["exit_code"]), ("failed", &3.into()));
    assert_eq!(grid.lines("attempts"), ["1", "2", "3"]);
}

#[test]
fn a_retry_waits_and_explain_says_so() {
    let grid = Grid::shared();
    let id = grid.submit_shell(&["--retries", "3"], "exit 1").to_string();
    eventually("it waits for its next attempt", SOON, || {
        let explanation = grid.millgrid(["explain", &id, "-o", "json"]).ok().json();
        let reasons = explanation["reasons"].as_array().unwrap().clone();
        reasons.iter().any(|reason| reason["reason"] == "retry_backoff").then_some(())
    });
    grid.millgrid(["cancel", &id]).ok();
}

#[test]
fn nothing_is_retried_by_default() {
    let grid = Grid::shared();
    let id = grid.submit(&["--", "false"]);
    grid.wait_for_end(id, SOON);
    assert_eq!(whole(&grid.task(id), "attempt"), 1);
}

#[test]
fn what_can_never_work_is_not_retried() {
    let grid = Grid::shared();
    let check = |cause: &str, arguments: &[&str]| {
        let id = grid.submit(&[&["--retries", "3"], arguments].concat());
        let job = grid.wait_for_end(id, SOON);
        assert_eq!((text(&job, "state"), text(&job, "cause")), ("failed", cause), "{job}");
        assert_eq!(whole(&grid.task(id), "attempt"), 1, "{cause}");
    };
    check("command_not_found", &["--", "no-such-command-anywhere"]);
    check("command_not_executable", &["--", "/dev/null"]);
    check("stage_in", &["--in", "s3://dev/never/there", "--", "true"]);
}

#[test]
fn a_signal_is_retried() {
    let grid = Grid::shared();
    let id = grid.submit_shell(&["--retries", "1"], "test $MILLGRID_ATTEMPT = 2 || kill -KILL $$");
    let job = grid.wait_for_end(id, SOON);
    assert_eq!(text(&job, "state"), "succeeded");
    let task = grid.task(id);
    assert_eq!(text(&task["attempt_list"][0], "cause"), "signal", "{task}");
}

#[test]
fn too_many_failures_stop_an_array() {
    let grid = Grid::shared();
    let id = grid.submit(&["--array", "0-199", "--max-failures", "5", "--max-running", "1", "--", "false"]);
    let job = grid.wait_for_end(id, SOON);
    let (failed, cancelled) = (whole(&job["tasks"], "failed"), whole(&job["tasks"], "cancelled"));
    assert_eq!(text(&job, "state"), "failed");
    assert!((5..=30).contains(&failed) && failed + cancelled == 200, "{job}");
}

#[test]
fn max_running_bounds_what_runs_at_once() {
    let grid = Grid::shared();
    let file = grid.file("bounded").display().to_string();
    let script = format!("echo + >> {file}; sleep 0.1; echo - >> {file}");
    for bound in [["--array", "0-11%2"].as_slice(), &["--array", "0-11", "--max-running", "2"]] {
        std::fs::write(grid.file("bounded"), "").unwrap();
        let id = grid.submit_shell(&[&["--cpus", "0.1"], bound].concat(), &script);
        grid.wait_for_end(id, SOON);
        let (mut running, mut most) = (0, 0);
        for line in grid.lines("bounded") {
            running += if line == "+" { 1 } else { -1 };
            most = most.max(running);
        }
        assert_eq!((running, most), (0, 2), "{bound:?}");
    }
}

#[test]
fn at_most_once_forbids_any_second_start() {
    let grid = Grid::shared();
    let file = grid.file("once").display().to_string();
    let id = grid.submit_shell(&["--at-most-once"], &format!("echo started >> {file}; exit 1"));
    let job = grid.wait_for_end(id, SOON);
    assert_eq!(text(&job, "state"), "failed");
    assert_eq!(grid.lines("once"), ["started"]);
}

#[test]
fn only_the_exit_codes_that_were_named_are_retried() {
    let grid = Grid::shared();
    let options = ["--retries", "5", "--backoff", "1s", "--retry-on", "exit_code=75,76"];
    let id = grid.submit_shell(&options, "test {attempt} = 1 && exit 75; test {attempt} = 2 && exit 76; exit 3");
    let job = grid.wait_for_end(id, SOON);
    assert_eq!((text(&job, "state"), &job["exit_code"]), ("failed", &3.into()), "{job}");
    assert_eq!(whole(&grid.task(id), "attempt"), 3);
    let id = grid.submit_shell(&options, "kill -KILL $$");
    assert_eq!(text(&grid.wait_for_end(id, SOON), "cause"), "signal");
    assert_eq!(whole(&grid.task(id), "attempt"), 1, "a signal was not named");
}

#[test]
fn memory_grows_after_a_task_ran_out_of_it_and_no_further_than_it_may() {
    let grid = Grid::shared();
    let file = grid.file("memory").display().to_string();
    // 100 MiB in the shell's own variable.
    let script = format!(
        "echo $MILLGRID_MEMORY_MIB >> {file}; x=$(head -c 104857600 /dev/zero | tr '\\0' x); test ${{#x}} = 104857600"
    );
    let growing = |growth: &str| {
        std::fs::write(grid.file("memory"), "").unwrap();
        let options = ["--mem", "32M", "--retries", "2", "--backoff", "1s", "--mem-growth", growth];
        let id = grid.submit_shell(&options, &script);
        text(&grid.wait_for_end(id, SOON), "state").to_owned()
    };
    assert_eq!(growing("20"), "succeeded");
    assert_eq!(grid.lines("memory"), ["32", "640"]);
    assert_eq!(growing("1.5..40M"), "failed");
    assert_eq!(grid.lines("memory"), ["32", "40", "40"]);
}
