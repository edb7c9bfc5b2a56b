//! The loop around the core: hands it what happens, and carries out what it wants.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use prost::Message;
use proto::v1::{self, Cause, Manifest};
use tokio::{
    runtime::Handle,
    sync::mpsc,
    task::AbortHandle,
    time::{MissedTickBehavior, sleep},
};
use worker_core::{Adopted, Core, Exit, Failure, Input, Key, Output, PublishFailure, Settings, Standing, Task};
use worker_keeper::{
    boottime_ms,
    protocol::{self, Welcome, from_agent, from_keeper},
};

use crate::{
    blobs::Blobs,
    config::Config,
    connection::Coordinators,
    keeper::{self, Keeper},
    launch::Launcher,
    machine,
    prepare::{self, Places, Ready},
    record::{Logs, Memo, Record},
    spools::Spools,
    spot,
    stage::{
        self, ResolvedOutput, Stage, UploadLabels,
        logs::{self, LeftLog, Leftover, LogUploads},
    },
    standing::Grounds,
    stream::Stream,
    sweeper::{STDERR, STDOUT, Sweeper, WORK},
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
    /// Inputs that carrying out an output has made.
    inputs: VecDeque<Input>,
    keeper: Option<Keeper>,
    grid: Arc<Coordinators>,
    stream: Option<Stream>,
    records: BTreeMap<Key, Record>,
    /// Discarded ones whose logs are still on their way.
    lingering: BTreeMap<Key, PathBuf>,
    publishing: BTreeMap<Key, AbortHandle>,
    launcher: Launcher,
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
        spools: Spools::new(tasks),
        sweeper: Sweeper::start()?,
        events,
        inputs: VecDeque::new(),
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
            while let Some(input) = self.inputs.pop_front() {
                self.step(input);
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
            Output::Spawn { task, session } => self.spawn(&task, session),
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

    fn prepare(&mut self, task: Arc<Task>) {
        let key = task.key;
        let plan = self.launcher.plan(&task.job);
        let places =
            Places { directory: self.spools.directory(key), scratch: self.config.scratch.join(key.to_string()) };
        let memo = Memo { resources: Some(plan.resources()), index: task.index, outputs: Vec::new() };
        self.records.insert(key, Record::new(places.directory.clone(), memo));
        self.spools.open(key);
        let made = prepare::make(&task, &plan, &places, &self.sweeper);
        if made.is_err() || prepare::is_plain(&plan) {
            let result = self.keep_ready(key, made);
            self.inputs.push_back(Input::Prepared { key, result });
            return;
        }
        let (stage, blobs, grid) = (self.stage.clone(), self.blobs.clone(), Arc::clone(&self.grid));
        let events = self.events.clone();
        let working = self.staging.spawn(async move {
            let fetched = prepare::fetch(&task, &plan, &places, &stage, &blobs, &grid).await;
            let _ = events.send(Event::Prepared(key, fetched.and(made)));
        });
        self.work_on(key, working.abort_handle());
    }

    fn work_on(&mut self, key: Key, working: AbortHandle) {
        if let Some(record) = self.records.get_mut(&key) {
            record.working = Some(working);
        }
    }

    fn keep_ready(&mut self, key: Key, result: Result<Ready, Failure>) -> Result<(), Failure> {
        let Ready { launch, outputs } = result?;
        if let Some(record) = self.records.get_mut(&key) {
            record.working = None;
            record.memo.outputs = outputs;
            record.scratch = launch.resources.scratch_gib > 0;
            record.launch = Some(launch);
        }
        Ok(())
    }

    fn spawn(&mut self, task: &Task, session: u64) {
        let Some(record) = self.records.get_mut(&task.key) else { return };
        let Some(launch) = record.launch.take() else { return };
        let path = |name| record.directory.join(name).to_string_lossy().into_owned();
        let spawn = protocol::Spawn {
            key: Some(keeper::key(task.key)),
            session,
            env: launch.environment_now(),
            argv: launch.argv,
            directory: launch.directory,
            stdout_path: path(STDOUT),
            stderr_path: path(STDERR),
            time_limit_ms: launch.time_limit_ms,
            grace_ms: launch.grace_ms,
            memory_mib: launch.resources.memory_mib,
            cpu_milli: launch.resources.cpu_milli,
            memo: record.memo.encode_to_vec().into(),
        };
        self.tell_keeper(from_agent::Message::Spawn(spawn));
    }

    fn stage_out(&mut self, key: Key) {
        let Some(record) = self.records.get(&key) else { return };
        let outputs: Vec<ResolvedOutput> = record
            .memo
            .outputs
            .iter()
            .cloned()
            .map(|v1::Output { glob, prefix, optional }| ResolvedOutput { glob, prefix, optional })
            .collect();
        let (stage, events, work) = (self.stage.clone(), self.events.clone(), record.directory.join(WORK));
        let labels = self.labels(key, record.memo.index);
        let grid_prefix = self.grounds.grid_prefix.clone();
        let working = self.staging.spawn(async move {
            let result = stage.stage_out(&work, &outputs, &labels, &grid_prefix).await;
            let result = result.map_err(|failure| prepare::staging(Cause::StageOut, failure));
            let _ = events.send(Event::Input(Input::StagedOut { key, result }));
        });
        self.work_on(key, working.abort_handle());
    }

    fn publish(&mut self, key: Key, manifest: Manifest, index: u64) {
        let (stage, events) = (self.stage.clone(), self.events.clone());
        let (labels, grid_prefix) = (self.labels(key, index), self.grounds.grid_prefix.clone());
        let working = self.staging.spawn(async move {
            // It goes on by itself for as long as S3 has trouble; what fails then has failed for good.
            let result = stage
                .publish(&manifest, &labels, &grid_prefix)
                .await
                .map_err(|failure| PublishFailure::Final { detail: failure.detail, retryable: failure.retryable });
            let _ = events.send(Event::Input(Input::PublishEnded { key, result }));
        });
        self.publishing.insert(key, working.abort_handle());
    }

    fn labels(&self, key: Key, index: u64) -> UploadLabels {
        UploadLabels { cluster: self.grounds.cluster_id.clone(), job: key.job, index, attempt: key.attempt }
    }

    fn discard(&mut self, key: Key, logs: bool) {
        let Some(record) = self.records.remove(&key) else { return };
        if let Some(working) = record.working {
            working.abort();
        }
        if record.scratch {
            self.sweeper.sweep(self.config.scratch.join(key.to_string()));
        }
        if logs && record.logs == Logs::Leaving {
            self.sweeper.sweep(record.directory.join(WORK));
            self.lingering.insert(key, record.directory);
        } else {
            self.spools.forget(key);
            self.sweeper.sweep(record.directory);
        }
    }

    fn logs_safe(&mut self, key: Key) {
        if let Some(record) = self.records.get_mut(&key) {
            record.logs = Logs::Safe;
        } else if let Some(directory) = self.lingering.remove(&key) {
            self.spools.forget(key);
            self.sweeper.sweep(directory);
        }
    }

    /// Takes note of where the grid's own objects of a session are.
    fn stand_on(&mut self, grounds: Grounds) {
        if self.grounds != grounds {
            if let Err(error) = grounds.write(&self.config.state_dir) {
                tracing::warn!("can't write the session's facts for a later agent: {error}");
            }
            self.grounds = grounds;
            self.uploads = None;
        }
        self.begin_uploads();
    }

    fn begin_uploads(&mut self) {
        if self.uploads.is_some() || self.grounds.session == 0 || self.grounds.grid_prefix.is_empty() {
            return;
        }
        let Grounds { session, grid_prefix, .. } = self.grounds.clone();
        let _context = self.staging.enter();
        let (uploads, mut uploaded) = LogUploads::new(self.stage.clone(), grid_prefix, session);
        if self.reclaim_ms.is_some() {
            uploads.hurry();
        }
        uploads.resume(std::mem::take(&mut self.leftovers), |key| {
            let directory = self.spools.directory(key.into());
            (directory.join(STDOUT), directory.join(STDERR))
        });
        self.uploads = Some(uploads);
        let events = self.events.clone();
        self.staging.spawn(async move {
            let mut batch = Vec::new();
            while uploaded.recv_many(&mut batch, EVENTS).await > 0 {
                let keys = batch.drain(..).map(Key::from).collect();
                if events.send(Event::LogsSafe(keys)).is_err() {
                    break;
                }
            }
        });
    }

    fn find_keeper(&self) {
        let (events, state_dir) = (self.events.clone(), self.config.state_dir.clone());
        tokio::spawn(async move {
            let (keeper, welcome) = Keeper::find(&state_dir).await;
            let _ = events.send(Event::Keeper(keeper, welcome));
        });
    }

    fn tell_keeper(&mut self, message: from_agent::Message) {
        // Without one the core knows, and compares when there is one again.
        if let Some(keeper) = &mut self.keeper {
            keeper.say(message);
        }
    }

    fn lose_keeper(&mut self, error: &io::Error) {
        tracing::warn!("the keeper is gone: {error}");
        self.keeper = None;
        self.step(Input::KeeperLost);
        self.find_keeper();
    }

    fn hear_keeper(&mut self, ready: io::Result<()>) {
        let Some(keeper) = &mut self.keeper else { return };
        let arrived = ready.and_then(|()| keeper.read());
        // What came before the end counts.
        loop {
            let message = match self.keeper.as_mut().map(Keeper::take) {
                Some(Ok(Some(message))) => message,
                Some(Ok(None)) | None => break,
                Some(Err(error)) => return self.lose_keeper(&error),
            };
            self.heard(message);
        }
        if let Err(error) = arrived {
            self.lose_keeper(&error);
        }
    }

    fn heard(&mut self, message: from_keeper::Message) {
        match message {
            from_keeper::Message::Welcome(welcome) => self.welcome(welcome),
            from_keeper::Message::Started(started) => {
                if let Some(key) = keeper::core_key(started.key) {
                    self.step(Input::Started { key, start_time_ms: started.start_time_ms });
                }
            }
            from_keeper::Message::Exited(exited) => {
                if let Some(key) = keeper::core_key(exited.key) {
                    let exit = keeper::exit(exited);
                    // Of others nobody will ever ask.
                    let exit = if self.core.holds(&key) { self.measured(key, exit) } else { exit };
                    self.step(Input::Exited { key, exit });
                }
            }
            from_keeper::Message::Expired(_) => self.step(Input::Expired),
        }
    }

    /// Adds what the keeper doesn't know of an end: the lengths of its logs, and where they will be.
    fn measured(&mut self, key: Key, mut exit: Exit) -> Exit {
        (exit.stdout_bytes, exit.stderr_bytes) = self.spools.close(key);
        let Some(record) = self.records.get_mut(&key) else { return exit };
        if exit.stdout_bytes + exit.stderr_bytes > 0
            && record.logs == Logs::Spooled
            && let Some(uploads) = &self.uploads
        {
            record.logs = Logs::Leaving;
            let spool = |name, length| (record.directory.join(name), length);
            let (stdout, stderr) = (spool(STDOUT, exit.stdout_bytes), spool(STDERR, exit.stderr_bytes));
            exit.log_bundle = uploads.assign(key.into(), stdout, stderr);
            record.bundle = exit.log_bundle;
        } else {
            exit.log_bundle = record.bundle;
        }
        exit
    }

    fn welcome(&mut self, welcome: Welcome) {
        let standing = (welcome.session != 0).then_some(Standing {
            session: welcome.session,
            connection: welcome.connection,
            deadline_ms: welcome.deadline_ms,
        });
        tracing::info!(
            keeper = welcome.keeper_pid,
            session = welcome.session,
            processes = welcome.processes.len(),
            "keeper found"
        );
        if standing.is_some_and(|standing| standing.session == self.grounds.session) {
            // Ends that our predecessor didn't report are to be reported with their logs.
            self.begin_uploads();
        }
        let mut processes = Vec::with_capacity(welcome.processes.len());
        for process in welcome.processes {
            let Some(key) = keeper::core_key(process.key) else { continue };
            let memo = Memo::read(&process.memo);
            let adopted = Adopted {
                key,
                resources: memo.resources.unwrap_or_default(),
                outputs: !memo.outputs.is_empty(),
                start_time_ms: process.start_time_ms,
                exit: None,
            };
            let directory = self.spools.directory(key);
            self.records.entry(key).or_insert_with(|| Record::new(directory, memo));
            self.spools.open(key);
            let left = self.take_left(key);
            let mut exit = process.exited.map(|exited| self.measured(key, keeper::exit(exited)));
            if let (Some(exit), Some(left)) = (&mut exit, left) {
                // What was promised is what is uploaded.
                (exit.stdout_bytes, exit.stderr_bytes) = (left.stdout, left.stderr);
            }
            processes.push(Adopted { exit, ..adopted });
        }
        self.keep_left();
        self.sweep_leftovers();
        self.step(Input::KeeperConnected { standing, processes });
    }

    /// An attempt whose end may have been told of already: its logs are where they were promised to be.
    fn take_left(&mut self, key: Key) -> Option<LeftLog> {
        let (bundle, left) = self.left.remove(&key)?;
        if let Some(record) = self.records.get_mut(&key) {
            (record.logs, record.bundle) = (Logs::Leaving, bundle);
        }
        Some(left)
    }

    /// Attempts whose ends were acknowledged, and whose logs are still on their way.
    fn keep_left(&mut self) {
        for key in std::mem::take(&mut self.left).into_keys() {
            self.spools.close(key);
            self.lingering.insert(key, self.spools.directory(key));
        }
    }

    /// Deletes what attempts left that nobody knows any more.
    fn sweep_leftovers(&self) {
        let names: std::collections::BTreeSet<String> =
            self.records.keys().chain(self.lingering.keys()).map(Key::to_string).collect();
        for parent in [self.config.state_dir.join("tasks"), self.config.scratch.clone()] {
            let Ok(entries) = std::fs::read_dir(&parent) else { continue };
            for entry in entries.flatten() {
                if entry.file_name().to_str().is_some_and(|name| is_attempt(name) && !names.contains(name)) {
                    self.sweeper.sweep(entry.path());
                }
            }
        }
    }
}

/// Whether a folder's name is that of an attempt; nothing else is ours to delete.
fn is_attempt(name: &str) -> bool {
    let parts: Vec<&str> = name.split('.').collect();
    parts.len() == 3 && parts.iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}
