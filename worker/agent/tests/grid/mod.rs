//! Coordinators that say exactly what a test says, and a real worker process with a real keeper.

#![allow(clippy::unwrap_used, dead_code)]

use std::{
    fs,
    path::{Path, PathBuf},
    pin::Pin,
    process::{Child, Command, Stdio},
    time::Duration,
};

use proto::v1::{
    Acknowledged, AttemptKey, Cause, CoordinatorMessage, Ended, FetchBlobRequest, FetchBlobResponse, Grant, GrantedJob,
    Instructions, JobSpec, LogData, LogStream, Manifest, OpenSession, Publish, ReadLog, Renewed, ReportItem, Resources,
    SessionOpened, WorkerMessage,
    coordinator_message::Message as Down,
    report_item::Item,
    worker_message::Message as Up,
    worker_session_service_server::{WorkerSessionService, WorkerSessionServiceServer},
};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::timeout,
};
use tokio_stream::{Stream, StreamExt, wrappers::UnboundedReceiverStream};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Certificate, Identity, Server, ServerTlsConfig},
};

/// Anything that is awaited comes within this, even on a machine that is busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(20);

const S3_ACCESS_KEY: &str = "test";
const S3_SECRET_KEY: &str = "test-secret";

/// The fake coordinators.
pub struct Grid {
    folder: tempfile::TempDir,
    endpoints: Vec<String>,
    connections: UnboundedReceiver<Connection>,
}

/// One stream of a worker.
pub struct Connection {
    pub up: Streaming<WorkerMessage>,
    pub down: UnboundedSender<Result<CoordinatorMessage, Status>>,
    /// Which of the coordinators it reached.
    pub at: usize,
    /// Renewals are answered while this holds.
    pub renews: bool,
    /// Items that came and that the test hasn't asked for.
    items: Vec<(u64, ReportItem)>,
}

#[derive(Clone)]
struct Service {
    at: usize,
    /// Address of the leader, if it is another one.
    leader: Option<String>,
    connections: UnboundedSender<Connection>,
    blobs: PathBuf,
}

#[tonic::async_trait]
impl WorkerSessionService for Service {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<CoordinatorMessage, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<WorkerMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (down, stream) = unbounded_channel();
        let connection = Connection { up: request.into_inner(), down, at: self.at, renews: true, items: Vec::new() };
        self.connections.send(connection).unwrap();
        let mut response: Response<Self::SessionStream> = Response::new(Box::pin(UnboundedReceiverStream::new(stream)));
        if let Some(leader) = &self.leader {
            response.metadata_mut().insert("millgrid-leader", leader.parse().unwrap());
        }
        Ok(response)
    }

    async fn fetch_blob(&self, request: Request<FetchBlobRequest>) -> Result<Response<FetchBlobResponse>, Status> {
        let name = hex(&request.get_ref().hash);
        match fs::read(self.blobs.join(name)) {
            Ok(data) => Ok(Response::new(FetchBlobResponse { data: data.into() })),
            Err(_) => Err(Status::not_found("no such blob")),
        }
    }
}

impl Grid {
    pub async fn start() -> Self {
        Self::start_led_by(0, 1).await
    }

