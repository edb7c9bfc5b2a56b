//! The way of a front's calls to the leader: one stream for all of them, with each caller's identity.

mod service;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use proto::internal::{
    CallRequest, Caller, RelayDown, RelayUp, call_request, relay_down, relay_service_client::RelayServiceClient,
    relay_up,
};
use proto::v1::{StreamJobsRequest, WorkerMessage};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tracing::debug;

pub use service::{RelayedCalls, Relays};

use crate::{
    calls::{Call, Delivery, Way, leader_changed},
    channels::Channels,
    leadership::Leadership,
};

/// Frames that may wait for the network; with more, new calls are refused and worker streams break.
const WAITING_FRAMES: usize = 16_384;
/// A leader that doesn't take the stream by then is tried again.
const OPEN_TIMEOUT: Duration = Duration::from_secs(1);
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// One stream to one leader. Once broken it stays so; the next one has its own.
pub struct Link {
    /// Whose term it belongs to.
    pub term: u64,
    up: mpsc::UnboundedSender<RelayUp>,
    waiting: Arc<AtomicUsize>,
    next: AtomicU64,
    calls: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    sinks: HashMap<u64, mpsc::Sender<Delivery>>,
    broken: bool,
}

/// Why a call could not be handed to a link.
pub enum NotSent {
    /// The stream is broken; there may be a better way by now, for what is given back.
    Broken(Caller, Box<call_request::Request>),
    /// Too much waits.
    Full,
}

impl Link {
    /// Opens a call at the other end.
    pub fn open(self: &Arc<Self>, caller: Caller, request: call_request::Request) -> Result<Call, NotSent> {
        if self.waiting.load(Ordering::Relaxed) >= WAITING_FRAMES {
            return Err(NotSent::Full);
        }
        let call = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answers) = Call::channel();
        {
            let mut open = self.open_calls();
            if open.broken {
                return Err(NotSent::Broken(caller, Box::new(request)));
            }
            open.sinks.insert(call, sender);
        }
        let request = Some(CallRequest { request: Some(request) });
        let frame = relay_up::Frame::Open(relay_up::Open { caller: Some(caller), request });
        self.send(call, frame);
        Ok(Call::new(answers, Way::Relayed { link: Arc::clone(self), call }))
    }

    /// A worker's next message; false when too much waits.
    pub fn worker(&self, call: u64, message: WorkerMessage) -> bool {
        if self.waiting.load(Ordering::Relaxed) >= WAITING_FRAMES {
            return false;
        }
        self.send(call, relay_up::Frame::Worker(message))
    }

    /// The next message of a stream of submits; given back while too much waits.
    pub fn stream(&self, call: u64, message: StreamJobsRequest) -> Result<(), Box<StreamJobsRequest>> {
        if self.waiting.load(Ordering::Relaxed) >= WAITING_FRAMES {
            return Err(Box::new(message));
        }
        self.send(call, relay_up::Frame::Stream(message));
        Ok(())
    }

    /// So many messages left for the caller.
    pub fn taken(&self, call: u64, count: u32) {
        self.send(call, relay_up::Frame::Taken(count));
    }

    /// The caller has gone.
    pub fn hang_up(&self, call: u64) {
        if self.open_calls().sinks.remove(&call).is_some() {
            self.send(call, relay_up::Frame::Hangup(relay_up::Hangup {}));
        }
    }

    fn send(&self, call: u64, frame: relay_up::Frame) -> bool {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.up.send(RelayUp { call, frame: Some(frame) }).is_ok()
    }

    fn receive(&self, down: RelayDown) {
        let (delivery, last) = match down.frame {
            Some(relay_down::Frame::Response(response)) => match response.response {
                Some(response) => (Delivery::Message(Box::new(response)), false),
                None => return,
            },
            Some(relay_down::Frame::Finish(finish)) => (Delivery::End(finish.refusal.map(Box::new)), true),
            None => return,
        };
        let mut open = self.open_calls();
        let delivered = open.sinks.get(&down.call).is_none_or(|sink| sink.try_send(delivery).is_ok());
        if last || !delivered {
            open.sinks.remove(&down.call);
        }
        drop(open);
        if !delivered && !last {
            self.send(down.call, relay_up::Frame::Hangup(relay_up::Hangup {}));
        }
    }

    /// Fails every call that is open.
    fn break_off(&self) {
        let mut open = self.open_calls();
        open.broken = true;
        for (_, sink) in open.sinks.drain() {
            // Full: its receiver sees the channel's end instead, which means the same.
            let _ = sink.try_send(Delivery::End(Some(Box::new(leader_changed()))));
        }
    }

    fn open_calls(&self) -> MutexGuard<'_, Open> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a link to whoever leads, until `leadership` ends. What it sends is `None` while there is no link.
pub async fn keep_link(
    channels: Arc<Channels>,
    mut leadership: watch::Receiver<Leadership>,
    links: watch::Sender<Option<Arc<Link>>>,
) {
    loop {
        let present = *leadership.borrow_and_update();
        let Some(leader) = present.other_leader() else {
            if leadership.changed().await.is_err() {
                return;
            }
            continue;
        };
        if let Some((link, down)) = open(&channels, leader, present.term).await {
            links.send_replace(Some(Arc::clone(&link)));
            let more = carry(&link, down, &mut leadership).await;
            links.send_replace(None);
            link.break_off();
            if !more {
                return;
            }
        }
        tokio::select! {
            changed = leadership.changed() => if changed.is_err() { return },
            () = sleep(RETRY_DELAY) => {}
        }
    }
}

async fn open(channels: &Channels, leader: u64, term: u64) -> Option<(Arc<Link>, tonic::Streaming<RelayDown>)> {
    let (up, frames) = mpsc::unbounded_channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&waiting);
    let frames = UnboundedReceiverStream::new(frames).inspect(move |_| {
        counter.fetch_sub(1, Ordering::Relaxed);
    });
    let mut client = RelayServiceClient::new(channels.relay(leader)?)
        .max_decoding_message_size(crate::channels::MESSAGE_BYTES)
        .max_encoding_message_size(crate::channels::MESSAGE_BYTES);
    match timeout(OPEN_TIMEOUT, client.relay(frames)).await {
        Ok(Ok(response)) => {
            let link = Link { term, up, waiting, next: AtomicU64::new(1), calls: Mutex::default() };
            Some((Arc::new(link), response.into_inner()))
        }
        Ok(Err(status)) => {
            debug!(leader, %status, "can't open a relay to the leader");
            None
        }
        Err(_) => None,
    }
}

/// Hands answers on until the stream ends or somebody else leads; false when this process ends.
async fn carry(
    link: &Link,
    mut down: tonic::Streaming<RelayDown>,
    leadership: &mut watch::Receiver<Leadership>,
) -> bool {
    loop {
        tokio::select! {
            message = down.message() => match message {
                Ok(Some(message)) => link.receive(message),
                Ok(None) => return true,
                Err(status) => {
                    debug!(term = link.term, %status, "the relay to the leader broke");
                    return true;
                }
            },
            changed = leadership.changed() => {
                if changed.is_err() {
                    return false;
                }
                if leadership.borrow_and_update().term != link.term {
                    return true;
                }
            }
        }
    }
}
