//! Workers that get no tasks: cordoned by an operator, or quarantined because everything fails there.

use e2e::{Grid, Options, Test, eventually, text, until, whole};
use serde_json::Value;

use crate::SOON;

fn worker(grid: &Test, name: &str) -> Value {
    grid.millgrid(["worker", "show", name, "-o", "json"]).ok().json()
}

#[test]
fn a_cordoned_worker_gets_nothing_until_it_is_uncordoned() {
    let grid = Grid::start(Options { workers: 2, cpus: 1, ..Options::default() });
    grid.millgrid(["worker", "cordon", "worker-1", "--reason", "odd disk"]).ok();
    let cordoned = worker(&grid, "worker-1");
    assert_eq!((text(&cordoned, "state"), text(&cordoned, "reason")), ("cordoned", "odd disk"), "{cordoned}");
    let id = grid.submit(&["--array", "0-9", "--", "true"]);
    assert_eq!(text(&grid.wait_for_end(id, SOON), "state"), "succeeded");
    assert!(grid.tasks(id).iter().all(|task| task["worker"] == "worker-2"));
    let waiting = grid.submit(&["--constraint", "zone=dev-a", "--", "true"]);
    let explanation = grid.millgrid(["explain", &waiting.to_string(), "-o", "json"]).ok().json();
    let reasons = explanation["reasons"].as_array().unwrap();
    let about_it = reasons.iter().find(|reason| text(reason, "detail").contains("cordoned"));
    assert!(about_it.is_some_and(|reason| text(reason, "advice").contains("uncordon")), "{explanation}");
    grid.millgrid(["worker", "uncordon", "worker-1"]).ok();
    assert_eq!(text(&worker(&grid, "worker-1"), "state"), "ready");
    assert_eq!(text(&grid.wait_for_end(waiting, SOON), "state"), "succeeded");
    grid.millgrid(["worker", "cordon", "nosuch"]).exits(3);
}

#[test]
fn a_worker_on_which_everything_fails_is_quarantined_and_says_so() {
    let grid = Grid::start(Options { workers: 2, cpus: 1, ..Options::default() });
    // Its scratch disk is gone: there is a file where the folder was.
    let scratch = grid.state().join("worker-1/scratch");
    std::fs::remove_dir_all(&scratch).unwrap();
    std::fs::write(&scratch, "").unwrap();
    let jobs: Vec<u64> = (0..24).map(|_| grid.submit(&["--scratch", "1G", "--", "sleep", "0.2"])).collect();
    let shown = eventually("it is quarantined", SOON * 2, || {
        let shown = worker(&grid, "worker-1");
        (text(&shown, "state") == "quarantined").then_some(shown)
    });
    assert!(!text(&shown, "reason").is_empty(), "{shown}");
    // Nobody's jobs suffer: they are tried again where they can run.
    for id in jobs {
        assert_eq!(text(&grid.wait_for_end(id, SOON * 2), "state"), "succeeded");
    }
    assert_eq!(text(&worker(&grid, "worker-2"), "state"), "ready");
    let waiting = grid.submit(&["--constraint", "zone=dev-a", "--scratch", "1G", "--", "true"]);
    let explanation = grid.millgrid(["explain", &waiting.to_string(), "-o", "json"]).ok().json();
    let reasons = explanation["reasons"].as_array().unwrap();
    assert!(reasons.iter().any(|reason| text(reason, "detail").contains("quarantined")), "{explanation}");
    std::fs::remove_file(&scratch).unwrap();
    grid.millgrid(["worker", "uncordon", "worker-1"]).ok();
    assert_eq!(text(&grid.wait_for_end(waiting, SOON), "state"), "succeeded");
    until("it is ready", SOON, || text(&worker(&grid, "worker-1"), "state") == "ready");
    assert_eq!(whole(&grid.task(waiting), "attempt"), 1);
}
