//! The loop around the core: hands it what happens, and carries out what it wants.

mod contact;
mod keeping;
mod work;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use bytes::Bytes;
use tokio::{
    runtime::Handle,
    sync::mpsc,
    task::AbortHandle,
    time::{MissedTickBehavior, sleep},
};
use worker_core::{Core, Failure, Input, Key, Output, Settings};
use worker_keeper::{
    boottime_ms,
    protocol::{self, Welcome, from_agent},
};

use crate::{
    blobs::Blobs,
    config::Config,
    connection::Coordinators,
    fork_server,
    keeper::{self, Keeper},
    launch::Launcher,
    machine,
    prepare::Ready,
    record::Record,
    spools::Spools,
    spot,
    stage::{
        self, Stage,
        logs::{self, LeftLog, Leftover, LogUploads},
    },
    standing::Grounds,
    stream::Stream,
    sweeper::Sweeper,
};

/// How often the free memory is looked at.
const MACHINE_PERIOD: Duration = Duration::from_secs(3);
/// A keeper that was asked to end, and to kill what it has, is not waited for any longer.
const KEEPER_END: Duration = Duration::from_secs(5);
/// Events taken at once.
const EVENTS: usize = 1_024;

/// Something that another task of this process found out.
#[derive(Debug)]
pub enum Event {
    /// For the core, as it is.
    Input(Input),
    /// A preparation that took its time is done.
    Prepared(Key, Result<Ready, Failure>),
    /// The keeper was found, or started.
    Keeper(Keeper, Welcome),
    /// The logs of these are on S3.
    LogsSafe(Vec<Key>),
    /// The machine is taken back.
    SpotNotice {
        /// When it is gone: milliseconds since the Unix epoch.
        gone_ms: i64,
    },
}

struct Agent {
    config: Config,
    core: Core,
    events: mpsc::UnboundedSender<Event>,
    /// What carrying out an output has brought about at once.
    at_once: VecDeque<Event>,
    keeper: Option<Keeper>,
    grid: Arc<Coordinators>,
    stream: Option<Stream>,
    records: BTreeMap<Key, Record>,
    /// Discarded ones whose logs are still on their way.
    lingering: BTreeMap<Key, PathBuf>,
    publishing: BTreeMap<Key, AbortHandle>,
    launcher: Launcher,
    /// Fork servers that this keeper knows.
    servers_told: BTreeSet<Bytes>,
    spools: Spools,
    sweeper: Sweeper,
    staging: Handle,
    stage: Stage,
    blobs: Blobs,
    grounds: Grounds,
    /// Of the present session, once its grounds are known.
    uploads: Option<LogUploads>,
    /// Logs that an agent before this one has promised and not stored; taken when the uploads begin.
    leftovers: Vec<Leftover>,
    /// Those of them whose attempts this agent hasn't met yet, with their bundles.
    left: BTreeMap<Key, (u32, LeftLog)>,
    /// The newest notice: when the machine is taken back, in milliseconds since the Unix epoch.
    reclaim_ms: Option<i64>,
    /// It is time to go.
    leaving: bool,
}

