//! The steps of `cargo xtask test`.

use std::{path::Path, process::Command, time::Duration};

use super::{Tally, leftovers, python};
use crate::{
    process::{self, Ended, Interrupt},
    tidy,
    workspace::Workspace,
};

/// What each step is given.
pub struct Surroundings<'a> {
    /// The repository.
    pub workspace: &'a Workspace,
    /// Whether to stop.
    pub interrupt: &'a Interrupt,
    /// A folder for what the steps print.
    pub logs: &'a Path,
    /// Which tests, by name.
    pub filter: Option<&'a str>,
}

/// A step.
pub struct Step {
    /// As for `--only`.
    pub name: &'static str,
    /// What it shows.
    pub about: &'static str,
    /// Does it. An error is a failure.
    pub run: fn(&Surroundings) -> anyhow::Result<Tally>,
}

/// In the order of how soon they tell something.
pub const STEPS: [Step; 8] = [
    Step { name: "tidy", about: "layers, purity, length, leftovers", run: tidy },
    Step { name: "fmt", about: "cargo fmt --check", run: fmt },
    Step { name: "clippy", about: "cargo clippy, warnings denied", run: clippy },
    Step { name: "build", about: "the programs", run: build },
    Step { name: "units", about: "the tests of every crate", run: units },
    Step { name: "e2e", about: "real processes, driven through the command line", run: e2e },
    Step { name: "python", about: "the Python package: types, and its tests against real processes", run: python::run },
    Step { name: "simulation", about: "a grid on one thread, with faults", run: simulation },
];

/// No step may hang a build for ever; all together stay below the three quarters of an hour that CI has.
const LIMIT: Duration = Duration::from_secs(25 * 60);

/// More of a failed step's output than this is only in its file.
const MOST_LINES: usize = 400;

/// Simulated minutes without a planted bug: some ten seconds, with seeds of every kind among them.
const MINUTES: &str = "40";

/// By then each planted bug must have been found.
const PLANTED_MINUTES: &str = "600";

fn tidy(surroundings: &Surroundings) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    for finding in tidy::check(surroundings.workspace)? {
        if finding.broken.is_empty() {
            tally.passed += 1;
            continue;
        }
        tally.failed += 1;
        println!("   broken: {}", finding.rule);
        for broken in finding.broken {
            println!("     {broken}");
        }
    }
    Ok(tally)
}

fn fmt(surroundings: &Surroundings) -> anyhow::Result<Tally> {
    plain(surroundings, "fmt", surroundings.workspace.cargo(["fmt", "--all", "--check"]))
}

fn clippy(surroundings: &Surroundings) -> anyhow::Result<Tally> {
    let mut clippy = surroundings.workspace.cargo(["clippy", "--release", "--workspace", "--all-targets", "--locked"]);
    clippy.args(["--", "-D", "warnings"]);
    plain(surroundings, "clippy", clippy)
}

fn build(surroundings: &Surroundings) -> anyhow::Result<Tally> {
    plain(
        surroundings,
        "build",
        surroundings.workspace.cargo(["build", "--release", "--workspace", "--locked", "--bins"]),
    )
}

fn units(surroundings: &Surroundings) -> anyhow::Result<Tally> {
    let mut units = surroundings.workspace.cargo(["test", "--release", "--workspace", "--locked"]);
    units.args(["--exclude", "e2e", "--no-fail-fast"]);
    // One change, one verdict: random tests start from one seed unless the caller names another.
    if std::env::var_os("PROPTEST_RNG_SEED").is_none() {
        units.env("PROPTEST_RNG_SEED", "20261122");
    }
    if let Some(filter) = surroundings.filter {
        units.args(["--", filter]);
    }
    tests(surroundings, "units", units)
}

fn e2e(surroundings: &Surroundings) -> anyhow::Result<Tally> {
    let root = tempfile::Builder::new().prefix("millgrid-e2e-").tempdir()?;
    let mut e2e = surroundings.workspace.cargo(["test", "--release", "--locked", "--package", "e2e", "--no-fail-fast"]);
    e2e.args(["--"]).args(surroundings.filter);
    // Tests wait more than they work, but a grid is nine processes: more at once would measure the machine.
    e2e.args(["--test-threads", "4"]).env("TMPDIR", root.path());
    let tally = tests(surroundings, "e2e", e2e);
    // Whatever happened to the tests, no process of theirs outlives them.
    let left = leftovers::kill(root.path())?;
    let mut tally = tally?;
    match left.as_slice() {
        [] => tally.passed += 1,
        left => {
            println!("   left behind, and killed:");
            left.iter().for_each(|process| println!("     {process}"));
            tally.failed += 1;
        }
    }
    Ok(tally)
}

