//! Queues: made, changed, paused, drained, deleted, and their limits.

use e2e::{Grid, Options, check_fields, text, until, whole};
use serde_json::Value;

use crate::SOON;

fn reasons(grid: &Grid, id: u64) -> Vec<String> {
    let explanation = grid.millgrid(["explain", &id.to_string(), "-o", "json"]).ok().json();
    let reasons = explanation["reasons"].as_array().unwrap();
    reasons.iter().map(|reason| text(reason, "reason").to_owned()).collect()
}

#[test]
fn a_queue_is_made_changed_and_deleted() {
    let grid = Grid::shared();
    let create = ["queue", "create", "lab", "--weight", "3", "--max-running", "5", "--placement", "pack", "-o", "json"];
    let queue = grid.millgrid(create).ok().json();
    check_fields(&queue, &[("name", "text"), ("weight", "whole"), ("paused", "bool"), ("draining", "bool")]);
    check_fields(&queue, &[("limits", "object"), ("guarantee", "object"), ("usage", "number"), ("share", "number")]);
    assert_eq!((&queue["limits"]["max_running"], text(&queue, "placement")), (&5.into(), "pack"));
    grid.millgrid(create).exits(6).complains(&["lab", "queue set"]);
    let set = ["queue", "set", "lab", "--max-running", "none", "--guarantee-cpus", "0.5", "-o", "json"];
    let queue = grid.millgrid(set).ok().json();
    let found = (&queue["weight"], &queue["limits"]["max_running"], &queue["guarantee"]["cpu_milli"]);
    assert_eq!(found, (&3.into(), &Value::Null, &500.into()), "{queue}");
    let names = grid.millgrid(["queue", "ls", "-o", "id"]).ok().stdout;
    assert!(names.lines().any(|name| name == "lab"), "{names}");
    let id = grid.submit(&["--queue", "lab", "--hold", "--", "true"]).to_string();
    grid.millgrid(["queue", "delete", "lab"]).exits(6).complains(&["1 jobs", "drain"]);
    grid.millgrid(["cancel", &id]).ok();
    grid.millgrid(["queue", "delete", "lab"]).ok();
    grid.millgrid(["queue", "show", "lab"]).exits(3);
    grid.millgrid(["submit", "--queue", "lab", "--", "true"]).exits(3);
    grid.millgrid(["queue", "delete", "default"]).exits(6);
    grid.millgrid(["queue", "create", "-odd"]).exits(2);
    grid.millgrid(["queue", "create", "a b"]).exits(2).complains(&["name"]);
    grid.millgrid(["queue", "pause", "nosuch"]).exits(3);
    grid.millgrid(["queue", "set", "default"]).exits(2).complains(&["nothing"]);
    grid.millgrid(["queue", "set", "default", "--weight", "0"]).exits(2).complains(&["--weight"]);
}

#[test]
fn a_paused_queue_takes_jobs_and_starts_none() {
    let grid = Grid::shared();
    grid.millgrid(["queue", "create", "paused"]).ok();
    grid.millgrid(["queue", "pause", "paused"]).ok();
    let id = grid.submit(&["--queue", "paused", "--", "true"]);
    // What came later and elsewhere has run meanwhile.
    grid.millgrid(["run", "--", "true"]).ok();
    assert_eq!(text(&grid.job(id), "state"), "queued");
    assert_eq!(reasons(&grid, id), ["queue_paused"]);
    grid.millgrid(["queue", "resume", "paused"]).ok();
    assert_eq!(text(&grid.wait_for_end(id, SOON), "state"), "succeeded");
}

#[test]
fn a_draining_queue_runs_what_it_has_and_takes_nothing() {
    let grid = Grid::shared();
    grid.millgrid(["queue", "create", "drained"]).ok();
    let id = grid.submit(&["--queue", "drained", "--array", "0-9", "--", "sleep", "0.1"]);
    grid.millgrid(["queue", "drain", "drained"]).ok();
    grid.millgrid(["submit", "--queue", "drained", "--", "true"]).exits(6).complains(&["drained", "resume"]);
    assert_eq!(text(&grid.wait_for_end(id, SOON), "state"), "succeeded");
    grid.millgrid(["queue", "resume", "drained"]).ok();
    let id = grid.submit(&["--queue", "drained", "--", "true"]);
    assert_eq!(text(&grid.wait_for_end(id, SOON), "state"), "succeeded");
}

#[test]
fn limits_bound_what_a_queue_runs_and_holds() {
    let grid = Grid::start(Options { workers: 1, cpus: 4, ..Options::default() });
    grid.millgrid(["queue", "create", "bound", "--max-running", "2", "--max-queued", "20"]).ok();
    let file = grid.file("bound").display().to_string();
    let script = format!("echo + >> {file}; sleep 0.2; echo - >> {file}");
    let most_at_once = |options: &[&str]| {
        std::fs::write(grid.file("bound"), "").unwrap();
        let id = grid.submit_shell(&[&["--queue", "bound", "--array", "0-11"], options].concat(), &script);
        grid.wait_for_end(id, SOON);
        let (mut running, mut most) = (0, 0);
        for line in grid.lines("bound") {
            running += if line == "+" { 1 } else { -1 };
            most = most.max(running);
        }
        most
    };
    assert_eq!(most_at_once(&[]), 2);
    grid.millgrid(["queue", "set", "bound", "--max-running", "none", "--max-cpus", "1.5"]).ok();
    assert_eq!(most_at_once(&["--cpus", "0.5"]), 3);
    let full = ["submit", "--queue", "bound", "--array", "0-20", "--", "true"];
    grid.millgrid(full).exits(5).complains(&["bound", "--max-queued"]);
    // Explain says which limit it is.
    let first = grid.submit(&["--queue", "bound", "--cpus", "1.5", "--", "sleep", "600"]);
    until("it runs", SOON, || text(&grid.job(first), "state") == "running");
    let second = grid.submit(&["--queue", "bound", "--", "true"]);
    assert_eq!(reasons(&grid, second), ["queue_limit"]);
    assert_eq!(whole(&grid.millgrid(["queue", "show", "bound", "-o", "json"]).ok().json(), "running"), 1);
    grid.millgrid(["cancel", &first.to_string(), &second.to_string()]).ok();
}

#[test]
fn a_job_moves_forward_in_its_queue() {
    let grid = Grid::shared();
    grid.millgrid(["queue", "create", "moved"]).ok();
    grid.millgrid(["queue", "pause", "moved"]).ok();
    let jobs: Vec<u64> = (0..3).map(|_| grid.submit(&["--queue", "moved", "--", "true"])).collect();
    let place = |id: u64| {
        let explanation = grid.millgrid(["explain", &id.to_string(), "-o", "json"]).ok().json();
        (explanation["position"].clone(), explanation["ahead"].clone())
    };
    assert_eq!(place(jobs[2]), (3.into(), jobs[1].into()));
    grid.millgrid(["job", "reprioritize", &jobs[2].to_string(), "--priority", "10"]).ok();
    assert_eq!(place(jobs[2]), (1.into(), Value::Null));
    assert_eq!(place(jobs[0]), (2.into(), jobs[2].into()));
    grid.millgrid(["queue", "resume", "moved"]).ok();
    for id in jobs {
        assert_eq!(text(&grid.wait_for_end(id, SOON), "state"), "succeeded");
    }
}
