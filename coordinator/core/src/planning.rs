//! When the leader plans: one plan in flight, and again as soon as something changed.

use proto::internal::{AssignPublications, GrantTasks, command::Command};
use scheduler::Cursor;

use crate::{core::Core, limits, proposals::Waiter};

/// What is known of the last plan. It dies with leadership.
#[derive(Debug)]
pub(crate) struct Planning {
    cursor: Cursor,
    /// Commands of the plan that is on its way into the log.
    flying: u32,
    /// Something changed since the last full pass that changed nothing.
    dirty: bool,
}

impl Default for Planning {
    fn default() -> Self {
        Self { cursor: Cursor::default(), flying: 0, dirty: true }
    }
}

impl Planning {
    pub(crate) fn state_changed(&mut self) {
        self.dirty = true;
    }

    /// A command of the plan was applied, or will never be.
    pub(crate) fn settled(&mut self) {
        self.flying = self.flying.saturating_sub(1);
        self.dirty = true;
    }
}

impl Core {
    /// Proposes grants, when there may be some and the last plan is decided.
    pub(crate) fn plan(&mut self) {
        if self.planning.flying > 0 || !self.planning.dirty {
            return;
        }
        let heard = self.sessions.heard();
        if heard.is_empty() {
            return;
        }
        let plan = scheduler::plan(&self.state, heard, self.planning.cursor, limits::PLAN_STEPS);
        self.planning.cursor = plan.cursor;
        self.planning.dirty = !plan.finished || !plan.grants.is_empty() || !plan.publications.is_empty();
        if !plan.grants.is_empty() {
            let tasks = plan.grants.iter().filter_map(|run| run.tasks).map(|tasks| u64::from(tasks.count)).sum();
            self.count_grants(tasks);
            self.planning.flying += 1;
            self.proposals.push_urgent(Command::GrantTasks(GrantTasks { runs: plan.grants }), Waiter::Plan);
        }
        if !plan.publications.is_empty() {
            self.planning.flying += 1;
            let assign = AssignPublications { assignments: plan.publications };
            self.proposals.push_urgent(Command::AssignPublications(assign), Waiter::Plan);
        }
    }
}
