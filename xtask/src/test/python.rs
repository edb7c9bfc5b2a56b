//! The Python package: installed into an environment of its own, with its types checked and its tests run.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};

use super::{
    Tally, leftovers,
    steps::{Surroundings, logged, plain, show},
};
use crate::process::{self, Ended};

/// Interpreters that will do, the newest of which is taken.
const INTERPRETERS: [&str; 5] = ["python3.13", "python3.12", "python3.11", "python3.10", "python3"];

/// Installs, checks and tests.
pub fn run(surroundings: &Surroundings) -> anyhow::Result<Tally> {
    let workspace = surroundings.workspace;
    let package = workspace.root.join("python");
    let environment = workspace.target.join("xtask/python");
    workspace.build_binaries(surroundings.interrupt)?;
    let python = environment.join("bin/python");
    if !python.exists() {
        make(surroundings, &environment)?;
    }
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    // pip takes a package of the same version for the same package.
    install.args(["--upgrade", "--force-reinstall", "--no-deps"]).arg(&package);
    let mut needs = Command::new(&python);
    needs.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    needs.arg(format!("{}[test]", package.display()));
    let mut total = Tally::default();
    for (name, command) in [("python-install", needs), ("python-reinstall", install)] {
        let tally = plain(surroundings, name, command)?;
        if tally.failed > 0 {
            return Ok(tally);
        }
        add(&mut total, &tally);
    }
    for (name, words) in
        [("python-mypy", vec!["-m", "mypy"]), ("python-pyright", vec!["-m", "pyright", "--pythonpath"])]
    {
        let mut check = Command::new(&python);
        check.args(&words).current_dir(&package);
        if name == "python-pyright" {
            check.arg(&python);
        }
        add(&mut total, &plain(surroundings, name, check)?);
    }
    add(&mut total, &pytest(surroundings, &python, &package)?);
    Ok(total)
}

fn add(total: &mut Tally, more: &Tally) {
    total.passed += more.passed;
    total.failed += more.failed;
}

/// A new environment, of the newest Python that is here.
fn make(surroundings: &Surroundings, environment: &Path) -> anyhow::Result<()> {
    let mut tried = String::new();
    for name in INTERPRETERS {
        let Some(interpreter) = on_path(name) else { continue };
        // A half-made one from an earlier try would be taken for whole.
        if environment.exists() {
            fs::remove_dir_all(environment).with_context(|| format!("can't remove {}", environment.display()))?;
        }
        let mut venv = Command::new(interpreter);
        venv.args(["-c", "import sys, venv; assert sys.version_info >= (3, 10), sys.version; venv.main()"]);
        let captured = process::capture(venv.arg(environment), surroundings.interrupt)?;
        if captured.code == Some(0) {
            return Ok(());
        }
        tried = format!("{tried}\n{name}: {}", captured.stderr.trim());
    }
    bail!("no Python from 3.10 on can make an environment; install python3 with venv and pip{tried}");
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

fn pytest(surroundings: &Surroundings, python: &Path, package: &Path) -> anyhow::Result<Tally> {
    let root = tempfile::Builder::new().prefix("millgrid-python-").tempdir()?;
    let mut tests = Command::new(python);
    tests.args(["-m", "pytest", "-p", "no:cacheprovider", "--basetemp"]).arg(root.path().join("pytest"));
    if let Some(filter) = surroundings.filter {
        tests.args(["-k", filter]);
    }
    tests.current_dir(package).env("TMPDIR", root.path()).env_remove("PYTHONPATH");
    tests.env("MILLGRID_PROGRAM", surroundings.workspace.program("millgrid"));
    let ran = logged(surroundings, "python-pytest", &mut tests);
    // Whatever happened to the tests, no process of theirs outlives them.
    let left = leftovers::kill(root.path())?;
    let (ended, output) = ran?;
    let mut tally = count(&output);
    // A run that can't be counted is none.
    if ended != Ended::Success || tally.passed == 0 {
        tally.failed = tally.failed.max(1);
        show(surroundings, "python-pytest", ended, &output);
    }
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

/// What pytest's last line says.
fn count(output: &str) -> Tally {
    let mut tally = Tally::default();
    let Some(line) = output.lines().rev().find(|line| line.contains(" in ") && line.contains(['d', 'r'])) else {
        return tally;
    };
    for (number, word) in line.split(", ").filter_map(|part| part.trim_start_matches(['=', ' ']).split_once(' ')) {
        let Ok(number) = number.parse::<u64>() else { continue };
        match word.split_whitespace().next() {
            Some("passed") => tally.passed += number,
            Some("failed" | "error" | "errors") => tally.failed += number,
            _ => {}
        }
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_pytest_is_counted() {
        let table = [
            ("....\n90 passed in 38.76s\n", 90, 0),
            ("F\n=== short test summary info ===\n1 failed, 90 passed, 2 skipped in 38.76s\n", 90, 1),
            ("==== 2 passed, 1 error in 1.00s ====\n", 2, 1),
            ("no tests ran in 0.01s\n", 0, 0),
            ("", 0, 0),
        ];
        for (output, passed, failed) in table {
            assert_eq!(count(output), Tally { passed, failed }, "{output}");
        }
    }
}
