//! The demonstration's grid: `millgrid dev` in a folder of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use tempfile::TempDir;

use crate::{
    process::{self, Captured, Interrupt},
    test::leftovers,
};

/// How often progress is asked for: each question is a process.
const LOOK: Duration = Duration::from_millis(50);
/// Lines of a log that are shown after an error.
const LAST_LINES: usize = 10;

/// A grid that is stopped when this is dropped, whatever happened.
pub struct Grid<'a> {
    millgrid: PathBuf,
    folder: TempDir,
    environment: Vec<(String, String)>,
    interrupt: &'a Interrupt,
    down: bool,
}

impl<'a> Grid<'a> {
    /// Starts three coordinators, two workers and an S3 endpoint on free ports.
    pub fn start(millgrid: PathBuf, interrupt: &'a Interrupt) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("millgrid-demo-").tempdir().context("can't make a folder")?;
        let mut grid = Self { millgrid, folder, environment: Vec::new(), interrupt, down: false };
        if let Err(error) = grid.dev(&["--detach", "--workers", "2"]) {
            grid.show_logs();
            return Err(error);
        }
        let environment = grid.dev(&["env"])?.stdout;
        for line in environment.lines().filter(|line| !line.is_empty()) {
            let pair = line.strip_prefix("export ").and_then(|line| line.split_once('='));
            let (name, value) = pair.with_context(|| format!("`dev env` says `{line}`"))?;
            grid.environment.push((name.to_owned(), value.trim_matches('\'').to_owned()));
        }
        Ok(grid)
    }

    /// A folder that goes with the grid.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `millgrid ARGUMENTS`, which must succeed.
    pub fn millgrid(&self, arguments: &[&str]) -> anyhow::Result<Captured> {
        let mut command = self.command();
        command.args(arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.succeed(&mut command, arguments)
    }

    /// `millgrid dev ARGUMENTS` on this grid, which must succeed.
    pub fn dev(&self, arguments: &[&str]) -> anyhow::Result<Captured> {
        let mut command = self.command();
        command.arg("dev").args(arguments).arg("--state").arg(self.state());
        self.succeed(&mut command, arguments)
    }

    /// `submit`: the job's number.
    pub fn submit(&self, arguments: &[&[&str]]) -> anyhow::Result<String> {
        let submitted = self.millgrid(&[&["submit"], arguments.concat().as_slice()].concat())?;
        Ok(submitted.stdout.trim().to_owned())
    }

    /// The leader's name.
    pub fn leader(&self) -> anyhow::Result<String> {
        let status = self.millgrid(&["cluster", "status", "-o", "json"])?.json()?;
        status["leader"].as_str().map(str::to_owned).context("there is no leader")
    }

    /// Waits until so many tasks of a job have succeeded: how many it were then. Some must be left.
    pub fn wait_for_progress(&self, job: &str, enough: u64, limit: Duration) -> anyhow::Result<u64> {
        let start = Instant::now();
        loop {
            let shown = self.millgrid(&["show", job, "-o", "json"])?.json()?;
            let done = shown["tasks"]["succeeded"].as_u64().context("the job has no counts")?;
            if done >= enough.max(1) {
                ensure!(
                    Some(done) < shown["task_count"].as_u64(),
                    "the job was over before the leader could be killed"
                );
                return Ok(done);
            }
            ensure!(start.elapsed() < limit, "only {done} tasks in {limit:?}: {shown}");
            thread::sleep(LOOK);
        }
    }

    /// Tasks and attempts of some jobs.
    pub fn attempts(&self, jobs: &[&str]) -> anyhow::Result<(u64, u64)> {
        let (mut tasks, mut attempts) = (0, 0);
        for job in jobs {
            let shown = self.millgrid(&["show", job, "--tasks", "-o", "json"])?.json()?;
            for task in shown["task_list"].as_array().context("the job has no tasks")? {
                tasks += 1;
                attempts += task["attempt"].as_u64().unwrap_or_default();
            }
        }
        Ok((tasks, attempts))
    }

    /// Stops everything; what was left all the same, which is killed.
    pub fn down(mut self) -> anyhow::Result<Vec<String>> {
        self.stop()
    }

    /// The last lines of what the processes logged.
    pub fn show_logs(&self) {
        for entry in walkdir::WalkDir::new(self.state()).sort_by_file_name().into_iter().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "log") {
                let text = fs::read(entry.path()).unwrap_or_default();
                let text = String::from_utf8_lossy(&text);
                let lines: Vec<&str> = text.lines().collect();
                eprintln!("--- {}", entry.path().display());
                lines.iter().skip(lines.len().saturating_sub(LAST_LINES)).for_each(|line| eprintln!("{line}"));
            }
        }
    }

    fn stop(&mut self) -> anyhow::Result<Vec<String>> {
        self.down = true;
        let mut command = self.command();
        // Not `dev`: after a Ctrl-C this must run all the same.
        let output = command.args(["dev", "down", "--state"]).arg(self.state()).output();
        let left = leftovers::kill(self.folder.path())?;
        let output = output.context("can't run `millgrid dev down`")?;
        ensure!(output.status.success(), "`dev down`: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(left)
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.millgrid);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MILLGRID_") {
                command.env_remove(name);
            }
        }
        // Neither the user's configuration nor a project's has a say here.
        command.env("HOME", self.folder.path()).current_dir(self.folder.path());
        command
    }

    fn succeed(&self, command: &mut Command, arguments: &[&str]) -> anyhow::Result<Captured> {
        let captured = process::capture(command, self.interrupt)?;
        if captured.code != Some(0) {
            let words: Vec<&str> = arguments.iter().copied().take(4).collect();
            let code = captured.code.map_or_else(|| "a signal".to_owned(), |code| format!("exit code {code}"));
            bail!("`millgrid {} ...` ended with {code}\n{}{}", words.join(" "), captured.stdout, captured.stderr);
        }
        Ok(captured)
    }
}

impl Drop for Grid<'_> {
    fn drop(&mut self) {
        if !self.down
            && let Err(error) = self.stop()
        {
            eprintln!("error: {error:#}");
        }
    }
}
