//! Snapshots on their way, piece by piece, on a connection of their own.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use proto::internal::{SnapshotChunk, peer_service_client::PeerServiceClient};
use replication::{Failure, Input, PeerMessage, SnapshotFiles};
use tokio::{
    sync::{mpsc, oneshot},
    task::spawn_blocking,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use tracing::{info, warn};

use super::Membership;
use crate::{
    channels::Channels,
    member::Running,
    status,
    threads::{queue, replica},
};

const CHUNK_BYTES: usize = 256 << 10;
/// A transfer without progress for so long has failed.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(10);
/// The receiver verifies and syncs the whole file after the last chunk.
const STORE_TIMEOUT: Duration = Duration::from_secs(120);

/// Sends snapshots.
#[derive(Clone)]
pub(super) struct Sender {
    pub membership: Membership,
    pub channels: Arc<Channels>,
    pub files: Arc<Mutex<SnapshotFiles>>,
    pub replica: queue::Sender<replica::Message>,
}

impl Sender {
    /// Sends one and reports what came of it, whatever that is.
    pub async fn send(self, message: PeerMessage) {
        let to = message.to;
        let index = message.snapshot.as_ref().map_or(0, |snapshot| snapshot.index);
        info!(to, index, "sending a snapshot");
        let result = self.transfer(message).await;
        if let Err(status) = &result {
            warn!(to, index, %status, "a snapshot could not be sent");
        }
        let report = replica::Message::Step(Input::SnapshotReport { to, delivered: result.is_ok() });
        let replica = self.replica.clone();
        // It must not be lost, and the inbox may be full: wait for room where waiting is allowed. Gone means ending.
        let _ = spawn_blocking(move || {
            let _ = replica.send(report);
        })
        .await;
    }

    async fn transfer(&self, message: PeerMessage) -> Result<(), Status> {
        let channel = self.channels.own(message.to).ok_or_else(|| Status::not_found("no such member"))?;
        let (sender, chunks) = mpsc::channel(4);
        let mut client = PeerServiceClient::new(channel);
        let feeding = self.feed(message, sender);
        let sending = client.send_snapshot(ReceiverStream::new(chunks));
        let (fed, sent) = tokio::join!(feeding, async { sending.await.map(|_| ()) });
        sent.and(fed)
    }

    async fn feed(&self, message: PeerMessage, sender: mpsc::Sender<SnapshotChunk>) -> Result<(), Status> {
        let metadata = message.snapshot.clone().ok_or_else(|| Status::internal("a snapshot message without one"))?;
        let mut head = Some(message);
        let mut offset = 0;
        loop {
            let (files, wanted) = (Arc::clone(&self.files), metadata.clone());
            let read = spawn_blocking(move || {
                files.lock().unwrap_or_else(PoisonError::into_inner).read(&wanted, offset, CHUNK_BYTES)
            });
            let data = read.await.map_err(|_| Status::internal("the reader ended"))?;
            let data = data.map_err(|failure| Status::internal(failure.to_string()))?;
            if data.is_empty() && offset > 0 {
                break;
            }
            let length = data.len() as u64;
            let cluster_id = self.membership.cluster_id.clone();
            let chunk = SnapshotChunk { message: head.take(), cluster_id, offset, data: data.into() };
            match timeout(CHUNK_TIMEOUT, sender.send(chunk)).await {
                Ok(Ok(())) => offset += length,
                _ => return Err(Status::deadline_exceeded("the receiver takes nothing")),
            }
            if length == 0 {
                break;
            }
        }
        drop(sender);
        Ok(())
    }
}

/// Receives a snapshot into a file; once it is whole, verified and synced, the replica hears of it.
pub(super) async fn receive(
    running: &Running,
    sender: u64,
    mut chunks: Streaming<SnapshotChunk>,
) -> Result<(), Status> {
    let first = next(&mut chunks).await?.ok_or_else(|| Status::invalid_argument("an empty snapshot"))?;
    let message = first.message.clone().ok_or_else(|| Status::invalid_argument("the first chunk has no message"))?;
    let metadata = message.snapshot.clone().ok_or_else(|| Status::invalid_argument("the message has no snapshot"))?;
    if first.cluster_id != running.cluster_id() || message.from != sender || message.to != running.id() {
        return Err(status::refused(
            Code::PermissionDenied,
            "WRONG_PEER",
            "a snapshot for or of somebody else",
            "",
            "",
        ));
    }
    acceptable(running, &message).await?;
    let files = Arc::clone(running.snapshots());
    // One writer for the whole file, off the network's threads; dropped without `finish`, the next start removes it.
    let (writer, mut pieces) = mpsc::channel::<SnapshotChunk>(4);
    let writing = spawn_blocking(move || -> Result<(), Failure> {
        let lock = || files.lock().unwrap_or_else(PoisonError::into_inner);
        let mut incoming = lock().receive(&metadata)?;
        while let Some(chunk) = pieces.blocking_recv() {
            if chunk.offset != incoming.size() {
                break;
            }
            lock().write(&mut incoming, &chunk.data)?;
        }
        if incoming.size() < metadata.size {
            lock().abandon(incoming)?;
            return Err(Failure::SnapshotDamaged { index: metadata.index, reason: "it ended too early" });
        }
        lock().finish(incoming).map(|_| ())
    });
    let mut received = writer.send(first).await.is_ok();
    while received && let Some(chunk) = next(&mut chunks).await? {
        received = writer.send(chunk).await.is_ok();
    }
    drop(writer);
    let written =
        timeout(STORE_TIMEOUT, writing).await.map_err(|_| Status::deadline_exceeded("the disk is too slow"))?;
    match written.map_err(|_| Status::internal("the writer ended"))? {
        Ok(()) => {}
        Err(failure) if failure.exit_code() == 1 => return Err(Status::aborted(failure.to_string())),
        Err(failure) => {
            running.ending().fail(&failure);
            return Err(Status::internal("the disk failed"));
        }
    }
    let stepped = running.replica().try_send(replica::Message::Step(Input::Message(message)));
    stepped.map_err(|_| Status::resource_exhausted("the replica is busy"))
}

/// Whether the replica would take the snapshot, before its first byte is stored.
async fn acceptable(running: &Running, message: &PeerMessage) -> Result<(), Status> {
    let (answer, checked) = oneshot::channel();
    let ask = replica::Message::Check(Box::new(message.clone()), answer);
    running.replica().try_send(ask).map_err(|_| Status::resource_exhausted("the replica is busy"))?;
    match timeout(CHUNK_TIMEOUT, checked).await {
        Ok(Ok(checked)) => checked.map_err(|refused| Status::failed_precondition(refused.to_string())),
        _ => Err(Status::unavailable("the replica doesn't answer")),
    }
}

async fn next(chunks: &mut Streaming<SnapshotChunk>) -> Result<Option<SnapshotChunk>, Status> {
    timeout(CHUNK_TIMEOUT, chunks.message()).await.map_err(|_| Status::deadline_exceeded("the sender sends nothing"))?
}