    /// So many coordinators, which name one of them as their leader.
    pub async fn start_led_by(leader: usize, count: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::new();
        let (server_cert, server_key) = pki.issue("c1", true);
        let (cert, key) = pki.issue("w1", false);
        fs::write(folder.path().join("ca.pem"), &pki.ca_pem).unwrap();
        fs::write(folder.path().join("w.pem"), cert).unwrap();
        fs::write(folder.path().join("w.key"), key).unwrap();
        let blobs = folder.path().join("blobs");
        fs::create_dir(&blobs).unwrap();
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(server_cert, server_key))
            .client_ca_root(Certificate::from_pem(&pki.ca_pem));
        let (sender, connections) = unbounded_channel();
        let (mut listeners, mut endpoints) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            endpoints.push(format!("https://{}", listener.local_addr().unwrap()));
            listeners.push(tokio_stream::wrappers::TcpListenerStream::new(listener));
        }
        for (at, incoming) in listeners.into_iter().enumerate() {
            let leader = (at != leader).then(|| endpoints[leader].clone());
            let service = Service { at, leader, connections: sender.clone(), blobs: blobs.clone() };
            let mut server = Server::builder().tls_config(tls.clone()).unwrap();
            tokio::spawn(server.add_service(WorkerSessionServiceServer::new(service)).serve_with_incoming(incoming));
        }
        Self { folder, endpoints, connections }
    }

    /// Stores a blob; its hash.
    pub fn put_blob(&self, data: &[u8]) -> Vec<u8> {
        let hash = blake3::hash(data);
        fs::write(self.folder.path().join("blobs").join(hash.to_hex().as_str()), data).unwrap();
        hash.as_bytes().to_vec()
    }

    pub fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// The directory of an attempt on the worker.
    pub fn directory(&self, key: AttemptKey) -> PathBuf {
        self.state_dir().join("tasks").join(format!("{}.{}.{}", key.job_id, key.ordinal, key.attempt))
    }

    /// Whether nothing is left of an attempt. Its empty folder and its empty spools may be kept for another one.
    pub fn is_swept(&self, key: AttemptKey) -> bool {
        let directory = self.directory(key);
        let empty = |path: &Path| fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
        let spool = |name| fs::metadata(directory.join(name)).map_or(0, |spool| spool.len());
        !directory.exists() || (spool("stdout") + spool("stderr") == 0 && empty(&directory.join("work")))
    }

    /// Serves an S3 folder; its endpoint. Bucket `dev` is the folder [`Self::bucket`].
    pub async fn start_s3(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        fs::create_dir_all(self.bucket()).unwrap();
        let credentials = dev_s3::Credentials { access_key: S3_ACCESS_KEY.into(), secret_key: S3_SECRET_KEY.into() };
        let root = self.folder.path().join("s3");
        tokio::spawn(async { dev_s3::serve(listener, root, credentials, std::future::pending()).await.unwrap() });
        endpoint
    }

    pub fn bucket(&self) -> PathBuf {
        self.folder.path().join("s3/dev")
    }

    /// Starts the worker's agent, with further lines of configuration.
    pub fn start_worker(&self, extra: &str) -> Agent {
        let at = self.folder.path().display();
        let config = format!(
            "name = 'w1'\npool = 'local'\nendpoints = ['{}']\nca = '{at}/ca.pem'\ncert = '{at}/w.pem'\n\
             key = '{at}/w.key'\nstate_dir = '{at}/state'\ncpus = 2\nmemory = '1G'\n{extra}",
            self.endpoints.join("', '")
        );
        let path = self.folder.path().join("worker.toml");
        fs::write(&path, config).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_millgrid-worker"))
            .arg("--config")
            .arg(path)
            .env("AWS_ACCESS_KEY_ID", S3_ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", S3_SECRET_KEY)
            .env("AWS_REGION", "us-east-1")
            .env("MILLGRID_LOG", "debug,h2=info,hyper_util=info,tower=info")
            .stderr(Stdio::from(
                fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("agent.log")).unwrap(),
            ))
            .spawn()
            .unwrap();
        Agent { child }
    }

    /// The next stream that a worker opens, and what it says first.
    pub async fn connection(&mut self) -> (Connection, OpenSession) {
        let next = timeout(PATIENCE, self.connections.recv()).await;
        let mut connection = next.unwrap_or_else(|_| panic!("no worker came\n{}", self.log())).unwrap();
        match connection.message().await {
            Up::Open(open) => (connection, open),
            other => panic!("a stream begins with `open`, not {other:?}"),
        }
    }

    /// A worker that has just opened session 1.
    pub async fn session(&mut self) -> Connection {
        let (connection, open) = self.connection().await;
        assert!(open.resume.is_none(), "{open:?}");
        connection.open(1, 1, 0);
        connection
    }

    /// What agent and keeper have logged, for a test that fails.
    pub fn log(&self) -> String {
        let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
        read(self.folder.path().join("agent.log")) + &read(self.state_dir().join("keeper.log"))
    }

    pub fn keeper_pid(&self) -> Option<i32> {
        fs::read_to_string(self.state_dir().join("keeper.pid")).ok()?.trim().parse().ok()
    }
}

impl Drop for Grid {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        if let Some(pid) = self.keeper_pid().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            await_true(|| rustix::process::test_kill_process(pid).is_err());
        }
    }
}

/// An agent, killed when dropped; its keeper lives on.
pub struct Agent {
    pub child: Child,
}

