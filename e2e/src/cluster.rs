//! A grid without `millgrid dev`, set up as `docs/grid.md` shows it: each program by itself, with what a test wants
//! around it.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, OpenOptions},
    net::Ipv4Addr,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    network::Network,
    output::{Output, Running},
    permission::skip,
    processes::{kill_processes_of, processes_of},
    programs::{bare, bare_millgrid},
    replicas,
    wait::{eventually, until},
};

/// The coordinators of every cluster.
const COORDINATORS: [&str; 3] = ["c1", "c2", "c3"];

/// Its worker.
const WORKER: &str = "worker-1";

/// Where each coordinator serves, on an address of its own: clients and workers, peers, health.
const PORTS: [u16; 3] = [23_070, 23_170, 23_270];

/// A process that was killed is gone by then.
const GONE: Duration = Duration::from_secs(5);

/// By then a grid that was just started has a leader, or another one leads.
const ELECTED: Duration = Duration::from_secs(15);

/// Where the processes of a cluster are.
pub enum Place {
    /// On the loopback interface, each coordinator with an address of its own.
    Loopback,
    /// On hosts `c1`, `c2`, `c3`, `worker-1` and `client`, and others that have nothing but `millgrid`.
    Network(Network),
}

/// Three coordinators, at most one worker, and the way to call `millgrid`. Whatever becomes of the test, its
/// processes end with it.
pub struct Cluster {
    place: Place,
    addresses: BTreeMap<String, Ipv4Addr>,
    environments: BTreeMap<String, Vec<(String, String)>>,
    processes: BTreeMap<String, Child>,
    mounts: Vec<PathBuf>,
    folder: TempDir,
}

impl Cluster {
    /// Certificates and configuration files; nothing runs yet.
    #[track_caller]
    pub fn prepare(place: Place) -> Self {
        let folder = tempfile::Builder::new().prefix("cluster-").tempdir().unwrap();
        let addresses = COORDINATORS.iter().map(|name| {
            let address = match &place {
                Place::Loopback => next_loopback(),
                Place::Network(network) => network.address(name),
            };
            ((*name).to_owned(), address)
        });
        let addresses = addresses.collect();
        let (environments, processes) = (BTreeMap::new(), BTreeMap::new());
        let cluster = Self { place, addresses, environments, processes, mounts: Vec::new(), folder };
        for name in ["home", "work", "logs"].iter().chain(&COORDINATORS).chain([&WORKER]) {
            fs::create_dir(cluster.folder().join(name)).unwrap();
        }
        cluster.issue_certificates();
        COORDINATORS.iter().for_each(|name| cluster.configure_coordinator(name));
        cluster.configure_worker();
        cluster
    }

    /// A variable of one program's environment, from its next start on.
    pub fn set(&mut self, name: &str, variable: &str, value: impl Into<String>) {
        self.environments.entry(name.to_owned()).or_default().push((variable.to_owned(), value.into()));
    }

