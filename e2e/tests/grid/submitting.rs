//! What a submit can say, and what its task finds.

use std::{fs, os::unix::fs::PermissionsExt};

use e2e::{Grid, Options, Test, text, until, whole};

use crate::SOON;

fn output_of(grid: &Test, arguments: &[&str]) -> String {
    grid.millgrid([&["run"], arguments].concat()).ok().stdout
}

#[test]
fn run_mirrors_each_stream_to_ours() {
    let grid = Grid::shared();
    let output = grid.millgrid(["run", "--", "sh", "-c", "echo out; echo err >&2; exit 3"]).exits(3);
    assert_eq!(output.stdout, "out\n");
    assert!(output.stderr.lines().any(|line| line == "err"), "{}", output.stderr);
}

#[test]
fn submit_prints_the_number_alone() {
    let grid = Grid::shared();
    let output = grid.millgrid(["submit", "--", "true"]).ok();
    assert_eq!(output.stdout, format!("{}\n", output.id()));
}

#[test]
fn the_environment_is_the_workers_and_what_was_given() {
    let grid = Grid::shared();
    let mut command = grid.command(["run", "--env", "GIVEN=a b", "--env", "EMPTY=", "--", "env"]);
    command.env("NOT_GIVEN", "secret");
    let output = e2e::Running::start(&mut command).output().ok();
    let has = |line: &str| output.stdout.lines().any(|found| found == line);
    assert!(has("GIVEN=a b") && has("EMPTY="), "{}", output.stdout);
    assert!(!output.stdout.contains("NOT_GIVEN"), "{}", output.stdout);
    for name in ["PATH", "HOME", "MILLGRID_JOB_ID", "MILLGRID_CPUS", "MILLGRID_SCRATCH", "AWS_ENDPOINT_URL_S3"] {
        assert!(output.stdout.lines().any(|line| line.starts_with(&format!("{name}="))), "{name}: {}", output.stdout);
    }
}

#[test]
fn resources_are_told_to_the_task() {
    let grid = Grid::shared();
    let script = "echo $MILLGRID_CPUS $OMP_NUM_THREADS $MILLGRID_MEMORY_MIB $MILLGRID_GPUS";
    let output = output_of(&grid, &["--cpus", "2", "--mem", "0.25G", "--", "sh", "-c", script]);
    assert_eq!(output, "2 2 256 0\n");
}

#[test]
fn run_starts_in_the_callers_folder_and_submit_in_its_own() {
    let grid = Grid::shared();
    let work = grid.work().canonicalize().unwrap().display().to_string();
    assert_eq!(output_of(&grid, &["--", "pwd", "-P"]), format!("{work}\n"));
    assert_eq!(output_of(&grid, &["--chdir", "/", "--", "pwd", "-P"]), "/\n");
    let id = grid.submit(&["--", "pwd", "-P"]);
    grid.wait_for_end(id, SOON);
    let place = grid.millgrid(["logs", &id.to_string()]).ok().stdout;
    assert!(
        place.trim() != work && place.contains(&*grid.state().canonicalize().unwrap().to_string_lossy()),
        "{place}"
    );
}

#[test]
fn stdin_of_a_task_is_empty() {
    let grid = Grid::shared();
    assert_eq!(output_of(&grid, &["--", "sh", "-c", "cat; echo end"]), "end\n");
}

#[test]
fn a_script_travels_with_its_options() {
    let grid = Grid::shared();
    let script = grid.file("script.sh");
    let body = "#!/bin/sh\n#MILLGRID --name from-script --cpus 2\n#MILLGRID --label kind=script\n\
                echo \"$1 {index} $MILLGRID_CPUS\"\n";
    fs::write(&script, body).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let id = grid.submit(&["script.sh", "argument"]);
    // It travelled along: the file is not needed any more.
    fs::remove_file(&script).unwrap();
    let job = grid.wait_for_end(id, SOON);
    assert_eq!((text(&job, "name"), text(&job["labels"], "kind")), ("from-script", "script"));
    // A script's body is never expanded.
    assert_eq!(grid.millgrid(["logs", &id.to_string()]).ok().stdout, "argument {index} 2\n");
    fs::write(&script, body).unwrap();
    let id = grid.submit(&["--cpus", "1", "--name", "from-line", "script.sh", "x"]);
    let job = grid.wait_for_end(id, SOON);
    assert_eq!(text(&job, "name"), "from-line");
    assert_eq!(grid.millgrid(["logs", &id.to_string()]).ok().stdout, "x {index} 1\n");
}

#[test]
fn a_script_comes_from_stdin_too() {
    let grid = Grid::shared();
    let id = grid.millgrid_with_stdin("#!/bin/sh\necho from stdin\n", ["submit", "-"]).ok().id();
    grid.wait_for_end(id, SOON);
    assert_eq!(grid.millgrid(["logs", &id.to_string()]).ok().stdout, "from stdin\n");
}

