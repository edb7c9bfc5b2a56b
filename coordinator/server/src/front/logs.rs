//! Logs of one task: live from its worker, through the leader; after its end from S3, by this front.

use std::sync::Arc;

use futures::{StreamExt, stream};
use proto::internal::call_response::Response;
use proto::v1::ReadLogsResponse;

use super::{Answers, Stored};
use crate::{calls::Call, status};

/// The log as `call` finds it.
pub fn stream(call: Call, stored: Arc<Stored>) -> Answers<ReadLogsResponse> {
    let pieces = stream::unfold(Some((call, stored)), |state| async move {
        let (mut call, stored) = state?;
        let pieces: Answers<ReadLogsResponse> = match call.next().await? {
            Ok(Response::ReadLogs(piece)) => {
                call.taken();
                Box::pin(stream::iter([Ok(piece)]))
            }
            Ok(Response::StoredLog(log)) => {
                call.taken();
                Arc::clone(&stored).read(log)
            }
            Ok(_) => return Some((failed(status::internal("an answer of another kind")), None)),
            Err(refused) => return Some((failed(status::from_refusal(&refused)), None)),
        };
        Some((pieces, Some((call, stored))))
    });
    Box::pin(pieces.flatten())
}

fn failed(status: tonic::Status) -> Answers<ReadLogsResponse> {
    Box::pin(stream::iter([Err(status)]))
}
