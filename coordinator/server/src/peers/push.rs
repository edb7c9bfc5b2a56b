//! The sending end of one pair's stream.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use proto::internal::{PeerBatch, PeerMessage, peer_service_client::PeerServiceClient};
use replication::Input;
use tokio::{sync::mpsc, time::sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::debug;

use super::{Membership, service, size};
use crate::{
    channels::Channels,
    clock,
    threads::{queue, replica},
};

/// One batch: at most so many messages, and about so many bytes.
const BATCH_MESSAGES: usize = 64;
const BATCH_BYTES: usize = 1 << 20;
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// Feeds one peer for as long as the process lives.
pub(super) struct Stream {
    pub membership: Membership,
    pub peer: u64,
    pub channels: Arc<Channels>,
    pub messages: mpsc::Receiver<PeerMessage>,
    pub bytes: Arc<AtomicUsize>,
    pub replica: queue::Sender<replica::Message>,
}

impl Stream {
    pub async fn run(mut self) {
        let Some(channel) = self.channels.own(self.peer) else { return };
        let client = PeerServiceClient::new(channel).max_encoding_message_size(crate::channels::MESSAGE_BYTES);
        // By the clock, so that it rises over restarts too.
        let mut epoch = 0;
        loop {
            // Nothing is dialled before there is something to say.
            let Some(first) = self.next().await else { return };
            epoch = clock::wall_ns().max(epoch + 1);
            let broken = self.feed(client.clone(), epoch, first).await;
            let Some(status) = broken else { return };
            debug!(peer = self.peer, %status, "the stream to a peer broke");
            // After a step back of the clock or a restart elsewhere, the receiver knows better.
            epoch = epoch.max(service::known_epoch(&status).unwrap_or(0));
            self.drop_waiting();
            self.unreachable();
            sleep(RETRY_DELAY).await;
            self.drop_waiting();
        }
    }

    /// Sends batches until the stream breaks; `None` when this process ends. An old batch never goes into a new
    /// stream.
    async fn feed(
        &mut self,
        mut client: PeerServiceClient<tonic::transport::Channel>,
        epoch: u64,
        first: PeerMessage,
    ) -> Option<Status> {
        let (sender, batches) = mpsc::channel(1);
        let call = client.push(ReceiverStream::new(batches));
        tokio::pin!(call);
        let mut next = Some(first);
        loop {
            let message = match next.take() {
                Some(message) => message,
                None => tokio::select! {
                    ended = &mut call => return Some(ended.err().unwrap_or_else(closed)),
                    message = self.next() => message?,
                },
            };
            let batch = self.batch(epoch, message);
            tokio::select! {
                ended = &mut call => return Some(ended.err().unwrap_or_else(closed)),
                sent = sender.send(batch) => if sent.is_err() {
                    return Some(closed());
                },
            }
        }
    }

    fn batch(&mut self, epoch: u64, first: PeerMessage) -> PeerBatch {
        let mut bytes = size(&first);
        let mut messages = vec![first];
        while messages.len() < BATCH_MESSAGES && bytes < BATCH_BYTES {
            let Ok(message) = self.messages.try_recv() else { break };
            self.bytes.fetch_sub(size(&message), Ordering::Relaxed);
            bytes += size(&message);
            messages.push(message);
        }
        let Membership { cluster_id, me } = self.membership.clone();
        PeerBatch { cluster_id, from: me, to: self.peer, epoch, messages }
    }

    async fn next(&mut self) -> Option<PeerMessage> {
        let message = self.messages.recv().await?;
        self.bytes.fetch_sub(size(&message), Ordering::Relaxed);
        Some(message)
    }

    fn drop_waiting(&mut self) {
        while let Ok(message) = self.messages.try_recv() {
            self.bytes.fetch_sub(size(&message), Ordering::Relaxed);
        }
    }

    fn unreachable(&self) {
        // A full inbox: the next break says it again.
        let _ = self.replica.try_send(replica::Message::Step(Input::Unreachable { to: self.peer }));
    }
}

fn closed() -> Status {
    Status::unavailable("closed by the other end")
}
