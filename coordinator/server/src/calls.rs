//! Calls under way: where their answers go, and what their callers hold.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use coordinator_core::{CallId, Input, refusal};
use prost::Message as _;
use proto::internal::{
    Caller, Refusal, RelayDown, call_request,
    call_response::Response,
    relay_down::{self, Finish},
};
use proto::v1::{StreamJobsRequest, WorkerMessage};
use tokio::sync::mpsc;
use tonic::Status;

use crate::{
    inbox::{Full, Inbox, Lane, Message},
    relay::{Link, RelayedCalls},
};

/// Answers that may wait for a caller. A watch or a log waits for its caller long before that (see the core's limits);
/// a worker that is so far behind is cut off, and gets all of it when it comes back.
const WAITING_ANSWERS: usize = 1_024;

/// What a call is answered with. Boxed, because channels reserve room for many at once.
#[derive(Debug)]
pub enum Delivery {
    /// One message.
    Message(Box<Response>),
    /// The call is over; refused, or all went well.
    End(Option<Box<Refusal>>),
}

/// Where the answers of a call go: to a caller of this process, or back through the front that relayed it.
pub enum Sink {
    /// The caller is connected here.
    Caller(mpsc::Sender<Delivery>),
    /// The caller is connected to another coordinator, which knows the call by this number.
    Relay { call: u64, calls: Arc<RelayedCalls>, down: mpsc::Sender<Result<RelayDown, Status>> },
}

impl Sink {
    /// Hands an answer on; false when nobody takes it any more, or when it takes too little too slowly.
    pub fn deliver(&self, delivery: Delivery) -> bool {
        match self {
            Sink::Caller(sender) => sender.try_send(delivery).is_ok(),
            Sink::Relay { call, calls, down } => {
                if matches!(delivery, Delivery::End(_)) {
                    calls.remove(*call);
                }
                let frame = match delivery {
                    Delivery::Message(response) => {
                        relay_down::Frame::Response(proto::internal::CallResponse { response: Some(*response) })
                    }
                    Delivery::End(refusal) => {
                        relay_down::Frame::Finish(Finish { refusal: refusal.map(|boxed| *boxed) })
                    }
                };
                down.try_send(Ok(RelayDown { call: *call, frame: Some(frame) })).is_ok()
            }
        }
    }
}

/// The way to this process's own core.
#[derive(Clone)]
pub struct CoreHandle {
    inbox: Arc<Inbox>,
    next: Arc<AtomicU64>,
}

impl CoreHandle {
    /// A handle on the thread that empties `inbox`.
    pub fn new(inbox: Arc<Inbox>) -> Self {
        Self { inbox, next: Arc::new(AtomicU64::new(1)) }
    }

    /// The inbox itself.
    pub fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    /// Opens a call whose answers go to `sink`; false when too many wait.
    pub fn open(&self, caller: Caller, request: call_request::Request, sink: Sink) -> Option<(CallId, Lane)> {
        let call = CallId(self.next.fetch_add(1, Ordering::Relaxed));
        let lane = Lane::of(&request);
        let bytes = request.encoded_len() + 256;
        self.inbox.offer(lane, Message::Open { call, caller, request, sink }, bytes).ok().map(|()| (call, lane))
    }

    /// The next message of a stream of submits; given back when too much waits.
    pub fn stream(&self, call: CallId, message: StreamJobsRequest) -> Result<(), Box<StreamJobsRequest>> {
        let bytes = message.encoded_len() + 64;
        match self.inbox.offer_or_return(Lane::Clients, Message::Stream { call, message }, bytes) {
            Ok(()) => Ok(()),
            Err(Message::Stream { message, .. }) => Err(Box::new(message)),
            Err(_) => unreachable!("what is given back is what was offered"),
        }
    }

    /// A worker's next message.
    pub fn worker(&self, call: CallId, message: WorkerMessage) -> Result<(), Full> {
        let bytes = message.encoded_len() + 64;
        self.inbox.offer(Lane::Workers, Message::Worker { call, message }, bytes)
    }
}

