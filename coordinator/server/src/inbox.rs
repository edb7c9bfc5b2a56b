//! What waits for the core thread, in three lanes: consensus, then workers, then clients. The last two are bounded,
//! so that a flood of submits is refused before memory grows, and never delays a renewal or an end.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use coordinator_core::{CallId, Input};
use proto::internal::{Caller, call_request};
use proto::v1::{MemberStatus, StreamJobsRequest, WorkerMessage, worker_message};
use tokio::sync::oneshot;

use crate::calls::Sink;

/// Calls of clients that may wait, and their bytes.
const CLIENT_CALLS: usize = 16_384;
const CLIENT_BYTES: usize = 64 << 20;
/// Messages of workers that may wait, and their bytes.
const WORKER_MESSAGES: usize = 131_072;
const WORKER_BYTES: usize = 128 << 20;
/// Messages of the bounded lanes that one round of the core takes.
const ROUND: usize = 4_096;

/// One thing for the core thread to do.
pub enum Message {
    /// From the replica, the snapshot thread, or the end of a call.
    Input(Input),
    /// A call arrives; its answers go to `sink`.
    Open { call: CallId, caller: Caller, request: call_request::Request, sink: Sink },
    /// A further message of a worker's call.
    Worker { call: CallId, message: WorkerMessage },
    /// A further message of a client's stream of submits.
    Stream { call: CallId, message: StreamJobsRequest },
    /// Waits for the digest after `digest_index` (0: the newest).
    MemberStatus { digest_index: u64, answer: oneshot::Sender<MemberStatus> },
}

/// Which lane a call's messages take; all take the same, so that they stay in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Sessions: renewals and reports.
    Workers,
    /// Everyone else.
    Clients,
}

impl Lane {
    /// The lane of a request.
    pub fn of(request: &call_request::Request) -> Lane {
        match request {
            call_request::Request::WorkerConnect(_) => Lane::Workers,
            _ => Lane::Clients,
        }
    }
}

/// The lane is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// What a look into the inbox gave.
#[derive(Debug, Clone, Copy)]
pub struct Taken {
    /// The core thread is to end.
    pub closed: bool,
    /// Something of clients was among it.
    pub clients: bool,
}

/// The core thread's inbox.
#[derive(Default)]
pub struct Inbox {
    lanes: Mutex<Lanes>,
    filled: Condvar,
}

#[derive(Default)]
struct Lanes {
    consensus: VecDeque<Message>,
    workers: Bounded,
    clients: Bounded,
    closed: bool,
    /// The core thread waits: whoever adds something wakes it, once.
    asleep: Asleep,
}

/// What the core thread wakes up for.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Asleep {
    /// It is awake.
    #[default]
    No,
    /// Whatever comes.
    ForAll,
    /// All but clients.
    ButForClients,
}

#[derive(Default)]
struct Bounded {
    messages: VecDeque<(Message, usize)>,
    bytes: usize,
}

/// Whether a message waits for the core thread to wake up for something else, which the core's clock makes it do soon:
/// a renewal is answered with many others, a tenth of a second later. Ten thousand workers renew 3,333 times a second.
fn is_patient(message: &Message) -> bool {
    match message {
        Message::Worker { message, .. } => matches!(message.message, Some(worker_message::Message::Renew(_))),
        _ => false,
    }
}

impl Lanes {
    fn nothing_but_clients(&self) -> bool {
        self.consensus.is_empty() && self.workers.messages.is_empty() && !self.closed
    }
}

impl Bounded {
    fn push(&mut self, message: Message, bytes: usize) {
        self.bytes += bytes;
        self.messages.push_back((message, bytes));
    }

    fn take(&mut self, into: &mut Vec<Message>) {
        let count = self.messages.len().min(ROUND);
        for (message, bytes) in self.messages.drain(..count) {
            self.bytes -= bytes;
            into.push(message);
        }
    }
}

impl Inbox {
    /// Adds what must never be lost: its senders bound themselves.
    pub fn push(&self, input: Input) {
        let mut lanes = self.lanes();
        lanes.consensus.push_back(Message::Input(input));
        self.wake(lanes, None);
    }

    /// Asks for this member's status.
    pub fn push_status(&self, digest_index: u64, answer: oneshot::Sender<MemberStatus>) {
        let mut lanes = self.lanes();
        lanes.consensus.push_back(Message::MemberStatus { digest_index, answer });
        self.wake(lanes, None);
    }

    /// Adds a call or a worker's message of about so many bytes, if there is room.
    pub fn offer(&self, lane: Lane, message: Message, bytes: usize) -> Result<(), Full> {
        self.offer_or_return(lane, message, bytes).map_err(|_| Full)
    }

    /// The same for who will offer it again.
    #[allow(clippy::result_large_err)] // It is moved once, and only while there is too much to do.
    pub fn offer_or_return(&self, lane: Lane, message: Message, bytes: usize) -> Result<(), Message> {
        let mut lanes = self.lanes();
        let (bounded, messages, limit) = match lane {
            Lane::Workers => (&mut lanes.workers, WORKER_MESSAGES, WORKER_BYTES),
            Lane::Clients => (&mut lanes.clients, CLIENT_CALLS, CLIENT_BYTES),
        };
        if bounded.messages.len() >= messages || bounded.bytes + bytes > limit {
            return Err(message);
        }
        let patient = is_patient(&message);
        bounded.push(message, bytes);
        if !patient {
            self.wake(lanes, Some(lane));
        }
        Ok(())
    }

