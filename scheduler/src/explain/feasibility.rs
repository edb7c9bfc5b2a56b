//! What the pools could ever hold, and what the workers could start now.

use proto::{
    internal::JobSubmission,
    ranges,
    v1::{Reason, Resources, plan_jobs_response::JobPlan},
};

use super::Pool;
use crate::{
    State,
    shape::{Resource, Shape},
};

/// Whether the largest instance of some pool could hold one such task. `Err` says, for each pool, what lacks and
/// what is the most that could be asked.
pub fn feasible(resources: &Resources, pools: &[Pool]) -> Result<(), String> {
    let shape = Shape::from(resources);
    let mut lacks = Vec::new();
    for pool in pools {
        let largest = Shape::from(&pool.largest);
        if shape.fits(&largest) {
            return Ok(());
        }
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
    /// As the function of this name.
    pub fn feasible(resources: &Resources, pools: &[Pool]) -> Result<(), String> {
        feasible(resources, pools)
    }

    /// What would become of a job: where it fits, and how much of it could start now if nothing else were queued.
    pub fn plan_job(&self, job: &JobSubmission, pools: &[Pool]) -> JobPlan {
        let resources = job.resources.unwrap_or_default();
        let shape = Shape::from(&resources);
        let task_count = ranges::validate(&job.ranges).unwrap_or_default();
        let most = if job.max_running == 0 { task_count } else { task_count.min(u64::from(job.max_running)) };
        let (mut workers_that_fit, mut workers_free_now, mut startable) = (0, 0, 0u64);
        for session in self.sessions.values().filter(|session| session.accepts()) {
            workers_that_fit += u32::from(shape.fits(&session.about.capacity));
            workers_free_now += u32::from(shape.fits(&session.free()));
            startable = startable.saturating_add(shape.times(&session.free()));
        }
        let reasons: Vec<Reason> = self.reasons_of_workers(&shape, pools);
        JobPlan {
            task_count,
            workers_that_fit,
            workers_free_now,
            workers: self.sessions.len() as u32,
            tasks_startable_now: startable.min(most),
            reasons,
            infeasible: feasible(&resources, pools).err().unwrap_or_default(),
        }
    }
}
