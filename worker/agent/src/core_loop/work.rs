//! What is done for one attempt: its directory and inputs, its process, its outputs, and what it leaves.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
};

use prost::Message;
use proto::v1::{self, Cause, Manifest};
use worker_core::{Failure, Input, Key, PublishFailure, Task};
use worker_keeper::protocol::{self, from_agent};

use super::{Agent, Event};
use crate::{
    keeper,
    prepare::{self, Places, Ready},
    record::{Logs, Memo, Record},
    stage::{ResolvedOutput, UploadLabels},
    sweeper::{STDERR, STDOUT, WORK},
};

/// So many small files are written, and so many globs looked at, sooner than another thread wakes up.
const QUICK_FILES: usize = 8;

impl Agent {
    pub(super) fn prepare(&mut self, task: Arc<Task>) {
        let key = task.key;
        let plan = self.launcher.plan(&task.job);
        let places =
            Places { directory: self.spools.directory(key), scratch: self.config.scratch.join(key.to_string()) };
        let memo = Memo { resources: Some(task.resources), index: task.index, outputs: Vec::new() };
        let answers = plan.spec().answers;
        self.records.insert(key, Record { answers, ..Record::new(places.directory.clone(), memo) });
        self.spools.open(key);
        let made = prepare::make(&task, &plan, &places, &self.sweeper);
        if made.is_err() || prepare::is_plain(&plan) {
            self.at_once.push_back(Event::Prepared(key, made));
            return;
        }
        let (stage, blobs, grid) = (self.stage.clone(), self.blobs.clone(), Arc::clone(&self.grid));
        let state_dir = self.config.state_dir.clone();
        let quick = plan.spec().files.len() <= QUICK_FILES;
        let fetch = async move {
            let server = made.as_ref().ok().and_then(|ready| ready.launch.fork_server.as_ref());
            let server = server.map(|server| (server, state_dir.as_path()));
            let fetched = prepare::fetch(&task, &plan, &places, &stage, &blobs, &grid, server).await;
            Event::Prepared(key, fetched.and(made))
        };
        self.work_on(key, fetch, quick);
    }

    /// Has this done, on the threads for staging if it has to wait for anything; `quick`: what comes before that may be
    /// done here, since it takes less than the way to another thread and back.
    fn work_on(&mut self, key: Key, work: impl Future<Output = Event> + Send + 'static, quick: bool) {
        let mut work = Box::pin(work);
        if quick {
            let _staging = self.staging.enter();
            if let Poll::Ready(event) = work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return self.at_once.push_back(event);
            }
        }
        let events = self.events.clone();
        let working = self.staging.spawn(async move {
            let _ = events.send(work.await);
        });
        if let Some(record) = self.records.get_mut(&key) {
            record.working = Some(working.abort_handle());
        }
    }

    pub(super) fn keep_ready(&mut self, key: Key, result: Result<Ready, Failure>) -> Result<(), Failure> {
        let Ready { launch, outputs } = result?;
        if let Some(record) = self.records.get_mut(&key) {
            record.working = None;
            record.memo.outputs = outputs;
            record.scratch = launch.resources.scratch_gib > 0;
            record.launch = Some(launch);
        }
        Ok(())
    }

    pub(super) fn spawn(&mut self, task: &Task, session: u64, time_limit_ms: u64, after: Option<Key>) {
        let Some(record) = self.records.get_mut(&task.key) else { return };
        let Some(launch) = record.launch.take() else { return };
        let fork_server = launch.fork_server.as_ref().map(|server| server.id.clone()).unwrap_or_default();
        let group = launch.fork_server.as_ref().map(|server| server.group.clone()).unwrap_or_default();
        let known = launch.fork_server.as_ref().is_none_or(|server| !self.servers_told.insert(server.id.clone()));
        let definition = launch.fork_server.as_ref().filter(|_| !known);
        let definition = definition.map(|server| server.definition(&self.config.state_dir));
        let path = |name| record.directory.join(name).to_string_lossy().into_owned();
        let spawn = protocol::Spawn {
            key: Some(keeper::key(task.key)),
            session,
            env: launch.environment_now(time_limit_ms),
            argv: launch.argv,
            directory: launch.directory,
            stdout_path: path(STDOUT),
            stderr_path: path(STDERR),
            time_limit_ms,
            grace_ms: launch.grace_ms,
            memory_mib: launch.resources.memory_mib,
            cpu_milli: launch.resources.cpu_milli,
            memo: record.memo.encode_to_vec().into(),
            fork_server,
            group,
            after: after.map(keeper::key),
        };
        if let Some(definition) = definition {
            self.tell_keeper(from_agent::Message::SetForkServer(definition));
        }
        self.tell_keeper(from_agent::Message::Spawn(spawn));
    }

    pub(super) fn stage_out(&mut self, key: Key) {
        let Some(record) = self.records.get(&key) else { return };
        let outputs: Vec<ResolvedOutput> = record
            .memo
            .outputs
            .iter()
            .cloned()
            .map(|v1::Output { glob, prefix, optional }| ResolvedOutput { glob, prefix, optional })
            .collect();
        let (stage, work) = (self.stage.clone(), record.directory.join(WORK));
        let labels = self.labels(key, record.memo.index);
        let grid_prefix = self.grounds.grid_prefix.clone();
        let quick = outputs.len() <= QUICK_FILES;
        let upload = async move {
            let result = stage.stage_out(&work, &outputs, &labels, &grid_prefix).await;
            let result = result.map_err(|failure| prepare::staging(Cause::StageOut, failure));
            Event::Input(Input::StagedOut { key, result })
        };
        self.work_on(key, upload, quick);
    }

    pub(super) fn publish(&mut self, key: Key, manifest: Manifest, index: u64) {
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

    pub(super) fn labels(&self, key: Key, index: u64) -> UploadLabels {
        UploadLabels { cluster: self.grounds.cluster_id.clone(), job: key.job, index, attempt: key.attempt }
    }

    pub(super) fn discard(&mut self, key: Key, logs: bool) {
        let Some(record) = self.records.remove(&key) else { return };
        if let Some(working) = record.working {
            working.abort();
        }
        if record.scratch {
            self.sweeper.sweep(self.config.scratch.join(key.to_string()));
        }
        if logs && record.logs == Logs::Leaving {
            self.sweeper.sweep_work(&record.directory);
            self.lingering.insert(key, record.directory);
        } else {
            self.spools.forget(key);
            self.sweeper.sweep(record.directory);
        }
    }

    /// Deletes what attempts left that nobody knows any more.
    pub(super) fn sweep_leftovers(&self) {
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
