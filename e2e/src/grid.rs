//! A grid of one test, or of several that don't disturb each other.

use std::{
    ffi::OsStr,
    fs,
    ops::Deref,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak},
    thread,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    output::{Output, Running},
    ports, processes,
    programs::{Environment, bare_millgrid},
    replicas,
    wait::{eventually, until},
};

/// What `down` may take, with room for a busy machine; the promise is 3 s and is tested where nothing else runs.
const DOWN: Duration = Duration::from_secs(10);

/// By then members that can reach each other have a leader.
const ELECTED: Duration = Duration::from_secs(15);

/// Tests that measure wait here until they are alone.
static ROOM: RwLock<()> = RwLock::new(());

/// The grid that several tests use at a time; it ends with the last of them.
static SHARED: Mutex<Weak<Grid>> = Mutex::new(Weak::new());

/// How a grid is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// `--workers`.
    pub workers: u32,
    /// `--worker-cpus`.
    pub cpus: u32,
    /// Let `millgrid dev` choose the folder, below the test's own home, and write the context.
    pub default_state: bool,
    /// `--port-base`, where it matters; one that no other grid has if left out.
    pub port_base: Option<u16>,
}

impl Default for Options {
    fn default() -> Self {
        Self { workers: 2, cpus: 2, default_state: false, port_base: None }
    }
}

/// A running grid, a folder for files, and the way to call `millgrid`.
pub struct Grid {
    folder: Option<TempDir>,
    state: PathBuf,
    options: Options,
    environment: Mutex<Environment>,
}

/// One test's hold on a grid. When it goes, the replicas must be equal.
pub struct Test {
    grid: Arc<Grid>,
    _room: Room,
}

