//! Commands on their way into the log: all that wait become one entry, and each finds its asker again.
//!
//! What workers report and what keeps sessions alive goes before submits. An entry is found again by its proposer and
//! sequence; the log keeps the order of one leader's entries, so that a sequence which is passed over was lost.

use std::collections::VecDeque;

use prost::Message;
use proto::internal::{Command, Entry, command};

use crate::{CallId, limits};

/// Who wants to know what became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Waiter {
    Nobody,
    /// Answered with the one job.
    Job(CallId),
    /// Answered with all jobs.
    Jobs(CallId),
    Blob(CallId),
    Cancel(CallId),
    /// Answered with what the command was about: a worker, a queue, a license.
    Thing(CallId),
    Mark(CallId),
    /// A worker's stream asked for a new session.
    OpenSession(CallId),
    /// A worker's stream takes its session up again, now that everything in front is decided.
    Resume(CallId),
    Report {
        call: CallId,
    },
    /// Answered with what became of the jobs of one message; the last one ends the stream.
    Stream {
        call: CallId,
        closing: bool,
    },
    /// A renewal that is answered once the note of its session's silence is cleared.
    Renewal {
        call: CallId,
        session: u64,
        nonce: u64,
    },
    /// This session is to end.
    Expiry(u64),
    /// This session is to drain: its machine is taken back.
    Reclaim(u64),
    Plan,
    /// The leader's own upkeep of the history and of the rules.
    Upkeep,
}

#[derive(Debug)]
struct Waiting {
    command: Command,
    size: usize,
    waiter: Waiter,
}

/// An entry that was proposed and not applied yet.
#[derive(Debug)]
struct Flying {
    sequence: u64,
    waiters: Vec<Waiter>,
}

/// All commands between a call and its outcome.
#[derive(Debug, Default)]
pub(crate) struct Proposals {
    next_sequence: u64,
    urgent: VecDeque<Waiting>,
    ordinary: VecDeque<Waiting>,
    bytes: usize,
    flying: VecDeque<Flying>,
}

impl Proposals {
    /// Puts a command that keeps work or sessions going in front of all submits.
    pub(crate) fn push_urgent(&mut self, command: command::Command, waiter: Waiter) {
        let waiting = self.waiting(command, waiter);
        self.urgent.push_back(waiting);
    }

    /// Puts a command behind those that wait; `Err` when too much waits already.
    pub(crate) fn push(&mut self, command: command::Command, waiter: Waiter) -> Result<(), ()> {
        if self.bytes > limits::WAITING_BYTES {
            return Err(());
        }
        let waiting = self.waiting(command, waiter);
        self.ordinary.push_back(waiting);
        Ok(())
    }

    fn waiting(&mut self, command: command::Command, waiter: Waiter) -> Waiting {
        let command = Command { command: Some(command) };
        // Its tag and length in the entry need at most six bytes more.
        let size = command.encoded_len() + 6;
        self.bytes += size;
        Waiting { command, size, waiter }
    }

    /// The commands of the next entry, if it would be the only one on its way, hold so many commands at most, and be
    /// about jobs.
    pub(crate) fn lonely_submits(&self, most: usize) -> Option<Vec<Command>> {
        let count = self.urgent.len() + self.ordinary.len();
        if !self.flying.is_empty() || count > most || self.bytes >= limits::LARGE_ENTRY_BYTES {
            return None;
        }
        let commands: Vec<Command> =
            self.urgent.iter().chain(&self.ordinary).map(|waiting| waiting.command.clone()).collect();
        let submits = |command: &Command| matches!(command.command, Some(command::Command::SubmitJobs(_)));
        commands.iter().any(submits).then_some(commands)
    }

    /// Puts a command behind all that wait, whatever they are.
    pub(crate) fn push_last(&mut self, command: command::Command, waiter: Waiter) {
        let waiting = self.waiting(command, waiter);
        self.ordinary.push_back(waiting);
    }

    /// The next entry, when something waits and there is room for one.
    pub(crate) fn next_entry(&mut self, proposer: u64, time_ms: u64, wall_ms: i64) -> Option<(u64, Entry)> {
        let large = self.bytes >= limits::LARGE_ENTRY_BYTES;
        let room = if large { limits::FLYING_ENTRIES } else { limits::FLYING_SMALL_ENTRIES };
        if self.flying.len() >= room || (self.urgent.is_empty() && self.ordinary.is_empty()) {
            return None;
        }
        let (mut commands, mut waiters, mut size) = (Vec::new(), Vec::new(), 0);
        while let Some(queue) = self.next_queue() {
            if queue.front().is_none_or(|next| size + next.size > limits::ENTRY_BYTES && !commands.is_empty()) {
                break;
            }
            if let Some(next) = queue.pop_front() {
                size += next.size;
                commands.push(next.command);
                waiters.push(next.waiter);
            }
        }
        self.bytes -= size;
        self.next_sequence += 1;
        let sequence = self.next_sequence;
        self.flying.push_back(Flying { sequence, waiters });
        Some((sequence, Entry { proposer, sequence, time_ms, wall_ms, commands }))
    }

