//! A segment of the history for a member that hasn't got it.

use std::sync::Arc;

use proto::internal::{FetchSegmentRequest, FetchSegmentResponse};
use tokio::task::spawn_blocking;
use tonic::{Code, Status};
use tracing::warn;

use crate::{member::Running, status};

/// The segment from this disk, verified.
pub(super) async fn read(running: &Running, request: FetchSegmentRequest) -> Result<FetchSegmentResponse, Status> {
    if request.cluster_id != running.cluster_id() {
        return Err(status::refused(Code::PermissionDenied, "WRONG_PEER", "a segment of another cluster", "", ""));
    }
    let (files, number) = (Arc::clone(running.segments()), request.number);
    let read = spawn_blocking(move || files.read(number, None));
    match read.await.map_err(|_| Status::internal("the reader ended"))? {
        Ok(data) => Ok(FetchSegmentResponse { data }),
        Err(unreadable) => {
            if unreadable.is_damage() {
                warn!(%unreadable, "another member asked for a segment of the history that is lost here");
            }
            Err(status::refused(
                Code::NotFound,
                "NOT_FOUND",
                "the segment isn't on this disk",
                "ask another member",
                "",
            ))
        }
    }
}
