//! `millgrid dev` itself: its start, its end, and what it says.

use std::{
    fs,
    time::{Duration, Instant},
};

use e2e::{Grid, Options, Running, check_fields, eventually, processes_of, text, until};
use rustix::process::Signal;

use crate::SOON;

/// The promise is 1.5 s on a quiet machine; builds run on busy ones.
const START: Duration = Duration::from_secs(5);
/// The promise.
const DOWN: Duration = Duration::from_secs(3);

#[test]
fn a_grid_accepts_jobs_soon_after_its_start_and_leaves_nothing() {
    let grid = Grid::start_alone(Options { workers: 1, ..Options::default() });
    let folder = grid.folder().join("ephemeral");
    fs::create_dir(&folder).unwrap();
    let state = folder.join("state").display().to_string();
    let start = Instant::now();
    let mut command = grid.bare_command();
    command.args(["dev", "--ephemeral", "--state", &state, "--port-base", "14000"]);
    let mut dev = Running::start(&mut command);
    let environment = eventually("`dev env` knows the grid", SOON, || {
        let mut command = grid.bare_command();
        let output = Running::start(command.args(["dev", "env", "--state", &state])).output();
        (output.code == 0).then_some(output.stdout)
    });
    let submit = || {
        let mut shell = std::process::Command::new("bash");
        let millgrid = grid.bare_command().get_program().to_owned();
        shell.arg("-c").arg(format!("{environment}\nexec \"$0\" submit -- true")).arg(millgrid);
        shell.env("HOME", grid.folder().join("home")).stdout(std::process::Stdio::piped());
        Running::start(shell.stderr(std::process::Stdio::piped())).output()
    };
    submit().ok();
    let elapsed = start.elapsed();
    eprintln!("from the start of `millgrid dev` to an accepted job: {} ms", elapsed.as_millis());
    assert!(elapsed < START, "{elapsed:?}");
    assert!(dev.is_running());
    let asked = Instant::now();
    dev.signal(Signal::INT);
    dev.ends_within(SOON);
    assert!(asked.elapsed() < DOWN, "{:?}", asked.elapsed());
    assert_eq!(processes_of(&folder), Vec::<String>::new());
    assert!(!folder.join("state").join("s3").exists(), "an ephemeral grid leaves no state");
}

#[test]
fn down_takes_tasks_along_and_is_quick() {
    let grid = Grid::start_alone(Options::default());
    let file = grid.file("tasks").display().to_string();
    let script = format!("trap '' TERM; echo up >> {file}; sleep 4321 & while :; do sleep 0.1; done");
    grid.submit_shell(&["--array", "0-3"], &script);
    grid.wait_for_lines("tasks", 4, SOON);
    let down = grid.dev("down", &[]).ok();
    assert!(down.elapsed < DOWN, "{:?}", down.elapsed);
    assert_eq!(processes_of(grid.state()), Vec::<String>::new());
    // It is kept: it can be started again, with all it knew.
    grid.start_again(&["--detach"]);
    let jobs = grid.millgrid(["ls", "--all", "-o", "id"]).ok().stdout;
    assert_eq!(jobs, "1\n");
    grid.millgrid(["cancel", "1"]).ok();
}

#[test]
fn who_asks_a_grid_that_was_stopped_hears_so_at_once() {
    let grid = Grid::start(Options { default_state: true, workers: 1, ..Options::default() });
    let asked = |arguments: &[&str]| Running::start(grid.bare_command().args(arguments)).output();
    asked(&["ls"]).ok();
    grid.dev("down", &[]).ok();
    let refused = asked(&["ls"]).exits(5);
    // Otherwise it would be looked for 30 s long.
    assert!(refused.elapsed < START, "{:?}", refused.elapsed);
    assert!(refused.stderr.contains("is stopped") && refused.stderr.contains("`millgrid dev`"), "{}", refused.stderr);
    // Of one whose processes died nobody has said that it should be down: it may be back.
    grid.start_again(&["--detach"]);
    asked(&["ls"]).ok();
    let killed = grid.leader();
    grid.dev("kill", &[&killed]).ok();
    asked(&["submit", "--", "true"]).ok();
    grid.dev("restart", &[&killed]).ok();
}

#[test]
fn the_status_names_every_process_and_its_listeners() {
    let grid = Grid::start(Options::default());
    let status = grid.status();
    check_fields(&status, &[("state", "text"), ("processes", "array")]);
    let processes = status["processes"].as_array().unwrap();
    let mut names: Vec<&str> = processes.iter().map(|process| text(process, "name")).collect();
    names.sort_unstable();
    let expected = ["c1", "c2", "c3", "s3", "worker-1", "worker-1-keeper", "worker-2", "worker-2-keeper"];
    assert_eq!(names, expected);
    for process in processes {
        let fields =
            [("name", "text"), ("role", "text"), ("pid", "whole?"), ("address", "text?"), ("listeners", "array")];
        check_fields(process, &fields);
        assert!(process["pid"].is_u64(), "{process}");
        let name = text(process, "name");
        let listeners: Vec<&str> =
            process["listeners"].as_array().unwrap().iter().map(|listener| text(listener, "name")).collect();
        match name {
            "c1" | "c2" | "c3" => assert_eq!(listeners, ["grpc", "peer", "http"], "{process}"),
            "s3" => assert_eq!(listeners, ["s3"], "{process}"),
            _ => assert!(process["address"].is_null(), "{process}"),
        }
    }
    grid.dev("kill", &["c2"]).ok();
    until("its pid is null", SOON, || grid.process("c2")["pid"].is_null());
    grid.dev("kill", &["nobody"]).exits(3);
    grid.dev("restart", &["c2"]).ok();
    assert!(grid.process("c2")["pid"].is_u64());
}

#[test]
fn ports_that_are_taken_are_passed_over() {
    // Far from the ports of other tests: what is passed over here could be a killed coordinator's there.
    let grid = Grid::start(Options { workers: 1, port_base: Some(14_500), ..Options::default() });
    let base = text(&grid.process("c1"), "address").rsplit(':').next().unwrap().to_owned();
    let other = grid.folder().join("other").display().to_string();
    let dev = |arguments: &[&str]| Running::start(grid.bare_command().arg("dev").args(arguments)).output();
    dev(&["--detach", "--state", &other, "--workers", "1", "--port-base", &base]).ok();
    let status = dev(&["status", "--state", &other, "-o", "json"]).ok().json();
    let port = text(&status["processes"][0], "address").rsplit(':').next().unwrap().to_owned();
    dev(&["down", "--state", &other]).ok();
    assert_ne!(port, base);
    assert_eq!(processes_of(std::path::Path::new(&other)), Vec::<String>::new());
}

#[test]
fn a_second_grid_in_one_folder_is_refused() {
    let grid = Grid::start(Options { workers: 1, ..Options::default() });
    let output = grid.dev("", &["--detach"]);
    assert!(output.code != 0, "{output:?}");
    grid.millgrid(["run", "--", "true"]).ok();
}

#[test]
fn a_reset_forgets_everything() {
    let grid = Grid::start(Options { workers: 1, ..Options::default() });
    grid.submit(&["--", "true"]);
    grid.dev("down", &[]).ok();
    grid.dev("reset", &[]).ok();
    grid.start_again(&["--detach", "--workers", "1"]);
    assert_eq!(grid.millgrid(["ls", "--all", "-o", "id"]).ok().stdout, "");
    grid.millgrid(["run", "--", "true"]).ok();
}