    fn next_queue(&mut self) -> Option<&mut VecDeque<Waiting>> {
        if !self.urgent.is_empty() {
            Some(&mut self.urgent)
        } else if !self.ordinary.is_empty() {
            Some(&mut self.ordinary)
        } else {
            None
        }
    }

    /// The waiters of an applied entry, one for each of its commands, and those of entries that it passed over.
    pub(crate) fn settle(&mut self, sequence: u64) -> (Vec<Waiter>, Vec<Waiter>) {
        let mut lost = Vec::new();
        while let Some(front) = self.flying.front() {
            if front.sequence > sequence {
                break;
            }
            let found = front.sequence == sequence;
            let waiters = self.flying.pop_front().map(|flying| flying.waiters).unwrap_or_default();
            if found {
                return (waiters, lost);
            }
            lost.extend(waiters);
        }
        (Vec::new(), lost)
    }

    /// The waiters of an entry that will never be committed.
    pub(crate) fn dropped(&mut self, sequence: u64) -> Vec<Waiter> {
        match self.flying.iter().position(|flying| flying.sequence == sequence) {
            Some(position) => self.flying.remove(position).map(|flying| flying.waiters).unwrap_or_default(),
            None => Vec::new(),
        }
    }

    /// Leadership is gone: all waiters, of entries whose fate is unknown and of commands that were never proposed.
    pub(crate) fn abandon(&mut self) -> Vec<Waiter> {
        self.bytes = 0;
        let flying = self.flying.drain(..).flat_map(|flying| flying.waiters);
        let waiting = self.urgent.drain(..).chain(self.ordinary.drain(..)).map(|waiting| waiting.waiter);
        flying.chain(waiting).collect()
    }

    /// Bytes of commands that wait for an entry.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proto::internal::{PutBlob, Tick};

    fn put(bytes: usize) -> command::Command {
        command::Command::PutBlob(PutBlob { data: vec![7; bytes].into() })
    }

    #[test]
    fn all_that_wait_become_one_entry_and_what_keeps_work_going_is_first() {
        let mut proposals = Proposals::default();
        proposals.push(put(1), Waiter::Blob(CallId(1))).unwrap();
        proposals.push(put(2), Waiter::Blob(CallId(2))).unwrap();
        proposals.push_urgent(command::Command::Tick(Tick {}), Waiter::Nobody);
        let (sequence, entry) = proposals.next_entry(9, 5, 6).unwrap();
        assert_eq!((sequence, entry.commands.len(), entry.time_ms), (1, 3, 5));
        assert!(matches!(entry.commands[0].command, Some(command::Command::Tick(_))));
        let (waiters, lost) = proposals.settle(1);
        assert_eq!(waiters, [Waiter::Nobody, Waiter::Blob(CallId(1)), Waiter::Blob(CallId(2))]);
        assert!(lost.is_empty() && proposals.waiting_bytes() == 0);
    }

    #[test]
    fn an_entry_never_exceeds_its_bound() {
        let mut proposals = Proposals::default();
        for call in 0..10 {
            proposals.push(put(200 << 10), Waiter::Blob(CallId(call))).unwrap();
        }
        let mut commands = 0;
        while let Some((_, entry)) = proposals.next_entry(1, 0, 0) {
            assert!(proto::entry::encode(&entry).len() <= proto::entry::MAX_BYTES);
            commands += entry.commands.len();
        }
        assert_eq!(commands, 10);
    }

    #[test]
    fn small_commands_wait_for_company_while_two_entries_are_on_their_way_and_large_ones_do_not() {
        let mut proposals = Proposals::default();
        let push = |proposals: &mut Proposals, bytes| proposals.push(put(bytes), Waiter::Nobody).unwrap();
        for sequence in 1..=2 {
            push(&mut proposals, 10);
            assert_eq!(proposals.next_entry(1, 0, 0).unwrap().0, sequence);
        }
        push(&mut proposals, 10);
        assert!(proposals.next_entry(1, 0, 0).is_none());
        push(&mut proposals, limits::LARGE_ENTRY_BYTES);
        assert_eq!(proposals.next_entry(1, 0, 0).unwrap().1.commands.len(), 2);
        push(&mut proposals, 10);
        push(&mut proposals, 10);
        assert!(proposals.next_entry(1, 0, 0).is_none());
        proposals.settle(2);
        assert_eq!(proposals.next_entry(1, 0, 0).unwrap().1.commands.len(), 2);
    }

    #[test]
    fn an_entry_that_was_passed_over_is_lost() {
        let mut proposals = Proposals::default();
        proposals.push(put(1), Waiter::Blob(CallId(1))).unwrap();
        proposals.next_entry(1, 0, 0).unwrap();
        proposals.push(put(1), Waiter::Blob(CallId(2))).unwrap();
        proposals.next_entry(1, 0, 0).unwrap();
        assert_eq!(proposals.settle(2), (vec![Waiter::Blob(CallId(2))], vec![Waiter::Blob(CallId(1))]));
    }
}
