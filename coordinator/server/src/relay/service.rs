//! The leader's end of the relays.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use coordinator_core::{CallId, Input, allows, refusal};
use futures::Stream;
use proto::internal::{
    Caller, GetMemberStatusRequest, MemberReport, Refusal, RelayDown, RelayUp, ReportResponse, call_request,
    relay_service_server::RelayService, relay_up,
};
use proto::v1::{MemberStatus, Role, StreamJobsRequest, WorkerMessage};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    calls::{CoreHandle, Delivery, Sink, overloaded},
    identity::Identity,
    inbox::Lane,
    member::{Member, Running},
    status,
};

/// Answers that may wait for one front. One that is further behind is cut off.
const WAITING_ANSWERS: usize = 65_536;

/// Takes the calls that other members relay.
pub struct Relays {
    member: Arc<Member>,
}

impl Relays {
    /// The service of this member.
    pub fn new(member: Arc<Member>) -> Self {
        Self { member }
    }
}

type Down = Pin<Box<dyn Stream<Item = Result<RelayDown, Status>> + Send>>;

#[tonic::async_trait]
impl RelayService for Relays {
    type RelayStream = Down;

    async fn relay(&self, request: Request<Streaming<RelayUp>>) -> Result<Response<Down>, Status> {
        let running = self.member.running()?;
        let front = running.peer_of(&request)?;
        let leadership = *running.leadership().borrow();
        if !leadership.leading {
            return Err(status::from_refusal(&not_leading()));
        }
        let (sender, receiver) = mpsc::channel(WAITING_ANSWERS);
        let stream = Front { running, identity: front, down: sender, calls: Arc::default() };
        tokio::spawn(stream.serve(request.into_inner(), leadership.term));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn get_member_status(
        &self,
        request: Request<GetMemberStatusRequest>,
    ) -> Result<Response<MemberStatus>, Status> {
        let running = self.member.running()?;
        running.peer_of(&request)?;
        running.own_status(request.into_inner().digest_index).await.map(Response::new)
    }

    async fn report(&self, request: Request<MemberReport>) -> Result<Response<ReportResponse>, Status> {
        let running = self.member.running()?;
        let sender = running.member_named_by(&request)?;
        let report = request.into_inner();
        if report.from != sender || report.cluster_id != running.cluster_id() {
            let message = "a report in another member's name, or of another cluster";
            return Err(status::refused(tonic::Code::PermissionDenied, "WRONG_PEER", message, "", ""));
        }
        running.core().inbox().push(Input::Reported(Box::new(report)));
        Ok(Response::new(ReportResponse {}))
    }
}

fn not_leading() -> Refusal {
    refusal::refusal(refusal::Code::Unavailable, refusal::NOT_LEADER, "this coordinator doesn't lead", "call again")
}

/// The open calls of one front, by its numbers. Shared with their sinks: whoever ends a call removes it.
#[derive(Default)]
pub struct RelayedCalls(Mutex<HashMap<u64, (CallId, Lane)>>);

impl RelayedCalls {
    /// Forgets a call that is over.
    pub fn remove(&self, number: u64) -> Option<(CallId, Lane)> {
        self.lock().remove(&number)
    }

    fn get(&self, number: u64) -> Option<(CallId, Lane)> {
        self.lock().get(&number).copied()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, (CallId, Lane)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One front's stream.
struct Front {
    running: Arc<Running>,
    identity: Arc<Identity>,
    down: mpsc::Sender<Result<RelayDown, Status>>,
    calls: Arc<RelayedCalls>,
}

impl Front {
    async fn serve(self, mut up: Streaming<RelayUp>, term: u64) {
        let mut leadership = self.running.leadership();
        loop {
            tokio::select! {
                frame = up.message() => match frame {
                    Ok(Some(frame)) => self.take(frame),
                    Ok(None) | Err(_) => break,
                },
                () = self.down.closed() => break,
                changed = leadership.changed() => {
                    let present = *leadership.borrow_and_update();
                    if changed.is_err() || !present.leading || present.term != term {
                        // What the core still has to say about these calls is said to nobody: the front fails them
                        // all alike.
                        let _ = self.down.try_send(Err(status::from_refusal(&not_leading())));
                        break;
                    }
                }
            }
        }
        let open = std::mem::take(&mut *self.calls.lock());
        for (call, lane) in open.into_values() {
            self.running.core().inbox().follow(lane, Input::Hangup { call });
        }
    }

    fn take(&self, frame: RelayUp) {
        let core: &CoreHandle = self.running.core();
        match (frame.frame, self.calls.get(frame.call)) {
            (Some(relay_up::Frame::Open(open)), None) => {
                let request = open.request.and_then(|request| request.request);
                if let Err(refusal) = self.open(frame.call, open.caller, request) {
                    self.sink(frame.call).deliver(Delivery::End(Some(Box::new(refusal))));
                }
            }
            (Some(relay_up::Frame::Worker(message)), Some((call, _))) => {
                self.worker(frame.call, call, message);
            }
            (Some(relay_up::Frame::Stream(message)), Some((call, _))) => self.stream(frame.call, call, message),
            (Some(relay_up::Frame::Taken(count)), Some((call, lane))) => {
                core.inbox().follow(lane, Input::Taken { call, count });
            }
            (Some(relay_up::Frame::Hangup(_)), Some(_)) => self.hang_up(frame.call),
            // Frames of a call that is over already, or no frame at all.
            _ => {}
        }
    }

    fn open(&self, number: u64, caller: Option<Caller>, request: Option<call_request::Request>) -> Result<(), Refusal> {
        let (Some(caller), Some(request)) = (caller, request) else {
            return Err(refusal::invalid(
                "request",
                "a call of a release that this coordinator doesn't know",
                "upgrade it",
            ));
        };
        // The front has asked the same of the certificate; the leader takes nobody's word for the method.
        let role = caller.role();
        let own = role != Role::Coordinator || caller.name == self.identity.name;
        if !own || !allows(&request).contains(&role) {
            return Err(refusal::refusal(
                refusal::Code::PermissionDenied,
                "PERMISSION_DENIED",
                format!("`{}` may not make this call", caller.name),
                "use a certificate of another role",
            ));
        }
        if let call_request::Request::TransferLeader(request) = request {
            return self.running.begin_transfer(&request.member);
        }
        // Locked over both, so that an answer that comes at once finds what it removes.
        let mut calls = self.calls.lock();
        let opened = self.running.core().open(caller, request, self.sink(number)).ok_or_else(overloaded)?;
        calls.insert(number, opened);
        Ok(())
    }

    fn worker(&self, number: u64, call: CallId, message: WorkerMessage) {
        if self.running.core().worker(call, message).is_err() {
            // Its place in the numbered stream is lost: the worker must come back and say what it holds.
            self.hang_up(number);
            self.sink(number).deliver(Delivery::End(Some(Box::new(overloaded()))));
        }
    }

    fn stream(&self, number: u64, call: CallId, message: StreamJobsRequest) {
        if self.running.core().stream(call, message).is_err() {
            // The stream would have a gap from here on; its client sends again what was not answered.
            self.hang_up(number);
            self.sink(number).deliver(Delivery::End(Some(Box::new(overloaded()))));
        }
    }

    fn sink(&self, call: u64) -> Sink {
        Sink::Relay { call, calls: Arc::clone(&self.calls), down: self.down.clone() }
    }

    fn hang_up(&self, number: u64) {
        if let Some((call, lane)) = self.calls.remove(number) {
            self.running.core().inbox().follow(lane, Input::Hangup { call });
        }
    }
}