impl Agent {
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Connection {
    pub fn send(&self, message: Down) {
        self.down.send(Ok(CoordinatorMessage { message: Some(message) })).unwrap();
    }

    pub fn open(&self, session: u64, connection: u64, applied_sequence: u64) {
        self.open_for(session, connection, applied_sequence, 30_000);
    }

    pub fn open_for(&self, session: u64, connection: u64, applied_sequence: u64, lifetime_ms: u64) {
        self.send(Down::Opened(SessionOpened {
            session,
            connection,
            renew_interval_ms: lifetime_ms / 10,
            lifetime_ms,
            applied_sequence,
            cluster_id: "test".into(),
            worker: "w1".into(),
            grid_prefix: "s3://dev/.millgrid/".into(),
            unknown: Vec::new(),
        }));
    }

    pub async fn message(&mut self) -> Up {
        loop {
            let next = timeout(PATIENCE, self.up.next()).await.expect("the worker says nothing");
            match next.expect("the worker hung up").expect("the stream broke").message.unwrap() {
                Up::Renew(renew) => {
                    if self.renews {
                        self.send(Down::Renewed(Renewed { nonce: renew.nonce }));
                    }
                }
                Up::Report(report) => {
                    let items = report.items.into_iter();
                    self.items.extend((report.first_sequence..).zip(items));
                    return Up::Report(Default::default());
                }
                other => return other,
            }
        }
    }

    /// The next item that the worker reports, and its number.
    pub async fn item(&mut self) -> (u64, AttemptKey, Item) {
        while self.items.is_empty() {
            self.message().await;
        }
        let (sequence, item) = self.items.remove(0);
        (sequence, item.attempt.unwrap(), item.item.unwrap())
    }

    /// The next end that the worker reports; starts are passed over. Everything so far is acknowledged.
    pub async fn ended(&mut self) -> (AttemptKey, Ended) {
        loop {
            let (sequence, key, item) = self.item().await;
            self.acknowledge(sequence);
            match item {
                Item::Ended(ended) => return (key, ended),
                Item::Started(_) => {}
                other => panic!("expected an end, got {other:?}"),
            }
        }
    }

    pub fn acknowledge(&self, sequence: u64) {
        self.send(Down::Acknowledged(Acknowledged { sequence, gap: false, verdicts: Vec::new() }));
    }

    pub fn grant(&self, index: u64, spec: JobSpec, keys: &[AttemptKey]) {
        let limit = spec.time_limit.unwrap_or_default();
        let job = GrantedJob {
            job_id: keys[0].job_id,
            time_limit_ms: (limit.seconds * 1000) as u64 + (limit.nanos / 1_000_000) as u64,
            resources: Some(spec.resources.unwrap_or(Resources { cpu_milli: 1000, ..Default::default() })),
            spec: Some(spec),
            owner: "me".into(),
        };
        let grants = keys.iter().map(|key| Grant {
            attempt: Some(*key),
            task_index: u64::from(key.ordinal),
            ..Default::default()
        });
        self.send(Down::Instructions(Instructions {
            index,
            jobs: vec![job],
            grants: grants.collect(),
            ..Default::default()
        }));
    }

    pub fn publish(&self, index: u64, key: AttemptKey, manifest: Manifest) {
        let publish = Publish { attempt: Some(key), manifest: Some(manifest), task_index: u64::from(key.ordinal) };
        self.send(Down::Instructions(Instructions { index, publications: vec![publish], ..Default::default() }));
    }

    pub async fn log(&mut self, key: AttemptKey, stream: LogStream, offset: i64, follow: bool) -> LogData {
        let attempt = Some(key);
        let request = ReadLog { request: 77, attempt, stream: stream.into(), offset, max_bytes: 65536, follow };
        self.send(Down::ReadLog(request));
        loop {
            if let Up::LogData(data) = self.message().await {
                assert_eq!(data.request, 77);
                return data;
            }
        }
    }
}

pub fn key(job_id: u64, ordinal: u32) -> AttemptKey {
    AttemptKey { job_id, ordinal, attempt: 1 }
}

pub fn command(words: &[&str]) -> JobSpec {
    JobSpec { command: words.iter().map(|word| word.to_string()).collect(), ..Default::default() }
}

/// What a test says of an end.
pub fn summary(ended: &Ended) -> (Cause, i32, i32) {
    (ended.cause(), ended.exit_code, ended.signal)
}

/// Looks until it is true.
pub fn await_true(mut condition: impl FnMut() -> bool) {
    let until = std::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(std::time::Instant::now() < until, "it never became true");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Pki {
    ca_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_pem = params.self_signed(&key).unwrap().pem();
        Self { ca_pem, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, name: &str, server: bool) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.extended_key_usages = match server {
            true => vec![ExtendedKeyUsagePurpose::ServerAuth],
            false => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}
