//! Workers' own streams.

use proto::internal::{WorkerConnect, call_request, call_response};
use proto::v1::{
    CoordinatorMessage, FetchBlobRequest, FetchBlobResponse, WorkerMessage,
    worker_session_service_server::WorkerSessionService,
};
use tokio::sync::oneshot;
use tonic::{Request, Response, Status, Streaming};

use super::{Answers, Front, name_leader, unary};
use crate::{
    calls::{Call, Way},
    status,
};

/// Workers of a grid up to this size hold their sessions at the leader itself: a relay less for each start and each end.
/// Those of larger ones are spread, so that the leader has few connections.
const FEW_SESSIONS: u64 = 64;

#[tonic::async_trait]
impl WorkerSessionService for Front {
    type SessionStream = Answers<CoordinatorMessage>;

    async fn session(
        &self,
        request: Request<Streaming<WorkerMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (_, extensions, messages) = request.into_parts();
        let call = self.open(&extensions, call_request::Request::WorkerConnect(WorkerConnect {})).await?;
        let (open, closed) = oneshot::channel();
        tokio::spawn(forward(messages, call.way(), closed));
        let mut response: Response<Self::SessionStream> = Response::new(downstream(call, open));
        let running = self.running()?;
        if running.figures().sessions <= FEW_SESSIONS {
            name_leader(&running, &mut response);
        }
        Ok(response)
    }

    async fn fetch_blob(&self, request: Request<FetchBlobRequest>) -> Result<Response<FetchBlobResponse>, Status> {
        unary!(self, request, FetchBlob, FetchBlob)
    }
}

/// Carries the worker's messages up, until it or the leader's end closes.
async fn forward(mut messages: Streaming<WorkerMessage>, way: Way, mut closed: oneshot::Receiver<()>) {
    loop {
        tokio::select! {
            _ = &mut closed => return,
            message = messages.message() => match message {
                // More than can wait: the worker comes back and says what it holds.
                Ok(Some(message)) => if !way.worker(message) {
                    return way.hang_up();
                },
                Ok(None) | Err(_) => return way.hang_up(),
            }
        }
    }
}

/// `open` is dropped with the stream.
fn downstream(call: Call, open: oneshot::Sender<()>) -> Answers<CoordinatorMessage> {
    Box::pin(futures::stream::unfold(Some((call, open)), |state| async move {
        let (mut call, open) = state?;
        match call.next().await? {
            Ok(call_response::Response::Coordinator(message)) => Some((Ok(message), Some((call, open)))),
            Ok(_) => Some((Err(status::internal("an answer of another kind")), None)),
            Err(refused) => Some((Err(status::from_refusal(&refused)), None)),
        }
    }))
}
