//! A worker as it will be when the plan is applied.

use std::cell::Cell;

use crate::{
    ask::Ask,
    session::{About, Session},
    shape::Shape,
};

#[derive(Debug)]
pub(super) struct Worker<'s> {
    pub session: u64,
    pub about: &'s About,
    pub free: Shape,
    /// What it holds ahead of need.
    pub ahead: usize,
    pub sated: bool,
    pub leases: usize,
    /// The job of which it was granted a task last in this plan; 0: none.
    pub granted: u64,
    /// Room that is kept there for a job.
    pub kept: Option<Kept>,
}

/// Room kept on a worker.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub job: u64,
    pub shape: Shape,
    /// Log time at which there will be so much, as far as time limits say.
    pub start_ms: u64,
    /// Somebody would have taken of it.
    pub mattered: Cell<bool>,
}

impl<'s> Worker<'s> {
    pub fn new(id: u64, session: &'s Session) -> Self {
        Self {
            session: id,
            about: &session.about,
            free: session.free(),
            ahead: session.holds.ahead.len(),
            sated: session.sated,
            leases: session.holds.leases.len(),
            granted: 0,
            kept: None,
        }
    }

    /// The share of its cpus that is free.
    pub fn share(&self) -> f64 {
        self.free.cpu_milli as f64 / self.about.capacity.cpu_milli.max(1) as f64
    }

    /// Whether it could ever run what is asked for.
    pub fn could_hold(&self, ask: &Ask, shape: &Shape) -> bool {
        ask.unmet(self.about).is_none() && shape.fits(&self.about.capacity)
    }

    /// Whether a task may start there now: there is room, and it delays nobody for whom room is kept, since it leaves
    /// as much or will have ended by then.
    pub fn fits(&self, ask: &Ask, shape: &Shape, now_ms: u64) -> bool {
        if !shape.fits(&self.free) {
            return false;
        }
        let Some(kept) = &self.kept else { return true };
        let in_time = ask.time_limit_ms > 0 && now_ms.saturating_add(ask.time_limit_ms) <= kept.start_ms;
        let beside = shape.fits(&self.free.less(&kept.shape));
        if !in_time && !beside {
            kept.mattered.set(true);
        }
        in_time || beside
    }
}