/// The core's answer to those for whom there is no room.
pub fn overloaded() -> Refusal {
    refusal::refusal(
        refusal::Code::ResourceExhausted,
        "OVERLOADED",
        "too many calls are waiting",
        "call again in a second",
    )
}

/// Leadership or the way to it was lost in the middle of a call.
pub fn leader_changed() -> Refusal {
    refusal::refusal(
        refusal::Code::Unavailable,
        refusal::LEADER_CHANGED,
        "the leader changed, or could not be reached, before the outcome was known",
        "call again with the same request id",
    )
}

/// A call as its caller's end holds it. Dropped, it hangs up.
pub struct Call {
    answers: mpsc::Receiver<Delivery>,
    way: Way,
    ended: bool,
    /// Messages that have left, and the leader has not been told.
    taken: u32,
}

/// The leader is told of so many messages at once that have left: a fraction of those that it sends ahead.
const TAKEN_AT_ONCE: u32 = 4;
const _: () = assert!(TAKEN_AT_ONCE < coordinator_core::limits::UNTAKEN_MESSAGES / 2);

/// How the call's further messages reach the leader.
#[derive(Clone)]
pub enum Way {
    /// This process leads.
    Own { core: CoreHandle, call: CallId, lane: Lane },
    /// Another one does.
    Relayed { link: Arc<Link>, call: u64 },
}

impl Call {
    /// A channel for the answers of one call.
    pub fn channel() -> (mpsc::Sender<Delivery>, mpsc::Receiver<Delivery>) {
        mpsc::channel(WAITING_ANSWERS)
    }

    /// The caller's end of a call that was opened.
    pub fn new(answers: mpsc::Receiver<Delivery>, way: Way) -> Self {
        Self { answers, way, ended: false, taken: 0 }
    }

    /// The next message; `None` once the call is over and went well.
    pub async fn next(&mut self) -> Option<Result<Response, Refusal>> {
        if self.ended {
            return None;
        }
        match self.answers.recv().await {
            Some(Delivery::Message(response)) => Some(Ok(*response)),
            Some(Delivery::End(refusal)) => {
                self.ended = true;
                refusal.map(|boxed| Err(*boxed))
            }
            // The sender was dropped without an end: the leader's thread or the relay is gone, or cut us off.
            None => {
                self.ended = true;
                Some(Err(leader_changed()))
            }
        }
    }

    /// Tells the leader that a message has left, so that it sends further ones.
    pub fn taken(&mut self) {
        self.taken += 1;
        if self.taken < TAKEN_AT_ONCE {
            return;
        }
        let count = std::mem::take(&mut self.taken);
        match &self.way {
            Way::Own { core, call, lane } => core.inbox().follow(*lane, Input::Taken { call: *call, count }),
            Way::Relayed { link, call } => link.taken(*call, count),
        }
    }

    /// How further messages go up.
    pub fn way(&self) -> Way {
        self.way.clone()
    }
}

impl Way {
    /// A worker's next message; false when it can't be taken and the stream should break.
    pub fn worker(&self, message: WorkerMessage) -> bool {
        match self {
            Way::Own { core, call, .. } => core.worker(*call, message).is_ok(),
            Way::Relayed { link, call } => link.worker(*call, message),
        }
    }

    /// The next message of a stream of submits; given back when there is no room for it at present.
    pub fn stream(&self, message: StreamJobsRequest) -> Result<(), Box<StreamJobsRequest>> {
        match self {
            Way::Own { core, call, .. } => core.stream(*call, message),
            Way::Relayed { link, call } => link.stream(*call, message),
        }
    }

    /// The caller has gone.
    pub fn hang_up(&self) {
        match self {
            Way::Own { core, call, lane } => core.inbox().follow(*lane, Input::Hangup { call: *call }),
            Way::Relayed { link, call } => link.hang_up(*call),
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.ended {
            self.way.hang_up();
        }
    }
}
