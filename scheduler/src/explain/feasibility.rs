//! What the pools could ever hold, and what the workers could start now.

use proto::{
    internal::JobSubmission,
    ranges,
    v1::{Resources, plan_jobs_response::JobPlan},
};

use super::Pool;
use crate::{
    State,
    ask::Ask,
    shape::{Resource, Shape},
};

impl Pool {
    /// Whether the largest instance of some pool could hold one such task, in one of the ways it asks for. `Err` says,
    /// for each pool, what lacks and what is the most that could be asked.
    pub fn feasible(pools: &[Self], resources: &Resources, alternatives: &[Resources]) -> Result<(), String> {
        let shapes: Vec<Shape> = std::iter::once(resources).chain(alternatives).map(Shape::from).collect();
        feasible(&shapes, pools)
    }
}

/// As [`Pool::feasible`].
pub(super) fn feasible(shapes: &[Shape], pools: &[Pool]) -> Result<(), String> {
    let mut lacks = Vec::new();
    for pool in pools {
        let largest = Shape::from(&pool.largest);
        if shapes.iter().any(|shape| shape.fits(&largest)) {
            return Ok(());
        }
        let shape = &shapes[0];
        let parts: Vec<String> = shape
            .lacking(&largest)
            .map(|resource: Resource| {
                let (asked, most) = (shape.amount(resource), largest.amount(resource));
                format!("{} {} asked, {} at most", resource.name(), resource.amount(asked), resource.amount(most))
            })
            .collect();
        lacks.push(format!("pool `{}`: {}", pool.name, parts.join(", ")));
    }
    if lacks.is_empty() {
        return Err("there is no pool that could launch a worker for it".to_owned());
    }
    Err(format!("no pool could ever hold one such task ({})", lacks.join("; ")))
}

impl State {
    /// What would become of a job: where it fits, and how much of it could start now if nothing else were queued.
    pub fn plan_job(&self, job: &JobSubmission, pools: &[Pool]) -> JobPlan {
        let resources = job.resources.unwrap_or_default();
        let ask = Ask::of(&JobSubmission { resources: Some(resources), ..job.clone() });
        let task_count = ranges::validate(&job.ranges).unwrap_or_default();
        let most = if job.max_running == 0 { task_count } else { task_count.min(u64::from(job.max_running)) };
        let (mut workers_that_fit, mut workers_free_now, mut startable) = (0, 0, 0u64);
        let willing = |session: &&crate::session::Session| session.accepts() && ask.unmet(&session.about).is_none();
        for session in self.sessions.values().filter(willing) {
            let free = session.free();
            workers_that_fit += u32::from(ask.shapes.iter().any(|shape| shape.fits(&session.about.capacity)));
            workers_free_now += u32::from(ask.shapes.iter().any(|shape| shape.fits(&free)));
            startable = startable.saturating_add(ask.shapes.iter().map(|shape| shape.times(&free)).max().unwrap_or(0));
        }
        JobPlan {
            task_count,
            workers_that_fit,
            workers_free_now,
            workers: self.sessions.len() as u32,
            tasks_startable_now: startable.min(most).min(self.licenses.room(&ask.licenses)),
            reasons: self.reasons_of_workers(0, &ask, pools),
            infeasible: feasible(&ask.shapes, pools).err().unwrap_or_default(),
        }
    }
}