    /// Puts a disk of so many mebibytes under a coordinator's data directory; false where that isn't permitted, which
    /// is said and under `CI=true` is a failure.
    #[track_caller]
    pub fn limit_disk(&mut self, name: &str, mib: u64) -> bool {
        let folder = self.data(name);
        let size = format!("size={mib}m");
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&folder).output().unwrap();
        if output.status.success() {
            self.mounts.push(folder);
        } else {
            skip("a disk of its own (root)", String::from_utf8_lossy(&output.stderr).trim());
        }
        output.status.success()
    }

    /// Starts the coordinators, tells them who they are, and waits for a leader.
    #[track_caller]
    pub fn start(&mut self) {
        COORDINATORS.iter().for_each(|name| self.start_one(name));
        // Repeated until all three listen, which is safe.
        until("the cluster is bootstrapped", ELECTED, || self.millgrid(["cluster", "bootstrap"]).code == 0);
        self.leader();
    }

    /// The same with a worker of two cpus, which has joined.
    #[track_caller]
    pub fn start_with_worker(&mut self) {
        self.start();
        self.start_one(WORKER);
        until("the worker has joined", ELECTED, || self.millgrid(["worker", "show", WORKER]).code == 0);
    }

    /// Starts a coordinator, or the worker.
    #[track_caller]
    pub fn start_one(&mut self, name: &str) {
        let program = if name == WORKER { "millgrid-worker" } else { "millgrid-coordinator" };
        let log = OpenOptions::new().create(true).append(true).open(self.log_file(name)).unwrap();
        let mut command = bare(program);
        command.arg("--config").arg(self.folder().join(format!("{name}.toml"))).current_dir(self.folder());
        command.env("HOME", self.folder().join("home")).env("AWS_EC2_METADATA_DISABLED", "true");
        command.envs(self.environments.get(name).into_iter().flatten().cloned());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = self.place.on(name, || command.spawn().unwrap());
        let before = self.processes.insert(name.to_owned(), child);
        assert!(before.is_none(), "`{name}` was not stopped");
    }

    /// Kills a process without a word, as a power loss does.
    #[track_caller]
    pub fn kill(&mut self, name: &str) {
        let mut child = self.processes.remove(name).unwrap_or_else(|| panic!("`{name}` was not started"));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Waits until a process ends by itself: its exit code, as a shell says it.
    #[track_caller]
    pub fn exit_code(&mut self, name: &str, limit: Duration) -> i32 {
        let child = self.processes.get_mut(name).unwrap_or_else(|| panic!("`{name}` was not started"));
        let status = eventually(&format!("the end of {name}"), limit, || child.try_wait().unwrap());
        self.processes.remove(name);
        status.code().or(status.signal().map(|signal| 128 + signal)).unwrap()
    }

    /// What a process wrote on stdout and stderr, since the cluster began.
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.log_file(name)).unwrap_or_default()
    }

    /// A coordinator's data directory.
    pub fn data(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// A file in the folder where `millgrid` works, which tasks see too.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder().join("work").join(name)
    }

    /// Its lines; none if it isn't there.
    pub fn lines(&self, name: &str) -> Vec<String> {
        fs::read_to_string(self.file(name)).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// The network that it is on.
    #[track_caller]
    pub fn network(&self) -> &Network {
        match &self.place {
            Place::Network(network) => network,
            Place::Loopback => panic!("it is not on a network of its own"),
        }
    }

    /// A coordinator's URL.
    #[track_caller]
    pub fn endpoint(&self, name: &str) -> String {
        format!("https://{}:{}", self.addresses[name], PORTS[0])
    }

    /// Runs `millgrid` to its end, on the host `client`, with all coordinators as endpoints.
    pub fn millgrid<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Output {
        self.start_millgrid_on("client", arguments).output()
    }

    /// Starts `millgrid` on a host, with all coordinators as endpoints.
    pub fn start_millgrid_on<S: AsRef<OsStr>>(&self, host: &str, arguments: impl IntoIterator<Item = S>) -> Running {
        let mut command = self.bare_command();
        let endpoints: Vec<String> = COORDINATORS.iter().map(|name| self.endpoint(name)).collect();
        command.env("MILLGRID_ENDPOINT", endpoints.join(",")).args(arguments);
        for (variable, file) in [("CA", "ca.pem"), ("CERT", "ada.pem"), ("KEY", "ada.key")] {
            command.env(format!("MILLGRID_{variable}"), self.certificates().join(file));
        }
        self.place.on(host, || Running::start(&mut command))
    }

    /// `submit` with these arguments: the job's number.
    #[track_caller]
    pub fn submit(&self, arguments: &[&str]) -> u64 {
        self.millgrid(["submit"].iter().chain(arguments)).ok().id()
    }

    /// `show ID -o json`, with its tasks.
    #[track_caller]
    pub fn job(&self, id: u64) -> Value {
        self.millgrid(["show", &id.to_string(), "--tasks", "-o", "json"]).ok().json()
    }

    /// Waits until the job is in this state; returns it.
    #[track_caller]
    pub fn wait_for_state(&self, id: u64, state: &str, limit: Duration) -> Value {
        eventually(&format!("job {id} is {state}"), limit, || {
            let job = self.job(id);
            (job["state"] == state).then_some(job)
        })
    }

    /// The leader's name, once there is one.
    #[track_caller]
    pub fn leader(&self) -> String {
        eventually("there is a leader", ELECTED, || {
            let status = self.millgrid(["cluster", "status", "-o", "json", "--timeout", "2s"]);
            (status.code == 0).then(|| status.json()["leader"].as_str().map(str::to_owned)).flatten()
        })
    }

    /// The coordinators but this one.
    pub fn others(&self, name: &str) -> [&'static str; 2] {
        let others: Vec<&str> = COORDINATORS.into_iter().filter(|other| *other != name).collect();
        others.try_into().unwrap_or_else(|_| panic!("no coordinator is named `{name}`"))
    }

    /// Waits until all three replicas are reachable and have the same digest at one index.
    #[track_caller]
    pub fn check_replicas(&self) {
        replicas::agree(|arguments| self.millgrid([&["cluster", "status"], arguments].concat()));
    }

    fn issue_certificates(&self) {
        let ca = self.certificates().display().to_string();
        let run = |arguments: &[&str]| {
            let mut command = self.bare_command();
            Running::start(command.arg("cluster").args(arguments)).output().ok();
        };
        run(&["init-ca", "--out", &ca]);
        for (name, address) in &self.addresses {
            let hosts = address.to_string();
            run(&["issue-cert", "--ca", &ca, "--role", "coordinator", "--name", name, "--hosts", &hosts]);
        }
        run(&["issue-cert", "--ca", &ca, "--role", "worker", "--name", WORKER]);
        run(&["issue-cert", "--ca", &ca, "--role", "client", "--name", "ada"]);
    }

    fn configure_coordinator(&self, name: &str) {
        let (address, [grpc, peer, http]) = (self.addresses[name], PORTS);
        let text = format!(
            r#"
data_dir     = "{name}"
listen       = "{address}:{grpc}"
peer_listen  = "{address}:{peer}"
http_listen  = "{address}:{http}"
address      = "https://{address}:{grpc}"
peer_address = "{address}:{peer}"
election     = "fast"
[[pool]]
name      = "local"
cpu_milli = 2000
"#
        );
        self.configure(name, &text);
    }

    fn configure_worker(&self) {
        let endpoints: Vec<String> = COORDINATORS.iter().map(|name| self.endpoint(name)).collect();
        let state = self.folder().join(WORKER);
        self.configure(WORKER, &format!("endpoints = {endpoints:?}\nstate_dir = {state:?}\ncpus = 2\n"));
    }

    fn configure(&self, name: &str, more: &str) {
        let head =
            format!("name = \"{name}\"\nca = \"ca/ca.pem\"\ncert = \"ca/{name}.pem\"\nkey = \"ca/{name}.key\"\n");
        fs::write(self.folder().join(format!("{name}.toml")), head + more).unwrap();
    }

    fn bare_command(&self) -> Command {
        let mut command = bare_millgrid(&self.folder().join("home"));
        command.current_dir(self.folder().join("work"));
        command
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn certificates(&self) -> PathBuf {
        self.folder().join("ca")
    }

    fn log_file(&self, name: &str) -> PathBuf {
        self.folder().join("logs").join(format!("{name}.log"))
    }
}

impl Place {
    /// Does something where the processes of that name are.
    fn on<T: Send>(&self, host: &str, act: impl FnOnce() -> T + Send) -> T {
        match self {
            Place::Loopback => act(),
            Place::Network(network) => network.on(host, act),
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if thread::panicking() {
            for name in COORDINATORS.iter().chain([&WORKER]) {
                let log = self.log(name);
                let lines: Vec<&str> = log.lines().collect();
                eprintln!("--- {name}\n{}", lines[lines.len().saturating_sub(30)..].join("\n"));
            }
        }
        for child in self.processes.values_mut() {
            // An error means that it has ended.
            let _ = child.kill();
            let _ = child.wait();
        }
        // The keeper and its tasks, until none of them makes another.
        let start = Instant::now();
        while kill_processes_of(self.folder()) > 0 && start.elapsed() < GONE {
            thread::sleep(Duration::from_millis(10));
        }
        for mount in &self.mounts {
            let status = Command::new("umount").arg(mount).status();
            let done = status.is_ok_and(|status| status.success());
            assert!(done || thread::panicking(), "{} is still mounted", mount.display());
        }
        let left = processes_of(self.folder());
        assert!(left.is_empty() || thread::panicking(), "processes were left behind: {left:#?}");
    }
}

/// An address that no other coordinator of this run has: of the 2^21 above 127.32.0.0 each process has 32.
fn next_loopback() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let own = NEXT.fetch_add(1, Ordering::Relaxed) % 32;
    Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 32, 0, 0)) + ((process::id() % (1 << 16)) << 5 | own))
}
