//! The configuration files that the grid's processes are started with.

use std::{collections::BTreeMap, fs, path::Path};

use serde::Serialize;

use super::{
    failure::Failure,
    record::{COORDINATORS, Record},
    state::State,
};

/// The pool of all workers.
const POOL: &str = "local";
/// Labels `zone` of the workers, in turn: what a constraint can be tried with.
const ZONES: [&str; 3] = ["dev-a", "dev-b", "dev-c"];
/// Below it are the grid's own objects.
const GRID_PREFIX: &str = "s3://dev/.millgrid/";
/// Ended jobs wait so long for company before they move to the history: whoever tries it wants to see it.
const HISTORY_PAUSE: &str = "1s";
/// Any region will do for the endpoint.
pub const REGION: &str = "us-east-1";

#[derive(Serialize)]
struct Coordinator<'a> {
    name: &'a str,
    data_dir: &'a Path,
    listen: String,
    peer_listen: String,
    http_listen: String,
    address: String,
    peer_address: String,
    ca: &'a Path,
    cert: &'a Path,
    key: &'a Path,
    election: &'a str,
    grid_prefix: &'a str,
    s3_endpoint: String,
    history_pause: &'a str,
    pool: [Pool<'a>; 1],
}

#[derive(Serialize)]
struct Pool<'a> {
    name: &'a str,
    cpu_milli: u64,
    memory_mib: u64,
    gpus: u32,
    scratch_gib: u64,
}

#[derive(Serialize)]
struct Worker<'a> {
    name: &'a str,
    pool: &'a str,
    endpoints: Vec<String>,
    ca: &'a Path,
    cert: &'a Path,
    key: &'a Path,
    state_dir: &'a Path,
    cpus: u32,
    s3_endpoint: String,
    s3_region: &'a str,
    labels: BTreeMap<&'a str, &'a str>,
}

/// Writes the files of all coordinators and workers.
pub fn write(state: &State, record: &Record) -> Result<(), Failure> {
    let ca = state.ca().join("ca.pem");
    let files = |name: &str| (state.ca().join(format!("{name}.pem")), state.ca().join(format!("{name}.key")));
    let local = |port: u16| format!("127.0.0.1:{port}");
    for name in COORDINATORS {
        let (cert, key) = files(name);
        let coordinator = Coordinator {
            name,
            data_dir: &state.disk(name),
            listen: local(record.ports.grpc(name)),
            peer_listen: local(record.ports.peer(name)),
            http_listen: local(record.ports.http(name)),
            address: format!("https://{}", local(record.ports.grpc(name))),
            peer_address: local(record.ports.peer(name)),
            ca: &ca,
            cert: &cert,
            key: &key,
            election: "fast",
            grid_prefix: GRID_PREFIX,
            s3_endpoint: record.s3_url(),
            history_pause: HISTORY_PAUSE,
            pool: [Pool {
                name: POOL,
                cpu_milli: u64::from(record.worker_cpus) * 1000,
                memory_mib: memory_mib()?,
                gpus: 0,
                scratch_gib: disk_gib(state.path())?,
            }],
        };
        write_one(state, name, &coordinator)?;
    }
    for (name, zone) in record.worker_names().into_iter().zip(ZONES.into_iter().cycle()) {
        let (cert, key) = files(&name);
        let worker = Worker {
            name: &name,
            pool: POOL,
            endpoints: record.endpoints(),
            ca: &ca,
            cert: &cert,
            key: &key,
            state_dir: &state.disk(&name),
            cpus: record.worker_cpus,
            s3_endpoint: record.s3_url(),
            s3_region: REGION,
            labels: [("zone", zone)].into(),
        };
        write_one(state, &name, &worker)?;
    }
    for folder in [state.logs(), state.s3().join("dev")] {
        fs::create_dir_all(&folder).map_err(Failure::file("make", folder))?;
    }
    Ok(())
}

/// The cpus that each worker gets when nothing is said.
pub fn default_worker_cpus(workers: u32) -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, |count| count.get() as u32);
    (cores / workers.max(1)).max(1)
}

fn write_one(state: &State, name: &str, content: &impl Serialize) -> Result<(), Failure> {
    let path = state.config(name);
    let text = toml::to_string(content).map_err(|error| Failure::Other(format!("{}: {error}", path.display())))?;
    let folder = path.parent().unwrap_or(state.path());
    fs::create_dir_all(folder).and_then(|()| fs::write(&path, text)).map_err(Failure::file("write", &path))
}

fn memory_mib() -> Result<u64, Failure> {
    let path = "/proc/meminfo";
    let text = fs::read_to_string(path).map_err(Failure::file("read", path))?;
    let kib =
        text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok());
    kib.map(|kib| kib / 1024).ok_or_else(|| Failure::Other(format!("`{path}` doesn't say how much memory there is")))
}

/// The whole of the disk: what is free when a worker joins is never more.
fn disk_gib(path: &Path) -> Result<u64, Failure> {
    let disk = rustix::fs::statvfs(path).map_err(|error| Failure::file("look at", path)(error.into()))?;
    Ok((disk.f_blocks * disk.f_frsize) >> 30)
}
