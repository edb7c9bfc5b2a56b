//! What `submit --plan` found out.

use proto::v1::plan_jobs_response::JobPlan;
use serde::Serialize;

use super::explanation::Reason;

/// A plan as JSON has it.
#[derive(Debug, Serialize)]
pub struct Plan {
    schema: &'static str,
    task_count: u64,
    tasks_startable_now: u64,
    workers: u32,
    workers_that_fit: u32,
    workers_free_now: u32,
    reasons: Vec<Reason>,
    infeasible: Option<String>,
}

impl From<&JobPlan> for Plan {
    fn from(plan: &JobPlan) -> Self {
        Self {
            schema: "millgrid/v1",
            task_count: plan.task_count,
            tasks_startable_now: plan.tasks_startable_now,
            workers: plan.workers,
            workers_that_fit: plan.workers_that_fit,
            workers_free_now: plan.workers_free_now,
            reasons: plan.reasons.iter().map(Reason::from).collect(),
            infeasible: super::text(&plan.infeasible),
        }
    }
}

impl Plan {
    /// The plan for people.
    pub fn screen(&self) -> String {
        let tasks = if self.task_count == 1 { "1 task".to_owned() } else { format!("{} tasks", self.task_count) };
        let mut lines = vec![
            format!("{tasks}, {} could start now; nothing was submitted", self.tasks_startable_now),
            format!(
                "  workers: {} in all, one task fits {} of them, {} have room now",
                self.workers, self.workers_that_fit, self.workers_free_now
            ),
        ];
        lines.extend(self.reasons.iter().flat_map(Reason::lines));
        lines.join("\n")
    }
}
