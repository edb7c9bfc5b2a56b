//! What coordinators do: they run, crash and come back, and their outputs are carried out.

use coordinator_core::{CallId, Output};
use proto::internal::{MemberReport, PeerMessage, call_response};
use proto::v1::coordinator_message;
use scheduler::NEWEST_RULES;

use super::{Event, TICK_US, World};
use crate::{
    call::Down,
    member::{Member, Wish},
    network::Place,
    plant::Plant,
    worker::Worker,
};

/// The `MsgRequestVoteResponse` of raft.
const VOTE: u32 = 6;

impl World {
    pub(super) fn runs(&self, member: usize, boot: u64) -> bool {
        self.members[member].boot == boot && self.members[member].process.is_some()
    }

    pub(super) fn member_of(&self, id: u64) -> Option<usize> {
        self.members.iter().position(|member| member.id == id)
    }

    pub(crate) fn restart(&mut self, member: usize) {
        if self.members[member].process.is_some() {
            return;
        }
        if let Err(failure) = self.members[member].start(self.plant, &mut self.random, self.now_us) {
            let detail = format!("member {} can't start after a crash: {failure}", self.members[member].id);
            return self.oracle.violated("promise 1", detail);
        }
        let boot = self.members[member].boot;
        let first_us = self.random.below(TICK_US);
        self.after(first_us, Event::MemberTick { member, boot });
        self.drive_member(member);
    }

    /// One that has just voted goes, and is back while others still ask for votes.
    pub(super) fn voter_dies(&mut self, member: usize) {
        self.count("voter died");
        self.crash_member(member, false);
        let back_us = 1_000 + self.random.skewed(200_000);
        self.after(back_us, Event::Restart { member });
    }

    /// Replaces an older release by the newest.
    pub(crate) fn upgrade(&mut self, member: usize) {
        if self.members[member].newest_rules == NEWEST_RULES {
            return;
        }
        self.members[member].newest_rules = NEWEST_RULES;
        self.count("upgraded");
        self.crash_member(member, false);
        self.restart(member);
    }

    pub(crate) fn crash_member(&mut self, member: usize, power: bool) {
        self.members[member].crash(power, &mut self.random);
        // A process that dies closes its connections; a machine that does leaves them hanging.
        let broken: Vec<CallId> = self
            .calls
            .by_id
            .iter()
            .filter(|(_, call)| call.front == member || call.leader == member)
            .map(|(id, _)| *id)
            .collect();
        for call in broken {
            self.break_call(call, !power);
        }
    }

    /// Does everything that a member wants, until it wants nothing more.
    pub(crate) fn drive_member(&mut self, member: usize) {
        let wishes = self.members[member].drive(self.plant, self.now_us);
        let (id, boot) = (self.members[member].id, self.members[member].boot);
        for wish in wishes {
            match wish {
                Wish::Send(message) => {
                    let votes = message.kind == VOTE && !message.reject;
                    self.send_peer(member, message);
                    if votes && !self.peaceful && self.workload.faults().of_coordinators() && self.random.chance(300) {
                        self.after(0, Event::VoterDies { member, boot });
                    }
                }
                Wish::SendSnapshot { message, content } => {
                    let delay_us = 10_000 + self.random.skewed(500_000);
                    self.after(delay_us, Event::SnapshotArrives { from: member, boot, message, content });
                }
                Wish::Sync => {
                    let sync_us = 20 + self.random.skewed(self.members[member].sync_us);
                    self.after(sync_us, Event::Synced { member, boot });
                }
                Wish::Store { index, term, state } => {
                    let delay_us = 1_000 + self.random.skewed(500_000);
                    self.after(delay_us, Event::Stored { member, boot, index, term, state });
                }
                Wish::StoreSegment { number, data } => self.store_segment(member, number, data),
                Wish::KeepSegments(segments) => self.keep_segments(member, &segments),
                Wish::ReadHistory { ticket, segments } => self.read_history(member, ticket, segments),
                Wish::Digest { index, state } => {
                    let digest = state.digest_of_all(|| {});
                    self.oracle_compares(id, index, digest);
                    let took_ms = 1 + self.random.skewed(200);
                    self.after(took_ms * 1_000, Event::Digested { member, boot, index, digest, took_ms });
                }
                Wish::Report(report) => self.send_report(member, &report),
                Wish::Role { term, leading, leader } => self.role_changed(member, term, leading, leader),
                Wish::Committed { index, term, data } => self.oracle_sees(index, term, &data),
                Wish::Core(output, applied) => self.core_output(member, output, applied),
            }
        }
        if let Some(process) = &self.members[member].process {
            let (index, digest) = (process.core.applied_index(), process.core.state().digest());
            self.oracle.digest(id, index, digest, &mut self.figures);
        }
    }

    /// With that bug planted the replicas have to find it themselves.
    fn oracle_compares(&mut self, member: u64, index: u64, digest: [u8; 32]) {
        if self.plant != Some(Plant::DifferingRecord) {
            self.oracle.digest_of_all(member, index, digest, &mut self.figures);
        }
    }