fn simulation(surroundings: &Surroundings) -> anyhow::Result<Tally> {
    if !surroundings.workspace.has_program("simulation") {
        println!("   there is no program `simulation` yet");
        return Ok(Tally::default());
    }
    let program = surroundings.workspace.program("simulation");
    let run = |arguments: &[&str]| -> anyhow::Result<(Option<i32>, String)> {
        let mut command = Command::new(&program);
        let captured = process::capture(command.args(arguments), surroundings.interrupt)?;
        Ok((captured.code, captured.stdout + &captured.stderr))
    };
    let mut tally = Tally::default();
    let mut check = |what: &str, holds: bool, output: &str| {
        println!("   {what}: {}", if holds { "yes" } else { "NO" });
        if holds {
            tally.passed += 1;
        } else {
            output.lines().for_each(|line| println!("   | {line}"));
            tally.failed += 1;
        }
    };
    let (code, output) = run(&["--minutes", MINUTES])?;
    check("every invariant holds", code == Some(0), &output);
    println!("   {}", output.lines().last().unwrap_or_default());
    check("shares of saturated queues were compared", !output.contains(" 0 minutes fair"), &output);
    let (code, output) = run(&["--seed", "1", "--twice"])?;
    check("the same seed has the same history", code == Some(0), &output);
    // A simulator that doesn't find what was planted proves nothing.
    for plant in run(&["--plant", "list"])?.1.lines() {
        let (code, output) = run(&["--plant", plant, "--minutes", PLANTED_MINUTES])?;
        check(&format!("`{plant}` is found"), code == Some(1), &output);
    }
    Ok(tally)
}

/// One check: the command's exit code.
pub fn plain(surroundings: &Surroundings, name: &str, mut command: Command) -> anyhow::Result<Tally> {
    let (ended, output) = logged(surroundings, name, &mut command)?;
    if ended == Ended::Success {
        return Ok(Tally { passed: 1, failed: 0 });
    }
    show(surroundings, name, ended, &output);
    Ok(Tally { passed: 0, failed: 1 })
}

/// As many checks as the test programs count.
fn tests(surroundings: &Surroundings, name: &str, mut command: Command) -> anyhow::Result<Tally> {
    let (ended, output) = logged(surroundings, name, &mut command)?;
    let mut tally = count(&output);
    if ended == Ended::Success {
        return Ok(tally);
    }
    // It did not compile, or a test program died before it could count.
    tally.failed = tally.failed.max(1);
    show(surroundings, name, ended, &output);
    Ok(tally)
}

/// Runs a command with its output in a file of its name.
pub fn logged(surroundings: &Surroundings, name: &str, command: &mut Command) -> anyhow::Result<(Ended, String)> {
    let log = surroundings.logs.join(format!("{name}.log"));
    process::run_into(command, &log, LIMIT, surroundings.interrupt)
}

/// Adds up what libtest prints at the end of each test program.
fn count(output: &str) -> Tally {
    let mut tally = Tally::default();
    for line in output.lines() {
        let Some((_, counts)) = line.split_once("test result: ") else { continue };
        for (number, word) in counts.split([';', '.']).filter_map(|part| part.trim().split_once(' ')) {
            let Ok(number) = number.parse::<u64>() else { continue };
            match word {
                "passed" => tally.passed += number,
                "failed" => tally.failed += number,
                _ => {}
            }
        }
    }
    tally
}

/// Prints what matters of a failed step.
pub fn show(surroundings: &Surroundings, name: &str, ended: Ended, output: &str) {
    if ended == Ended::TimeLimit {
        println!("   it ran longer than {} s and was killed", LIMIT.as_secs());
    }
    let noise = ["   Compiling ", "    Checking ", "  Downloaded ", " Downloading ", "     Running "];
    let passed = |line: &str| line.starts_with("test ") && line.ends_with("... ok");
    let matters = |line: &&str| !noise.iter().any(|word| line.starts_with(word)) && !passed(line);
    let lines: Vec<&str> = output.lines().filter(matters).collect();
    let skipped = lines.len().saturating_sub(MOST_LINES);
    if skipped > 0 {
        println!("   ... {skipped} lines before");
    }
    lines.iter().skip(skipped).for_each(|line| println!("   | {line}"));
    println!("   all of it: {}", surroundings.logs.join(format!("{name}.log")).display());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_all_test_programs_are_added_up() {
        let output = "\
test a ... ok
test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.10s
junk
test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s
";
        assert_eq!(count(output), Tally { passed: 15, failed: 2 });
    }
}
