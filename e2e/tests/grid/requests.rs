//! A request id makes a submit safe to repeat.

use e2e::{Grid, Running};

#[test]
fn the_same_request_is_the_same_job() {
    let grid = Grid::shared();
    let request = ["submit", "--request-id", "same-1", "--array", "0-3", "--hold", "--", "echo", "{index}"];
    let first = grid.millgrid(request).ok();
    let second = grid.millgrid(request).ok();
    assert_eq!(first.id(), second.id());
    grid.millgrid(["cancel", &first.id().to_string()]).ok();
    // It is, when the job has ended long ago, too.
    assert_eq!(grid.millgrid(request).ok().id(), first.id());
}

#[test]
fn another_content_under_the_same_request_is_a_conflict() {
    let grid = Grid::shared();
    let id = grid.submit(&["--request-id", "other-1", "--", "echo", "one"]);
    let conflict = grid.millgrid(["submit", "--request-id", "other-1", "--", "echo", "two"]).exits(6);
    assert!(conflict.stderr.contains("request"), "{}", conflict.stderr);
    grid.millgrid(["submit", "--request-id", "other-1", "--priority", "1", "--", "echo", "one"]).exits(6);
    assert_eq!(grid.submit(&["--request-id", "other-1", "--", "echo", "one"]), id);
}

#[test]
fn two_hundred_submits_at_once_with_one_request_are_one_job() {
    let grid = Grid::shared();
    let label = ["--label", "subject=two-hundred"];
    let submit = || {
        let command = ["submit", "--request-id", "two-hundred", "--timeout", "120s"];
        Running::start(&mut grid.command([&command[..], &label, &["--hold", "--", "true"]].concat()))
    };
    let running: Vec<Running> = (0..200).map(|_| submit()).collect();
    let mut ids: Vec<u64> = running.into_iter().map(|running| running.output().ok().id()).collect();
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
    let list = grid.millgrid(["ls", "--all", "-l", "subject=two-hundred", "-o", "id"]).ok().stdout;
    assert_eq!(list, format!("{}\n", ids[0]));
    grid.millgrid(["cancel", &ids[0].to_string()]).ok();
}
