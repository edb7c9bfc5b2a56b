//! The receiving end: who sends is checked against the certificate, and only the newest stream of each counts.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use proto::internal::{
    FetchSegmentRequest, FetchSegmentResponse, PeerBatch, PushResponse, SendSnapshotResponse, SnapshotChunk,
    peer_service_server::PeerService,
};
use replication::Input;
use tonic::{Code, Request, Response, Status, Streaming};

use super::{segment, snapshot};
use crate::{
    member::{Member, Running},
    status,
    threads::replica,
};

const EPOCH: &str = "millgrid-epoch";

/// Takes what the other members' replicas send.
pub struct PeerListener {
    member: Arc<Member>,
    /// The newest epoch of each sender.
    epochs: Mutex<HashMap<u64, u64>>,
}

/// The epoch above which a receiver takes a stream, if it said so.
pub(super) fn known_epoch(status: &Status) -> Option<u64> {
    status.metadata().get(EPOCH)?.to_str().ok()?.parse().ok()
}

impl PeerListener {
    /// The service of this member.
    pub fn new(member: Arc<Member>) -> Self {
        Self { member, epochs: Mutex::default() }
    }

    /// Whether this is the newest stream of its sender, so far.
    fn newest(&self, from: u64, epoch: u64, first: bool) -> Result<(), Status> {
        let mut epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        let known = epochs.entry(from).or_insert(0);
        if epoch < *known || (first && epoch == *known) {
            let mut refused =
                status::refused(Code::FailedPrecondition, "OLD_EPOCH", "a newer stream took over", "", "");
            if let Ok(value) = known.to_string().parse() {
                refused.metadata_mut().insert(EPOCH, value);
            }
            return Err(refused);
        }
        *known = epoch;
        Ok(())
    }
}

#[tonic::async_trait]
impl PeerService for PeerListener {
    async fn push(&self, request: Request<Streaming<PeerBatch>>) -> Result<Response<PushResponse>, Status> {
        let running = self.member.running()?;
        let sender = running.member_named_by(&request)?;
        let mut batches = request.into_inner();
        let mut first = true;
        while let Some(batch) = batches.message().await? {
            check(&running, sender, &batch)?;
            self.newest(sender, batch.epoch, first)?;
            first = false;
            for message in batch.messages {
                // A full inbox drops it, as a network does.
                let _ = running.replica().try_send(replica::Message::Step(Input::Message(message)));
            }
        }
        Ok(Response::new(PushResponse {}))
    }

    async fn send_snapshot(
        &self,
        request: Request<Streaming<SnapshotChunk>>,
    ) -> Result<Response<SendSnapshotResponse>, Status> {
        let running = self.member.running()?;
        let sender = running.member_named_by(&request)?;
        snapshot::receive(&running, sender, request.into_inner()).await?;
        Ok(Response::new(SendSnapshotResponse {}))
    }

    async fn fetch_segment(
        &self,
        request: Request<FetchSegmentRequest>,
    ) -> Result<Response<FetchSegmentResponse>, Status> {
        let running = self.member.running()?;
        running.member_named_by(&request)?;
        segment::read(&running, request.into_inner()).await.map(Response::new)
    }
}

fn check(running: &Running, sender: u64, batch: &PeerBatch) -> Result<(), Status> {
    let refuse = |what: &str| Err(status::refused(Code::PermissionDenied, "WRONG_PEER", what, "", ""));
    if batch.cluster_id != running.cluster_id() {
        return refuse("messages of another cluster");
    }
    if batch.from != sender || batch.messages.iter().any(|message| message.from != sender) {
        return refuse("messages in another member's name");
    }
    if batch.to != running.id() || batch.messages.iter().any(|message| message.to != running.id()) {
        return refuse("messages for another member");
    }
    Ok(())
}
