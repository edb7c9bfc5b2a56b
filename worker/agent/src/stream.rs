//! The session's stream: one task carries it, and tells the core loop what comes of it.

use std::sync::Arc;

use proto::v1::{WorkerMessage, worker_session_service_client::WorkerSessionServiceClient};
use tokio::{sync::mpsc, task::AbortHandle};
use tokio_stream::wrappers::UnboundedReceiverStream;
use worker_core::Input;

use crate::{connection::Coordinators, core_loop::Event};

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
            if let Err(problem) = carry(number, elsewhere, &grid, outgoing, &events).await {
                tracing::warn!(stream = number, "the stream to the grid ended: {problem:#}");
            }
            let _ = events.send(Event::Input(Input::StreamClosed { stream: number }));
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

async fn carry(
    number: u64,
    elsewhere: bool,
    grid: &Coordinators,
    outgoing: mpsc::UnboundedReceiver<WorkerMessage>,
    events: &mpsc::UnboundedSender<Event>,
) -> anyhow::Result<()> {
    let (channel, endpoint) = grid.connect(elsewhere).await?;
    let mut client = WorkerSessionServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
    tracing::debug!(stream = number, endpoint, "connected");
    // The core speaks first, and a coordinator may answer the call itself only after it has listened.
    let _ = events.send(Event::Input(Input::StreamOpened { stream: number }));
    let mut incoming = client.session(UnboundedReceiverStream::new(outgoing)).await?.into_inner();
    while let Some(message) = incoming.message().await? {
        if events.send(Event::Input(Input::Received { stream: number, message })).is_err() {
            break;
        }
    }
    Ok(())
}
