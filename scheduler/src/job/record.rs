//! The record of a task that is neither untouched nor ended.

use std::sync::Arc;

use bytes::Bytes;
use proto::v1::{Cause, Manifest};

use super::Fact;
use crate::shape::Shape;

#[derive(Debug, Clone)]
pub(crate) struct Record {
    /// Number of the latest attempt.
    pub attempt: u32,
    /// Attempts that failed by themselves since the submit or the last `retry`.
    pub failures: u16,
    /// Attempts that the infrastructure lost, likewise.
    pub lost: u16,
    /// What the next attempt gets at least, where memory grew; 0: it didn't.
    pub memory_mib: u64,
    pub phase: Phase,
}

#[derive(Debug, Clone)]
pub(crate) enum Phase {
    /// Queued again. Entered by a return, by a loss, or when a back-off is over; left by a grant or a cancel. With
    /// memory of its own it stands in a line of its own.
    Pending,
    /// Shown as queued. Entered by a failure that is retried; left by a `Tick` at its time, or a cancel.
    Backoff {
        /// Log time.
        until_ms: u64,
    },
    /// A session holds its lease. Entered by a grant; left by the attempt's end or return, or with the session.
    Leased(Lease),
    /// It exited with 0 and its outputs are uploaded but not completed. Shown as running; holds no capacity.
    /// Left by `published` or `publication failed`; outlives the session that is to complete it.
    Publishing(Arc<Publication>),
}

#[derive(Debug, Clone)]
pub(crate) struct Lease {
    pub session: u64,
    pub granted_index: u64,
    pub granted_wall_ms: i64,
    /// Log time of its grant.
    pub granted_ms: u64,
    /// It was asked to stop.
    pub kill: Option<Kill>,
    /// By the worker's clock; known once the task was reported to run.
    pub start_ms: Option<i64>,
    /// Holds no capacity yet.
    pub ahead: bool,
    /// What it takes of its worker, where that isn't the job's first choice of now.
    pub pinned: Option<Box<Shape>>,
}

/// Why an attempt was asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kill {
    /// Index of the entry that asked.
    pub index: u64,
    /// Cancelled: whatever it ends with, it was. A time limit: unless it succeeds nevertheless.
    pub cause: Cause,
}

#[derive(Debug, Clone)]
pub(crate) struct Publication {
    /// Who is to complete it, and the index that said so; absent when that session ended.
    pub assigned: Option<(u64, u64)>,
    /// What will be recorded once it is published.
    pub fact: Fact,
    /// An encoded [`Manifest`].
    pub manifest: Bytes,
}

/// What an accepted attempt left on S3.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Published {
    pub attempt: u32,
    /// Without upload ids and parts, which mean nothing any more.
    pub manifest: Manifest,
    pub etags: Vec<String>,
}

impl Record {
    pub fn lease(&self) -> Option<&Lease> {
        match &self.phase {
            Phase::Leased(lease) => Some(lease),
            Phase::Pending | Phase::Backoff { .. } | Phase::Publishing(_) => None,
        }
    }

    pub fn lease_mut(&mut self) -> Option<&mut Lease> {
        match &mut self.phase {
            Phase::Leased(lease) => Some(lease),
            Phase::Pending | Phase::Backoff { .. } | Phase::Publishing(_) => None,
        }
    }

    pub fn publication(&self) -> Option<&Publication> {
        match &self.phase {
            Phase::Publishing(publication) => Some(publication),
            Phase::Pending | Phase::Backoff { .. } | Phase::Leased(_) => None,
        }
    }
}

impl Lease {
    /// What it takes of its worker; `current` is what the job asks for now.
    pub fn shape(&self, current: &Shape) -> Shape {
        self.pinned.as_deref().copied().unwrap_or(*current)
    }
}
