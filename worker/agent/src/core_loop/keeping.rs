//! Logs of attempts: measured when their process ends, stored, and let go.

use bytes::Bytes;
use worker_core::{Exit, Key};

use super::{Agent, EVENTS, Event};
use crate::{
    record::Logs,
    stage::logs::{LeftLog, LogUploads},
    standing::Grounds,
    sweeper::{STDERR, STDOUT},
};

/// A longer standard output is in the log alone.
const ANSWER_BYTES: u64 = 64 << 10;

impl Agent {
    pub(super) fn logs_safe(&mut self, key: Key) {
        if let Some(record) = self.records.get_mut(&key) {
            record.logs = Logs::Safe;
        } else if let Some(directory) = self.lingering.remove(&key) {
            self.spools.forget(key);
            self.sweeper.sweep(directory);
        }
    }

    /// Takes note of where the grid's own objects of a session are.
    pub(super) fn stand_on(&mut self, grounds: Grounds) {
        if self.grounds != grounds {
            if let Err(error) = grounds.write(&self.config.state_dir) {
                tracing::warn!("can't write the session's facts for a later agent: {error}");
            }
            self.grounds = grounds;
            self.uploads = None;
        }
        self.begin_uploads();
    }

    pub(super) fn begin_uploads(&mut self) {
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

    /// Adds what the keeper doesn't know of an end: the lengths of its logs, and where they will be.
    pub(super) fn measured(&mut self, key: Key, mut exit: Exit) -> Exit {
        (exit.stdout_bytes, exit.stderr_bytes) = self.spools.close(key);
        let Some(record) = self.records.get_mut(&key) else { return exit };
        if record.answers && exit.stdout_bytes <= ANSWER_BYTES {
            // Whoever wants it and doesn't get it reads the log.
            exit.answer = std::fs::read(record.directory.join(STDOUT)).ok().map(Bytes::from);
        }
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

    /// An attempt whose end may have been told of already: its logs are where they were promised to be.
    pub(super) fn take_left(&mut self, key: Key) -> Option<LeftLog> {
        let (bundle, left) = self.left.remove(&key)?;
        if let Some(record) = self.records.get_mut(&key) {
            (record.logs, record.bundle) = (Logs::Leaving, bundle);
        }
        Some(left)
    }

    /// Attempts whose ends were acknowledged, and whose logs are still on their way.
    pub(super) fn keep_left(&mut self) {
        for key in std::mem::take(&mut self.left).into_keys() {
            self.spools.close(key);
            self.lingering.insert(key, self.spools.directory(key));
        }
    }
}
