//! What must not go on for long: a lease without a worker that renews (L3), and an idle worker while something waits
//! that may start there (L4). Looked at ten times a second, and only while nothing is wrong that would excuse it.

use proto::v1::{JobState, Reason, WaitReason};
use scheduler::{Instruction, JobFilter};

use super::{Event, World};
use crate::member::Member;

const LOOK_US: u64 = 100_000;
/// Nothing may have been wrong with coordinators or a worker for so long: by then it is connected and has renewed.
const SETTLED_US: u64 = 10_000_000;
/// A worker is idle for so long at most while something may start there.
const IDLE_US: u64 = 2_000_000;
/// A new leader waits so long for sessions that it doesn't hear of, and a settled one so long. A tick, a round and an
/// entry come on top.
const FAILOVER_US: u64 = 60_000_000;
const EXPIRY_US: u64 = 36_000_000;

/// Since when all has been as it should.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// The leader whose calm it is, as (member, boot, term).
    leader: Option<(usize, u64, u64)>,
    calm_since_us: u64,
    workers: Vec<Standing>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Standing {
    /// When a renewal of it last came to a leader.
    renewed_us: u64,
    well_since_us: u64,
    /// It has had nothing since, though something might have started there at each look.
    idle_since_us: u64,
}

impl Watch {
    pub(super) fn new(workers: usize) -> Self {
        Self { workers: vec![Standing::default(); workers], ..Self::default() }
    }

    pub(super) fn renewed(&mut self, worker: usize, now_us: u64) {
        self.workers[worker].renewed_us = now_us;
    }

    /// A worker was granted something.
    pub(super) fn granted(&mut self, worker: usize, now_us: u64) {
        self.workers[worker].idle_since_us = now_us;
    }
}

impl World {
    pub(super) fn watch(&mut self) {
        self.after(LOOK_US, Event::Watch);
        let leader = self.calm_leader();
        if leader.is_none() || leader != self.watch.leader {
            self.watch.leader = leader;
            self.watch.calm_since_us = self.now_us;
        }
        for worker in 0..self.workers.len() {
            if !leader.is_some_and(|(leader, ..)| self.is_well(worker, leader)) {
                self.watch.workers[worker].well_since_us = self.now_us;
            }
        }
        self.check_renewing();
        self.check_idle();
    }

    /// The leader, if no coordinator has anything to excuse itself with.
    fn calm_leader(&self) -> Option<(usize, u64, u64)> {
        let calm = |member: &Member| {
            member.process.is_some() && member.paused_until_us <= self.now_us && member.sync_us <= 1_000
        };
        if !self.members.iter().all(calm) || !self.network.is_calm_among_members() {
            return None;
        }
        let term = |member: &Member| member.process.as_ref().map_or(0, |process| process.replica.status().term);
        let leads = |member: &Member| member.process.as_ref().is_some_and(|process| process.core.leads());
        let leading = self.members.iter().enumerate().filter(|(_, member)| leads(member));
        let (leader, member) = leading.max_by_key(|(_, member)| term(member))?;
        Some((leader, member.boot, term(member)))
    }

    /// Whether a worker has nothing to excuse itself with: it runs, is connected and may be granted tasks.
    fn is_well(&self, worker: usize, leader: usize) -> bool {
        let one = &self.workers[worker];
        let paused = one.agent_paused_until_us.max(one.machine_paused_until_us) > self.now_us;
        let call = one.stream.and_then(|(_, call)| self.calls.by_id.get(&call));
        let connected = call.is_some_and(|call| call.leader == leader && !call.broken);
        let session = one.standing.and_then(|standing| self.oracle.state.session(standing.session));
        let accepts = session.is_some_and(|session| !session.draining && session.silent_since_ms.is_none());
        one.agent.is_some() && !paused && connected && accepts && self.network.reaches_all_members(worker)
    }

    /// L3: whoever holds leases has renewed.
    fn check_renewing(&mut self) {
        if self.now_us < self.watch.calm_since_us + FAILOVER_US {
            return;
        }
        let late = self.oracle.state.sessions().find_map(|session| {
            let worker = self.workers.iter().position(|worker| worker.name == session.worker)?;
            let silence_us = self.now_us - self.watch.workers[worker].renewed_us;
            (silence_us > EXPIRY_US).then_some((session, silence_us / 1_000))
        });
        if let Some((session, silence_ms)) = late {
            let detail = format!(
                "session {} of {} lives, whose last renewal came {silence_ms} ms ago, and the leader {} ms",
                session.id,
                session.worker,
                (self.now_us - self.watch.calm_since_us) / 1_000,
            );
            self.oracle.violated("L3", detail);
        }
    }

    /// L4: nobody idles while something may start.
    fn check_idle(&mut self) {
        for worker in 0..self.workers.len() {
            let standing = self.watch.workers[worker];
            let settled_us = standing.well_since_us.max(self.watch.calm_since_us) + SETTLED_US;
            let waits = if self.now_us < settled_us { None } else { self.what_might_start(worker) };
            let Some(job) = waits else {
                self.watch.workers[worker].idle_since_us = self.now_us;
                continue;
            };
            if self.now_us > standing.idle_since_us + IDLE_US {
                let idle_ms = (self.now_us - standing.idle_since_us) / 1_000;
                let name = &self.workers[worker].name;
                let why = self.oracle.why_not_ended(job);
                let detail =
                    format!("{name} has been idle for {idle_ms} ms, and nothing is said against a start of {why}");
                return self.oracle.violated("L4", detail);
            }
        }
    }

    /// A job of which a task waits that might start on this worker, which has nothing to do.
    fn what_might_start(&self, worker: usize) -> Option<u64> {
        let one = &self.workers[worker];
        let state = &self.oracle.state;
        let granted = |instruction: &Instruction| matches!(instruction, Instruction::Grant { .. });
        if state.instructions_of(one.standing?.session).iter().any(granted) {
            return None;
        }
        let filter = JobFilter { states: vec![JobState::Queued, JobState::Running], ..JobFilter::default() };
        let jobs = state.jobs(&filter, None, 1_000).jobs;
        let fits = |job: u64| {
            let asked = state.submission(job);
            asked.is_some_and(|asked| {
                let mut shapes = asked.alternatives.iter().chain([&asked.resources]);
                shapes.any(|shape| {
                    shape.cpu_milli <= one.capacity.cpu_milli && shape.memory_mib <= one.capacity.memory_mib
                })
            })
        };
        let queued = jobs.iter().filter(|job| job.tasks.is_some_and(|tasks| tasks.queued > 0));
        queued.map(|job| job.id).filter(|job| fits(*job)).find(|job| {
            let explained = state.explain(*job, None, &[]);
            explained.is_some_and(|explained| !explained.reasons.iter().any(holds_up))
        })
    }
}

/// Whether a reason keeps a task from starting, and not only behind another that would start instead.
fn holds_up(reason: &Reason) -> bool {
    match reason.reason() {
        WaitReason::FairShare => false,
        // Of workers it is said where room is kept for somebody.
        WaitReason::Priority => reason.workers > 0,
        _ => true,
    }
}