    /// Adds what ends or unblocks a call, behind whatever the call said before. It is small, and there is at most a
    /// few of it per open call.
    pub fn follow(&self, lane: Lane, input: Input) {
        let mut lanes = self.lanes();
        match lane {
            Lane::Workers => lanes.workers.push(Message::Input(input), 0),
            Lane::Clients => lanes.clients.push(Message::Input(input), 0),
        }
        self.wake(lanes, Some(lane));
    }

    /// Moves what waits into `into`, in the order of the lanes; waits for it at most so long. Clients wait until
    /// `clients_from`.
    pub fn take(&self, into: &mut Vec<Message>, wait: Duration, clients_from: Instant) -> Taken {
        let mut now = Instant::now();
        let end = now + wait;
        let mut lanes = self.lanes();
        let mut shut = now < clients_from;
        while now < end && lanes.nothing_but_clients() && (shut || lanes.clients.messages.is_empty()) {
            lanes.asleep = if shut { Asleep::ButForClients } else { Asleep::ForAll };
            let until = if shut { end.min(clients_from) } else { end };
            let waited = self.filled.wait_timeout(lanes, until.saturating_duration_since(now));
            (lanes, _) = waited.unwrap_or_else(PoisonError::into_inner);
            now = Instant::now();
            shut = now < clients_from;
        }
        lanes.asleep = Asleep::No;
        into.extend(lanes.consensus.drain(..));
        lanes.workers.take(into);
        let before = into.len();
        if !shut {
            lanes.clients.take(into);
        }
        Taken { closed: lanes.closed, clients: into.len() > before }
    }

    /// Ends the core thread.
    pub fn close(&self) {
        let mut lanes = self.lanes();
        lanes.closed = true;
        self.wake(lanes, None);
    }

    fn wake(&self, mut lanes: MutexGuard<'_, Lanes>, lane: Option<Lane>) {
        let wakes = match lanes.asleep {
            Asleep::No => false,
            Asleep::ForAll => true,
            Asleep::ButForClients => lane != Some(Lane::Clients),
        };
        if wakes {
            lanes.asleep = Asleep::No;
        }
        drop(lanes);
        // Whether or not anybody waits, this is a system call.
        if wakes {
            self.filled.notify_one();
        }
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        // Nothing in here can panic between two states that belong together.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn renewal(call: u64) -> Message {
        Message::Worker { call: CallId(call), message: WorkerMessage::default() }
    }

    fn taken(inbox: &Inbox) -> Vec<u64> {
        let mut messages = Vec::new();
        inbox.take(&mut messages, Duration::ZERO, Instant::now());
        messages
            .into_iter()
            .map(|message| match message {
                Message::Worker { call, .. } => call.0,
                Message::Input(Input::Hangup { call }) => call.0,
                Message::Input(Input::Tick) => 0,
                _ => unreachable!(),
            })
            .collect()
    }

    #[test]
    fn consensus_goes_before_workers_and_workers_before_clients() {
        let inbox = Inbox::default();
        inbox.follow(Lane::Clients, Input::Hangup { call: CallId(3) });
        inbox.offer(Lane::Workers, renewal(2), 10).unwrap();
        inbox.push(Input::Tick);
        assert_eq!(taken(&inbox), [0, 2, 3]);
    }

    #[test]
    fn a_full_lane_of_clients_leaves_room_for_workers_and_for_hanging_up() {
        let inbox = Inbox::default();
        inbox.offer(Lane::Clients, renewal(1), CLIENT_BYTES).unwrap();
        assert_eq!(inbox.offer(Lane::Clients, renewal(1), 1), Err(Full));
        inbox.offer(Lane::Workers, renewal(2), 10).unwrap();
        inbox.follow(Lane::Clients, Input::Hangup { call: CallId(1) });
        assert_eq!(taken(&inbox), [2, 1, 1]);
        inbox.offer(Lane::Clients, renewal(1), CLIENT_BYTES).unwrap();
    }

    #[test]
    fn closing_ends_the_wait() {
        let inbox = Inbox::default();
        inbox.close();
        let now = Instant::now();
        assert!(inbox.take(&mut Vec::new(), Duration::from_secs(60), now + Duration::from_secs(90)).closed);
    }

    #[test]
    fn clients_wait_until_their_time_and_nobody_else_does() {
        let inbox = Inbox::default();
        let mut messages = Vec::new();
        inbox.offer(Lane::Clients, renewal(1), 1).unwrap();
        let later = Instant::now() + Duration::from_secs(3_600);
        let taken = inbox.take(&mut messages, Duration::ZERO, later);
        assert!(!taken.clients && messages.is_empty());
        inbox.offer(Lane::Workers, renewal(2), 1).unwrap();
        let taken = inbox.take(&mut messages, Duration::from_secs(3_600), later);
        assert!(!taken.clients && messages.len() == 1, "workers end the wait");
        let taken = inbox.take(&mut messages, Duration::from_secs(3_600), Instant::now() + Duration::from_millis(1));
        assert!(taken.clients && messages.len() == 2, "so does the clients' time");
    }
}
