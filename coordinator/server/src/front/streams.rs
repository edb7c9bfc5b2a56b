//! Clients' streams of submits.

use std::time::Duration;

use proto::internal::call_response;
use proto::v1::{StreamJobsRequest, StreamJobsResponse};
use tokio::{sync::oneshot, time::sleep};
use tonic::Streaming;

use super::Answers;
use crate::{
    calls::{Call, Way},
    status,
};

/// While there is no room on the way to the leader. The client is held up meanwhile: nothing more is read from it.
const NO_ROOM: Duration = Duration::from_millis(2);

/// Carries both directions of a stream.
pub fn serve(messages: Streaming<StreamJobsRequest>, call: Call) -> Answers<StreamJobsResponse> {
    let (open, closed) = oneshot::channel();
    tokio::spawn(forward(messages, call.way(), closed));
    Box::pin(futures::stream::unfold(Some((call, open)), |state| async move {
        let (mut call, open) = state?;
        match call.next().await? {
            Ok(call_response::Response::StreamJobs(message)) => Some((Ok(message), Some((call, open)))),
            Ok(_) => Some((Err(status::internal("an answer of another kind")), None)),
            Err(refused) => Some((Err(status::from_refusal(&refused)), None)),
        }
    }))
}

/// Carries the client's messages up, until it breaks off or the leader's end closes. A client that has said its last
/// waits for its answers still.
async fn forward(mut messages: Streaming<StreamJobsRequest>, way: Way, mut closed: oneshot::Receiver<()>) {
    loop {
        let message = tokio::select! {
            _ = &mut closed => return,
            message = messages.message() => message,
        };
        let mut message = match message {
            Ok(Some(message)) => message,
            Ok(None) => return,
            Err(_) => return way.hang_up(),
        };
        while let Err(returned) = way.stream(message) {
            message = *returned;
            tokio::select! {
                _ = &mut closed => return,
                () = sleep(NO_ROOM) => {}
            }
        }
    }
}
