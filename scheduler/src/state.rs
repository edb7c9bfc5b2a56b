//! The state and the one way to change it.

use std::sync::Arc;

use imbl::{OrdMap, Vector};
use proto::internal::{Command, Entry, command};

use crate::{
    Applied, Outcome, Rejection,
    apply::Step,
    blobs::Blobs,
    digest,
    history::History,
    indexes::Indexes,
    job::Jobs,
    licenses::Licenses,
    limits,
    queue::{self, Queue},
    requests::Requests,
    rules::OLDEST_RULES,
    session::Session,
    streams::Streams,
};

/// Everything that the grid knows. A clone shares all that doesn't change afterwards, and costs microseconds.
#[derive(Debug, Clone)]
pub struct State {
    /// What entries mean.
    pub(crate) rules: u32,
    pub(crate) index: u64,
    pub(crate) time_ms: u64,
    pub(crate) wall_ms: i64,
    pub(crate) chain: [u8; 32],
    /// Oldest first, at most [`limits::MARKS`].
    pub(crate) marks: Vec<(u64, [u8; 32])>,
    pub(crate) jobs: Jobs,
    /// Those that live.
    pub(crate) sessions: OrdMap<u64, Session>,
    /// The worker of every session there ever was; that of session 1 comes first.
    pub(crate) session_workers: Vector<Arc<str>>,
    pub(crate) queues: OrdMap<Arc<str>, Queue>,
    /// Use of the grid counts half after so much log time.
    pub(crate) half_life_ms: u64,
    pub(crate) licenses: Licenses,
    pub(crate) requests: Requests,
    pub(crate) streams: Streams,
    pub(crate) blobs: Blobs,
    pub(crate) history: History,
    pub(crate) indexes: Indexes,
}

impl State {
    /// An empty grid, with the queue `default`.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self {
            rules: OLDEST_RULES,
            index: 0,
            time_ms: 0,
            wall_ms: 0,
            chain: [0; 32],
            marks: Vec::new(),
            jobs: Jobs::default(),
            sessions: OrdMap::new(),
            session_workers: Vector::new(),
            queues: OrdMap::unit(queue::DEFAULT.into(), Queue::new()),
            half_life_ms: limits::HALF_LIFE_MS,
            licenses: Licenses::default(),
            requests: Requests::default(),
            streams: Streams::default(),
            blobs: Blobs::default(),
            history: History::default(),
            indexes: Indexes::default(),
        }
    }

    /// Applies the entry at `index` of the log: sets the time, then obeys its commands in order.
    ///
    /// # Panics
    /// When the index doesn't rise, or a command is absent, which strict decoding excludes.
    pub fn apply(&mut self, index: u64, entry: &Entry) -> Applied {
        assert!(index > self.index, "entry {index} was applied before: the state is at {}", self.index);
        self.index = index;
        // Neither clock ever goes back, whatever a leader says.
        self.time_ms = self.time_ms.max(entry.time_ms);
        self.wall_ms = self.wall_ms.max(entry.wall_ms);
        let mut step = Step::new(self);
        let mut marked = false;
        let mut outcomes = Vec::with_capacity(entry.commands.len());
        for command in &entry.commands {
            let command = command.command.as_ref().expect("an entry without a command is not decoded");
            marked |= matches!(command, command::Command::Mark(_));
            outcomes.push(step.obey(command));
        }
        let applied = Applied { outcomes, events: step.finish() };
        self.chain = digest::next(&self.chain, index, self.time_ms, self.wall_ms, &applied, &self.jobs);
        if marked {
            self.marks.push((index, self.chain));
            if self.marks.len() > limits::MARKS {
                self.marks.remove(0);
            }
        }
        applied
    }

    /// Index of the last entry that was applied; 0 before the first.
    pub fn applied_index(&self) -> u64 {
        self.index
    }

    /// Log time: milliseconds since the first entry, not counting time without a leader.
    pub fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// The leader's wall clock at the last entry, milliseconds since the Unix epoch; for people alone.
    pub fn wall_ms(&self) -> i64 {
        self.wall_ms
    }

    /// The digest after the last entry: a chain over the outcomes and events of all entries.
    pub fn digest(&self) -> [u8; 32] {
        self.chain
    }

    /// The digest after an entry that held a `Mark`; the last [`limits::MARKS`] are kept.
    pub fn mark(&self, index: u64) -> Option<[u8; 32]> {
        self.marks.iter().find(|(marked, _)| *marked == index).map(|(_, digest)| *digest)
    }

    /// The newest mark: its index and digest.
    pub fn last_mark(&self) -> Option<(u64, [u8; 32])> {
        self.marks.last().copied()
    }

    /// Log time at which a `Tick` has something to do: a back-off or a time limit is over, something is to be forgotten.
    pub fn next_timer_ms(&self) -> Option<u64> {
        let backoff = self.indexes.timers.get_min().map(|(due, _, _)| *due);
        let deadline = self.indexes.deadlines.get_min().map(|(due, _, _)| *due);
        [backoff, deadline, self.requests.next_timer_ms(), self.streams.next_timer_ms(), self.blobs.next_timer_ms()]
            .into_iter()
            .flatten()
            .min()
    }

    /// What `apply` would refuse if this were the next command. A repeat of an accepted request is not refused.
    pub fn check_command(&self, command: &Command) -> Result<(), Rejection> {
        match &command.command {
            None => Err(Rejection::invalid("command", "there is no command")),
            Some(command) => self.admit(command),
        }
    }

    /// The outcome of a request that was accepted before under the same id: the answer to its repeat.
    pub fn answered(&self, command: &Command) -> Option<Outcome> {
        let command = command.command.as_ref()?;
        self.answered_before(command).ok()?
    }
}
