//! One simulated worker: it holds a session as an agent does, and ends every task at once without starting anything.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use proto::v1::{
    Acknowledged, AttemptKey, Capacity, Cause, CoordinatorMessage, Ended, Instructions, OpenSession, Renew, Report,
    ReportItem, SessionOpened, WorkerMessage, acknowledged::Outcome, coordinator_message, open_session, report_item,
    worker_message, worker_session_service_client::WorkerSessionServiceClient,
};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval_at, sleep},
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{
    Streaming,
    transport::{Channel, ClientTlsConfig, Endpoint},
};

/// What an agent does with a stream that has been silent for so long.
const UNANSWERED: Duration = Duration::from_secs(7);
/// Between two tries to connect, doubling up to the second.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Items of one report, as an agent has it.
const REPORT_ITEMS: usize = 1_000;

/// What all workers of a fleet have done together.
#[derive(Debug, Default)]
pub struct Tally {
    /// Sessions that stand on a stream now.
    pub attached: AtomicU64,
    /// Tasks granted.
    pub granted: AtomicU64,
    /// Ends that were acknowledged and accepted.
    pub accepted: AtomicU64,
    /// Ends that were acknowledged as somebody else's.
    pub fenced: AtomicU64,
    /// Renewals answered.
    pub renewed: AtomicU64,
    /// Sessions that were lost; none should be.
    pub lost: AtomicU64,
    /// Raised to ask of each worker whether it still renews.
    pub epoch: AtomicU64,
    /// Workers with an answer to a renewal that they sent in the present epoch.
    pub renewed_in_epoch: AtomicU64,
}

/// What a worker needs to begin.
pub struct Settings {
    /// URLs of the coordinators; the first try goes to the one at `spread`.
    pub endpoints: Arc<[String]>,
    pub tls: ClientTlsConfig,
    pub spread: usize,
    pub slots: u64,
    /// Until its first renewal: so that the renewals of a fleet are spread over their interval.
    pub phase: Duration,
    pub tally: Arc<Tally>,
}

/// A worker, and where it stands in its session.
pub struct Worker {
    settings: Settings,
    endpoint: usize,
    session: u64,
    connection: u64,
    instructions_index: u64,
    /// Highest sequence that was acknowledged.
    acknowledged: u64,
    /// Ends behind it.
    unacknowledged: VecDeque<ReportItem>,
    nonce: u64,
    /// The epoch in which that nonce was sent, and the last one that this worker was counted in.
    sent_epoch: u64,
    counted_epoch: u64,
    /// When a renewal was last answered.
    renewed: Instant,
}

/// How a stream ended.
enum End {
    /// The coordinator is well; the leader behind it has changed.
    Leader,
    /// Somewhere else, after a pause.
    Elsewhere,
    /// The session is over.
    Session,
}

impl Worker {
    pub fn new(settings: Settings) -> Self {
        Self {
            endpoint: settings.spread,
            settings,
            session: 0,
            connection: 0,
            instructions_index: 0,
            acknowledged: 0,
            unacknowledged: VecDeque::new(),
            nonce: 0,
            sent_epoch: 0,
            counted_epoch: 0,
            renewed: Instant::now(),
        }
    }

