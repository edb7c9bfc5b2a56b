//! Calls: through a front to the leader and back, and how they break.

use std::collections::BTreeMap;

use coordinator_core::{CallId, Input, answered_anywhere};
use proto::internal::{Caller, call_request, call_response};
use proto::v1::{WorkerMessage, worker_message};

use super::{Event, World};
use crate::{
    call::{Call, Down, Origin, Up},
    network::Place,
};

impl World {
    pub(super) fn open_call(
        &mut self,
        origin: Origin,
        front: usize,
        caller: Caller,
        request: call_request::Request,
    ) -> Option<CallId> {
        let process = self.members[front].process.as_ref()?;
        // Whoever answers it: the front itself, if any coordinator may.
        let leader = if answered_anywhere(&request) && self.random.chance(700) {
            front
        } else {
            self.member_of(process.leader?)?
        };
        let (front_boot, leader_boot) = (self.members[front].boot, self.members[leader].boot);
        let call = self.calls.add(Call {
            origin,
            front,
            leader,
            front_boot,
            leader_boot,
            broken: false,
            last_up_us: 0,
            last_down_us: 0,
            sees: answered_anywhere(&request).then(|| self.oracle.applied()),
            renewals: BTreeMap::new(),
        });
        self.send_up(call, Up::Open { caller, request });
        Some(call)
    }

    /// Sends along an open connection; what gets lost breaks it.
    pub(super) fn send_up(&mut self, id: CallId, up: Up) {
        let Some(call) = self.calls.by_id.get_mut(&id) else { return };
        let origin = place(call.origin);
        let (front, leader) = (Place::Member(call.front), Place::Member(call.leader));
        if call.broken || !self.network.reaches(origin, front) || !self.network.reaches(front, leader) {
            call.broken = true;
            return;
        }
        let delay_us = self.network.delay(&mut self.random);
        call.last_up_us = (self.now_us + delay_us).max(call.last_up_us + 1);
        let at_us = call.last_up_us;
        self.at(at_us, Event::Up { call: id, up });
    }

    pub(super) fn send_down(&mut self, id: CallId, down: Down) {
        let Some(call) = self.calls.by_id.get_mut(&id) else { return };
        let origin = place(call.origin);
        let (front, leader) = (Place::Member(call.front), Place::Member(call.leader));
        if call.broken || !self.network.reaches(leader, front) || !self.network.reaches(front, origin) {
            call.broken = true;
            return;
        }
        let delay_us = self.network.delay(&mut self.random);
        call.last_down_us = (self.now_us + delay_us).max(call.last_down_us + 1);
        let at_us = call.last_down_us;
        self.at(at_us, Event::Down { call: id, down });
    }

    pub(super) fn arrives_above(&mut self, id: CallId, up: Up) {
        let Some(call) = self.calls.by_id.get_mut(&id) else { return };
        let (leader, boot) = (call.leader, call.leader_boot);
        if let Up::Worker(WorkerMessage { message: Some(worker_message::Message::Renew(renew)) }) = &up {
            call.renewals.insert(renew.nonce, self.now_us);
        }
        let renews = |message: &worker_message::Message| {
            matches!(message, worker_message::Message::Renew(_) | worker_message::Message::Open(_))
        };
        if let (Up::Worker(message), Origin::Worker { worker, .. }) = (&up, call.origin)
            && message.message.as_ref().is_some_and(renews)
        {
            self.watch.renewed(worker, self.now_us);
        }
        let broken = call.broken;
        if !self.runs(leader, boot) {
            return;
        }
        let input = match up {
            Up::Hangup => Input::Hangup { call: id },
            _ if broken => return,
            Up::Open { caller, request } => Input::Open { call: id, caller, request },
            Up::Worker(message) => Input::Worker { call: id, message },
        };
        self.members[leader].tell_core(input, self.now_us);
        self.drive_member(leader);
    }

    pub(super) fn arrives_below(&mut self, id: CallId, down: Down) {
        let Some(call) = self.calls.by_id.get(&id) else { return };
        if call.broken || self.members[call.front].boot != call.front_boot {
            return;
        }
        let origin = call.origin;
        let over = matches!(down, Down::Finish(_));
        match (origin, down) {
            (Origin::Client { client, operation }, down) => self.client_hears(client, operation, id, down),
            (
                Origin::Worker { worker, incarnation, stream },
                Down::Response(call_response::Response::Coordinator(message)),
            ) => {
                if self.workers[worker].incarnation == incarnation {
                    self.tell_worker(worker, worker_core::Input::Received { stream, message });
                }
            }
            (Origin::Worker { .. }, Down::Response(_)) => {}
            (Origin::Worker { worker, incarnation, stream }, Down::Finish(_)) => {
                if self.workers[worker].incarnation == incarnation {
                    self.tell_worker(worker, worker_core::Input::StreamClosed { stream, elsewhere: true });
                }
            }
        }
        if over {
            self.calls.by_id.remove(&id);
        }
    }

    /// The connection is gone; whoever opened the call may learn of it.
    pub(super) fn break_call(&mut self, id: CallId, told: bool) {
        let Some(call) = self.calls.by_id.get_mut(&id) else { return };
        call.broken = true;
        let origin = call.origin;
        if told && let Origin::Worker { worker, incarnation, stream } = origin {
            let delay_us = self.random.below(200_000);
            let input = Box::new(worker_core::Input::StreamClosed { stream, elsewhere: true });
            self.after(delay_us, Event::Tell { worker, incarnation, input });
        }
    }

    /// Whoever opened the call has gone: the leader learns of it, if anything gets through.
    pub(super) fn hang_up(&mut self, id: CallId) {
        self.send_up(id, Up::Hangup);
    }
}

fn place(origin: Origin) -> Place {
    match origin {
        Origin::Client { client, .. } => Place::Client(client),
        Origin::Worker { worker, .. } => Place::Worker(worker),
    }
}