/// Runs the agent until it can't go on. What moves data or waits for S3 runs on `staging`.
pub async fn run(config: Config, staging: Handle) -> anyhow::Result<()> {
    let tasks = config.state_dir.join("tasks");
    std::fs::create_dir_all(&tasks)?;
    // Scripts and inputs may hold secrets of their submitters.
    std::fs::set_permissions(&config.state_dir, std::fs::Permissions::from_mode(0o700))?;
    fork_server::sweep(&config.state_dir).context("can't remove the files of former fork servers")?;
    let jitter = u64::from_le_bytes(*blake3::hash(config.name.as_bytes()).as_bytes().first_chunk().unwrap_or(&[0; 8]));
    let (events, mut incoming) = mpsc::unbounded_channel();
    let grid = Arc::new(Coordinators::new(&config, jitter)?);
    let settings = stage::Settings {
        s3_endpoint: config.s3_endpoint.clone(),
        region: config.s3_region.clone(),
        cache_dir: config.state_dir.join("cache"),
    };
    let leftovers = logs::leftovers(&settings.cache_dir);
    let in_bundle = |leftover: &Leftover| {
        let bundle = leftover.bundle;
        leftover.logs.iter().map(move |log| (Key::from(log.key), (bundle, *log))).collect::<Vec<_>>()
    };
    let mut agent = Agent {
        left: leftovers.iter().flat_map(in_bundle).collect(),
        leftovers,
        stage: Stage::new(settings).await.context("can't prepare staging")?,
        blobs: Blobs::new(Arc::clone(&grid)),
        grounds: Grounds::read(&config.state_dir),
        uploads: None,
        reclaim_ms: None,
        leaving: false,
        staging,
        lingering: BTreeMap::new(),
        publishing: BTreeMap::new(),
        core: Core::new(Settings {
            pool: config.pool.clone(),
            labels: config.labels.clone().into_iter().collect(),
            capacity: config.capacity,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            jitter,
        }),
        grid,
        launcher: Launcher::new(&config),
        servers_told: BTreeSet::new(),
        spools: Spools::new(tasks.clone()),
        sweeper: Sweeper::start(tasks)?,
        events,
        at_once: VecDeque::new(),
        keeper: None,
        stream: None,
        records: BTreeMap::new(),
        config,
    };
    spot::watch(&agent.config.state_dir, agent.events.clone()).context("can't watch the state directory")?;
    agent.find_keeper();
    let mut machine = tokio::time::interval(MACHINE_PERIOD);
    machine.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut batch = Vec::with_capacity(EVENTS);
    loop {
        let timer = agent.core.next_timer_ms();
        tokio::select! {
            count = incoming.recv_many(&mut batch, EVENTS) => {
                anyhow::ensure!(count > 0, "the loop's own end of its channel was closed");
                batch.drain(..).for_each(|event| agent.event(event));
            }
            ready = keeper_ready(agent.keeper.as_ref()) => agent.hear_keeper(ready),
            () = sleep_until_ms(timer) => agent.step(Input::Tick),
            _ = machine.tick() => agent.step(Input::FreeMemory { mib: machine::free_memory_mib() }),
        }
        agent.settle();
        if agent.leaving {
            return agent.leave().await;
        }
    }
}

