//! The thread that owns the core: takes what waits, steps it, flushes once, and carries out what came of it.

use std::{
    collections::HashMap,
    sync::{Arc, RwLock},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use coordinator_core::{CallId, Core, Figures, Input, Output};
use proto::internal::MemberReport;
use proto::v1::MemberStatus;
use replication::{Input as Step, Proposal};
use tokio::sync::{oneshot, watch};
use tracing::{error, info};

use super::{digests, history::History, pauses::Pauses, queue, replica, snapshots};
use crate::{
    calls::{Delivery, Sink},
    clock,
    ending::{Ending, Exit},
    inbox::{Inbox, Message},
    metrics::Metrics,
};

/// The core is told of time at least so often.
const TICK: Duration = Duration::from_millis(50);
/// Under load clients are listened to only so often for each call that waits, so that more of them share a round: each
/// that goes to the log or asks for leadership wakes threads of all three members, which costs far more than the calls
/// themselves. What consensus and workers say is heard at once.
const PACE_A_CALL: Duration = Duration::from_micros(60);
const PACE_AT_MOST: Duration = Duration::from_micros(2_500);
/// Calls that wait for an answer from which on there is load. Whoever calls alone waits for nobody.
const LOAD: usize = 8;
/// By what part the highest number of late loses with each round: answers go out together, and a moment later nobody
/// seems to wait.
const FORGET: usize = 8;

/// What others may know of the core without asking it.
pub struct Published {
    /// Counts, as of the last round.
    pub figures: RwLock<Figures>,
    /// Highest applied index.
    pub applied: watch::Sender<u64>,
}

/// What the core thread needs.
pub struct Parts {
    /// The core itself.
    pub core: Core,
    /// Whatever waits for it.
    pub inbox: Arc<Inbox>,
    /// The replica thread.
    pub replica: queue::Sender<replica::Message>,
    /// The snapshot thread.
    pub snapshots: std::sync::mpsc::Sender<snapshots::Message>,
    /// The digest thread.
    pub digests: std::sync::mpsc::Sender<digests::Message>,
    /// The threads of the history.
    pub history: History,
    /// What the other members are told.
    pub reports: watch::Sender<MemberReport>,
    /// Who can end the process.
    pub ending: Ending,
    /// What is published of it.
    pub published: Arc<Published>,
    /// Where pauses are noted.
    pub metrics: Arc<Metrics>,
}

/// Starts the thread. It ends when its inbox is closed.
pub fn start(parts: Parts) -> std::io::Result<JoinHandle<()>> {
    super::spawn("core", move || {
        let (sinks, pauses) = (HashMap::new(), Pauses::default());
        Thread { parts, sinks, statuses: Vec::new(), gone: Vec::new(), load: 0, pauses }.run();
    })
}

struct Thread {
    parts: Parts,
    sinks: HashMap<CallId, Sink>,
    /// Those who wait for the digest after an index.
    statuses: Vec<(u64, oneshot::Sender<MemberStatus>)>,
    /// Calls whose callers turned out to be gone while they were answered.
    gone: Vec<CallId>,
    /// The most calls that waited for an answer of late.
    load: usize,
    /// How long nothing is applied while a snapshot is being taken.
    pauses: Pauses,
}

impl Thread {
    fn run(mut self) {
        let mut messages = Vec::new();
        let mut next_tick = Instant::now() + TICK;
        let mut listened = Instant::now();
        loop {
            let wait =
                if self.gone.is_empty() { next_tick.saturating_duration_since(Instant::now()) } else { Duration::ZERO };
            let taken = self.parts.inbox.take(&mut messages, wait, listened + self.pace());
            if taken.closed {
                return;
            }
            self.pauses.begin_round();
            if taken.clients {
                listened = Instant::now();
                self.load -= self.load.div_ceil(FORGET);
            }
            let (now, wall) = (clock::boot_ms(), clock::wall_ms());
            for call in std::mem::take(&mut self.gone) {
                self.parts.core.step(Input::Hangup { call }, now, wall);
            }
            for message in messages.drain(..) {
                self.take(message, now, wall);
            }
            self.load = self.load.max(self.parts.core.waiting_callers());
            if Instant::now() >= next_tick {
                self.parts.core.step(Input::Tick, now, wall);
                next_tick = Instant::now() + TICK;
                if let Ok(mut figures) = self.parts.published.figures.write() {
                    *figures = self.parts.core.figures();
                }
            }
            if !self.carry_out(now, wall) {
                return;
            }
            self.publish();
            self.pauses.end_round();
        }
    }

    fn pace(&self) -> Duration {
        match self.load {
            few if few < LOAD => Duration::ZERO,
            many => (PACE_A_CALL * u32::try_from(many).unwrap_or(u32::MAX)).min(PACE_AT_MOST),
        }
    }

    fn take(&mut self, message: Message, now: u64, wall: i64) {
        let core = &mut self.parts.core;
        match message {
            Message::Input(input) => {
                if let Input::Hangup { call } = &input {
                    self.sinks.remove(call);
                }
                if let Input::SnapshotEnded { stored, .. } = input
                    && let Some(longest) = self.pauses.snapshot_ended()
                    && stored
                {
                    self.parts.metrics.snapshot_paused(longest);
                }
                if matches!(input, Input::Committed { .. }) {
                    self.pauses.applying(|| core.step(input, now, wall));
                } else {
                    core.step(input, now, wall);
                }
            }
            Message::Open { call, caller, request, sink } => {
                self.sinks.insert(call, sink);
                core.step(Input::Open { call, caller, request }, now, wall);
            }
            Message::Worker { call, message } => core.step(Input::Worker { call, message }, now, wall),
            Message::Stream { call, message } => core.step(Input::Stream { call, message }, now, wall),
            Message::MemberStatus { digest_index, answer } => self.statuses.push((digest_index, answer)),
        }
    }

    /// False when this replica can't go on.
    fn carry_out(&mut self, now: u64, wall: i64) -> bool {
        // The replica looks there, before it hears of a snapshot at this index.
        let index = self.parts.core.applied_index();
        self.parts.published.applied.send_if_modified(|applied| std::mem::replace(applied, index) != index);
        for output in self.parts.core.flush(now, wall) {
            match output {
                Output::Propose { sequence, data } => self.tell_replica(Step::Propose(Proposal { id: sequence, data })),
                Output::Read { context } => self.tell_replica(Step::Read { context }),
                Output::Respond { call, response } => self.deliver(call, Delivery::Message(Box::new(response))),
                Output::Finish { call, result } => {
                    self.deliver(call, Delivery::End(result.err().map(Box::new)));
                    self.sinks.remove(&call);
                }
                // It is published, and woke the replica for nothing.
                Output::Applied { .. } => {}
                Output::Snapshot { index, term, state } => {
                    self.pauses.snapshot_begun();
                    // The snapshot thread outlives this one.
                    let _ = self.parts.snapshots.send(snapshots::Message::Store { index, term, state });
                }
                Output::Digest { index, state } => {
                    // It outlives this one too.
                    let _ = self.parts.digests.send(digests::Message { index, state });
                }
                Output::Report(report) => {
                    self.parts.reports.send_replace(report);
                }
                Output::StoreSegment { number, data } => self.parts.history.store(number, data),
                Output::KeepSegments { segments } => self.parts.history.keep(segments),
                Output::ReadHistory { ticket, segments } => self.parts.history.read(ticket, segments),
                Output::Split { index: Some(index) } => error!(
                    index,
                    "the replicas differ and none has a majority: no new jobs; start the coordinators that are down"
                ),
                Output::Split { index: None } => info!("the replicas agree again"),
                Output::Halt { reason } => {
                    error!(reason, "this replica can't go on with the others; it stops so that it misleads nobody");
                    self.parts.ending.end(Exit::Diverged);
                    return false;
                }
            }
        }
        true
    }

    fn deliver(&mut self, call: CallId, delivery: Delivery) {
        let Some(sink) = self.sinks.get(&call) else { return };
        if !sink.deliver(delivery) {
            self.sinks.remove(&call);
            self.gone.push(call);
        }
    }

    /// Waits for room if it must: the replica thread never waits for this one. An error means that it is ending.
    fn tell_replica(&self, input: Step) {
        let _ = self.parts.replica.send(replica::Message::Step(input));
    }

    fn publish(&mut self) {
        let core = &self.parts.core;
        let (index, state) = (core.applied_index(), core.state());
        self.statuses.retain(|(_, answer)| !answer.is_closed());
        let waiting = std::mem::take(&mut self.statuses);
        for (wanted, answer) in waiting {
            let mark = match wanted {
                0 => Some(state.last_mark().unwrap_or_default()),
                index => state.mark(index).map(|digest| (index, digest)),
            };
            match mark {
                None => self.statuses.push((wanted, answer)),
                Some((digest_index, digest)) => {
                    let digest = if digest_index == 0 { String::new() } else { hexadecimal(&digest) };
                    // Closed: the asker's second is over.
                    let whole = core.newest_whole_digest();
                    let status = MemberStatus {
                        applied_index: index,
                        digest_index,
                        digest,
                        state_digest_index: whole.map_or(0, |(index, _)| index),
                        state_digest: whole.map(|(_, digest)| hexadecimal(&digest)).unwrap_or_default(),
                        ..Default::default()
                    };
                    let _ = answer.send(status);
                }
            }
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