    /// Goes on until it is dropped, through any change of leader.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let mut pause = RECONNECT.0;
        let mut kept: Option<Channel> = None;
        loop {
            let channel = match kept.take() {
                Some(channel) => Ok(channel),
                None => self.connect().await,
            };
            if let Ok(channel) = channel {
                let before = self.renewed;
                match self.carry(&channel).await {
                    End::Leader => kept = Some(channel),
                    End::Elsewhere => self.endpoint += 1,
                    End::Session => {
                        self.settings.tally.lost.fetch_add(1, Ordering::Relaxed);
                        self.session = 0;
                        self.unacknowledged.clear();
                    }
                }
                if self.renewed > before {
                    pause = RECONNECT.0;
                }
            } else {
                self.endpoint += 1;
            }
            sleep(pause).await;
            pause = (pause * 2).min(RECONNECT.1);
        }
    }

    async fn connect(&self) -> anyhow::Result<Channel> {
        let url = &self.settings.endpoints[self.endpoint % self.settings.endpoints.len()];
        let endpoint = Endpoint::from_shared(url.clone())?
            .connect_timeout(Duration::from_secs(5))
            .tcp_nodelay(true)
            .tls_config(self.settings.tls.clone())?;
        endpoint.connect().await.context("no connection")
    }

    async fn carry(&mut self, channel: &Channel) -> End {
        let (up, messages) = mpsc::unbounded_channel();
        let mut client = WorkerSessionServiceClient::new(channel.clone()).max_decoding_message_size(64 << 20);
        // Nobody takes it any more when the stream is gone, which the stream says itself.
        let _ = up.send(self.open());
        let mut down = match client.session(UnboundedReceiverStream::new(messages)).await {
            Ok(response) => response.into_inner(),
            Err(status) => return end_of(&status),
        };
        let mut attached = false;
        let end = self.serve(&mut down, &up, &mut attached).await;
        if attached {
            self.settings.tally.attached.fetch_sub(1, Ordering::Relaxed);
        }
        end
    }

    fn open(&mut self) -> WorkerMessage {
        let resume = (self.session != 0).then(|| {
            self.connection += 1;
            open_session::Resume {
                session: self.session,
                connection: self.connection,
                held: self.unacknowledged.iter().filter_map(|item| item.attempt).collect(),
                publishing: Vec::new(),
                instructions_index: self.instructions_index,
            }
        });
        let capacity = Capacity { cpu_milli: self.settings.slots * 1000, memory_mib: 1 << 20, gpus: 0, scratch_gib: 0 };
        message(worker_message::Message::Open(OpenSession {
            resume,
            pool: "local".to_owned(),
            labels: Default::default(),
            capacity: Some(capacity),
            version: "bench".to_owned(),
        }))
    }

    async fn serve(
        &mut self,
        down: &mut Streaming<CoordinatorMessage>,
        up: &mpsc::UnboundedSender<WorkerMessage>,
        attached: &mut bool,
    ) -> End {
        let mut renewals = interval_at(Instant::now() + self.settings.phase, Duration::from_secs(3));
        renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                received = down.message() => {
                    heard = Instant::now();
                    let received = match received {
                        Ok(Some(received)) => received.message,
                        Ok(None) => return End::Elsewhere,
                        Err(status) => return end_of(&status),
                    };
                    match received {
                        Some(coordinator_message::Message::Opened(opened)) => {
                            *attached = true;
                            self.settings.tally.attached.fetch_add(1, Ordering::Relaxed);
                            self.opened(&opened, up);
                        }
                        Some(coordinator_message::Message::Instructions(instructions)) => self.obey(instructions, up),
                        Some(coordinator_message::Message::Acknowledged(acknowledged)) => {
                            self.acknowledge(&acknowledged, up);
                        }
                        Some(coordinator_message::Message::Renewed(renewed)) => self.renewed(renewed.nonce),
                        Some(coordinator_message::Message::Ended(_)) => return End::Session,
                        // There are no logs to read.
                        Some(coordinator_message::Message::ReadLog(_)) | None => {}
                    }
                }
                _ = renewals.tick() => {
                    if heard.elapsed() > UNANSWERED {
                        return End::Elsewhere;
                    }
                    if *attached {
                        self.nonce += 1;
                        self.sent_epoch = self.settings.tally.epoch.load(Ordering::Relaxed);
                        let _ = up.send(message(worker_message::Message::Renew(Renew {
                            nonce: self.nonce,
                            instructions_index: self.instructions_index,
                            free_memory_mib: 1 << 10,
                        })));
                    }
                }
            }
        }
    }

    fn renewed(&mut self, nonce: u64) {
        let tally = &self.settings.tally;
        self.renewed = Instant::now();
        tally.renewed.fetch_add(1, Ordering::Relaxed);
        let epoch = tally.epoch.load(Ordering::Relaxed);
        if nonce == self.nonce && self.sent_epoch == epoch && self.counted_epoch != epoch {
            self.counted_epoch = epoch;
            tally.renewed_in_epoch.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn opened(&mut self, opened: &SessionOpened, up: &mpsc::UnboundedSender<WorkerMessage>) {
        self.session = opened.session;
        self.connection = opened.connection;
        self.settle(opened.applied_sequence, 0);
        // Numbers go on from what was applied; what is not ours any more would be fenced.
        self.acknowledged = opened.applied_sequence;
        self.unacknowledged.retain(|item| item.attempt.is_none_or(|key| !opened.unknown.contains(&key)));
        self.send_from(0, up);
    }

    fn obey(&mut self, instructions: Instructions, up: &mpsc::UnboundedSender<WorkerMessage>) {
        self.instructions_index = self.instructions_index.max(instructions.index);
        let known = self.unacknowledged.len();
        let now_ms = now_ms();
        for key in instructions.grants.iter().filter_map(|grant| grant.attempt) {
            self.unacknowledged.push_back(ended(key, now_ms));
        }
        // A task that was to be killed has ended already: there is nothing to say to it.
        self.settings.tally.granted.fetch_add((self.unacknowledged.len() - known) as u64, Ordering::Relaxed);
        self.send_from(known, up);
    }

    /// Reports everything from this position on.
    fn send_from(&self, position: usize, up: &mpsc::UnboundedSender<WorkerMessage>) {
        let mut first_sequence = self.acknowledged + position as u64 + 1;
        let mut items = self.unacknowledged.iter().skip(position).peekable();
        while items.peek().is_some() {
            let items: Vec<ReportItem> = items.by_ref().take(REPORT_ITEMS).cloned().collect();
            let count = items.len() as u64;
            let _ = up.send(message(worker_message::Message::Report(Report { first_sequence, items })));
            first_sequence += count;
        }
    }

    fn acknowledge(&mut self, acknowledged: &Acknowledged, up: &mpsc::UnboundedSender<WorkerMessage>) {
        let fenced = acknowledged.verdicts.iter().filter(|verdict| verdict.outcome() == Outcome::Fenced).count();
        self.settle(acknowledged.sequence, fenced as u64);
        if acknowledged.gap {
            self.send_from(0, up);
        }
    }

    fn settle(&mut self, sequence: u64, fenced: u64) {
        let count = sequence.saturating_sub(self.acknowledged).min(self.unacknowledged.len() as u64);
        self.unacknowledged.drain(..count as usize);
        self.acknowledged += count;
        self.settings.tally.accepted.fetch_add(count - fenced.min(count), Ordering::Relaxed);
        self.settings.tally.fenced.fetch_add(fenced.min(count), Ordering::Relaxed);
    }
}

fn end_of(status: &tonic::Status) -> End {
    // What an agent reads from ErrorInfo: the coordinator is well, and only lost the leader behind it.
    if status.message().contains("leader changed") { End::Leader } else { End::Elsewhere }
}

fn message(message: worker_message::Message) -> WorkerMessage {
    WorkerMessage { message: Some(message) }
}

/// A success that took no time.
fn ended(attempt: AttemptKey, now_ms: i64) -> ReportItem {
    let ended = Ended {
        cause: Cause::ExitCode as i32,
        start_time_ms: now_ms,
        end_time_ms: now_ms,
        run_ms: 1,
        cpu_ms: 1,
        max_memory_kib: 1_000,
        ..Ended::default()
    };
    ReportItem { attempt: Some(attempt), item: Some(report_item::Item::Ended(ended)) }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
