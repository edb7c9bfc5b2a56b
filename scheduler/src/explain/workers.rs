//! What the workers say to a job, counted: by the predicates of the planner.

use std::collections::BTreeMap;

use proto::v1::{Reason, WaitReason};

use super::{Pool, feasible, reason};
use crate::{
    State,
    ask::Ask,
    session::Session,
    shape::{Resource, Shape},
};

/// What a worker says to what is asked for.
enum Obstacle {
    /// It could start a task now.
    None,
    Draining,
    Cordoned,
    Quarantined,
    Silent,
    /// A label that it must have.
    Constraint(String),
    /// It has room, which is kept for this job.
    Kept(u64),
    Lacking(Vec<Resource>),
}

impl State {
    fn obstacle(&self, id: u64, session: &Session, number: u64, ask: &Ask) -> Obstacle {
        if session.draining.is_some() {
            return Obstacle::Draining;
        }
        if session.health.quarantined.is_some() {
            return Obstacle::Quarantined;
        }
        if session.cordoned.is_some() {
            return Obstacle::Cordoned;
        }
        if session.silent_since_ms.is_some() {
            return Obstacle::Silent;
        }
        if let Some(constraint) = ask.unmet(&session.about) {
            return Obstacle::Constraint(constraint.describe());
        }
        let free = session.free();
        if !ask.shapes.iter().any(|shape| shape.fits(&free)) {
            return Obstacle::Lacking(ask.shape().lacking(&free).collect());
        }
        let kept = self.queues.values().filter_map(|queue| queue.reservation).find(|kept| kept.session == number);
        match kept {
            Some(kept) if self.is_kept_from(id, &kept) && !self.fits_beside(&kept, &free, ask) => {
                Obstacle::Kept(kept.job)
            }
            Some(_) | None => Obstacle::None,
        }
    }

    /// Whether room is kept for others than a job, and not only for one behind it.
    fn is_kept_from(&self, id: u64, kept: &crate::queue::Reservation) -> bool {
        kept.job != id && !self.stands_before(id, kept.job)
    }

    /// Whether a task leaves as much as is kept there. (One with a time limit may start in spite of it.)
    fn fits_beside(&self, kept: &crate::queue::Reservation, free: &Shape, ask: &Ask) -> bool {
        let Some(job) = self.jobs.get(kept.job) else { return true };
        ask.shapes.iter().any(|shape| shape.fits(&free.less(job.terms.shape())))
    }

    /// What the workers say, counted; empty when one could start a task now.
    pub(super) fn reasons_of_workers(&self, id: u64, ask: &Ask, pools: &[Pool]) -> Vec<Reason> {
        let all = self.sessions.len() as u32;
        if all == 0 {
            let detail = match feasible(&ask.shapes, pools) {
                Ok(()) => "no worker has joined".to_owned(),
                Err(most) => format!("no worker has joined, and {most}"),
            };
            return vec![reason(WaitReason::NoWorkers, 0, detail, "start a worker")];
        }
        let mut lacking: BTreeMap<Resource, (u32, u64)> = BTreeMap::new();
        let mut constraints: BTreeMap<String, u32> = BTreeMap::new();
        let mut kept: BTreeMap<u64, u32> = BTreeMap::new();
        let (mut draining, mut cordoned, mut quarantined, mut silent) = (0, 0, 0, 0);
        for (number, session) in &self.sessions {
            match self.obstacle(id, session, *number, ask) {
                Obstacle::None => return Vec::new(),
                Obstacle::Draining => draining += 1,
                Obstacle::Cordoned => cordoned += 1,
                Obstacle::Quarantined => quarantined += 1,
                Obstacle::Silent => silent += 1,
                Obstacle::Constraint(text) => *constraints.entry(text).or_default() += 1,
                Obstacle::Kept(job) => *kept.entry(job).or_default() += 1,
                Obstacle::Lacking(resources) => {
                    for resource in resources {
                        let (workers, most) = lacking.entry(resource).or_default();
                        *workers += 1;
                        *most = (*most).max(session.free().amount(resource));
                    }
                }
            }
        }
        let of = |workers: u32| format!("{workers} of {all} workers");
        let mut reasons = Vec::new();
        let holds =
            |session: &Session| session.accepts() && ask.shapes.iter().any(|shape| shape.fits(&session.about.capacity));
        let large_enough = self.sessions.values().any(holds);
        for (resource, (workers, most)) in lacking {
            let (asked, free) = (resource.amount(ask.shape().amount(resource)), resource.amount(most));
            let detail = format!("{}: {} {asked} asked, {free} free at most", of(workers), resource.name());
            let advice = if large_enough { "it starts when running tasks end" } else { "" };
            reasons.push(reason(reason_of(resource), workers, detail, advice));
        }
        for (text, workers) in constraints {
            let detail = format!("{}: not {text}", of(workers));
            reasons.push(reason(WaitReason::Constraint, workers, detail, "add such workers, or submit it without"));
        }
        for (job, workers) in kept {
            let detail = format!("{}: room is kept there for job {job}, which comes before it", of(workers));
            let advice = "a `--time` limit lets it start there if it will have ended by then";
            reasons.push(reason(WaitReason::Priority, workers, detail, advice));
        }
        if draining > 0 {
            let detail = format!("{}: drained, they get no further tasks", of(draining));
            reasons.push(reason(WaitReason::WorkerDraining, draining, detail, "a worker that joins anew takes tasks"));
        }
        for (workers, what) in [(cordoned, "cordoned"), (quarantined, "quarantined, since everything failed there")] {
            if workers > 0 {
                let detail = format!("{}: {what}", of(workers));
                let advice = "`millgrid worker uncordon NAME` lets one take tasks again";
                reasons.push(reason(WaitReason::WorkerDraining, workers, detail, advice));
            }
        }
        if silent > 0 {
            let detail = format!("{}: not heard of for half their time", of(silent));
            reasons.push(reason(WaitReason::NoWorkers, silent, detail, "look at those machines and their network"));
        }
        if !large_enough {
            let detail = format!("no worker is large enough for {}, even when idle", ask.shape().describe());
            let advice = "ask for less, or add larger workers";
            reasons.push(reason(WaitReason::NoCapacity, all, detail, advice));
        }
        reasons
    }
}

fn reason_of(resource: Resource) -> WaitReason {
    match resource {
        Resource::Cpu => WaitReason::ResourcesCpu,
        Resource::Memory => WaitReason::ResourcesMemory,
        Resource::Gpu => WaitReason::ResourcesGpu,
        Resource::Scratch => WaitReason::ResourcesScratch,
    }
}
