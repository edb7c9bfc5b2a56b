//! Calls under way: from a client or a worker through a front to the leader and back.

use std::collections::BTreeMap;

use coordinator_core::CallId;
use proto::{
    internal::{Caller, Refusal, call_request, call_response},
    v1::WorkerMessage,
};

/// Who opened a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Client { client: usize, operation: u64 },
    Worker { worker: usize, incarnation: u64, stream: u64 },
}

/// A call, as long as both ends know of it.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) origin: Origin,
    pub(crate) front: usize,
    pub(crate) leader: usize,
    /// Processes that were restarted know nothing of it.
    pub(crate) front_boot: u64,
    pub(crate) leader_boot: u64,
    /// A message was lost: nothing more gets through, as in a connection that hangs.
    pub(crate) broken: bool,
    /// Messages arrive in order.
    pub(crate) last_up_us: u64,
    pub(crate) last_down_us: u64,
    /// Of a read: what was committed, as some replica knew, when it was asked for.
    pub(crate) sees: Option<u64>,
    /// When the newest renewal arrived at the leader, by nonce.
    pub(crate) renewals: BTreeMap<u64, u64>,
}

/// What goes up.
#[derive(Debug, Clone)]
pub(crate) enum Up {
    Open { caller: Caller, request: call_request::Request },
    Worker(WorkerMessage),
    Hangup,
}

/// What comes down.
#[derive(Debug, Clone)]
pub(crate) enum Down {
    Response(call_response::Response),
    Finish(Result<(), Refusal>),
}

/// All calls, by number.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    pub(crate) by_id: BTreeMap<CallId, Call>,
    last: u64,
}

impl Calls {
    pub(crate) fn add(&mut self, call: Call) -> CallId {
        self.last += 1;
        let id = CallId(self.last);
        self.by_id.insert(id, call);
        id
    }
}
