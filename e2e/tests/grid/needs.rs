//! What tasks need beside cpus: labels of workers, other resources instead, licenses.

use e2e::{Grid, Options, Test, text, until, whole};

use crate::SOON;

/// The workers that ran an array with these options, each once.
fn workers_of(grid: &Test, options: &[&str]) -> Vec<String> {
    let id = grid.submit(&[options, &["--array", "0-7", "--", "true"]].concat());
    assert_eq!(text(&grid.wait_for_end(id, SOON), "state"), "succeeded");
    let mut workers: Vec<String> = grid.tasks(id).iter().map(|task| text(task, "worker").to_owned()).collect();
    workers.sort();
    workers.dedup();
    workers
}

#[test]
fn constraints_choose_workers_by_their_labels() {
    let grid = Grid::start(Options { workers: 2, cpus: 2, ..Options::default() });
    let worker = grid.millgrid(["worker", "show", "worker-2", "-o", "json"]).ok().json();
    assert_eq!(worker["labels"]["zone"], "dev-b");
    let architecture = text(&worker["labels"], "architecture").to_owned();
    assert_eq!(workers_of(&grid, &["--constraint", "zone=dev-b"]), ["worker-2"]);
    assert_eq!(workers_of(&grid, &["--constraint", "zone!=dev-b"]), ["worker-1"]);
    assert_eq!(workers_of(&grid, &["--constraint", "zone=dev-x,dev-b", "--constraint", "zone"]), ["worker-2"]);
    let here = format!("architecture={architecture}");
    assert_eq!(workers_of(&grid, &["--constraint", &here, "--constraint", "pool=local", "--prefer", "gpu"]).len(), 2);
    // One at a time, so that the better worker is always free.
    assert_eq!(workers_of(&grid, &["--prefer", "zone=dev-b", "--max-running", "1"]), ["worker-2"]);
    let id = grid.submit(&["--constraint", "!zone", "--", "true"]).to_string();
    let explanation = grid.millgrid(["explain", &id, "-o", "json"]).ok().json();
    let reason = &explanation["reasons"][0];
    assert_eq!((text(reason, "reason"), whole(reason, "workers")), ("constraint", 2), "{explanation}");
    grid.millgrid(["cancel", &id]).ok();
    let plan = ["submit", "--plan", "--constraint", "zone=dev-b", "-o", "json", "--", "true"];
    assert_eq!(whole(&grid.millgrid(plan).ok().json(), "workers_that_fit"), 1);
}

#[test]
fn alternatives_are_taken_in_their_order() {
    let grid = Grid::shared();
    let script = "echo $MILLGRID_CPUS $MILLGRID_MEMORY_MIB $OMP_NUM_THREADS";
    let run = |options: &[&str]| grid.millgrid([&["run"], options, &["--", "sh", "-c", script]].concat()).ok().stdout;
    // There is no gpu here, and the other tests take cpus: only the last one ever fits.
    let last_fits = ["--gpus", "1", "--alt", "gpus=2", "--alt", "cpus=1.5,mem=64M"];
    assert_eq!(run(&last_fits), "1.5 64 1\n");
    assert_eq!(run(&["--cpus", "0.5", "--alt", "cpus=2"]), "0.5 0 1\n");
    // Where none ever fits, the job is refused.
    grid.millgrid(["submit", "--gpus", "1", "--alt", "cpus=5000", "--", "true"]).exits(7);
}

#[test]
fn licenses_are_never_used_more_often_than_there_are() {
    let grid = Grid::shared();
    let file = grid.file("licensed").display().to_string();
    grid.millgrid(["license", "set", "solver", "--total", "2"]).ok();
    let script = format!("echo + >> {file}; sleep 0.1; echo - >> {file}");
    let options = ["--cpus", "0.1", "--license", "solver", "--array"];
    let jobs = ["0-11", "0-3"].map(|array| grid.submit_shell(&[&options[..], &[array]].concat(), &script));
    for id in jobs {
        assert_eq!(text(&grid.wait_for_end(id, SOON), "state"), "succeeded");
    }
    let (mut running, mut most) = (0, 0);
    for line in grid.lines("licensed") {
        running += if line == "+" { 1 } else { -1 };
        most = most.max(running);
    }
    assert_eq!((running, most), (0, 2));
    let holder = grid.submit(&["--license", "solver=2", "--", "sleep", "600"]).to_string();
    let used = || grid.millgrid(["license", "ls", "-o", "json"]).ok().json()[0]["used"].clone();
    until("it has its licenses", SOON, || used() == 2);
    let waiting = grid.submit(&["--license", "solver", "--", "true"]);
    let explanation = grid.millgrid(["explain", &waiting.to_string(), "-o", "json"]).ok().json();
    assert_eq!(explanation["reasons"][0]["reason"], "resources_license", "{explanation}");
    grid.millgrid(["cancel", &holder]).ok();
    assert_eq!(text(&grid.wait_for_end(waiting, SOON), "state"), "succeeded");
    until("all were given back", SOON, || used() == 0);
    grid.millgrid(["submit", "--license", "solver=3", "--", "true"]).exits(7).complains(&["solver"]);
    grid.millgrid(["submit", "--license", "nosuch", "--", "true"]).exits(3).complains(&["nosuch", "license"]);
    grid.millgrid(["license", "set", "solver", "--total", "0"]).ok();
    assert_eq!(grid.millgrid(["license", "ls", "-o", "json"]).ok().json(), serde_json::json!([]));
}
