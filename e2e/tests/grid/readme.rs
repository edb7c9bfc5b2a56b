//! The README and the pages beside it do what they say.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use e2e::{Grid, Options, Running, blocks, matches};

/// Separates one command's output from the next.
const MARK: &str = "=-= end of step";

#[test]
fn every_console_block_of_the_readme_does_what_it_shows() {
    check("README.md");
}

#[test]
fn every_console_block_about_queues_does_what_it_shows() {
    check("docs/queues.md");
}

#[test]
fn every_console_block_about_jobs_does_what_it_shows() {
    check("docs/jobs.md");
}

#[test]
fn every_console_block_about_the_history_does_what_it_shows() {
    check("docs/history.md");
}

fn check(page: &str) {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(page)).unwrap();
    let blocks = blocks(&text);
    assert!(blocks.len() >= 3, "{page} shows how it is used");
    // As its reader does: the default state, so that the context `dev` is found without any variable.
    let grid = Grid::start(Options { default_state: true, ..Options::default() });
    let millgrid = grid.bare_command().get_program().to_owned();
    let path = format!("{}:{}", Path::new(&millgrid).parent().unwrap().display(), std::env::var("PATH").unwrap());
    // One shell for all: a later block may use what an earlier one left.
    let mut script = String::new();
    for step in blocks.iter().flat_map(|block| &block.steps) {
        script += &format!("{{ {}\n}} 2>&1\nprintf '\\n{MARK} %s\\n' $?\n", step.command);
    }
    let mut shell = Command::new("bash");
    shell.arg("-c").arg(script).current_dir(grid.work()).env("PATH", path).env("HOME", grid.folder().join("home"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MILLGRID_") || name.to_string_lossy().starts_with("XDG_") {
            shell.env_remove(name);
        }
    }
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = Running::start(&mut shell).output();
    let mut rest = output.stdout.as_str();
    for block in &blocks {
        for step in &block.steps {
            let what = format!("{page}, block at line {}: {}", block.line, step.command);
            let Some((found, after)) = rest.split_once(&format!("\n{MARK} ")) else {
                panic!("{what}: the shell ended before it\n{rest}\n{}", output.stderr);
            };
            let (code, after) = after.split_once('\n').unwrap();
            rest = after;
            assert_eq!(code, "0", "{what}\n{found}");
            let found: Vec<&str> = found.lines().collect();
            let expected: Vec<&str> = step.expected.iter().map(String::as_str).collect();
            assert!(matches(&expected, &found), "{what}\n--- expected\n{expected:#?}\n--- found\n{found:#?}");
        }
    }
    // The README kills the leader; who was killed comes back, so that all three can be compared.
    for name in ["c1", "c2", "c3"] {
        if grid.process(name)["pid"].is_null() {
            grid.dev("restart", &[name]).ok();
        }
    }
}
