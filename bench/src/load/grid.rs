//! A grid without workers of its own, for a load program that brings its own.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use e2e::{Grid, Options, Test};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use super::{authority::Authority, metrics, process::Meter};

/// Three coordinators of `millgrid dev`, and the way to call them without the command line.
pub struct Loaded {
    /// Its processes and its command line.
    pub grid: Test,
    /// Issues certificates of workers.
    pub authority: Arc<Authority>,
    /// URLs of all coordinators.
    pub endpoints: Vec<String>,
    client: ClientTlsConfig,
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
        let endpoints: Vec<String> = grid.variable("MILLGRID_ENDPOINT").split(',').map(str::to_owned).collect();
        let settings = client::Settings::new(endpoints.clone(), ca.into(), cert.into(), key.into());
        Ok(Self { grid, authority, endpoints, client, settings })
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

/// Tells of an error at once: the grid that it happened on is compared and stopped before anybody else hears of it, and
/// may have a word of its own to say.
pub fn told<T>(result: anyhow::Result<T>) -> anyhow::Result<T> {
    result.inspect_err(|error| eprintln!("error: {error:#}"))
}

/// The runtime of a load program: as many threads as the machine has.
pub fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime")
}
