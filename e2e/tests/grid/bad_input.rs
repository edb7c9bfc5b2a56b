//! Bad input: an error that names the field and the way out, the code of the table, and nothing changed.

use e2e::Grid;

/// The exit code, words that the error must have, and the arguments of `submit`.
const SUBMITS: &[(i32, &[&str], &[&str])] = &[
    (2, &["--frobnicate"], &["--frobnicate", "--", "true"]),
    (2, &["command"], &[]),
    (2, &["command"], &["--array", "0-3"]),
    (2, &["array"], &["--array", "", "--", "true"]),
    (2, &["array"], &["--array", "5-3", "--", "true"]),
    (2, &["array", "3"], &["--array", "0-4,3", "--", "true"]),
    (2, &["array"], &["--array", "0-100000000", "--", "true"]),
    (2, &["array"], &["--array", "0..9", "--", "true"]),
    (2, &["array"], &["--array", "a-b", "--", "true"]),
    (2, &["array"], &["--array", "0-9:0", "--", "true"]),
    (2, &["array"], &["--array", "0-9%0", "--", "true"]),
    (2, &["array"], &["--array", "-1", "--", "true"]),
    (2, &["array"], &["--array", "99999999999999999999", "--", "true"]),
    (2, &["nowhere"], &["--", "echo", "{nowhere}"]),
    (2, &["line"], &["--", "echo", "{line}"]),
    (2, &["nowhere"], &["--env", "A={nowhere}", "--", "true"]),
    (2, &["cpus"], &["--cpus", "-1", "--", "true"]),
    (2, &["cpus"], &["--cpus", "0", "--", "true"]),
    (2, &["cpus"], &["--cpus", "many", "--", "true"]),
    (2, &["cpus"], &["--cpus", "0.0001", "--", "true"]),
    (2, &["cpus"], &["--cpus", "nan", "--", "true"]),
    (2, &["mem"], &["--mem", "0G", "--", "true"]),
    (2, &["mem"], &["--mem", "-1G", "--", "true"]),
    (2, &["mem"], &["--mem", "8", "--", "true"]),
    (2, &["mem"], &["--mem", "8Q", "--", "true"]),
    (2, &["gpus"], &["--gpus", "-1", "--", "true"]),
    (2, &["gpus"], &["--gpus", "some", "--", "true"]),
    (2, &["scratch"], &["--scratch", "x", "--", "true"]),
    (2, &["time"], &["--time", "0s", "--", "true"]),
    (2, &["time"], &["--time", "-5s", "--", "true"]),
    (2, &["time"], &["--time", "90", "--", "true"]),
    (2, &["time"], &["--time", "soon", "--", "true"]),
    (2, &["retries"], &["--retries", "-1", "--", "true"]),
    (2, &["priority"], &["--priority", "1001", "--", "true"]),
    (2, &["max-running"], &["--max-running", "0", "--", "true"]),
    (2, &["env"], &["--env", "=x", "--", "true"]),
    (2, &["label"], &["--label", "novalue", "--", "true"]),
    (2, &["each-line"], &["--each-line", "no-such-file", "--", "echo", "{line}"]),
    (2, &["in"], &["--in", "s3://dev/key:../up", "--", "true"]),
    (2, &["in"], &["--in", "s3://dev/key:/absolute", "--", "true"]),
    (2, &["in"], &["--in", "s3://dev/key:a/../../b", "--", "true"]),
    (2, &["in"], &["--in", "no-such-file", "--", "true"]),
    (2, &["in"], &["--in", "s3://", "--", "true"]),
    (2, &["out"], &["--out", "../x=s3://dev/x/", "--", "true"]),
    (2, &["out"], &["--out", "/etc/*=s3://dev/x/", "--", "true"]),
    (2, &["out"], &["--out", "x", "--", "true"]),
    (2, &["out"], &["--out", "[=s3://dev/x/", "--", "true"]),
    (2, &["no-such-script"], &["no-such-script.sh"]),
    (2, &["request-id"], &["--request-id", "", "--", "true"]),
    (3, &["999999"], &["--after", "999999", "--", "true"]),
    (2, &["after"], &["--after", "first", "--", "true"]),
    (3, &["nowhere"], &["--queue", "nowhere", "--", "true"]),
    (7, &["cpu"], &["--cpus", "3", "--", "true"]),
    (7, &["memory"], &["--mem", "4000T", "--", "true"]),
    (7, &["gpu"], &["--gpus", "1", "--", "true"]),
];

