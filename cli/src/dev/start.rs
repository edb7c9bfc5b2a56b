//! `millgrid dev` itself: everything at once, then wait for what must be there.

use std::{env, fs, time::Duration};

use tokio::{
    net::TcpStream,
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, interval, sleep},
};

use super::{
    StartArgs,
    bootstrap::Members,
    context,
    failure::Failure,
    launch::{self, Started},
    ports::{DEFAULT_BASE, Ports},
    process::ProcessId,
    record::{COORDINATORS, Kind, Record},
    settings,
    state::State,
    status::say,
    stop,
};
use crate::identity::{self, Role};

/// Between two looks whether something is there yet.
const POLL: Duration = Duration::from_millis(10);
/// A grid that isn't there by then won't be.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks whether a process ended.
const REAP: Duration = Duration::from_millis(200);

/// Starts a grid; in the foreground it also waits until it is to end.
pub async fn run(args: StartArgs) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let mut state = match (&args.state.state, args.ephemeral) {
        (None, true) => State::temporary()?,
        (chosen, _) => State::chosen(chosen.clone())?,
    };
    state.create()?;
    let Some(lock) = state.lock()? else { return Err(Failure::Running(state.path().to_owned())) };
    let record = prepare(&state, &args)?;
    let started = tokio::select! {
        started = bring_up(&state, &record) => started,
        () = signals.any() => Err(Failure::Interrupted),
    };
    let (processes, leader) = match started {
        Ok(up) => up,
        Err(failure) => {
            // Half a grid helps nobody; its logs do, unless the folder is temporary.
            stop::everything(&state, &state.started()?).await?;
            if args.ephemeral && matches!(failure, Failure::Interrupted) {
                state.remove()?;
            }
            return Err(failure);
        }
    };
    if state.is_default() {
        context::write(&state, &record)?;
    }
    say(&banner(&state, &record, &leader))?;
    if args.detach {
        return Ok(());
    }
    watch(processes, &mut signals).await;
    let stopped = stop::everything(&state, &state.started()?).await;
    if args.ephemeral {
        state.remove()?;
    }
    drop(lock);
    stopped
}

/// Everything that is on the disk before the first process is started.
fn prepare(state: &State, args: &StartArgs) -> Result<Record, Failure> {
    for program in ["millgrid-coordinator", "millgrid-worker"] {
        launch::beside(program)?;
    }
    let before = state.record()?;
    if args.ephemeral && before.is_some() {
        return Err(Failure::KeptState(state.path().to_owned()));
    }
    if before.as_ref().is_some_and(Record::is_alive) {
        return Err(Failure::Running(state.path().to_owned()));
    }
    let ports = match &before {
        None => Ports::find(args.port_base.unwrap_or(DEFAULT_BASE))?,
        Some(before) => {
            if args.port_base.is_some_and(|base| !before.ports.answer_to(base)) {
                return Err(Failure::OtherPorts { made: before.ports.base() });
            }
            if let Some(port) = before.ports.busy() {
                return Err(Failure::PortBusy { port });
            }
            before.ports
        }
    };
    let record = Record {
        ports,
        workers: args.workers,
        worker_cpus: args.worker_cpus.unwrap_or_else(|| settings::default_worker_cpus(args.workers)),
        ephemeral: args.ephemeral,
        stopped: false,
        foreground: if args.detach { None } else { ProcessId::of(std::process::id() as i32) },
        processes: Default::default(),
    };
    issue_certificates(state, &record)?;
    state.s3_credentials()?;
    settings::write(state, &record)?;
    // Last: once it is there, `dev env` says what can be used.
    state.write_record(&record)?;
    Ok(record)
}

/// The authority stays; the certificates are new at every start, so that none ever expires in use.
fn issue_certificates(state: &State, record: &Record) -> Result<(), Failure> {
    let ca = state.ca();
    if !ca.join("ca.pem").exists() {
        identity::init_ca(&ca)?;
    }
    let coordinators = COORDINATORS.iter().map(|name| (Role::Coordinator, name.to_string(), name.to_string()));
    let workers = record.worker_names().into_iter().map(|name| (Role::Worker, name.clone(), name));
    let client = (Role::Client, user(), "client".to_owned());
    for (role, name, file) in coordinators.chain(workers).chain([client]) {
        let fresh = ca.join("new");
        let _ = fs::remove_dir_all(&fresh);
        let issued = identity::issue_cert(&ca, role, &name, &[], &fresh)?;
        for (from, end) in [(issued.key, "key"), (issued.cert, "pem")] {
            let to = ca.join(format!("{file}.{end}"));
            fs::rename(from, &to).map_err(Failure::file("write", to))?;
        }
        fs::remove_dir(&fresh).map_err(Failure::file("remove", fresh))?;
    }
    Ok(())
}