/// Held for its effect alone.
enum Room {
    Some { _guard: RwLockReadGuard<'static, ()> },
    All { _guard: RwLockWriteGuard<'static, ()> },
}

impl Room {
    fn some() -> Self {
        Self::Some { _guard: ROOM.read().unwrap_or_else(PoisonError::into_inner) }
    }
}

impl Grid {
    /// A grid for tests that only submit work: two workers of two cpus.
    #[track_caller]
    pub fn shared() -> Test {
        let room = Room::some();
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let grid = shared.upgrade().unwrap_or_else(|| Arc::new(Self::new(Options::default())));
        *shared = Arc::downgrade(&grid);
        Test { grid, _room: room }
    }

    /// A grid of the test's own.
    #[track_caller]
    pub fn start(options: Options) -> Test {
        let room = Room::some();
        Test { grid: Arc::new(Self::new(options)), _room: room }
    }

    /// A grid of the test's own, while no other test runs.
    #[track_caller]
    pub fn start_alone(options: Options) -> Test {
        let room = Room::All { _guard: ROOM.write().unwrap_or_else(PoisonError::into_inner) };
        Test { grid: Arc::new(Self::new(options)), _room: room }
    }

    #[track_caller]
    fn new(options: Options) -> Self {
        let folder = tempfile::Builder::new().prefix("grid-").tempdir().unwrap();
        for name in ["home", "work"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let state = match options.default_state {
            true => folder.path().join("home/.local/state/millgrid/dev"),
            false => folder.path().join("state"),
        };
        let grid = Self { folder: Some(folder), state, options, environment: Mutex::default() };
        let (workers, cpus) = (grid.options.workers.to_string(), grid.options.cpus.to_string());
        let port = grid.options.port_base.unwrap_or_else(ports::next).to_string();
        let start = ["--detach", "--workers", &workers, "--worker-cpus", &cpus, "--port-base", &port];
        grid.start_again(&start);
        grid
    }

    /// `millgrid dev` with these arguments, of a grid that is down; its certificates may be new.
    #[track_caller]
    pub fn start_again(&self, arguments: &[&str]) {
        self.dev("", arguments).ok();
        *self.environment.lock().unwrap() = Environment::parse(&self.dev("env", &[]).ok().stdout);
    }

    /// `millgrid dev VERB` on this grid's folder.
    pub fn dev(&self, verb: &str, arguments: &[&str]) -> Output {
        let mut command = self.bare_command();
        command.arg("dev").args((!verb.is_empty()).then_some(verb)).args(arguments);
        if !self.options.default_state {
            command.arg("--state").arg(&self.state);
        }
        Running::start(&mut command).output()
    }

    /// `millgrid` with the environment of `dev env`, in the test's `work` folder, its output piped.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.bare_command();
        command.envs(self.environment.lock().unwrap().variables()).args(arguments);
        command
    }

    /// The same without that environment.
    pub fn bare_command(&self) -> Command {
        let mut command = bare_millgrid(&self.folder().join("home"));
        command.current_dir(self.work());
        command
    }

    /// Runs `millgrid` to its end.
    pub fn millgrid<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Output {
        Running::start(&mut self.command(arguments)).output()
    }

    /// Starts `millgrid`.
    pub fn start_millgrid<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Running {
        Running::start(&mut self.command(arguments))
    }

    /// Runs `millgrid` with this on its stdin.
    pub fn millgrid_with_stdin<S: AsRef<OsStr>>(&self, text: &str, arguments: impl IntoIterator<Item = S>) -> Output {
        let file = self.folder().join(format!("stdin-{:?}", thread::current().id()));
        fs::write(&file, text).unwrap();
        let mut command = self.command(arguments);
        command.stdin(fs::File::open(&file).unwrap());
        Running::start(&mut command).output()
    }

    /// `submit` with these arguments: the job's number.
    #[track_caller]
    pub fn submit(&self, arguments: &[&str]) -> u64 {
        self.millgrid(["submit"].iter().chain(arguments)).ok().id()
    }

    /// `submit -- sh -c SCRIPT` with these options.
    #[track_caller]
    pub fn submit_shell(&self, options: &[&str], script: &str) -> u64 {
        self.submit(&[options, &["--", "sh", "-c", script]].concat())
    }

    /// `show ID -o json`.
    #[track_caller]
    pub fn job(&self, id: u64) -> Value {
        self.millgrid(["show", &id.to_string(), "-o", "json"]).ok().json()
    }

    /// The tasks of a job, with their attempts, by index.
    #[track_caller]
    pub fn tasks(&self, id: u64) -> Vec<Value> {
        let job = self.millgrid(["show", &id.to_string(), "--tasks", "--attempts", "-o", "json"]).ok().json();
        job["task_list"].as_array().unwrap_or_else(|| panic!("no `task_list` in {job}")).clone()
    }

    /// The one task of a job.
    #[track_caller]
    pub fn task(&self, id: u64) -> Value {
        let tasks = self.tasks(id);
        assert_eq!(tasks.len(), 1, "{tasks:?}");
        tasks[0].clone()
    }

    /// Waits until the job is in one of these states, separated by `|`; returns it.
    #[track_caller]
    pub fn wait_for_state(&self, id: u64, states: &str, limit: Duration) -> Value {
        let mut last = Value::Null;
        let what = format!("job {id} is {states}");
        eventually(&what, limit, || {
            last = self.job(id);
            let state = last["state"].as_str().unwrap_or_default();
            states.split('|').any(|wanted| wanted == state).then(|| last.clone())
        })
    }

    /// Waits until every task of the job has ended; returns the job.
    #[track_caller]
    pub fn wait_for_end(&self, id: u64, limit: Duration) -> Value {
        self.wait_for_state(id, "succeeded|failed|cancelled|skipped", limit)
    }

    /// The leader's name, once there is one.
    #[track_caller]
    pub fn leader(&self) -> String {
        eventually("there is a leader", ELECTED, || {
            let status = self.millgrid(["cluster", "status", "-o", "json", "--timeout", "2s"]);
            let leader = (status.code == 0).then(|| status.json()["leader"].as_str().map(str::to_owned));
            leader.flatten()
        })
    }

    /// `dev status -o json`.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.dev("status", &["-o", "json"]).ok().json()
    }

    /// The process of that name in `dev status`.
    #[track_caller]
    pub fn process(&self, name: &str) -> Value {
        let status = self.status();
        let list = status["processes"].as_array().cloned().unwrap_or_default();
        let found = list.into_iter().find(|process| process["name"] == name);
        found.unwrap_or_else(|| panic!("no process `{name}` in {status}"))
    }

    /// Waits until all three replicas are reachable and have the same digest.
    #[track_caller]
    pub fn check_replicas(&self) {
        replicas::agree(|arguments| self.millgrid([&["cluster", "status"], arguments].concat()));
    }

    /// Everything of this grid, its state too.
    pub fn folder(&self) -> &Path {
        self.folder.as_ref().expect("it goes only with the grid").path()
    }

    /// Where commands run.
    pub fn work(&self) -> PathBuf {
        self.folder().join("work")
    }

    /// The folder given to `--state`.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// A variable of `dev env`.
    #[track_caller]
    pub fn variable(&self, name: &str) -> String {
        self.environment.lock().unwrap().get(name)
    }

    /// The file behind `s3://dev/KEY`.
    pub fn object(&self, key: &str) -> PathBuf {
        self.state.join("s3/dev").join(key)
    }

    /// Puts an object into the bucket `dev`.
    pub fn put(&self, key: &str, content: impl AsRef<[u8]>) {
        let path = self.object(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// An object of the bucket `dev`, if it is there.
    pub fn get(&self, key: &str) -> Option<String> {
        fs::read_to_string(self.object(key)).ok()
    }

    /// A file in the test's `work` folder that is no other test's.
    pub fn file(&self, name: &str) -> PathBuf {
        self.work().join(name)
    }

    /// Its lines; none if it isn't there.
    pub fn lines(&self, name: &str) -> Vec<String> {
        fs::read_to_string(self.file(name)).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Waits until a file of the `work` folder has at least so many lines.
    #[track_caller]
    pub fn wait_for_lines(&self, name: &str, count: usize, limit: Duration) {
        until(&format!("{count} lines in {name}"), limit, || self.lines(name).len() >= count);
    }

    fn show_logs(&self) {
        let mut folders = vec![self.state.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() && !path.ends_with("s3") && !path.ends_with("tasks") {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "log")
                    // Those of replication are no text.
                    && !entry.file_name().to_string_lossy().starts_with("segment-")
                {
                    let text = fs::read(&path).unwrap_or_default();
                    let text = String::from_utf8_lossy(&text).into_owned();
                    let lines: Vec<&str> = text.lines().collect();
                    eprintln!("--- {}\n{}", path.display(), lines[lines.len().saturating_sub(15)..].join("\n"));
                }
            }
        }
    }
}

impl Drop for Grid {
    fn drop(&mut self) {
        let output = self.dev("down", &[]);
        let left = processes::processes_of(&self.state);
        let fine = output.code == 0 && output.elapsed < DOWN && left.is_empty();
        if thread::panicking() || !fine {
            self.show_logs();
            if std::env::var_os("E2E_KEEP").is_some() {
                eprintln!("kept: {}", self.folder.take().expect("it goes only here").keep().display());
            }
        }
        if !thread::panicking() {
            assert!(left.is_empty(), "`dev down` left processes: {left:#?}\n{}", output.stderr);
            let elapsed = output.elapsed;
            output.ok();
            assert!(elapsed < DOWN, "`dev down` took {elapsed:?}");
        }
    }
}

impl Deref for Test {
    type Target = Grid;

    fn deref(&self) -> &Grid {
        &self.grid
    }
}

impl Drop for Test {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.grid.check_replicas();
        }
    }
}
