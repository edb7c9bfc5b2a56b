//! Python: environments of its own for what is installed and run here, so that the machine's stay as they are.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, bail};

use crate::{
    process::{self, Interrupt},
    workspace::Workspace,
};

/// Interpreters that will do, the newest first.
pub const INTERPRETERS: [&str; 5] = ["python3.13", "python3.12", "python3.11", "python3.10", "python3"];

/// Beside what Millgrid is compared with.
const PEERS: [&str; 3] = ["ray", "dask", "distributed"];

/// An environment with pip.
pub struct Environment {
    /// Its interpreter.
    pub python: PathBuf,
}

impl Environment {
    /// The one in `folder`; a new one, of the newest Python that is here, if there is none.
    pub fn open(folder: &Path, interrupt: &Interrupt) -> anyhow::Result<Self> {
        let mut tried = String::new();
        for name in INTERPRETERS {
            match Self::of(folder, name, interrupt) {
                Ok(Some(environment)) => return Ok(environment),
                Ok(None) => {}
                Err(error) => tried = format!("{tried}\n{name}: {error}"),
            }
        }
        bail!("no Python from 3.10 on can make an environment; install python3 with venv and pip{tried}");
    }

    /// The one in `folder`; a new one of this interpreter if there is none; nothing if that isn't on the PATH.
    pub fn of(folder: &Path, interpreter: &str, interrupt: &Interrupt) -> anyhow::Result<Option<Self>> {
        let python = folder.join("bin/python");
        if python.exists() {
            return Ok(Some(Self { python }));
        }
        let Some(program) = on_path(interpreter) else { return Ok(None) };
        // A half-made one from an earlier try would be taken for whole.
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("can't remove {}", folder.display()))?;
        }
        let mut venv = Command::new(program);
        venv.args(["-c", "import sys, venv; assert sys.version_info >= (3, 10), sys.version; venv.main()"]);
        // pyenv has one command for all of its versions, and starts this one only where it is told to.
        if let Some(version) = interpreter.strip_prefix("python").filter(|version| version.contains('.')) {
            venv.env("PYENV_VERSION", version);
        }
        let captured = process::capture(venv.arg(folder), interrupt)?;
        if captured.code != Some(0) {
            bail!("{}", captured.stderr.trim());
        }
        Ok(Some(Self { python }))
    }

    /// Its interpreter with these arguments.
    pub fn command<const N: usize>(&self, arguments: [&str; N]) -> Command {
        let mut command = Command::new(&self.python);
        command.args(arguments);
        command
    }

    /// Its pip, which says only what went wrong.
    pub fn pip<const N: usize>(&self, arguments: [&str; N]) -> Command {
        let mut pip = self.command(["-m", "pip", "--quiet", "--disable-pip-version-check"]);
        pip.args(arguments);
        pip
    }

    /// Takes a package from its folder as it is now.
    pub fn reinstall(&self, package: &Path) -> Command {
        // pip takes a package of the same version for the same package.
        let mut install = self.pip(["install", "--force-reinstall", "--no-deps"]);
        install.arg(package);
        install
    }
}

/// `cargo xtask bench python`: calls of functions beside the same calls of others.
pub fn bench(workspace: &Workspace, interrupt: &Interrupt, name: &str, output: &str) -> anyhow::Result<ExitCode> {
    workspace.build_binaries(interrupt)?;
    let package = workspace.root.join("python");
    let environment = Environment::open(&workspace.target.join("xtask/python-bench"), interrupt)?;
    let mut needs = environment.pip(["install", "numpy"]);
    needs.args(PEERS).arg(format!("{}[s3]", package.display()));
    for mut install in [needs, environment.reinstall(&package)] {
        if !process::run(&mut install, interrupt)? {
            bail!("pip can't install what is compared");
        }
    }
    let mut figures = Command::new(&environment.python);
    figures.arg(package.join("bench/figures.py")).args([name, "-o", output]).env_remove("PYTHONPATH");
    figures.env("MILLGRID_PROGRAM", workspace.program("millgrid"));
    process::replace(figures)
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}
