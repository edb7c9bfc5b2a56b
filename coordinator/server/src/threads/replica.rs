//! The thread that owns the replica: ticks without drift, steps whatever waits, and hands on what came of it. It never
//! waits for the disk, the network or the core.

use std::{
    collections::VecDeque,
    sync::{
        Arc, RwLock,
        mpsc::{RecvTimeoutError, Sender},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use coordinator_core::Input as CoreInput;
use replication::{Committed, Input, Outputs, PeerMessage, Refused, Replica, SnapshotMetadata, Status};
use tokio::sync::{oneshot, watch};
use tracing::{error, info};

use super::{
    log,
    queue::{self, Receiver},
    snapshots,
};
use crate::{
    ending::{Ending, Exit},
    inbox::Inbox,
    leadership::Leadership,
    peers::Peers,
};

/// Of the replica's clock. Ticks missed in a stall are not made up for: they would depose a leader that is well.
const TICK: Duration = Duration::from_millis(50);
/// Inputs that may wait; what the network brings beyond is dropped, as a network does.
const WAITING: usize = 65_536;
/// Inputs of one round.
const ROUND: usize = 4_096;

/// One thing for the replica thread to do.
pub enum Message {
    /// Step this.
    Step(Input),
    /// The snapshot is in the core: what was committed behind it may follow.
    Loaded(SnapshotMetadata),
    /// Whether this message of a snapshot would be taken now.
    Check(Box<PeerMessage>, oneshot::Sender<Result<(), Refused>>),
    /// End the thread.
    Stop,
}

/// What the replica thread needs.
pub struct Parts {
    /// The replica itself.
    pub replica: Replica,
    /// The core thread's inbox.
    pub core: Arc<Inbox>,
    /// The log thread.
    pub log: queue::Sender<log::Message>,
    /// The snapshot thread.
    pub snapshots: Sender<snapshots::Message>,
    /// The other members.
    pub peers: Peers,
    /// Who leads, for everyone else.
    pub leadership: watch::Sender<Leadership>,
    /// How far the core got.
    pub applied: watch::Receiver<u64>,
    /// How the replica stands, as of the last tick.
    pub status: Arc<RwLock<Status>>,
    /// Who can end the process.
    pub ending: Ending,
}

/// The way to the thread, made before it because others need it to be made themselves.
pub fn channel() -> (queue::Sender<Message>, Receiver<Message>) {
    queue::bounded(WAITING)
}

/// Starts the thread. It ends at [`Message::Stop`].
pub fn start(parts: Parts, inbox: Receiver<Message>) -> std::io::Result<JoinHandle<()>> {
    super::spawn("replica", move || {
        Thread { parts, loading: 0, held: Vec::new(), unreachable: VecDeque::new() }.run(&inbox);
    })
}

struct Thread {
    parts: Parts,
    /// Snapshots on their way into the core; what is committed behind them waits.
    loading: usize,
    held: Vec<Committed>,
    unreachable: VecDeque<u64>,
}

impl Thread {
    fn run(mut self, inbox: &Receiver<Message>) {
        let mut next_tick = Instant::now() + TICK;
        loop {
            let received = inbox.recv(Some(next_tick.saturating_duration_since(Instant::now())));
            self.look_at_applied();
            match received {
                Ok(message) => {
                    let mut waiting =
                        std::iter::once(message).chain(std::iter::from_fn(|| inbox.try_recv())).take(ROUND);
                    if !waiting.all(|message| self.take(message)) {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let now = Instant::now();
            if now >= next_tick {
                next_tick += TICK;
                if next_tick <= now {
                    next_tick = now + TICK;
                }
                self.step(Input::Tick);
                self.publish_status();
            }
            self.hand_out();
        }
    }

    /// Nobody is woken up for it: it matters with what comes next.
    fn look_at_applied(&mut self) {
        if self.parts.applied.has_changed().unwrap_or(false) {
            let index = *self.parts.applied.borrow_and_update();
            self.step(Input::Applied { index });
        }
    }

    /// False at the end.
    fn take(&mut self, message: Message) -> bool {
        match message {
            Message::Step(input) => self.step(input),
            Message::Loaded(metadata) => {
                self.loading -= 1;
                if self.loading == 0 {
                    let held = std::mem::take(&mut self.held);
                    self.hand_to_core(held);
                }
                self.step(Input::Installed { metadata });
            }
            Message::Check(message, answer) => {
                // Closed: the asker has given up.
                let _ = answer.send(self.parts.replica.check(&message));
            }
            Message::Stop => return false,
        }
        true
    }

    fn step(&mut self, input: Input) {
        if let Err(refused) = self.parts.replica.step(input) {
            tracing::warn!(%refused, "the replica refused an input");
        }
    }

    fn hand_out(&mut self) {
        loop {
            while let Some(outputs) = self.parts.replica.outputs() {
                self.carry_out(outputs);
            }
            if self.unreachable.is_empty() {
                return;
            }
            while let Some(to) = self.unreachable.pop_front() {
                self.step(Input::Unreachable { to });
            }
        }
    }

    fn carry_out(&mut self, outputs: Outputs) {
        if let Some(role) = outputs.role {
            info!(term = role.term, leader = role.leader, leading = role.leading, "role");
            self.publish_status();
            // The core first: whoever learns of it from the others may call at once.
            self.parts.core.push(CoreInput::Role { term: role.term, leading: role.leading });
            self.parts.core.push(CoreInput::Led(role.leader.is_some() && !role.leading));
            self.parts.leadership.send_replace(Leadership {
                term: role.term,
                leader: role.leader,
                leading: role.leading,
            });
        }
        for message in outputs.messages {
            let to = message.to;
            if !self.parts.peers.send(message) && !self.unreachable.contains(&to) {
                self.unreachable.push_back(to);
            }
        }
        for message in outputs.send_snapshot {
            self.parts.peers.send_snapshot(message);
        }
        if let Some(write) = outputs.write {
            self.tell_log(log::Message::Write(write));
        }
        if let Some(compaction) = outputs.compact {
            self.tell_log(log::Message::Compact(compaction));
        }
        if let Some(metadata) = outputs.install {
            info!(index = metadata.index, "a snapshot of the leader's replaces the state");
            self.loading += 1;
            if self.parts.snapshots.send(snapshots::Message::Load(metadata)).is_err() {
                error!("the snapshot thread is gone");
                self.parts.ending.end(Exit::Failed);
            }
        }
        if self.loading > 0 {
            self.held.extend(outputs.committed);
        } else {
            self.hand_to_core(outputs.committed);
        }
        for read in outputs.reads {
            self.parts.core.push(CoreInput::ReadReady { context: read.context, index: read.index });
        }
        for context in outputs.lost_reads {
            self.parts.core.push(CoreInput::ReadLost { context });
        }
        for sequence in outputs.dropped {
            self.parts.core.push(CoreInput::Dropped { sequence });
        }
        if outputs.want_snapshot {
            self.parts.core.push(CoreInput::SnapshotWanted);
        }
    }

    fn hand_to_core(&self, committed: Vec<Committed>) {
        for Committed { index, term, data, .. } in committed {
            self.parts.core.push(CoreInput::Committed { index, term, data });
        }
    }

    fn tell_log(&self, message: log::Message) {
        if self.parts.log.send(message).is_err() {
            // It ended because of a failure, and has said so; nothing is acknowledged any more.
            self.parts.ending.end(Exit::Failed);
        }
    }

    fn publish_status(&self) {
        if let Ok(mut status) = self.parts.status.write() {
            *status = self.parts.replica.status();
        }
    }
}
