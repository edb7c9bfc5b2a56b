//! The history: where jobs go that ended long ago.
//!
//! An ended job is *due* when it has been ended for long enough, or when there are too many of its kind. Due jobs are
//! written, oldest end first, into *segments*: bytes that are a function of the log alone, so that every replica makes
//! the same ([`cut`]). Of a segment its checksum stays in the state. Once a majority has it on its disks, an entry
//! *settles* it, and the jobs in it leave the state; of each its outcome stays, for those who wait for it, and where it
//! is found. A job that was written and is opened again by a retry before it left stays, and is written anew later.
//!
//! What has left is read by putting it back into a clone of the state ([`archive`]): the same code answers, with the same
//! words.

mod archive;
mod cut;
mod settle;

use imbl::{OrdMap, OrdSet, Vector};

pub use self::archive::{Archive, Detail};
use crate::{State, limits};

/// A segment as the state knows it. They are numbered from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Index of the entry that cut it.
    pub index: u64,
    /// Its length.
    pub bytes: u32,
    /// BLAKE3.
    pub checksum: [u8; 32],
    /// Jobs that begin in it.
    pub jobs: u32,
}

/// All segments of a history: that at position 0 is number 1. A clone costs next to nothing.
pub type Segments = Vector<Segment>;

#[derive(Debug, Clone)]
pub(crate) struct History {
    /// Jobs leave when they ended longer ago...
    pub keep_ms: u64,
    /// ...or when there are more of them.
    pub keep_jobs: u64,
    pub segments: Segments,
    /// How many of them, from the first, are settled.
    pub settled: u32,
    /// Jobs that were written, whole, and have not left.
    pub cuts: OrdMap<u64, Cut>,
    /// The job of which the next segment holds more.
    pub part: Option<Part>,
    /// Derived: ended jobs that may be written, by the wall clock at their end.
    pub free: OrdSet<(i64, u64)>,
}

/// Where a job was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    pub first_segment: u32,
    pub segments: u32,
}

/// How far a job was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub job: u64,
    pub first_segment: u32,
    pub next: Next,
}

/// What of a job is written next: its chunks of tasks from a number on, then its outputs from an ordinal on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Chunk(u32),
    Output(u32),
}

impl Cut {
    pub fn last_segment(&self) -> u32 {
        self.first_segment + self.segments - 1
    }
}

impl Default for History {
    fn default() -> Self {
        Self {
            keep_ms: limits::KEEP_MS,
            keep_jobs: limits::KEEP_JOBS,
            segments: Vector::new(),
            settled: 0,
            cuts: OrdMap::new(),
            part: None,
            free: OrdSet::new(),
        }
    }
}

impl History {
    /// A job changes: what was written of it isn't true any more.
    pub fn void(&mut self, id: u64) {
        self.cuts.remove(&id);
        self.part.take_if(|part| part.job == id);
    }

    fn is_written(&self, id: u64) -> bool {
        self.cuts.contains_key(&id) || self.part.is_some_and(|part| part.job == id)
    }
}

impl State {
    /// All segments; that at position 0 is number 1.
    pub fn segments(&self) -> &Segments {
        &self.history.segments
    }

    /// How many segments, from the first, a majority was said to hold.
    pub fn settled_segments(&self) -> u32 {
        self.history.settled
    }

    /// Jobs that have left.
    pub fn moved_jobs(&self) -> u64 {
        self.jobs.len() - self.jobs.here()
    }

    /// How long ended jobs stay, in milliseconds, and how many at most.
    pub fn kept_jobs(&self) -> (u64, u64) {
        (self.history.keep_ms, self.history.keep_jobs)
    }

    /// Whether a `CutSegment` at this time by the wall clock would write something.
    pub fn is_history_due(&self, wall_ms: i64) -> bool {
        self.history.part.is_some() || self.next_to_write(wall_ms).is_some()
    }

    /// Whether there is enough to write for more than one segment, by the number of jobs.
    pub fn is_history_full(&self) -> bool {
        let over = (self.history.free.len() as u64).saturating_sub(self.history.keep_jobs);
        self.history.part.is_some() || over >= limits::SEGMENT_JOBS as u64
    }

    /// The ended job to be written next, if one is due.
    fn next_to_write(&self, wall_ms: i64) -> Option<(i64, u64)> {
        let history = &self.history;
        let (ended_ms, id) = history.free.get_min().copied()?;
        let many = history.free.len() as u64 > history.keep_jobs;
        let old = u64::try_from(wall_ms.saturating_sub(ended_ms)).is_ok_and(|age| age >= history.keep_ms);
        (many || old).then_some((ended_ms, id))
    }

    /// Whether an ended job must stay: its owner's newest is what `last` means, and those that wait for it task by task
    /// have to find its tasks, also when they are retried.
    fn is_bound(&self, id: u64) -> bool {
        let newest = self.jobs.get(id).and_then(|job| self.indexes.newest.get(&job.terms.owner));
        newest == Some(&id) || self.indexes.twins.range((id, 0)..=(id, u64::MAX)).next().is_some()
    }

    /// Puts a job among those that may be written, or takes it out.
    pub(crate) fn weigh_for_history(&mut self, id: u64) {
        let Some(ended_ms) = self.jobs.get(id).and_then(|job| job.ended_ms.get()) else { return };
        if self.history.is_written(id) || self.is_bound(id) {
            self.history.free.remove(&(ended_ms, id));
        } else {
            self.history.free.insert((ended_ms, id));
        }
    }
}
