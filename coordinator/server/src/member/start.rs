//! From a data directory to a running member: read the disk, then start the threads.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use coordinator_core::{Core, Settings};
use proto::v1::BootstrapRequest;
use replication::{Configuration, DataDirectory, Failure, LogLevel, LogSettings, Replica};
use scheduler::State;
use tokio::{runtime::Handle, sync::watch};
use tracing::{error, info, warn};

use super::{Member, Running, running};
use crate::{
    calls::CoreHandle,
    channels::Channels,
    config::{Config, Election},
    disk::{self, Disk},
    ending::Exit,
    history::{Counts, Fetcher, Files},
    inbox::Inbox,
    leadership::Leadership,
    peers::{Membership, Peers},
    relay, reports,
    threads::{core, digests, history, log, replica, snapshots},
};

/// The folder of the history, in the data directory.
const HISTORY: &str = "history";

/// Why a member can't start.
#[derive(Debug, thiserror::Error)]
pub enum NotStarted {
    /// Its disk.
    #[error(transparent)]
    Disk(#[from] Failure),
    /// A snapshot on it.
    #[error(transparent)]
    Snapshot(#[from] snapshots::Unloadable),
    /// A member's address in the bootstrap record.
    #[error("a member's peer address can't be used: {0}")]
    Address(#[from] tonic::transport::Error),
    /// The system gives no thread.
    #[error("can't start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

impl NotStarted {
    /// How it ends the process.
    pub fn exit(&self) -> Exit {
        match self {
            NotStarted::Disk(failure) | NotStarted::Snapshot(snapshots::Unloadable::Failure(failure)) => {
                Exit::of(failure)
            }
            NotStarted::Snapshot(snapshots::Unloadable::Malformed { .. }) => Exit::Corrupt,
            NotStarted::Address(_) | NotStarted::Thread(_) => Exit::Failed,
        }
    }
}

/// Opens the data directory; an empty one gets an identity of its own, random and for good.
pub(super) fn open_directory(config: &Config) -> Result<DataDirectory, Failure> {
    // 53 bits: exact in every reader of JSON.
    let mut directory = DataDirectory::open(&config.data_dir, &config.name, (random() >> 11).max(1))?;
    directory.keep_reserve(disk::reserve_bytes(config.election));
    Ok(directory)
}

/// Starts all threads and the tasks that feed them.
pub(super) fn start(
    member: &Member,
    directory: &DataDirectory,
    record: &BootstrapRequest,
) -> Result<Arc<Running>, NotStarted> {
    let config = &member.config;
    let me = directory.identity().member_id;
    let (file_log, files, recovered) = directory.recover(LogSettings::default())?;
    let files = Arc::new(Mutex::new(files));
    let segments = Arc::new(Files::open(&config.data_dir.join(HISTORY), directory.reserve().cloned())?);
    let members: Configuration = recovered.configuration.clone();
    let (index, state) = match &recovered.snapshot {
        Some(metadata) => (metadata.index, snapshots::load(&files, metadata)?),
        None => (0, State::new()),
    };
    info!(id = me, snapshot = index, last = recovered.last_index(), "disk read");

    let mut settings = replication::Settings::new(me, random(), random());
    settings.election = match config.election {
        Election::Default => replication::Election::Default,
        Election::Fast => replication::Election::Fast,
    };
    settings.trailing.entries = config.log_entries_kept;
    settings.log = Some(Arc::new(|level, line| match level {
        LogLevel::Info => tracing::debug!(target: "raft", "{line}"),
        LogLevel::Warning => warn!(target: "raft", "{line}"),
        LogLevel::Error => error!(target: "raft", "{line}"),
    }));
    let consensus = Replica::new(settings, recovered)?;

    let mut core_settings = Settings::new(record.cluster_id.clone(), random());
    core_settings.member = me;
    core_settings.members = record.members.iter().map(|member| member.id).collect();
    core_settings.pools = config.pools.clone();
    core_settings.snapshot_commands = config.snapshot_commands;
    core_settings.snapshot_bytes = config.snapshot_bytes;
    core_settings.newest_rules = config.newest_rules;
    core_settings.cut_pause_ms = config.history_pause.as_millis() as u64;
    core_settings.grid_prefix = config.grid_prefix.clone();
    core_settings.disk = format!("{} on `{}`", config.data_dir.display(), config.name);

    let inbox = Arc::new(Inbox::default());
    let (to_replica, from_all) = replica::channel();
    let membership = Membership { cluster_id: record.cluster_id.clone(), me };
    let channels = Arc::new(Channels::new(&record.members, me, &member.tls.client)?);
    let leadership = watch::Sender::new(Leadership::default());
    let status = Arc::new(RwLock::new(consensus.status()));
    let decider = Core::new(core_settings, index, state);
    let figures = RwLock::new(decider.figures());
    let published = Arc::new(core::Published { figures, applied: watch::Sender::new(index) });

    let mut threads = Vec::new();
    let (to_log, handle) = log::start(
        file_log,
        Arc::clone(&files),
        to_replica.clone(),
        member.ending.clone(),
        Arc::clone(&member.metrics),
    )?;
    threads.push(handle);
    let (to_snapshots, handle) = snapshots::start(snapshots::Parts {
        files: Arc::clone(&files),
        members,
        core: Arc::clone(&inbox),
        replica: to_replica.clone(),
        ending: member.ending.clone(),
        metrics: Arc::clone(&member.metrics),
    })?;
    threads.push(handle);
    let (to_digests, handle) = digests::start(Arc::clone(&inbox))?;
    threads.push(handle);
    let counts = Arc::new(Counts::default());
    let (history, handles) = history::start(history::Parts {
        files: Arc::clone(&segments),
        fetcher: Fetcher::new(&channels, record.cluster_id.clone(), Handle::current()),
        core: Arc::clone(&inbox),
        ending: member.ending.clone(),
        counts: Arc::clone(&counts),
    })?;
    threads.extend(handles);
    let to_others = watch::Sender::default();
    reports::tell(&channels, &to_others.subscribe());
    threads.push(core::start(core::Parts {
        core: decider,
        inbox: Arc::clone(&inbox),
        replica: to_replica.clone(),
        snapshots: to_snapshots.clone(),
        digests: to_digests,
        history,
        reports: to_others,
        ending: member.ending.clone(),
        published: Arc::clone(&published),
        metrics: Arc::clone(&member.metrics),
    })?);
    let peers = Peers::start(
        membership.clone(),
        Arc::clone(&channels),
        Arc::clone(&files),
        to_replica.clone(),
        Handle::current(),
    );
    let leads = leadership.subscribe();
    threads.push(replica::start(
        replica::Parts {
            replica: consensus,
            core: Arc::clone(&inbox),
            log: to_log,
            snapshots: to_snapshots,
            peers,
            leadership,
            applied: published.applied.subscribe(),
            status: Arc::clone(&status),
            ending: member.ending.clone(),
        },
        from_all,
    )?);
    let disk = Arc::new(Disk::default());
    if let Some(reserve) = directory.reserve() {
        tokio::spawn(disk::watch(reserve.clone(), Arc::clone(&disk), Arc::clone(&inbox), leads.clone()));
    }
    let links = watch::Sender::new(None);
    let linked = links.subscribe();
    tokio::spawn(relay::keep_link(Arc::clone(&channels), leads.clone(), links));

    Ok(Arc::new(Running::new(running::Parts {
        membership,
        members: record.members.clone(),
        core: CoreHandle::new(inbox),
        replica: to_replica,
        leadership: leads,
        links: linked,
        channels,
        snapshots: files,
        segments,
        history: counts,
        status,
        disk,
        published,
        ending: member.ending.clone(),
        threads: Mutex::new(threads),
    })))
}

/// From the operating system.
fn random() -> u64 {
    let mut bytes = [0; 8];
    rustls::crypto::ring::default_provider()
        .secure_random
        .fill(&mut bytes)
        .expect("the system has randomness: TLS was set up with it");
    u64::from_le_bytes(bytes)
}

impl Running {
    /// Ends all threads and waits for them; for those that go on living in the same process.
    pub fn stop(&self) {
        // Gone: it has ended by itself.
        let _ = self.replica().send(replica::Message::Stop);
        self.core().inbox().close();
        let threads = std::mem::take(&mut *self.threads().lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            let _ = thread.join();
        }
    }
}
