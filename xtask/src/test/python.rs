//! The Python package: installed into an environment of its own, with its types checked and its tests run.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;

use super::{
    Tally, leftovers,
    steps::{Surroundings, logged, plain, show},
};
use crate::{
    process::{self, Ended},
    python::{Environment, INTERPRETERS},
};

/// Installs, checks and tests.
pub fn run(surroundings: &Surroundings) -> anyhow::Result<Tally> {
    let workspace = surroundings.workspace;
    let package = workspace.root.join("python");
    workspace.build_binaries(surroundings.interrupt)?;
    let environment = Environment::open(&workspace.target.join("xtask/python"), surroundings.interrupt)?;
    let mut needs = environment.pip(["install"]);
    needs.arg(format!("{}[test]", package.display()));
    let mut total = Tally::default();
    for (name, command) in [("python-install", needs), ("python-reinstall", environment.reinstall(&package))] {
        let tally = plain(surroundings, name, command)?;
        if tally.failed > 0 {
            return Ok(tally);
        }
        add(&mut total, &tally);
    }
    let mut pyright = environment.command(["-m", "pyright", "--pythonpath"]);
    pyright.arg(&environment.python);
    for (name, mut check) in [("python-mypy", environment.command(["-m", "mypy"])), ("python-pyright", pyright)] {
        check.current_dir(&package);
        add(&mut total, &plain(surroundings, name, check)?);
    }
    add(&mut total, &pytest(surroundings, &environment, &package)?);
    if surroundings.filter.is_none() {
        add(&mut total, &others(surroundings, &environment, &package)?);
    }
    Ok(total)
}

fn add(total: &mut Tally, more: &Tally) {
    total.passed += more.passed;
    total.failed += more.failed;
}

fn pytest(surroundings: &Surroundings, environment: &Environment, package: &Path) -> anyhow::Result<Tally> {
    let mut tests = environment.command(["-m", "pytest", "-p", "no:cacheprovider"]);
    if let Some(filter) = surroundings.filter {
        tests.args(["-k", filter]);
    }
    tests.current_dir(package);
    let (ended, output, mut tally) = watched(surroundings, "python-pytest", tests)?;
    add(&mut tally, &count(&output));
    // A run that can't be counted is none.
    if ended != Ended::Success || count(&output).passed == 0 {
        tally.failed = tally.failed.max(1);
        show(surroundings, "python-pytest", ended, &output);
    }
    Ok(tally)
}

/// One call and one job with each other Python that is here: the package as a wheel, and nothing but what it needs.
fn others(surroundings: &Surroundings, tested: &Environment, package: &Path) -> anyhow::Result<Tally> {
    let mut asked = tested.command(["-c", "import sys; print('python%d.%d' % sys.version_info[:2])"]);
    let tested_name = process::capture(&mut asked, surroundings.interrupt)?.stdout;
    let wheels = tempfile::Builder::new().prefix("millgrid-python-").tempdir()?;
    let mut build = tested.pip(["wheel", "--no-deps", "--wheel-dir"]);
    build.arg(wheels.path()).arg(package);
    let mut total = plain(surroundings, "python-wheel", build)?;
    if total.failed > 0 {
        return Ok(total);
    }
    let wheel = only_file(wheels.path())?;
    for name in INTERPRETERS.into_iter().filter(|name| name.contains('.') && *name != tested_name.trim()) {
        let folder = surroundings.workspace.target.join("xtask").join(name);
        // Not every version need be here, nor be whole.
        let Ok(Some(environment)) = Environment::of(&folder, name, surroundings.interrupt) else { continue };
        println!("   {name}");
        let mut needs = environment.pip(["install"]);
        needs.arg(&wheel);
        for (step, command) in [("install", needs), ("reinstall", environment.reinstall(&wheel))] {
            add(&mut total, &plain(surroundings, &format!("{name}-{step}"), command)?);
        }
        let log = format!("{name}-smoke");
        let mut smoke = environment.command([]);
        smoke.arg(package.join("tests/smoke.py"));
        let (ended, output, tally) = watched(surroundings, &log, smoke)?;
        add(&mut total, &tally);
        if ended == Ended::Success {
            total.passed += 1;
        } else {
            total.failed += 1;
            show(surroundings, &log, ended, &output);
        }
    }
    Ok(total)
}

fn only_file(folder: &Path) -> anyhow::Result<PathBuf> {
    let mut entries = fs::read_dir(folder).with_context(|| format!("can't list {}", folder.display()))?;
    let entry = entries.next().with_context(|| format!("nothing in {}", folder.display()))??;
    Ok(entry.path())
}

/// Runs with this repository's programs; no process of it outlives it, which is one check.
fn watched(surroundings: &Surroundings, name: &str, mut command: Command) -> anyhow::Result<(Ended, String, Tally)> {
    let root = tempfile::Builder::new().prefix("millgrid-python-").tempdir()?;
    command.env("TMPDIR", root.path()).env_remove("PYTHONPATH");
    command.env("MILLGRID_PROGRAM", surroundings.workspace.program("millgrid"));
    let ran = logged(surroundings, name, &mut command);
    let left = leftovers::kill(root.path())?;
    let (ended, output) = ran?;
    if left.is_empty() {
        return Ok((ended, output, Tally { passed: 1, failed: 0 }));
    }
    println!("   left behind, and killed:");
    left.iter().for_each(|process| println!("     {process}"));
    Ok((ended, output, Tally { passed: 0, failed: 1 }))
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