    fn send_report(&mut self, from: usize, report: &MemberReport) {
        for to in (0..3).filter(|to| *to != from) {
            let reaches = self.network.reaches(Place::Member(from), Place::Member(to));
            if reaches && !self.random.chance(self.network.loss_permille) {
                let delay_us = self.network.delay(&mut self.random);
                self.after(delay_us, Event::Report { to, report: Box::new(report.clone()) });
            }
        }
    }

    fn oracle_sees(&mut self, index: u64, term: u64, data: &bytes::Bytes) {
        let held = self.oracle.leases_about_to_end(data);
        let settled = self.oracle.state.settled_segments();
        for session in self.oracle.committed(self.now_us, index, term, data, &mut self.figures) {
            let of = |worker: &Worker| worker.standing.is_some_and(|standing| standing.session == session);
            if let Some(worker) = self.workers.iter().position(of) {
                self.watch.granted(worker, self.now_us);
            }
        }
        if self.oracle.state.settled_segments() > settled {
            self.check_segments();
        }
        for (session, keys) in held {
            if self.oracle.state.session(session).is_none() {
                for key in keys {
                    let delay_us = self.random.skewed(10_000_000);
                    self.after(delay_us, Event::Ghost { session, key });
                }
            }
        }
    }

    fn role_changed(&mut self, member: usize, term: u64, leading: bool, leader: Option<u64>) {
        let id = self.members[member].id;
        if leading {
            self.oracle.leads(term, id, &mut self.figures);
        }
        // A front closes what it relays to a leader that isn't one any more.
        let leader = leader.and_then(|leader| self.member_of(leader));
        if let Some(leader) = leader {
            let stale: Vec<CallId> = self
                .calls
                .by_id
                .iter()
                .filter(|(_, call)| call.front == member && call.leader != member && call.leader != leader)
                .filter(|(_, call)| !call.broken)
                .map(|(id, _)| *id)
                .collect();
            for call in stale {
                self.hang_up(call);
                self.break_call(call, true);
            }
        }
    }

    fn send_peer(&mut self, from: usize, message: PeerMessage) {
        let Some(to) = self.member_of(message.to) else { return };
        if !self.network.reaches(Place::Member(from), Place::Member(to))
            || self.random.chance(self.network.loss_permille)
        {
            let unreachable = replication::Input::Unreachable { to: message.to };
            if self.random.chance(300) {
                self.members[from].tell_replica(unreachable);
            }
            return;
        }
        let order = self.peer_order.get(&(from, to)).copied().unwrap_or(0);
        let at_us = (self.now_us + self.network.delay(&mut self.random)).max(order + 1);
        self.peer_order.insert((from, to), at_us);
        if self.random.chance(self.network.repeat_permille) {
            self.at(at_us, Event::Peer { to, message: message.clone() });
        }
        self.at(at_us, Event::Peer { to, message });
    }

    fn core_output(&mut self, member: usize, output: Output, applied: u64) {
        match output {
            Output::Respond { call, response } => {
                self.check_renewal(member, call, &response);
                self.check_read(member, call, applied);
                self.send_down(call, Down::Response(response));
            }
            Output::Finish { call, result } => self.send_down(call, Down::Finish(result)),
            Output::Halt { reason } => self.oracle.violated("I8", format!("a replica stopped: {reason}")),
            _ => {}
        }
    }

    /// A read sees all that was committed anywhere when it was asked for.
    fn check_read(&mut self, member: usize, call: CallId, applied: u64) {
        let Some(committed) = self.calls.by_id.get(&call).and_then(|call| call.sees) else { return };
        if applied < committed {
            let id = self.members[member].id;
            let detail = format!("member {id} answered a read at index {applied}, asked for after {committed}");
            self.oracle.violated("I7", detail);
        }
    }

    /// A renewal may be answered only by a leader that nobody had replaced when it arrived.
    fn check_renewal(&mut self, member: usize, call: CallId, response: &call_response::Response) {
        let call_response::Response::Coordinator(message) = response else { return };
        let Some(coordinator_message::Message::Renewed(renewed)) = &message.message else { return };
        let Some(arrived_us) = self.calls.by_id.get_mut(&call).and_then(|call| call.renewals.remove(&renewed.nonce))
        else {
            return;
        };
        let term = |member: &Member| member.process.as_ref().map(|process| process.replica.status().term);
        let mine = term(&self.members[member]);
        let newer = self.members.iter().find(|other| {
            other.process.as_ref().is_some_and(|process| {
                process.core.leads()
                    && term(other) > mine
                    && process.led_since_us.is_some_and(|since| since < arrived_us)
            })
        });
        if let Some(newer) = newer {
            let detail = format!(
                "member {} answered a renewal that arrived after member {} had taken over",
                self.members[member].id, newer.id
            );
            self.oracle.violated("L3", detail);
        }
    }
}
