use std::{fmt::Write, path::Path};

use serde::Serialize;

use super::{
    failure::Failure,
    record::{Kind, Member, Record, worker_of},
    settings::REGION,
    state::State,
    tree,
};

/// `dev status -o json` (interfaces, section 2).
#[derive(Debug, Serialize)]
struct Status<'a> {
    state: &'a Path,
    processes: Vec<Process>,
}

#[derive(Debug, Serialize)]
struct Process {
    name: String,
    role: Kind,
    /// Null when it is dead.
    pid: Option<i32>,
    /// Null for workers and their keepers, which listen nowhere.
    address: Option<String>,
    listeners: Vec<Listener>,
}

#[derive(Debug, Serialize)]
struct Listener {
    name: &'static str,
    address: String,
}

/// Shows every process; asks none of them.
pub fn print(state: &State, json: bool) -> Result<(), Failure> {
    let record = state.started()?;
    let processes: Vec<Process> = record.members().iter().map(|member| process(state, &record, member)).collect();
    if json {
        let status = Status { state: state.path(), processes };
        let text = serde_json::to_string_pretty(&status).map_err(|error| Failure::Other(error.to_string()))?;
        return say(&format!("{text}\n"));
    }
    let mut text = String::new();
    let _ = writeln!(text, "{:<18} {:<12} {:>8}  LISTENERS", "NAME", "ROLE", "PID");
    for process in processes {
        let pid = process.pid.map_or("-".to_owned(), |pid| pid.to_string());
        let listeners: Vec<String> =
            process.listeners.iter().map(|listener| format!("{} {}", listener.name, listener.address)).collect();
        let role = format!("{:?}", process.role).to_lowercase();
        let line = format!("{:<18} {role:<12} {pid:>8}  {}", process.name, listeners.join("  "));
        let _ = writeln!(text, "{}", line.trim_end());
    }
    say(&text)
}

/// What a shell or a test needs to use the grid.
pub fn print_env(state: &State) -> Result<(), Failure> {
    let record = state.started()?;
    let credentials = state.s3_credentials()?;
    let file = |name: &str| state.ca().join(name).display().to_string();
    let variables = [
        ("MILLGRID_ENDPOINT", record.endpoints().join(",")),
        ("MILLGRID_CA", file("ca.pem")),
        ("MILLGRID_CERT", file("client.pem")),
        ("MILLGRID_KEY", file("client.key")),
        ("AWS_ENDPOINT_URL_S3", record.s3_url()),
        ("AWS_REGION", REGION.to_owned()),
        ("AWS_ACCESS_KEY_ID", credentials.access_key),
        ("AWS_SECRET_ACCESS_KEY", credentials.secret_key),
        ("MILLGRID_DEV", "1".to_owned()),
    ];
    let lines = variables.iter().map(|(name, value)| format!("export {name}={}\n", quoted(value)));
    say(&lines.collect::<String>())
}

fn process(state: &State, record: &Record, member: &Member) -> Process {
    let name = member.name.as_str();
    let id = match member.kind {
        Kind::Keeper => tree::keeper(&state.disk(worker_of(name))),
        _ => record.processes.get(name).filter(|id| id.is_alive()).cloned(),
    };
    let listener = |name, port: u16| Listener { name, address: format!("127.0.0.1:{port}") };
    let ports = &record.ports;
    let listeners = match member.kind {
        Kind::Coordinator => {
            vec![
                listener("grpc", ports.grpc(name)),
                listener("peer", ports.peer(name)),
                listener("http", ports.http(name)),
            ]
        }
        Kind::S3 => vec![listener("s3", ports.s3())],
        Kind::Worker | Kind::Keeper => Vec::new(),
    };
    Process {
        name: name.to_owned(),
        role: member.kind,
        pid: id.map(|id| id.pid),
        address: listeners.first().map(|listener| listener.address.clone()),
        listeners,
    }
}

/// As a POSIX shell reads it back.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Writes to stdout; a reader that went away is no error.
pub fn say(text: &str) -> Result<(), Failure> {
    use std::io::{self, Write};
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::file("write", "stdout")(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
