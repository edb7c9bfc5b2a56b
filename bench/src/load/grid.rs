//! A grid without workers of its own, for a load program that brings its own.

use std::{future::Future, sync::Arc, time::Duration};

use anyhow::Context;
use e2e::{Grid, Options, Test};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::time::timeout;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use super::{authority::Authority, connection::Connection, metrics, process::Meter};

/// One measurement takes no longer on any machine on which its figures could be met.
const LIMIT: Duration = Duration::from_secs(240);

/// Three coordinators of `millgrid dev`, and the way to call them without the command line.
pub struct Loaded {
    /// Its processes and its command line.
    pub grid: Test,
    /// Issues certificates of workers.
    pub authority: Arc<Authority>,
    /// URLs of all coordinators.
    pub endpoints: Vec<String>,
    client: ClientTlsConfig,
    /// The same for connections without a client library.
    tls: Arc<ClientConfig>,
    settings: client::Settings,
}

impl Loaded {
    /// Starts one, with so many real workers of two cpus.
    pub fn start(workers: u32) -> anyhow::Result<Self> {
        let grid = Grid::start(Options { workers, cpus: 2, ..Options::default() });
        let authority = Authority::read(&grid.state().join("ca"))?;
        let read = |name: &str| std::fs::read_to_string(grid.variable(name)).context("can't read a certificate");
        let (ca, cert, key) = (read("MILLGRID_CA")?, read("MILLGRID_CERT")?, read("MILLGRID_KEY")?);
        let client = authority.tls(&cert, &key);
        let tls = Arc::new(client_tls(&ca, &cert, &key)?);
        let endpoints: Vec<String> = grid.variable("MILLGRID_ENDPOINT").split(',').map(str::to_owned).collect();
        let settings = client::Settings::new(endpoints.clone(), ca.into(), cert.into(), key.into());
        Ok(Self { grid, authority, endpoints, client, tls, settings })
    }

    /// The client crate's own handle, with its retries.
    pub fn client(&self) -> anyhow::Result<client::Grid> {
        Ok(client::Grid::connect(self.settings.clone())?)
    }

    /// A connection as a client, to the coordinator of this number.
    pub async fn channel(&self, number: usize) -> anyhow::Result<Channel> {
        let url = &self.endpoints[number % self.endpoints.len()];
        let endpoint = Endpoint::from_shared(url.clone())?
            .connect_timeout(Duration::from_secs(5))
            .tcp_nodelay(true)
            .initial_connection_window_size(4 << 20)
            .initial_stream_window_size(1 << 20)
            .tls_config(self.client.clone())?;
        endpoint.connect().await.context("no connection")
    }

    /// The same with nothing around it, and the URL of its other end.
    pub async fn connection(&self, number: usize) -> anyhow::Result<(Connection, http::Uri)> {
        let url = &self.endpoints[number % self.endpoints.len()];
        let address = url.trim_start_matches("https://");
        Ok((Connection::open(address, Arc::clone(&self.tls)).await?, url.parse()?))
    }

    /// The leader's name and process.
    pub fn leader(&self) -> anyhow::Result<(String, u64)> {
        let name = self.grid.leader();
        let pid = self.pid(&name)?;
        Ok((name, pid))
    }

    /// A number that a coordinator publishes, by its whole name.
    pub fn metric(&self, coordinator: &str, name: &str) -> anyhow::Result<f64> {
        let process = self.grid.process(coordinator);
        let listeners = process["listeners"].as_array().context("a coordinator without listeners")?;
        let address = listeners.iter().find(|listener| listener["name"] == "http");
        let address = address.and_then(|http| http["address"].as_str()).context("no address for http")?;
        let address = address.trim_start_matches("https://");
        let client::Settings { ca_pem, cert_pem, key_pem, .. } = &self.settings;
        metrics::value(&metrics::fetch(address, ca_pem, cert_pem, key_pem)?, name)
    }

    /// Measures what the coordinators and this program use from now on, the leader first.
    pub fn meter(&self) -> anyhow::Result<Meter> {
        let (leader, pid) = self.leader()?;
        let mut processes = vec![(format!("leader {leader}"), pid)];
        for name in ["c1", "c2", "c3"].into_iter().filter(|name| *name != leader) {
            processes.push((name.to_owned(), self.pid(name)?));
        }
        processes.push(("load program".to_owned(), std::process::id().into()));
        Meter::start(processes)
    }

    /// The process of a coordinator.
    pub fn pid(&self, name: &str) -> anyhow::Result<u64> {
        self.grid.process(name)["pid"].as_u64().with_context(|| format!("{name} has no pid"))
    }
}

/// Carries a measurement to its end, which has to come in time, and tells of an error at once: the grid that it happened
/// on is compared and stopped before anybody else hears of it, and may have a word of its own to say.
pub fn carry<T>(measurement: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let limited = async { timeout(LIMIT, measurement).await.context("it doesn't come to an end")? };
    runtime()?.block_on(limited).inspect_err(|error| eprintln!("error: {error:#}"))
}

fn client_tls(ca_pem: &str, cert_pem: &str, key_pem: &str) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes())?)?;
    let certificates = vec![CertificateDer::from_pem_slice(cert_pem.as_bytes())?];
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates, PrivateKeyDer::from_pem_slice(key_pem.as_bytes())?)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// The runtime of a load program: one thread carries it, and two would only wake and rob one another on the cores that
/// the grid needs.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().context("no runtime")
}
