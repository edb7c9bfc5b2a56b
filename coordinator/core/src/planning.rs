//! When the leader plans: one plan in flight, and again as soon as something changed.

use proto::internal::{AssignPublications, Entry, GrantRun, GrantTasks, Reserve, command::Command};
use scheduler::Cursor;

use crate::{
    core::Core,
    limits,
    proposals::{Proposals, Waiter},
};

/// What is known of the last plan. It dies with leadership.
#[derive(Debug)]
pub(crate) struct Planning {
    cursor: Cursor,
    /// Commands of the plan that is on its way into the log.
    flying: u32,
    /// Something changed since the last full pass that changed nothing.
    dirty: bool,
    /// The cursor is in the middle of a pass.
    in_pass: bool,
    /// Something changed since that pass began: what lies before the cursor may be of interest again.
    changed_in_pass: bool,
    /// A proposal was dropped: none before this local time.
    not_before_ms: u64,
}

impl Default for Planning {
    fn default() -> Self {
        Self {
            cursor: Cursor::default(),
            flying: 0,
            dirty: true,
            in_pass: false,
            changed_in_pass: false,
            not_before_ms: 0,
        }
    }
}

impl Planning {
    pub(crate) fn state_changed(&mut self) {
        self.dirty = true;
        self.changed_in_pass = true;
    }

    /// A command of the plan was applied.
    pub(crate) fn settled(&mut self) {
        self.flying = self.flying.saturating_sub(1);
        self.state_changed();
    }

    /// A command of the plan will never be applied. Whoever dropped it would drop the next one as fast as it comes.
    pub(crate) fn dropped(&mut self, now_ms: u64) {
        self.settled();
        self.not_before_ms = now_ms + limits::DROPPED_PAUSE_MS;
    }

    /// A plan is about to be made, from the cursor on.
    fn begin(&mut self) {
        if !std::mem::replace(&mut self.in_pass, true) {
            self.changed_in_pass = false;
        }
    }

    /// It was made: where the next one goes on, whether it came to the end of its pass, and whether it proposes anything.
    fn planned(&mut self, cursor: Cursor, finished: bool, proposes: bool) {
        self.cursor = cursor;
        self.in_pass = !finished;
        self.dirty = !finished || proposes || self.changed_in_pass;
    }
}

impl Core {
    /// On an idle grid a job and its start go into one entry: what waits is applied to a clone of the state, and what
    /// could be granted then is proposed behind it. The entry is the next one after this very state, or will never be
    /// committed; so what it meets is what was planned for, and `apply` looks again all the same. It saves the start of
    /// a job a whole round of three disks.
    pub(crate) fn plan_with_submits(&mut self, time_ms: u64) {
        let backlog = self.state.backlog();
        let idle = self.planning.flying == 0
            && self.now_ms >= self.planning.not_before_ms
            && backlog.queued_tasks == 0
            && backlog.unended_jobs <= limits::IDLE_JOBS
            && !self.sessions.heard().is_empty();
        let commands = if idle { self.proposals.lonely_submits(limits::IDLE_COMMANDS) } else { None };
        let Some(commands) = commands else { return };
        let mut next = self.state.clone();
        let entry = Entry { proposer: 0, sequence: 0, time_ms, wall_ms: self.wall_ms(), commands };
        next.apply(self.applied_index() + 1, &entry);
        let plan = scheduler::plan(&next, self.sessions.heard(), &Cursor::default(), limits::IDLE_PLAN_STEPS);
        if !plan.grants.is_empty() {
            self.propose_grants(plan.grants, Proposals::push_last);
        }
    }

    fn propose_grants(&mut self, runs: Vec<GrantRun>, push: fn(&mut Proposals, Command, Waiter)) {
        let tasks = runs.iter().filter_map(|run| run.tasks).map(|tasks| u64::from(tasks.count)).sum();
        self.count_grants(tasks);
        self.planning.flying += 1;
        push(&mut self.proposals, Command::GrantTasks(GrantTasks { runs }), Waiter::Plan);
    }

    /// Proposes grants, when there may be some and the last plan is decided.
    pub(crate) fn plan(&mut self) {
        if self.planning.flying > 0 || !self.planning.dirty || self.now_ms < self.planning.not_before_ms {
            return;
        }
        let heard = self.sessions.heard();
        if heard.is_empty() {
            return;
        }
        self.planning.begin();
        let plan = scheduler::plan(&self.state, heard, &self.planning.cursor, limits::PLAN_STEPS);
        let proposes = !plan.grants.is_empty() || !plan.publications.is_empty();
        self.planning.planned(plan.cursor, plan.finished, proposes);
        if !plan.grants.is_empty() {
            self.propose_grants(plan.grants, Proposals::push_urgent);
        }
        if !plan.reservations.is_empty() {
            self.planning.flying += 1;
            let reserve = Reserve { reservations: plan.reservations };
            self.proposals.push_urgent(Command::Reserve(reserve), Waiter::Plan);
        }
        if !plan.publications.is_empty() {
            self.planning.flying += 1;
            let assign = AssignPublications { assignments: plan.publications };
            self.proposals.push_urgent(Command::AssignPublications(assign), Waiter::Plan);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(planning: &mut Planning, finished: bool) -> bool {
        planning.begin();
        planning.planned(Cursor::default(), finished, false);
        planning.dirty
    }

    #[test]
    fn what_changes_behind_the_cursor_is_looked_at_in_another_pass() {
        let mut planning = Planning::default();
        assert!(plan(&mut planning, false));
        planning.state_changed();
        assert!(plan(&mut planning, false));
        assert!(plan(&mut planning, true), "what lies before the cursor has changed since it was looked at");
        assert!(!plan(&mut planning, true), "a whole pass has found nothing");
        planning.state_changed();
        assert!(!plan(&mut planning, true));
    }
}
