//! What may happen, with small numbers that the pair resolves against what there is.

use proptest::prelude::*;

#[derive(Debug, Clone)]
pub enum Operation {
    Submit(Submit),
    Open {
        worker: u8,
        cpu: u8,
    },
    Expire {
        session: u8,
    },
    Drain {
        worker: u8,
    },
    Grant {
        session: u8,
        job: u8,
        first: u8,
        count: u8,
        ahead: bool,
    },
    Plan,
    /// About the n-th attempt that the session holds.
    Report {
        session: u8,
        nth: u8,
        kind: Kind,
    },
    /// About any attempt there may be, whoever holds it.
    Stray {
        session: u8,
        job: u8,
        ordinal: u8,
        attempt: u8,
        kind: Kind,
    },
    /// A report that was lost, or comes again.
    OutOfTurn {
        session: u8,
        back: bool,
    },
    Cancel {
        job: u8,
        range: Option<(u8, u8)>,
        cascade: bool,
    },
    /// New limits of a job that has not ended.
    Set {
        job: u8,
        max_running: u8,
        total_s: Option<u8>,
    },
    /// Of the second queue: whether it is paused, and how many of its tasks may run; 0: all.
    Queue {
        paused: bool,
        max_running: u8,
    },
    License {
        total: u8,
    },
    Retry {
        job: u8,
        failed_only: bool,
        range: Option<(u8, u8)>,
        cpu: u8,
    },
    Hold {
        job: u8,
        hold: bool,
    },
    Wait {
        ms: u16,
    },
    /// Writes ended jobs into the history.
    Cut,
    /// Lets go of what was written.
    Settle,
}

#[derive(Debug, Clone)]
pub struct Submit {
    pub tasks: u8,
    pub cpu: u8,
    pub retries: u8,
    pub priority: i8,
    pub max_running: u8,
    pub max_failures: u8,
    pub at_most_once: bool,
    pub outputs: bool,
    pub hold: bool,
    /// In the second queue.
    pub aside: bool,
    /// How many of the license each task takes.
    pub license: u8,
    pub memory: u8,
    /// Memory doubles after an attempt that ran out of it, up to 4.
    pub grows: bool,
    /// Nothing but exit code 3 is tried again (and what ran out of memory, when it grows).
    pub picky: bool,
    /// Seconds; 0: none.
    pub queue_s: u8,
    pub total_s: u8,
    /// How many jobs back, and on what: success, any end, failure, exit code 0 or 3, task by task.
    pub after: Vec<(u8, u8)>,
}

impl Submit {
    /// A job of one task that asks for nothing special.
    pub fn plain(after: Vec<(u8, u8)>) -> Self {
        Self {
            tasks: 1,
            cpu: 1,
            retries: 0,
            priority: 0,
            max_running: 0,
            max_failures: 0,
            at_most_once: false,
            outputs: false,
            hold: false,
            aside: false,
            license: 0,
            memory: 0,
            grows: false,
            picky: false,
            queue_s: 0,
            total_s: 0,
            after,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Started,
    Returned,
    Succeeded,
    Failed,
    /// With another exit code.
    FailedOtherwise,
    OutOfMemory,
    FailedForGood,
    NotFound,
    StagingFailed,
    Published,
    PublicationFailed,
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        2 => Just(Kind::Started),
        1 => Just(Kind::Returned),
        5 => Just(Kind::Succeeded),
        3 => Just(Kind::Failed),
        1 => Just(Kind::FailedOtherwise),
        2 => Just(Kind::OutOfMemory),
        1 => Just(Kind::FailedForGood),
        1 => Just(Kind::NotFound),
        1 => Just(Kind::StagingFailed),
        3 => Just(Kind::Published),
        1 => Just(Kind::PublicationFailed),
    ]
}

fn submit() -> impl Strategy<Value = Submit> {
    let sizes = (1..8u8, 1..3u8, 0..3u8, -1..2i8);
    let limits = (0..4u8, 0..3u8);
    let flags = (prop::bool::weighted(0.15), prop::bool::weighted(0.3), prop::bool::weighted(0.1));
    let after = prop::collection::vec((0..4u8, 0..5u8), 0..3);
    let needs = (prop::bool::weighted(0.3), 0..3u8, 0..3u8, any_bool(), prop::bool::weighted(0.3));
    let seldom = || prop_oneof![4 => Just(0u8), 1 => 1..30u8];
    (sizes, limits, flags, after, needs, seldom(), seldom()).prop_map(
        |(sizes, limits, flags, after, needs, queue_s, total_s)| Submit {
            aside: needs.0,
            license: needs.1,
            memory: needs.2,
            grows: needs.3 && needs.2 > 0,
            picky: needs.4,
            queue_s,
            total_s,
            tasks: sizes.0,
            cpu: sizes.1,
            retries: sizes.2,
            priority: sizes.3,
            max_running: limits.0,
            max_failures: limits.1,
            at_most_once: flags.0,
            outputs: flags.1,
            hold: flags.2,
            after,
        },
    )
}

fn range() -> impl Strategy<Value = Option<(u8, u8)>> {
    prop::option::of((0..6u8, 1..4u8))
}

pub fn any() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => submit().prop_map(Operation::Submit),
        3 => (0..3u8, 1..4u8).prop_map(|(worker, cpu)| Operation::Open { worker, cpu }),
        1 => (0..8u8).prop_map(|session| Operation::Expire { session }),
        1 => (0..3u8).prop_map(|worker| Operation::Drain { worker }),
        4 => (0..8u8, 0..8u8, 0..8u8, 1..6u8, any_bool())
            .prop_map(|(session, job, first, count, ahead)| Operation::Grant { session, job, first, count, ahead }),
        6 => Just(Operation::Plan),
        16 => (0..8u8, 0..8u8, kind()).prop_map(|(session, nth, kind)| Operation::Report { session, nth, kind }),
        2 => (0..8u8, 0..8u8, 0..8u8, 0..4u8, kind()).prop_map(|(session, job, ordinal, attempt, kind)| {
            Operation::Stray { session, job, ordinal, attempt, kind }
        }),
        1 => (0..8u8, any_bool()).prop_map(|(session, back)| Operation::OutOfTurn { session, back }),
        2 => (0..8u8, range(), any_bool()).prop_map(|(job, range, cascade)| Operation::Cancel { job, range, cascade }),
        1 => (0..8u8, 0..4u8, prop::option::of(0..30u8))
            .prop_map(|(job, max_running, total_s)| Operation::Set { job, max_running, total_s }),
        1 => (prop::bool::weighted(0.3), 0..4u8)
            .prop_map(|(paused, max_running)| Operation::Queue { paused, max_running }),
        1 => (1..5u8).prop_map(|total| Operation::License { total }),
        2 => (0..8u8, any_bool(), range(), 0..3u8)
            .prop_map(|(job, failed_only, range, cpu)| Operation::Retry { job, failed_only, range, cpu }),
        1 => (0..8u8, any_bool()).prop_map(|(job, hold)| Operation::Hold { job, hold }),
        3 => (0..20_000u16).prop_map(|ms| Operation::Wait { ms }),
        2 => Just(Operation::Cut),
        2 => Just(Operation::Settle),
    ]
}

fn any_bool() -> impl Strategy<Value = bool> {
    prop::bool::ANY
}
