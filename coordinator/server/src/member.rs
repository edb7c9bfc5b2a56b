//! This member: before it is told who the members are, and after.

mod running;
mod start;

use std::sync::{Arc, OnceLock};

use proto::v1;
use replication::DataDirectory;
use tokio::sync::{Mutex, watch};
use tonic::{Code, Status};
use tracing::{error, info};

pub use running::Running;
pub use start::NotStarted;

use crate::{config::Config, ending::Ending, metrics::Metrics, status, tls::Tls};

/// This member of the grid, bootstrapped or not.
pub struct Member {
    config: Config,
    tls: Tls,
    identity: replication::Identity,
    /// Held while a bootstrap is under way.
    directory: Mutex<DataDirectory>,
    ending: Ending,
    metrics: Arc<Metrics>,
    running: OnceLock<Arc<Running>>,
    started: watch::Sender<bool>,
}

impl Member {
    /// The member that owns the data directory; it starts at once when it was bootstrapped before.
    pub async fn open(
        config: Config,
        tls: Tls,
        ending: Ending,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, NotStarted> {
        let directory = start::open_directory(&config)?;
        let member = Arc::new(Self {
            config,
            tls,
            identity: directory.identity().clone(),
            directory: Mutex::new(directory),
            ending,
            metrics,
            running: OnceLock::new(),
            started: watch::Sender::new(false),
        });
        member.run(&*member.directory.lock().await)?;
        Ok(member)
    }

    /// What runs once the members are known; until then the refusal that says how to tell them.
    pub fn running(&self) -> Result<Arc<Running>, Status> {
        self.running.get().cloned().ok_or_else(status::not_bootstrapped)
    }

    /// Waits until the members are known.
    pub async fn wait_until_running(&self) -> Option<Arc<Running>> {
        let mut started = self.started.subscribe();
        started.wait_for(|started| *started).await.ok()?;
        self.running.get().cloned()
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Its counts.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Its certificates.
    pub fn tls(&self) -> &Tls {
        &self.tls
    }

    /// How it presents itself.
    pub fn describe(&self) -> v1::Member {
        let member = v1::Member {
            id: self.identity.member_id,
            name: self.config.name.clone(),
            peer_address: self.config.peer_address.clone(),
            address: self.config.address.clone(),
            cluster_id: String::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        match self.running.get() {
            Some(running) => v1::Member { cluster_id: running.cluster_id().to_owned(), ..member },
            None => member,
        }
    }

    /// Learns who the first members are, for good, and starts.
    pub async fn bootstrap(&self, request: &v1::BootstrapRequest) -> Result<v1::Member, Status> {
        let mut directory = self.directory.lock().await;
        self.check_addresses(request)?;
        directory.bootstrap(request).map_err(|failure| self.refuse_bootstrap(&failure))?;
        self.run(&directory).map_err(|error| {
            error!(%error, "this coordinator can't start");
            self.ending.end(error.exit());
            status::internal("this coordinator can't start; see its log")
        })?;
        Ok(self.describe())
    }

    /// Starts what isn't running yet, if it can be. The caller holds the directory, so this is done once.
    fn run(&self, directory: &DataDirectory) -> Result<(), NotStarted> {
        let Some(record) = directory.bootstrap_record().filter(|_| self.running.get().is_none()) else { return Ok(()) };
        info!(cluster_id = record.cluster_id, members = record.members.len(), "starting as a member");
        // Empty: see above.
        let _ = self.running.set(start::start(self, directory, record)?);
        self.started.send_replace(true);
        Ok(())
    }

    /// What the record's own rules can't see: whether an address can be dialled at all.
    fn check_addresses(&self, request: &v1::BootstrapRequest) -> Result<(), Status> {
        let wrong = request.members.iter().find(|member| {
            member
                .peer_address
                .rsplit_once(':')
                .is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err())
                || tonic::transport::Endpoint::from_shared(format!("https://{}", member.peer_address)).is_err()
        });
        wrong.map_or(Ok(()), |member| {
            Err(status::refused(
                Code::InvalidArgument,
                "INVALID_ARGUMENT",
                &format!("members.peer_address: `{}` of `{}` is no HOST:PORT", member.peer_address, member.name),
                "let `millgrid cluster bootstrap` ask each coordinator",
                "members.peer_address",
            ))
        })
    }

    fn refuse_bootstrap(&self, failure: &replication::Failure) -> Status {
        use replication::Failure;
        match failure {
            Failure::BootstrapDiffers { .. } => status::refused(
                Code::FailedPrecondition,
                "ALREADY_BOOTSTRAPPED",
                &failure.to_string(),
                "ask it with `millgrid cluster status`; another grid needs other data directories",
                "",
            ),
            Failure::BootstrapInvalid { field, .. } => status::refused(
                Code::InvalidArgument,
                "INVALID_ARGUMENT",
                &failure.to_string(),
                "let `millgrid cluster bootstrap` ask each coordinator",
                field,
            ),
            _ => {
                self.ending.fail(failure);
                status::internal("this coordinator can't write its disk; see its log")
            }
        }
    }
}
