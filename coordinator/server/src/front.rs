//! What callers reach: every public method becomes one call of the core that leads, here or elsewhere.

mod cluster;
mod jobs;
mod logs;
mod queues;
mod sessions;
mod stored;
mod streams;
mod workers;

use std::{pin::Pin, sync::Arc, time::Duration};

use coordinator_core::{allows, answered_anywhere, refusal};
use futures::{Stream, stream};
use proto::internal::{call_request, call_response};
use tokio::time::{Instant, sleep_until};
use tonic::{Code, Extensions, Response, Status};

use crate::{
    calls::{Call, Sink, Way, overloaded},
    identity::Identity,
    member::{Member, Running},
    relay::NotSent,
    status,
};

pub use stored::Stored;

/// Without a leader a worker's stream is held for so long, and then refused.
const STREAM_WAIT: Duration = Duration::from_secs(3);
/// A client's call only so long: whoever has little time is told that there is no leader, and others ask again.
const CALL_WAIT: Duration = Duration::from_millis(750);

/// The public services of one member.
#[derive(Clone)]
pub struct Front {
    member: Arc<Member>,
    stored: Arc<Stored>,
}

/// In the head of a stream: the address of the leader, where that is another coordinator.
const LEADER: &str = "millgrid-leader";

/// Messages for a caller.
pub type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Front {
    /// The services of `member`, which reads the logs of ended tasks from `stored`.
    pub fn new(member: Arc<Member>, stored: Arc<Stored>) -> Self {
        Self { member, stored }
    }

    /// Makes a call that has one answer. One that no leader had taken yet is made again until a leader does.
    async fn unary(
        &self,
        extensions: &Extensions,
        request: call_request::Request,
    ) -> Result<call_response::Response, Status> {
        let deadline = Instant::now() + CALL_WAIT;
        let mut anywhere = answered_anywhere(&request);
        loop {
            let mut call = self.open_until(extensions, request.clone(), anywhere, deadline).await?;
            match call.next().await {
                Some(Ok(response)) => return Ok(response),
                Some(Err(refused)) if refused.reason == refusal::NOT_LEADER && Instant::now() < deadline => {
                    // This member may be too far behind, which the leader never is.
                    anywhere = false;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Some(Err(refused)) => return Err(status::from_refusal(&refused)),
                None => return Err(status::internal("the call ended without an answer")),
            }
        }
    }

    /// Opens a call at whoever leads, as soon as somebody does.
    async fn open(&self, extensions: &Extensions, request: call_request::Request) -> Result<Call, Status> {
        let wait = if matches!(request, call_request::Request::WorkerConnect(_)) { STREAM_WAIT } else { CALL_WAIT };
        let anywhere = answered_anywhere(&request);
        self.open_until(extensions, request, anywhere, Instant::now() + wait).await
    }

    async fn open_until(
        &self,
        extensions: &Extensions,
        request: call_request::Request,
        anywhere: bool,
        deadline: Instant,
    ) -> Result<Call, Status> {
        let identity = identity(extensions)?;
        if !allows(&request).contains(&identity.role) {
            return Err(status::refused(
                Code::PermissionDenied,
                "PERMISSION_DENIED",
                &format!("`{}` may not make this call", identity.name),
                "use a certificate of another role",
                "",
            ));
        }
        route(&*self.member.running()?, &identity, request, anywhere, deadline).await
    }

    fn running(&self) -> Result<Arc<Running>, Status> {
        self.member.running()
    }
}

/// Tells whoever is in a hurry, and knows its address, that they can go to the leader itself.
fn name_leader<T>(running: &Running, response: &mut Response<T>) {
    if let Some(Ok(leader)) = running.other_leader_address().map(str::parse) {
        response.metadata_mut().insert(LEADER, leader);
    }
}

/// Who calls, as the layer in front of all handlers has put it there.
fn identity(extensions: &Extensions) -> Result<Arc<Identity>, Status> {
    extensions.get::<Arc<Identity>>().cloned().ok_or_else(|| Status::unauthenticated("unknown caller"))
}

/// Hands a call to the core that leads, here or behind a relay, or with `anywhere` to the one here, whoever leads; waits
/// for a leader until `deadline`.
pub async fn route(
    running: &Running,
    identity: &Identity,
    mut request: call_request::Request,
    anywhere: bool,
    deadline: Instant,
) -> Result<Call, Status> {
    let (mut leadership, mut links) = (running.leadership(), running.links());
    let mut caller = identity.caller();
    loop {
        let leads = *leadership.borrow_and_update();
        let link = links.borrow_and_update().clone();
        if leads.leading || (anywhere && leads.leader.is_some()) {
            let (sender, answers) = Call::channel();
            let core = running.core();
            let (call, lane) =
                core.open(caller, request, Sink::Caller(sender)).ok_or_else(|| status::from_refusal(&overloaded()))?;
            return Ok(Call::new(answers, Way::Own { core: core.clone(), call, lane }));
        }
        if let Some(link) = link.filter(|link| link.term == leads.term) {
            match link.open(caller, request) {
                Ok(call) => return Ok(call),
                Err(NotSent::Full) => return Err(status::from_refusal(&overloaded())),
                Err(NotSent::Broken(its_caller, its_request)) => {
                    caller = its_caller;
                    request = *its_request;
                }
            }
        }
        tokio::select! {
            changed = leadership.changed() => changed.map_err(|_| status::no_leader())?,
            changed = links.changed() => changed.map_err(|_| status::no_leader())?,
            () = sleep_until(deadline) => return Err(status::no_leader()),
        }
    }
}

/// The messages of a call, as `pick` reads them; each is told to the core once it has left.
fn answers<T: Send + 'static>(call: Call, pick: fn(call_response::Response) -> Option<T>) -> Answers<T> {
    Box::pin(stream::unfold(Some(call), move |call| async move {
        let mut call = call?;
        match call.next().await? {
            Ok(response) => match pick(response) {
                Some(message) => {
                    call.taken();
                    Some((Ok(message), Some(call)))
                }
                None => Some((Err(status::internal("an answer of another kind")), None)),
            },
            Err(refused) => Some((Err(status::from_refusal(&refused)), None)),
        }
    }))
}

/// Makes the call of a unary method and picks its answer.
macro_rules! unary {
    ($front:expr, $request:expr, $ask:ident, $answer:ident) => {{
        let (_, extensions, message) = $request.into_parts();
        let request = proto::internal::call_request::Request::$ask(message);
        match $front.unary(&extensions, request).await? {
            proto::internal::call_response::Response::$answer(answer) => Ok(tonic::Response::new(answer)),
            _ => Err($crate::status::internal("an answer of another kind")),
        }
    }};
}
use unary;