/// The owner of the jobs that are submitted with the client's certificate.
fn user() -> String {
    let set = |name: &str| env::var(name).ok().filter(|user| !user.is_empty());
    let user = set("USER").or_else(|| set("LOGNAME")).unwrap_or_default();
    let good = user.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if good && user.starts_with(|first: char| first.is_ascii_alphanumeric()) && user != "ca" {
        user
    } else {
        "dev".to_owned()
    }
}

/// Starts everything and waits for it; the processes, and the leader's name.
async fn bring_up(state: &State, record: &Record) -> Result<(Vec<Started>, String), Failure> {
    let mut processes = Vec::new();
    let of = |kind: Kind| record.members().into_iter().filter(move |member| member.kind == kind);
    for member in of(Kind::Coordinator).chain(of(Kind::S3)) {
        processes.push(launch::start(state, record, &member)?);
    }
    let mut wait = Wait { state, until: Instant::now() + PATIENCE };
    for port in COORDINATORS.iter().map(|name| record.ports.grpc(name)).chain([record.ports.s3()]) {
        wait.until(&mut processes, "not all processes listen", async || listens(port).await.then_some(())).await?;
    }
    // Workers find coordinators that listen: one that found none would wait before it looked again.
    for member in of(Kind::Worker) {
        processes.push(launch::start(state, record, &member)?);
    }
    let mut members = Members::new(state, record)?;
    let named = wait.until(&mut processes, "not all coordinators answer", async || members.members().await).await?;
    members.bootstrap(named).await?;
    let led = wait.until(&mut processes, "no leader was elected", async || members.led().await).await?;
    let mut expected = record.worker_names();
    expected.sort();
    let joined = async || {
        let joined = members.workers().await?;
        expected.iter().all(|name| joined.contains(name)).then_some(())
    };
    wait.until(&mut processes, "not all workers joined", joined).await?;
    Ok((processes, led.leader))
}

/// Patience for the whole start.
struct Wait<'a> {
    state: &'a State,
    until: Instant,
}

impl Wait<'_> {
    /// Looks until there is something, or a process ended, or the patience did.
    async fn until<T>(
        &mut self,
        processes: &mut [Started],
        otherwise: &str,
        mut look: impl AsyncFnMut() -> Option<T>,
    ) -> Result<T, Failure> {
        loop {
            if let Some(found) = look().await {
                return Ok(found);
            }
            for process in processes.iter_mut() {
                process.check(self.state)?;
            }
            if Instant::now() > self.until {
                let logs = self.state.logs();
                return Err(Failure::TooLate { what: otherwise.to_owned(), seconds: PATIENCE.as_secs(), logs });
            }
            sleep(POLL).await;
        }
    }
}

/// Whether somebody takes connections on a port.
pub async fn listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).await.is_ok()
}

fn banner(state: &State, record: &Record, leader: &str) -> String {
    let kept = if record.ephemeral { "temporary" } else { "kept" };
    let path = shortened(state.path());
    let [first, second, third] = COORDINATORS.map(|name| record.ports.grpc(name));
    let plural = |count: u32, word: &str| if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") };
    let named = if state.is_default() { String::new() } else { format!(" --state {path}") };
    let mut lines = vec![
        format!(
            " millgrid dev {}   3 coordinators (leader: {leader})   {} x {}   state: {path} ({kept})",
            env!("CARGO_PKG_VERSION"),
            plural(record.workers, "worker"),
            plural(record.worker_cpus, "cpu"),
        ),
        format!("   gRPC       127.0.0.1:{first}  {second}  {third}"),
        format!("   S3         {}   s3://dev  ->  {path}/s3/dev", record.s3_url()),
    ];
    if !named.is_empty() {
        lines.push(format!(" use:  eval \"$(millgrid dev env{named})\""));
    }
    lines.push(format!(
        " try:  millgrid run -- echo hello      millgrid submit --array 0-99 -- sleep 1      millgrid dev kill leader{named}"
    ));
    lines.join("\n") + "\n"
}

/// With `~` for the home folder.
fn shortened(path: &std::path::Path) -> String {
    let home = env::var_os("HOME").filter(|home| home.len() > 1);
    match home.and_then(|home| path.strip_prefix(home).ok()) {
        Some(rest) => format!("~/{}", rest.display()),
        None => path.display().to_string(),
    }
}

/// Waits for a signal, and says which processes ended meanwhile.
async fn watch(mut processes: Vec<Started>, signals: &mut Signals) {
    let mut ticks = interval(REAP);
    loop {
        tokio::select! {
            () = signals.any() => return,
            _ = ticks.tick() => processes.retain_mut(|process| match process.ended() {
                Some(status) => {
                    eprintln!(" {} (pid {}) ended: {status}", process.name, process.id.pid);
                    false
                }
                None => true,
            }),
        }
    }
}

/// What asks a program in the foreground to end.
struct Signals([Signal; 3]);

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::Other(format!("no signals: {error}")));
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = kinds.map(listen);
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    async fn any(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