#[test]
fn a_held_job_waits_for_its_release() {
    let grid = Grid::shared();
    let id = grid.submit(&["--hold", "--", "true"]).to_string();
    let waiting = grid.millgrid(["wait", &id, "--timeout", "1s"]).exits(124);
    assert!(waiting.stderr.contains("held"), "{}", waiting.stderr);
    grid.millgrid(["job", "release", &id]).ok();
    grid.millgrid(["wait", &id]).ok();
}

#[test]
fn a_queued_job_can_be_held() {
    let grid = Grid::shared();
    let first = grid.submit(&["--hold", "--", "true"]).to_string();
    let second = grid.submit(&["--after", &first, "--", "true"]).to_string();
    grid.millgrid(["job", "hold", &second]).ok();
    grid.millgrid(["job", "release", &first]).ok();
    grid.millgrid(["wait", &first]).ok();
    let job = grid.millgrid(["show", &second, "-o", "json"]).ok().json();
    assert_eq!((text(&job, "state"), &job["held"]), ("queued", &true.into()));
    grid.millgrid(["job", "release", &second]).ok();
    grid.millgrid(["wait", &second]).ok();
}

#[test]
fn a_plan_has_no_effect() {
    let grid = Grid::start(Options { workers: 1, ..Options::default() });
    let plan = grid.millgrid(["submit", "--plan", "--array", "0-9", "--", "echo", "{index}"]).ok();
    assert!(!plan.stdout.is_empty() || !plan.stderr.is_empty());
    grid.millgrid(["submit", "--plan", "--cpus", "100000", "--", "true"]).exits(7);
    assert_eq!(grid.millgrid(["ls", "--all", "-o", "id"]).ok().stdout, "");
}

#[test]
fn ls_filters_by_state_and_label() {
    let grid = Grid::shared();
    let held = grid.submit(&["--hold", "--label", "subject=ls", "--label", "kind=held", "--", "true"]);
    let ended = grid.submit(&["--label", "subject=ls", "--", "true"]);
    grid.wait_for_end(ended, SOON);
    let ids = |arguments: &[&str]| {
        let output = grid.millgrid([&["ls", "-o", "id", "-l", "subject=ls"], arguments].concat()).ok();
        output.stdout.lines().map(|line| line.parse().unwrap()).collect::<Vec<u64>>()
    };
    assert_eq!(ids(&[]), [held]);
    assert_eq!(ids(&["--all"]), [ended, held]);
    assert_eq!(ids(&["-s", "succeeded"]), [ended]);
    assert_eq!(ids(&["-l", "kind=held"]), [held]);
    assert_eq!(ids(&["--all", "--limit", "1"]), [ended]);
    grid.millgrid(["cancel", &held.to_string()]).ok();
}

#[test]
fn higher_priority_goes_first_and_equals_in_order_of_arrival() {
    let grid = Grid::start(Options { workers: 1, cpus: 1, ..Options::default() });
    let (gate, order) = (grid.file("gate"), grid.file("order").display().to_string());
    let gate_text = gate.display().to_string();
    let blocker = grid.submit_shell(&[], &format!("until test -e {gate_text}; do sleep 0.05; done"));
    grid.wait_for_state(blocker, "running", SOON);
    let mut last = 0;
    for (priority, name) in [("0", "b"), ("-5", "d"), ("7", "a"), ("0", "c")] {
        last = grid.submit_shell(&["--priority", priority], &format!("echo {name} >> {order}"));
    }
    let explanation = grid.millgrid(["explain", &last.to_string(), "-o", "json"]).ok().json();
    assert!(whole(&explanation, "ahead") >= 1, "{explanation}");
    fs::write(&gate, "").unwrap();
    until("all ran", SOON, || grid.lines("order").len() == 4);
    assert_eq!(grid.lines("order"), ["a", "b", "c", "d"]);
}

#[test]
fn cp_moves_files_to_the_grids_s3_and_back() {
    let grid = Grid::shared();
    let content: Vec<u8> = (0..300_000_u32).map(|number| (number % 251) as u8).collect();
    fs::write(grid.file("there.bin"), &content).unwrap();
    grid.millgrid(["cp", "there.bin", "s3://dev/cp/there.bin"]).ok();
    assert_eq!(fs::read(grid.object("cp/there.bin")).unwrap(), content);
    grid.millgrid(["cp", "s3://dev/cp/there.bin", "back.bin"]).ok();
    assert_eq!(fs::read(grid.file("back.bin")).unwrap(), content);
    grid.millgrid(["cp", "s3://dev/cp/nothing", "nothing.bin"]).exits(3);
    assert!(!grid.file("nothing.bin").exists());
}
