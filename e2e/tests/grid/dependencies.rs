//! Jobs that wait for jobs.

use e2e::{Grid, text, until, whole};

use crate::SOON;

#[test]
fn a_job_starts_after_the_success_of_all_it_waits_for() {
    let grid = Grid::shared();
    let file = grid.file("after").display().to_string();
    let first = grid.submit_shell(&["--array", "0-9"], &format!("sleep 0.1; echo first >> {file}")).to_string();
    let second = grid.submit_shell(&[], &format!("sleep 0.3; echo first >> {file}")).to_string();
    let both = format!("{first},{second}");
    let last = grid.submit_shell(&["--after", &both], &format!("echo last >> {file}"));
    let job = grid.wait_for_end(last, SOON);
    assert_eq!(text(&job, "state"), "succeeded");
    let lines = grid.lines("after");
    assert_eq!((lines.len(), lines[11].as_str()), (12, "last"));
}

#[test]
fn a_waiting_job_says_what_it_waits_for() {
    let grid = Grid::shared();
    let first = grid.submit(&["--hold", "--", "true"]).to_string();
    let second = grid.submit(&["--after", &first, "--", "true"]);
    assert_eq!(text(&grid.job(second), "state"), "waiting");
    assert_eq!(whole(&grid.job(second)["tasks"], "waiting"), 1);
    let explanation = grid.millgrid(["explain", &second.to_string(), "-o", "json"]).ok().json();
    let reasons = explanation["reasons"].as_array().unwrap();
    assert!(reasons.iter().any(|reason| reason["reason"] == "dependency"), "{explanation}");
    grid.millgrid(["job", "release", &first]).ok();
    assert_eq!(text(&grid.wait_for_end(second, SOON), "state"), "succeeded");
}

#[test]
fn what_can_no_longer_run_is_skipped_and_so_is_what_waits_for_it() {
    let grid = Grid::shared();
    let failing = grid.submit_shell(&[], "sleep 0.3; exit 1").to_string();
    let skipped = grid.submit(&["--after", &failing, "--array", "0-4", "--", "true"]);
    let cascade = grid.submit(&["--after", &skipped.to_string(), "--", "true"]);
    let anyway = grid.submit(&["--after-any", &cascade.to_string(), "--", "true"]);
    for id in [skipped, cascade] {
        let job = grid.wait_for_end(id, SOON);
        assert_eq!((text(&job, "state"), text(&job, "cause")), ("skipped", "dependency"), "{job}");
    }
    assert_eq!(whole(&grid.job(skipped)["tasks"], "skipped"), 5);
    assert_eq!(text(&grid.wait_for_end(anyway, SOON), "state"), "succeeded");
}

#[test]
fn after_any_and_after_failed_choose_their_ends() {
    let grid = Grid::shared();
    let fails = grid.submit(&["--", "false"]).to_string();
    let works = grid.submit(&["--", "true"]).to_string();
    let state = |option: &str, of: &str| {
        let id = grid.submit(&[option, of, "--", "true"]);
        text(&grid.wait_for_end(id, SOON), "state").to_owned()
    };
    assert_eq!(state("--after-any", &fails), "succeeded");
    assert_eq!(state("--after-any", &works), "succeeded");
    assert_eq!(state("--after-failed", &fails), "succeeded");
    assert_eq!(state("--after-failed", &works), "skipped");
    // By now both have ended for long: the answers are kept.
    assert_eq!(state("--after", &works), "succeeded");
    assert_eq!(state("--after", &fails), "skipped");
}

#[test]
fn a_cancelled_job_skips_what_waits_for_its_success() {
    let grid = Grid::shared();
    let first = grid.submit(&["--hold", "--", "true"]).to_string();
    let second = grid.submit(&["--after", &first, "--", "true"]);
    grid.millgrid(["cancel", &first]).ok();
    assert_eq!(text(&grid.wait_for_end(second, SOON), "state"), "skipped");
}

#[test]
fn a_waiting_job_can_be_cancelled() {
    let grid = Grid::shared();
    let first = grid.submit(&["--hold", "--", "true"]).to_string();
    let second = grid.submit(&["--after", &first, "--", "true"]);
    grid.millgrid(["cancel", &second.to_string()]).ok();
    assert_eq!(text(&grid.job(second), "state"), "cancelled");
    grid.millgrid(["cancel", &first]).ok();
}

#[test]
fn after_exit_chooses_exit_codes() {
    let grid = Grid::shared();
    let fails = grid.submit_shell(&[], "exit 3");
    let works = grid.submit(&["--", "true"]);
    let state = |after: String| {
        let id = grid.submit(&["--after-exit", &after, "--", "true"]);
        text(&grid.wait_for_end(id, SOON), "state").to_owned()
    };
    assert_eq!(state(format!("{fails}=3,4")), "succeeded");
    assert_eq!(state(format!("{fails}=4")), "skipped");
    assert_eq!(state(format!("{works}=0")), "succeeded");
    assert_eq!(state(format!("{works}=3")), "skipped");
}

#[test]
fn elements_wait_for_their_twins_alone_and_a_failure_skips_only_its_own() {
    let grid = Grid::shared();
    let gate = grid.file("twins").display().to_string();
    let script = format!("test {{index}} = 9 && until test -e {gate}; do sleep 0.05; done; test {{index}} != 4");
    let options = ["--array", "0-9", "--cpus", "0.1"];
    let first = grid.submit_shell(&options, &script);
    let second = grid.submit(&[&options[..], &["--after-element", &first.to_string(), "--", "true"]].concat());
    let third = grid.submit(&[&options[..], &["--after-element", &second.to_string(), "--", "true"]].concat());
    // All but the twins of what has not ended.
    until("the chain has run as far as it can", SOON, || whole(&grid.job(third)["tasks"], "succeeded") == 8);
    let waiting = grid.job(third);
    assert_eq!((whole(&waiting["tasks"], "skipped"), whole(&waiting["tasks"], "waiting")), (1, 1), "{waiting}");
    let explanation = grid.millgrid(["explain", &format!("{third}.9"), "-o", "json"]).ok().json();
    assert_eq!(explanation["reasons"][0]["reason"], "dependency", "{explanation}");
    std::fs::write(grid.file("twins"), "").unwrap();
    for id in [second, third] {
        let job = grid.wait_for_end(id, SOON);
        assert_eq!((whole(&job["tasks"], "succeeded"), whole(&job["tasks"], "skipped")), (9, 1), "{job}");
        assert_eq!(text(&grid.tasks(id)[4], "state"), "skipped");
    }
    let options = ["--array", "0-3", "--after-element", &first.to_string(), "--", "true"];
    grid.millgrid(["submit"].iter().chain(&options)).exits(2);
}

#[test]
fn cancel_cascades_when_asked_to() {
    let grid = Grid::shared();
    let first = grid.submit(&["--hold", "--", "true"]).to_string();
    let second = grid.submit(&["--after", &first, "--", "true"]).to_string();
    let third = grid.submit(&["--after-any", &second, "--", "true"]);
    grid.millgrid(["cancel", &format!("{first}.0"), "--cascade"]).exits(2).complains(&["--cascade"]);
    grid.millgrid(["cancel", &first, "--cascade"]).ok();
    for id in [first.parse().unwrap(), second.parse().unwrap(), third] {
        assert_eq!(text(&grid.wait_for_end(id, SOON), "state"), "cancelled");
    }
}
