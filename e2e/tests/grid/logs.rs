//! What tasks write: live, after the end, and when their worker is gone.

use std::time::Duration;

use e2e::{Grid, Options, until};

use crate::SOON;

#[test]
fn logs_can_be_followed_from_the_start_to_the_end() {
    let grid = Grid::shared();
    let gate = grid.file("follow-gate").display().to_string();
    let id = grid.submit_shell(&[], &format!("echo one; until test -e {gate}; do sleep 0.05; done; echo two"));
    // Live, before the end.
    until("the first line is readable", SOON, || grid.millgrid(["logs", &id.to_string()]).ok().stdout == "one\n");
    let follower = grid.start_millgrid(["logs", "-f", &id.to_string()]);
    std::fs::write(&gate, "").unwrap();
    let output = follower.output().ok();
    assert_eq!(output.stdout, "one\ntwo\n");
}

#[test]
fn each_stream_goes_to_ours_and_can_be_chosen() {
    let grid = Grid::shared();
    let id = grid.submit_shell(&[], "echo out; echo err >&2");
    grid.wait_for_end(id, SOON);
    let id = id.to_string();
    let both = grid.millgrid(["logs", &id]).ok();
    assert_eq!((both.stdout.as_str(), both.stderr.as_str()), ("out\n", "err\n"));
    let out = grid.millgrid(["logs", &id, "--stdout"]).ok();
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("out\n", ""));
    let err = grid.millgrid(["logs", &id, "--stderr"]).ok();
    assert_eq!(err.stdout + &err.stderr, "err\n");
}

#[test]
fn lines_of_several_tasks_carry_their_names() {
    let grid = Grid::shared();
    let id = grid.submit_shell(&["--array", "7-8"], "echo line {index}; printf 'no newline'");
    grid.wait_for_end(id, SOON);
    let output = grid.millgrid(["logs", &id.to_string()]).ok().stdout;
    let mut lines: Vec<&str> = output.lines().collect();
    lines.sort_unstable();
    let expected: Vec<String> =
        [7, 8].iter().flat_map(|i| [format!("{id}.{i} | line {i}"), format!("{id}.{i} | no newline")]).collect();
    assert_eq!(lines, expected);
    assert_eq!(grid.millgrid(["logs", &format!("{id}.8")]).ok().stdout, "line 8\nno newline");
}

#[test]
fn the_last_lines_are_enough_when_asked_for() {
    let grid = Grid::shared();
    let id = grid.submit(&["--", "seq", "1", "100"]);
    grid.wait_for_end(id, SOON);
    assert_eq!(grid.millgrid(["logs", &id.to_string(), "--tail", "2"]).ok().stdout, "99\n100\n");
}

#[test]
fn the_last_attempt_is_shown_and_others_can_be_asked_for() {
    let grid = Grid::shared();
    let id = grid.submit_shell(&["--retries", "1"], "echo attempt {attempt}; test {attempt} = 2");
    grid.wait_for_end(id, SOON);
    let id = id.to_string();
    assert_eq!(grid.millgrid(["logs", &id]).ok().stdout, "attempt 2\n");
    assert_eq!(grid.millgrid(["logs", &id, "--attempt", "1"]).ok().stdout, "attempt 1\n");
}

#[test]
fn a_large_log_arrives_whole() {
    let grid = Grid::shared();
    let id = grid.submit(&["--", "seq", "1", "700000"]);
    grid.wait_for_end(id, SOON);
    let output = grid.millgrid(["logs", &id.to_string()]).ok().stdout;
    assert_eq!((output.lines().count(), output.lines().last()), (700_000, Some("700000")));
}

#[test]
fn bytes_that_are_no_text_are_passed_on() {
    let grid = Grid::shared();
    let id = grid.submit_shell(&[], "printf 'a\\000b\\033[31m'");
    grid.wait_for_end(id, SOON);
    // Not a terminal here: nothing is changed.
    assert_eq!(grid.millgrid(["logs", &id.to_string()]).ok().stdout, "a\0b\x1b[31m");
}

#[test]
fn logs_outlive_their_worker() {
    let grid = Grid::start(Options { workers: 1, ..Options::default() });
    let id = grid.submit_shell(&["--array", "0-4"], "echo kept {index}");
    grid.wait_for_end(id, SOON);
    let large = grid.submit(&["--", "seq", "1", "100000"]);
    grid.wait_for_end(large, SOON);
    // Logs go to S3 within seconds of the end; a worker that dies before takes them along, which is said.
    let stored = |kind: &str| walk(&grid.object(".millgrid/logs")).iter().any(|path| path.contains(kind));
    until("logs are stored", SOON, || stored(&format!("{large}.0.1.stdout")) || stored(&format!("{large}.0.1")));
    until("bundles are stored", SOON, || walk(&grid.object(".millgrid/logs")).len() >= 2);
    grid.dev("kill", &["worker-1"]).ok();
    let read = |selector: String| grid.millgrid(["logs", &selector, "--timeout", "20s"]);
    let output = read(format!("{id}.3")).ok();
    assert_eq!(output.stdout, "kept 3\n");
    assert!(output.elapsed < Duration::from_secs(15), "{:?}", output.elapsed);
    assert_eq!(read(large.to_string()).ok().stdout.lines().count(), 100_000);
}

#[test]
fn a_log_that_a_killed_agent_had_not_stored_yet_is_stored_by_the_next() {
    let grid = Grid::start(Options { workers: 1, ..Options::default() });
    let stored = |text: &str| {
        let files = walk(&grid.object(".millgrid/logs"));
        let holds = |content: Vec<u8>| String::from_utf8_lossy(&content).contains(text);
        files.iter().any(|path| std::fs::read(path).is_ok_and(holds))
    };
    // Nothing can be stored before the agent dies.
    grid.dev("pause", &["s3"]).ok();
    let id = grid.submit(&["--array", "0-2", "--", "echo", "promised {index}"]);
    let job = grid.wait_for_end(id, SOON);
    assert_eq!(job["state"], "succeeded");
    grid.dev("kill", &["worker-1", "--agent-only"]).ok();
    until("the agent is dead", SOON, || grid.process("worker-1")["pid"].is_null());
    grid.dev("resume", &["s3"]).ok();
    assert!(!stored("promised"));
    grid.dev("restart", &["worker-1"]).ok();
    until("all are stored", SOON, || (0..3).all(|index| stored(&format!("promised {index}"))));
    // Nobody but S3 has them now.
    grid.dev("kill", &["worker-1"]).ok();
    for index in 0..3 {
        let output = grid.millgrid(["logs", &format!("{id}.{index}"), "--timeout", "20s"]).ok();
        assert_eq!(output.stdout, format!("promised {index}\n"), "{}", output.stderr);
    }
}

/// Every file below a folder.
fn walk(folder: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.path().is_dir() {
            true => found.extend(walk(&entry.path())),
            false => found.push(entry.path().display().to_string()),
        }
    }
    found
}
