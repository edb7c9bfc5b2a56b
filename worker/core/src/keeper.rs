//! What a keeper says when a connection to it stands, against what we believe.

use std::collections::BTreeMap;

use crate::{
    Adopted, Core, Key, Output, Standing,
    attempts::{Dying, Room},
    session::Session,
};

/// Whether there is a keeper to talk to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contact {
    /// This agent hasn't met one: what the keeper holds is its predecessor's.
    NotYet,
    /// Connected.
    Here {
        /// It knows how to start one process after another.
        follows: bool,
    },
    /// It was here; its successor, or itself, is awaited.
    Gone,
}

impl Contact {
    pub(crate) fn here(self) -> bool {
        matches!(self, Self::Here { .. })
    }

    pub(crate) fn follows(self) -> bool {
        self == Self::Here { follows: true }
    }

    pub(crate) fn lost(self) -> Self {
        match self {
            Self::NotYet => Self::NotYet,
            Self::Here { .. } | Self::Gone => Self::Gone,
        }
    }
}

impl Core {
    pub(crate) fn keeper_connected(&mut self, standing: Option<Standing>, mut processes: Vec<Adopted>, follows: bool) {
        let first = self.keeper == Contact::NotYet;
        self.keeper = Contact::Here { follows };
        let inherited = standing.filter(|standing| first && self.now_ms < standing.deadline_ms);
        if let Some(standing) = inherited {
            self.session = Some(Session::adopt(standing, self.now_ms));
        }
        let present: BTreeMap<Key, ()> = processes.iter().map(|process| (process.key, ())).collect();
        // What has ended first, as it would have been told: its room may be another's by now.
        processes.sort_by_key(|process| process.exit.is_none());
        for process in processes {
            self.meet_process(process, inherited.is_some());
        }
        self.bury_missing(&present);
        if let Some(reclaim) = &mut self.reclaim {
            reclaim.order_again();
        }
        if self.session.is_some() {
            self.tell_keeper();
        } else {
            self.outputs.push(Output::SetSession { session: 0, connection: 0, deadline_ms: 0 });
        }
    }

    fn meet_process(&mut self, process: Adopted, inherited: bool) {
        let key = process.key;
        let known = !inherited && (self.attempts.contains(&key) || self.dying.contains_key(&key));
        if !known {
            match process.after {
                None => self.slots.take(&process.resources),
                Some(after) => self.attempts.successors.insert(after, key),
            }
        }
        if inherited {
            self.attempts.adopt(&process, self.now_ms);
        } else if !known {
            let room = process.after.map_or(Room::Held, Room::Awaited);
            self.dying.insert(key, Dying { room, resources: process.resources });
        }
        match process.exit {
            Some(exit) => self.exited(key, exit),
            // What we said on the old connection may not have been heard.
            None if self.dying.contains_key(&key) => self.outputs.push(Output::Stop { key, immediately: true }),
            None => {
                if process.after.is_none() {
                    self.started(key, process.start_time_ms);
                } else if self.attempts.begun(&key) {
                    self.order_now(key);
                } else if self.attempts.withdrawn(&key) {
                    self.outputs.push(Output::Withdraw { key });
                }
                self.repeat_time_limit(key);
                if self.attempts.killed(&key) {
                    self.outputs.push(Output::Stop { key, immediately: false });
                }
            }
        }
    }

    /// A keeper takes its processes with it: those it doesn't list are dead, or were never started.
    fn bury_missing(&mut self, present: &BTreeMap<Key, ()>) {
        for key in self.attempts.with_process().filter(|key| !present.contains_key(key)).collect::<Vec<_>>() {
            self.process_lost(key);
        }
        let dead: Vec<Key> = self.dying.keys().filter(|key| !present.contains_key(key)).copied().collect();
        for key in dead {
            if let Some(Dying { room, resources }) = self.dying.remove(&key) {
                self.leave_room(key, room, &resources);
                self.outputs.push(Output::Discard { key, logs: false });
            }
        }
    }
}
