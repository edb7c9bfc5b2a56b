//! An authority, coordinators and callers for the tests.

use std::{
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use coordinator::{
    Metrics,
    config::{Config, Election, LogFormat},
    ending::Ending,
    member::Member,
    serve::{Addresses, Listeners},
    tls,
};
use proto::v1::{self, BootstrapRequest, GetMemberRequest, cluster_service_client::ClusterServiceClient};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use tonic::{
    Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tonic_types::StatusExt;

/// A certificate authority in a folder of its own.
pub struct Authority {
    pub folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub struct Issued {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Authority {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = name("millgrid", "authority", "test");
        let pem = params.self_signed(&key).unwrap().pem();
        std::fs::write(folder.path().join("ca.pem"), &pem).unwrap();
        Authority { folder, issuer: Issuer::new(params, key), pem }
    }

    pub fn issue(&self, organization: &str, unit: &str, common: &str) -> Issued {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name = name(organization, unit, common);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Issued { certificate, key: key.serialize_pem() }
    }

    /// A connection as whoever `issued` names; as nobody without.
    pub async fn connect(&self, port: u16, issued: Option<&Issued>) -> Result<Channel, tonic::transport::Error> {
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&self.pem));
        if let Some(issued) = issued {
            tls = tls.identity(Identity::from_pem(&issued.certificate, &issued.key));
        }
        Endpoint::from_shared(format!("https://127.0.0.1:{port}"))?.tls_config(tls)?.connect().await
    }

    /// A connection as the client `alice`.
    pub async fn client(&self, node: &Node) -> Channel {
        let alice = self.issue("millgrid", "client", "alice");
        self.connect(node.addresses.grpc.port(), Some(&alice)).await.unwrap()
    }

    fn write(&self, name: &str) -> (PathBuf, PathBuf) {
        let issued = self.issue("millgrid", "coordinator", name);
        let at = |ending: &str| self.folder.path().join(format!("{name}.{ending}"));
        std::fs::write(at("pem"), issued.certificate).unwrap();
        std::fs::write(at("key"), issued.key).unwrap();
        (at("pem"), at("key"))
    }
}

fn name(organization: &str, unit: &str, common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, organization);
    name.push(DnType::OrganizationalUnitName, unit);
    name.push(DnType::CommonName, common);
    name
}

/// One coordinator, with a runtime of its own that dies with it.
pub struct Node {
    pub config: Config,
    pub addresses: Addresses,
    pub member: Arc<Member>,
    ending: Ending,
    runtime: Runtime,
}

impl Node {
    /// Starts a new one on free ports.
    pub fn new(authority: &Authority, name: &str) -> Node {
        let (cert, key) = authority.write(name);
        let anywhere = "127.0.0.1:0".parse().unwrap();
        Node::start(Config {
            name: name.to_owned(),
            data_dir: authority.folder.path().join(name),
            listen: anywhere,
            peer_listen: anywhere,
            http_listen: anywhere,
            address: String::new(),
            peer_address: String::new(),
            ca: authority.folder.path().join("ca.pem"),
            cert,
            key,
            election: Election::Fast,
            grid_prefix: "s3://dev/.millgrid/".to_owned(),
            s3_endpoint: None,
            pools: Vec::new(),
            max_connections: 1_000,
            snapshot_commands: 100,
            snapshot_bytes: 1 << 20,
            log_entries_kept: 10,
            history_pause: Duration::from_millis(100),
            newest_rules: scheduler::NEWEST_RULES,
            log: "info".to_owned(),
            log_format: LogFormat::Text,
        })
    }

    /// Starts one on its disk and ports.
    pub fn start(mut config: Config) -> Node {
        let runtime = Runtime::new().unwrap();
        let ending = Ending::default();
        let started = std::thread::scope(|scope| {
            let running = scope.spawn(|| {
                runtime.block_on(async {
                    let tls = tls::load(&config).unwrap();
                    let listeners = eventually_bound(&config).await;
                    let addresses = listeners.addresses().unwrap();
                    (config.listen, config.peer_listen, config.http_listen) =
                        (addresses.grpc, addresses.peer, addresses.http);
                    config.address = format!("https://{}", addresses.grpc);
                    config.peer_address = addresses.peer.to_string();
                    let metrics = Arc::new(Metrics::default());
                    let member = Member::open(config.clone(), tls, ending.clone(), metrics).await.unwrap();
                    listeners.serve(Arc::clone(&member), &ending).unwrap();
                    (addresses, member)
                })
            });
            running.join().unwrap()
        });
        let (addresses, member) = started;
        Node { config, addresses, member, ending, runtime }
    }

    /// Ends it and gives its disk and ports back.
    pub fn stop(self) -> Config {
        let Node { config, member, runtime, ending, .. } = self;
        assert_eq!(ending.decided(), None, "{} has failed", config.name);
        std::thread::spawn(move || {
            if let Ok(running) = member.running() {
                running.stop();
            }
            drop(member);
            runtime.shutdown_timeout(Duration::from_secs(5));
        })
        .join()
        .unwrap();
        config
    }

    pub fn leads(&self) -> bool {
        self.member.running().is_ok_and(|running| running.figures().leading == 1)
    }

    pub fn snapshots(&self) -> usize {
        count(&self.config.data_dir.join("snapshots"))
    }
}

fn count(folder: &Path) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

/// A port that was given back a moment ago may still be closing.
async fn eventually_bound(config: &Config) -> Listeners {
    eventually("the ports are free", || async { Listeners::bind(config).await.ok() }).await
}

/// Three coordinators of one cluster.
pub async fn three(authority: &Authority) -> Vec<Node> {
    let nodes: Vec<Node> = ["c1", "c2", "c3"].iter().map(|name| Node::new(authority, name)).collect();
    let request = record(authority, &nodes).await;
    for node in &nodes {
        let mut client = ClusterServiceClient::new(authority.client(node).await);
        let member = client.bootstrap(request.clone()).await.unwrap().into_inner();
        assert_eq!(member.cluster_id, "test");
    }
    nodes
}

/// What tells `nodes` that they are the members.
pub async fn record(authority: &Authority, nodes: &[Node]) -> BootstrapRequest {
    let mut members = Vec::new();
    for node in nodes {
        let mut client = ClusterServiceClient::new(authority.client(node).await);
        members.push(client.get_member(GetMemberRequest {}).await.unwrap().into_inner());
    }
    BootstrapRequest { cluster_id: "test".to_owned(), members }
}

/// The position of the one that leads.
pub async fn leader(nodes: &[Node]) -> usize {
    eventually("somebody leads", || async { nodes.iter().position(Node::leads) }).await
}

/// Asks until there is an answer.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The stable reason of a refusal.
pub fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

/// A submit of one task of `true`.
pub fn submit(request_id: &str) -> v1::SubmitJobRequest {
    v1::SubmitJobRequest {
        request_id: request_id.to_owned(),
        spec: Some(v1::JobSpec { name: "test".to_owned(), command: vec!["true".to_owned()], ..Default::default() }),
    }
}

/// Whoever dials TLS by hand, as a client.
pub fn connector(authority: &Authority) -> TlsConnector {
    let issued = authority.issue("millgrid", "client", "alice");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.folder.path().join("ca.pem")).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap(),
        )
        .unwrap();
    TlsConnector::from(Arc::new(config))
}
