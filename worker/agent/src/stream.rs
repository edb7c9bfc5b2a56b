//! The session's stream: one task carries it, and tells the core loop what comes of it.

use std::sync::Arc;

use proto::v1::{
    WorkerMessage, coordinator_message::Message, worker_session_service_client::WorkerSessionServiceClient,
};
use tokio::{sync::mpsc, task::AbortHandle};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic_types::StatusExt;
use worker_core::Input;

use crate::{
    connection::{Coordinators, Failure},
    core_loop::Event,
};

/// The reason, in `ErrorInfo`, of a coordinator whose leader went away.
const LEADER_CHANGED: &str = "LEADER_CHANGED";

/// In the head of a stream: the address of the leader, where that is another coordinator, and there is room for us.
const LEADER: &str = "millgrid-leader";

/// Largest message taken from a coordinator: instructions carry the specs of new jobs.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// The newest stream. Dropping it closes it.
#[derive(Debug)]
pub struct Stream {
    /// Its number, as the core counts.
    pub number: u64,
    messages: mpsc::UnboundedSender<WorkerMessage>,
    task: AbortHandle,
}

impl Stream {
    /// Begins to open a stream; what comes of it arrives as events.
    pub fn open(number: u64, elsewhere: bool, grid: Arc<Coordinators>, events: mpsc::UnboundedSender<Event>) -> Self {
        // Bounded by what the core has to say: reports wait for acknowledgements, and log data is asked for.
        let (messages, outgoing) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            let elsewhere = match carry(number, elsewhere, &grid, outgoing, &events).await {
                Ok(()) => true,
                Err(End::Moved { endpoint }) => {
                    tracing::debug!(stream = number, endpoint, "goes on at the leader itself");
                    false
                }
                Err(End::NotConnected(failure)) => {
                    tracing::warn!(stream = number, "{failure}");
                    true
                }
                Err(End::Closed(status)) if leader_changed(&status) => {
                    tracing::info!(stream = number, "the leader changed");
                    false
                }
                Err(End::Closed(status)) => {
                    tracing::warn!(stream = number, "the stream to the grid ended: {status}");
                    true
                }
            };
            let _ = events.send(Event::Input(Input::StreamClosed { stream: number, elsewhere }));
        });
        Self { number, messages, task: task.abort_handle() }
    }

    /// Sends, or drops the message when the stream has broken: the core will hear of that.
    pub fn send(&self, message: WorkerMessage) {
        let _ = self.messages.send(message);
    }

    /// For those that answer later.
    pub fn sender(&self) -> mpsc::UnboundedSender<WorkerMessage> {
        self.messages.clone()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How a stream ends.
enum End {
    NotConnected(Failure),
    /// There is a connection to the leader itself.
    Moved {
        endpoint: String,
    },
    Closed(tonic::Status),
}

/// Whether the coordinator is well, and only lost the leader behind it.
fn leader_changed(status: &tonic::Status) -> bool {
    status.get_error_details().error_info().is_some_and(|info| info.reason == LEADER_CHANGED)
}

async fn carry(
    number: u64,
    elsewhere: bool,
    grid: &Coordinators,
    outgoing: mpsc::UnboundedReceiver<WorkerMessage>,
    events: &mpsc::UnboundedSender<Event>,
) -> Result<(), End> {
    let (channel, endpoint) = grid.session_channel(elsewhere).await.map_err(End::NotConnected)?;
    let mut client = WorkerSessionServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
    tracing::debug!(stream = number, endpoint, "connected");
    // The core speaks first, and a coordinator may answer the call itself only after it has listened.
    let _ = events.send(Event::Input(Input::StreamOpened { stream: number }));
    let response = client.session(UnboundedReceiverStream::new(outgoing)).await.map_err(End::Closed)?;
    let leader = response.metadata().get(LEADER).and_then(|url| url.to_str().ok()).unwrap_or_default().to_owned();
    let mut incoming = response.into_inner();
    let mut nearer = std::pin::pin!(grid.elsewhere(&leader, &endpoint));
    let (mut open, mut asked, mut found) = (false, false, None);
    loop {
        tokio::select! {
            message = incoming.message() => match message.map_err(End::Closed)? {
                Some(message) => {
                    open |= matches!(message.message, Some(Message::Opened(_)));
                    if events.send(Event::Input(Input::Received { stream: number, message })).is_err() {
                        return Ok(());
                    }
                }
                None => return Ok(()),
            },
            connection = &mut nearer, if !asked => (asked, found) = (true, connection),
        }
        // Before the session stands here it can't go on there.
        if open && let Some(connection) = found.take() {
            let endpoint = connection.1.clone();
            grid.keep(connection);
            return Err(End::Moved { endpoint });
        }
    }
}