async fn keeper_ready(keeper: Option<&Keeper>) -> io::Result<()> {
    match keeper {
        Some(keeper) => keeper.ready().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until_ms(timer_ms: Option<u64>) {
    match timer_ms {
        Some(at_ms) => sleep(Duration::from_millis(at_ms.saturating_sub(boottime_ms()))).await,
        None => std::future::pending().await,
    }
}

impl Agent {
    fn step(&mut self, input: Input) {
        self.core.step(input, boottime_ms(), machine::wall_ms());
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Input(input) => self.step(input),
            Event::Prepared(key, result) => {
                let result = self.keep_ready(key, result);
                self.step(Input::Prepared { key, result });
            }
            Event::Keeper(keeper, welcome) => {
                self.keeper = Some(keeper);
                self.welcome(welcome);
                // What came right behind the welcome has been read already: the socket won't speak of it again.
                self.hear_keeper(Ok(()));
            }
            Event::LogsSafe(keys) => keys.into_iter().for_each(|key| self.logs_safe(key)),
            Event::SpotNotice { gone_ms } => self.spot_notice(gone_ms),
        }
    }

    /// Carries out what the core wants until it wants nothing more.
    fn settle(&mut self) {
        loop {
            let outputs = self.core.outputs(boottime_ms());
            if outputs.is_empty() {
                break;
            }
            for output in outputs {
                self.carry_out(output);
            }
            while let Some(event) = self.at_once.pop_front() {
                self.event(event);
            }
        }
        if let Some(keeper) = &mut self.keeper
            && let Err(error) = keeper.flush()
        {
            self.lose_keeper(&error);
            // Once more: the core has something to say about that.
            self.settle();
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Connect { stream, elsewhere } => {
                self.stream = Some(Stream::open(stream, elsewhere, Arc::clone(&self.grid), self.events.clone()));
            }
            Output::Disconnect { stream } => self.stream = self.stream.take().filter(|open| open.number != stream),
            Output::Send { stream, message } => {
                if let Some(open) = self.stream.as_ref().filter(|open| open.number == stream) {
                    open.send(message);
                }
            }
            Output::SetSession { session, connection, deadline_ms } => {
                self.tell_keeper(from_agent::Message::SetSession(protocol::SetSession {
                    session,
                    connection,
                    deadline_ms,
                }))
            }
            Output::Prepare { task } => self.prepare(task),
            Output::Spawn { task, session, time_limit_ms, after } => self.spawn(&task, session, time_limit_ms, after),
            // A repeat: what was ordered first counts.
            Output::SpawnNow { key, session } => {
                let key = Some(keeper::key(key));
                self.tell_keeper(from_agent::Message::Spawn(protocol::Spawn { key, session, ..Default::default() }));
            }
            Output::Withdraw { key } => {
                let key = Some(keeper::key(key));
                self.tell_keeper(from_agent::Message::Withdraw(protocol::Withdraw { key }));
            }
            Output::SetTimeLimit { key, time_limit_ms } => {
                let key = Some(keeper::key(key));
                self.tell_keeper(from_agent::Message::SetTimeLimit(protocol::SetTimeLimit { key, time_limit_ms }));
            }
            Output::Stop { key, immediately } => {
                let key = Some(keeper::key(key));
                self.tell_keeper(from_agent::Message::Stop(protocol::Stop { key, immediately }));
            }
            Output::StageOut { key } => self.stage_out(key),
            Output::BreakOff { key } => {
                if let Some(working) = self.records.get_mut(&key).and_then(|record| record.working.take()) {
                    working.abort();
                }
            }
            Output::Publish { key, manifest, index } => self.publish(key, manifest, index),
            Output::BreakOffPublish { key } => {
                if let Some(working) = self.publishing.remove(&key) {
                    working.abort();
                }
            }
            Output::Forget { keys } => {
                let keys = keys.into_iter().map(keeper::key).collect();
                self.tell_keeper(from_agent::Message::Forget(protocol::Forget { keys }));
            }
            Output::Discard { key, logs } => self.discard(key, logs),
            Output::ReadLog { stream, request } => {
                if let Some(open) = self.stream.as_ref().filter(|open| open.number == stream) {
                    let held = request.attempt.is_some_and(|key| self.core.holds(&key.into()));
                    self.spools.answer(request, held, open.sender());
                }
            }
            Output::SessionOpened { session, cluster_id, grid_prefix, worker } => {
                tracing::info!(session, cluster_id, worker, "session opened");
                self.stand_on(Grounds { session, cluster_id, grid_prefix });
            }
            Output::SessionLost { session, reason } => tracing::warn!(session, "session lost: {reason}"),
            Output::Leave => self.leaving = true,
        }
    }

    fn spot_notice(&mut self, gone_ms: i64) {
        if self.reclaim_ms.replace(gone_ms) == Some(gone_ms) {
            return;
        }
        let Ok(left_ms @ 1..) = u64::try_from(gone_ms - machine::wall_ms()) else {
            tracing::info!("a notice of a spot reclaim is over: it was of a machine before this one");
            return spot::remove(&self.config.state_dir);
        };
        tracing::warn!(left_ms, "this machine is taken back: nothing more is started");
        if let Some(uploads) = &self.uploads {
            uploads.hurry();
        }
        self.step(Input::SpotNotice { ends_ms: boottime_ms() + left_ms });
    }

    /// Ends the keeper with all that it has. Whoever is started here after this is on another machine.
    async fn leave(mut self) -> anyhow::Result<()> {
        self.tell_keeper(from_agent::Message::Shutdown(protocol::Shutdown {}));
        if let Some(keeper) = self.keeper.take() {
            let ended = tokio::time::timeout(KEEPER_END, keeper.end()).await;
            ended.context("the keeper, told to end, is still there")?;
        }
        spot::remove(&self.config.state_dir);
        tracing::warn!("the notice is over: this worker is gone");
        Ok(())
    }
}
