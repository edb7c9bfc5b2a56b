//! Many simulated workers.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::ensure;
use proto::v1::DrainWorkerRequest;
use tokio::{task::JoinSet, time::sleep};

use super::{
    authority::Authority,
    grid::Loaded,
    worker::{Settings, Tally, Worker},
};

/// Sessions of one grid. Dropped, all its workers are gone without a word.
pub struct Fleet {
    tally: Arc<Tally>,
    _workers: JoinSet<anyhow::Result<()>>,
    sessions: u64,
}

/// The tally at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot {
    pub attached: u64,
    pub granted: u64,
    pub accepted: u64,
    pub fenced: u64,
    pub renewed: u64,
    pub lost: u64,
}

impl Fleet {
    /// Starts so many workers with so many slots each, spread over the coordinators; returns when all have a session.
    pub async fn start(
        authority: &Authority,
        endpoints: &[String],
        sessions: usize,
        slots: u64,
        patience: Duration,
    ) -> anyhow::Result<Self> {
        let tally = Arc::new(Tally::default());
        let endpoints: Arc<[String]> = endpoints.into();
        let mut workers = JoinSet::new();
        let started = Instant::now();
        for number in 0..sessions {
            let settings = Settings {
                endpoints: Arc::clone(&endpoints),
                tls: authority.worker(&format!("sim-{number}"))?,
                spread: number,
                slots,
                phase: Duration::from_millis(3_000 * (number as u64 + 1) / sessions as u64),
                tally: Arc::clone(&tally),
            };
            workers.spawn(Worker::new(settings).run());
            // Handshakes cost both sides; a storm of them would only run into time limits.
            while number as u64 >= tally.attached.load(Ordering::Relaxed) + 64 {
                ensure!(
                    started.elapsed() < patience,
                    "only {} of {sessions} sessions stand",
                    tally.attached.load(Ordering::Relaxed)
                );
                sleep(Duration::from_millis(2)).await;
            }
        }
        let fleet = Self { tally, _workers: workers, sessions: sessions as u64 };
        fleet.all_attached(patience.saturating_sub(started.elapsed())).await?;
        Ok(fleet)
    }

    /// Waits until every worker has a session on a stream.
    pub async fn all_attached(&self, patience: Duration) -> anyhow::Result<()> {
        let started = Instant::now();
        while self.now().attached < self.sessions {
            ensure!(started.elapsed() < patience, "only {} of {} sessions stand", self.now().attached, self.sessions);
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Waits until every worker has an answer to a renewal that it sent from now on.
    pub async fn all_renewed(&self, patience: Duration) -> anyhow::Result<Duration> {
        let started = Instant::now();
        self.tally.renewed_in_epoch.store(0, Ordering::Relaxed);
        self.tally.epoch.fetch_add(1, Ordering::Relaxed);
        loop {
            let renewed = self.tally.renewed_in_epoch.load(Ordering::Relaxed);
            if renewed >= self.sessions {
                return Ok(started.elapsed());
            }
            ensure!(started.elapsed() < patience, "only {renewed} of {} sessions renew", self.sessions);
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Has every worker get nothing more.
    pub async fn drain(&self, grid: &Loaded) -> anyhow::Result<()> {
        let client = grid.client()?;
        let drain = |number| {
            let name = format!("sim-{number}");
            let client = client.clone();
            async move { client.workers().drain(DrainWorkerRequest { name, ..DrainWorkerRequest::default() }).await }
        };
        let mut calls = JoinSet::new();
        for number in 0..self.sessions {
            calls.spawn(drain(number));
        }
        while let Some(ended) = calls.join_next().await {
            ended??;
        }
        Ok(())
    }

    /// Waits until nothing that was granted is without its acknowledged end, for a while.
    pub async fn quiet(&self, patience: Duration) -> anyhow::Result<Snapshot> {
        let started = Instant::now();
        let mut before = self.now();
        loop {
            sleep(Duration::from_millis(200)).await;
            let now = self.now();
            if now.granted == now.accepted + now.fenced && now.granted == before.granted {
                return Ok(now);
            }
            ensure!(started.elapsed() < patience, "ends are not acknowledged: {now:?}");
            before = now;
        }
    }

    /// What was done so far.
    pub fn now(&self) -> Snapshot {
        let of = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        Snapshot {
            attached: of(&self.tally.attached),
            granted: of(&self.tally.granted),
            accepted: of(&self.tally.accepted),
            fenced: of(&self.tally.fenced),
            renewed: of(&self.tally.renewed),
            lost: of(&self.tally.lost),
        }
    }
}