/// The same for other verbs.
const VERBS: &[(i32, &[&str], &[&str])] = &[
    (2, &["frobnicate"], &["frobnicate"]),
    (2, &["shwo"], &["shwo", "1"]),
    (3, &["999999"], &["show", "999999"]),
    (3, &["999999"], &["explain", "999999"]),
    (3, &["999999"], &["logs", "999999"]),
    (3, &["999999"], &["wait", "999999"]),
    (3, &["999999"], &["cancel", "999999"]),
    (3, &["999999"], &["retry", "999999"]),
    (3, &["999999"], &["job", "hold", "999999"]),
    (3, &["999999"], &["job", "release", "999999"]),
    (3, &["999999"], &["job", "outputs", "999999"]),
    (2, &["x"], &["show", "x"]),
    (2, &["0"], &["show", "0"]),
    (2, &["1.9-3"], &["cancel", "1.9-3"]),
    (3, &["nowhere"], &["queue", "show", "nowhere"]),
    (3, &["nobody"], &["worker", "show", "nobody"]),
    (3, &["nobody"], &["worker", "drain", "nobody"]),
    (2, &["timeout"], &["ls", "--timeout", "1"]),
    (2, &["-o"], &["ls", "-o", "yaml"]),
    (2, &["frobnicated"], &["ls", "-s", "frobnicated"]),
    (2, &["lab"], &["ls", "--context", "lab", "--endpoint", ""]),
    (3, &["nothing"], &["cp", "s3://dev/nothing", "here"]),
];

#[test]
fn every_bad_input_gets_its_error_and_changes_nothing() {
    // A grid of its own, so that a changed number of jobs means something.
    let grid = Grid::start(e2e::Options { workers: 1, cpus: 2, ..e2e::Options::default() });
    let submits = SUBMITS.iter().map(|(code, words, arguments)| (code, words, [&["submit"], *arguments].concat()));
    let verbs = VERBS.iter().map(|(code, words, arguments)| (code, words, arguments.to_vec()));
    let mut wrong = Vec::new();
    for (code, words, arguments) in submits.chain(verbs) {
        let output = grid.millgrid(&arguments);
        let silent = output.stdout.is_empty();
        let missing = words.iter().any(|word| !output.stderr.to_lowercase().contains(word));
        if output.code != *code || missing || !silent {
            let line = arguments.join(" ");
            wrong.push(format!("{line}\n    expected {code} {words:?}, got {}: {}", output.code, output.stderr.trim()));
        }
    }
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(grid.millgrid(["ls", "--all", "-o", "id"]).ok().stdout, "", "no job came of it");
}

#[test]
fn what_is_too_much_says_what_is_the_most() {
    let grid = Grid::shared();
    let output = grid.millgrid(["submit", "--cpus", "3", "--", "true"]).exits(7);
    assert!(output.stderr.contains('2'), "the largest pool has 2 cpus: {}", output.stderr);
}

#[test]
fn near_misses_are_answered_with_a_guess() {
    let grid = Grid::shared();
    grid.millgrid(["sumbit", "--", "true"]).exits(2).complains(&["submit"]);
    grid.millgrid(["submit", "--arrray", "0-3", "--", "true"]).exits(2).complains(&["--array"]);
}

#[test]
fn a_message_over_the_limit_is_refused_with_its_size() {
    let grid = Grid::shared();
    // More than any one submit may carry.
    let script = format!("#!/bin/sh\n# {}\n", "x".repeat(40 << 20));
    std::fs::write(grid.file("huge.sh"), script).unwrap();
    let output = grid.millgrid(["submit", "huge.sh"]);
    assert!(matches!(output.code, 2 | 5), "{} {}", output.code, output.stderr);
    grid.millgrid(["run", "--", "true"]).ok();
    std::fs::write(grid.file("large.bin"), vec![0; (1 << 20) + 1]).unwrap();
    grid.millgrid(["submit", "--in", "large.bin", "--", "true"]).exits(2).complains(&["large.bin"]);
}

#[test]
fn an_unknown_key_of_a_configuration_names_its_line() {
    let grid = Grid::shared();
    let folder = grid.work().join("project");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(".millgrid.toml"), "current = 'lab'\n[context.lab]\nendpoint = ['x']\n").unwrap();
    let mut command = grid.command(["ls"]);
    let output = e2e::Running::start(command.current_dir(&folder)).output().exits(2);
    assert!(output.stderr.contains(".millgrid.toml:3") && output.stderr.contains("endpoint"), "{}", output.stderr);
}

#[test]
fn a_grid_that_isnt_there_is_unavailable_within_the_time() {
    let grid = Grid::shared();
    for endpoint in ["https://127.0.0.1:9", "https://127.0.0.1:9,https://127.0.0.1:10"] {
        let output = grid.millgrid(["ls", "--endpoint", endpoint, "--timeout", "2s"]).exits(5);
        assert!(output.elapsed.as_secs_f64() < 6.0, "{:?}", output.elapsed);
    }
    grid.millgrid(["ls", "--endpoint", "not a url"]).exits(2);
}
