//! Orders ahead: the next of what waits is ordered to start when a running one has ended, and takes its room then. The
//! keeper starts it in that moment, without asking here.
//!
//! *Invariant*: an attempt that awaits a room holds none; it is the only one that awaits that room, and gets it in the
//! step in which it is left.

use std::{collections::BTreeMap, sync::Arc};

use proto::v1::{Resources, Returned, report_item::Item};

use super::{Attempt, Attempts, Stage};
use crate::{Core, Key, Output, Task};

/// What an attempt occupies of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// Nothing.
    None,
    /// What it asks for.
    Held,
    /// Nothing yet: what that one holds, once it has ended.
    Awaited(Key),
}

/// A process that was ordered to be killed and belongs to no attempt of ours.
#[derive(Debug)]
pub(crate) struct Dying {
    pub(crate) room: Room,
    pub(crate) resources: Resources,
}

/// Who awaits whose room: at most one each.
#[derive(Debug, Default)]
pub(crate) struct Successors(BTreeMap<Key, Key>);

impl Successors {
    pub(crate) fn insert(&mut self, predecessor: Key, key: Key) {
        self.0.insert(predecessor, key);
    }

    fn remove(&mut self, predecessor: Key) -> Option<Key> {
        self.0.remove(&predecessor)
    }
}

impl Stage {
    pub(super) fn room(&self) -> Room {
        match self {
            Self::Waiting { .. } | Self::Reported => Room::None,
            Self::PreparingAhead { after, .. } | Self::Ordered { after } | Self::Withdrawn { after } => {
                Room::Awaited(*after)
            }
            Self::Preparing { .. } | Self::Spawning | Self::Running { .. } | Self::StagingOut { .. } => Room::Held,
        }
    }
}

impl Attempt {
    /// Whether its end frees at once what it holds, for one that asks for the same.
    fn precedes(&self, resources: &Resources) -> bool {
        matches!(self.stage, Stage::Spawning | Stage::Running { .. })
            && self.kill.is_none()
            && !self.outputs
            && self.resources == *resources
    }

    /// Whether it costs nothing to have prepared it when it is returned, and it may start at any time.
    fn is_plain(&self, task: &Task) -> bool {
        // Its environment says when its time is over.
        self.limit.milliseconds == 0
            && task.job.spec.as_ref().is_none_or(|spec| {
                // Whether it was started must never be in doubt.
                spec.inputs.is_empty() && spec.files.is_empty() && !spec.at_most_once
            })
    }
}

impl Attempts {
    /// The first of what waits that awaits no room yet.
    fn next_in_line(&self) -> Option<(Key, &Attempt, &Arc<Task>)> {
        self.waiting.iter().chain(self.ahead.iter().map(|(_, key)| key)).find_map(|key| {
            let attempt = self.all.get(key)?;
            let Stage::Waiting { task } = &attempt.stage else { return None };
            Some((*key, attempt, task))
        })
    }

    /// One whose room nobody awaits.
    fn predecessor(&self, resources: &Resources) -> Option<Key> {
        let free =
            |(key, attempt): &(&Key, &Attempt)| attempt.precedes(resources) && !self.successors.0.contains_key(key);
        self.all.iter().find(free).map(|(key, _)| *key)
    }
}

impl Core {
    /// Prepares what stands first in line, as far as there are rooms to await.
    pub(super) fn prepare_ahead(&mut self) {
        if !self.keeper.follows() {
            return;
        }
        // Everyone who is awaited holds a room.
        while self.attempts.successors.0.len() < self.slots.taken() {
            let Some((key, attempt, task)) = self.attempts.next_in_line() else { return };
            if !attempt.is_plain(task) {
                return;
            }
            let Some(after) = self.attempts.predecessor(&attempt.resources) else { return };
            let task = Arc::clone(task);
            self.attempts.successors.insert(after, key);
            if let Some(attempt) = self.attempts.all.get_mut(&key) {
                attempt.directory = true;
                attempt.stage = Stage::PreparingAhead { task: Arc::clone(&task), after };
            }
            self.outputs.push(Output::Prepare { task });
        }
    }

    /// It has ended, or won't begin: the room that it held is free, or its successor's.
    pub(crate) fn leave_room(&mut self, key: Key, room: Room, resources: &Resources) {
        match room {
            Room::None => {}
            Room::Awaited(predecessor) => {
                self.attempts.successors.remove(predecessor);
            }
            Room::Held => {
                self.slots.give(resources);
                if let Some(successor) = self.attempts.successors.remove(key) {
                    self.slots.take(resources);
                    self.succeed(successor);
                }
            }
        }
    }

    /// The room it awaited is its own, in the moment in which the keeper starts it.
    fn succeed(&mut self, key: Key) {
        if let Some(attempt) = self.attempts.all.get_mut(&key) {
            attempt.stage = match std::mem::replace(&mut attempt.stage, Stage::Reported) {
                Stage::PreparingAhead { task, .. } => Stage::Preparing { task },
                Stage::Ordered { .. } | Stage::Withdrawn { .. } => Stage::Spawning,
                stage => unreachable!("{key} awaits no room: {stage:?}"),
            };
        } else if let Some(dying) = self.dying.get_mut(&key) {
            dying.room = Room::Held;
        }
    }

    /// Gives a room that is free to one that awaits another.
    pub(super) fn start_now(&mut self, key: Key) {
        let Some(attempt) = self.attempts.all.get_mut(&key) else { return };
        let Room::Awaited(predecessor) = attempt.stage.room() else { return };
        let ordered = matches!(attempt.stage, Stage::Ordered { .. });
        self.slots.take(&attempt.resources);
        self.attempts.successors.remove(predecessor);
        self.succeed(key);
        if ordered {
            self.order_now(key);
        }
    }

    /// Has the keeper start what it was to start later.
    pub(crate) fn order_now(&mut self, key: Key) {
        if let Some(session) = &self.session {
            self.outputs.push(Output::SpawnNow { key, session: session.id });
        }
    }

    /// Gives back what was not started, unless the keeper says that it was.
    pub(crate) fn give_back(&mut self, key: Key) {
        let Some(attempt) = self.attempts.all.get_mut(&key) else { return };
        match &attempt.stage {
            Stage::Waiting { .. } => {}
            Stage::Preparing { .. } | Stage::PreparingAhead { .. } => self.outputs.push(Output::BreakOff { key }),
            Stage::Ordered { after } => {
                attempt.stage = Stage::Withdrawn { after: *after };
                self.outputs.push(Output::Withdraw { key });
                return;
            }
            Stage::Withdrawn { .. }
            | Stage::Spawning
            | Stage::Running { .. }
            | Stage::StagingOut { .. }
            | Stage::Reported => return,
        }
        self.report(key, Item::Returned(Returned {}));
    }
}
