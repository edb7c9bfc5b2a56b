//! Starting one process of the grid.

use std::{
    env,
    fs::{self, File, OpenOptions},
    io::Read,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use super::{
    failure::Failure,
    process::ProcessId,
    record::{Kind, Member, Record},
    settings::REGION,
    spot,
    state::State,
    tree,
};

/// Of a log, what is shown when its process ended.
const TAIL_BYTES: usize = 2_000;

/// A process that we started and may wait for.
pub struct Started {
    pub name: String,
    pub id: ProcessId,
    child: Child,
}

/// Starts a coordinator, a worker or the S3 endpoint, and writes it down. It is in a session of its own: neither
/// Ctrl-C nor the end of the terminal reaches it.
pub fn start(state: &State, record: &Record, member: &Member) -> Result<Started, Failure> {
    let name = &member.name;
    let mut command = match member.kind {
        Kind::Coordinator => with_config(beside("millgrid-coordinator")?, &state.config(name)),
        Kind::Worker => with_config(beside("millgrid-worker")?, &state.config(name)),
        Kind::S3 => {
            let mut command = Command::new(this_program()?);
            let listen = format!("127.0.0.1:{}", record.ports.s3());
            command.args(["dev", "s3-server", "--listen", &listen, "--root"]).arg(state.s3());
            command
        }
        Kind::Keeper => return Err(Failure::Keeper(name.clone())),
    };
    if member.kind == Kind::Worker && tree::keeper(&state.disk(name)).is_none() {
        // With the keeper gone this is another machine, of which nobody has said that it goes.
        spot::withdraw(&state.disk(name))?;
    }
    let log = state.log(name);
    let output = OpenOptions::new().create(true).append(true).open(&log).map_err(Failure::file("write", &log))?;
    let copy = output.try_clone().map_err(Failure::file("write", &log))?;
    set_environment(&mut command, state, record)?;
    command.current_dir(state.path()).stdin(Stdio::null()).stdout(output).stderr(copy);
    own_session(&mut command);
    let child = command.spawn().map_err(Failure::file("start", command.get_program()))?;
    // Nobody has waited for it, so that it is in the process table even when it ended at once.
    let id = ProcessId::of(child.id() as i32).ok_or_else(|| ended(state, name, "at once".to_owned()))?;
    state.change_record(|record| {
        record.processes.insert(name.clone(), id.clone());
        record.stopped = false;
    })?;
    Ok(Started { name: name.clone(), id, child })
}

impl Started {
    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// An error when it ended.
    pub fn check(&mut self, state: &State) -> Result<(), Failure> {
        match self.ended() {
            Some(status) => Err(ended(state, &self.name, status.to_string())),
            None => Ok(()),
        }
    }
}

/// The error of a process that ended by itself, with the end of its log.
fn ended(state: &State, name: &str, how: String) -> Failure {
    let log = state.log(name);
    let text = fs::read(&log).unwrap_or_default();
    let tail = String::from_utf8_lossy(&text[text.len().saturating_sub(TAIL_BYTES)..]);
    let lines: Vec<&str> = tail.lines().collect();
    let tail = lines[lines.len().saturating_sub(5)..].join("\n");
    Failure::Ended { name: name.to_owned(), how, log, tail }
}

fn with_config(program: PathBuf, config: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("--config").arg(config);
    command
}

/// What would change the meaning of our configuration files stays out.
fn set_environment(command: &mut Command, state: &State, record: &Record) -> Result<(), Failure> {
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let foreign =
            ["MILLGRID_COORDINATOR_", "MILLGRID_WORKER_", "AWS_"].iter().any(|prefix| text.starts_with(prefix));
        if foreign {
            command.env_remove(&name);
        }
    }
    let credentials = state.s3_credentials()?;
    command
        .env("AWS_ACCESS_KEY_ID", credentials.access_key)
        .env("AWS_SECRET_ACCESS_KEY", credentials.secret_key)
        .env("AWS_REGION", REGION)
        .env("AWS_ENDPOINT_URL_S3", record.s3_url())
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("NO_PROXY", "127.0.0.1,localhost");
    Ok(())
}

#[allow(unsafe_code)]
fn own_session(command: &mut Command) {
    // SAFETY: setsid is async-signal-safe, and the closure touches nothing else.
    unsafe {
        command.pre_exec(|| rustix::process::setsid().map(drop).map_err(Into::into));
    }
}

/// A program of ours in the folder of this one.
pub fn beside(name: &str) -> Result<PathBuf, Failure> {
    let path = this_program()?.with_file_name(name);
    if path.is_file() { Ok(path) } else { Err(Failure::NoBinary(path)) }
}

fn this_program() -> Result<PathBuf, Failure> {
    env::current_exe().map_err(Failure::file("find", "the path of this program"))
}

/// Random bytes in hexadecimal.
pub fn random_hex(bytes: usize) -> Result<String, Failure> {
    let mut random = vec![0; bytes];
    let path = "/dev/urandom";
    File::open(path).and_then(|mut file| file.read_exact(&mut random)).map_err(Failure::file("read", path))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}
