//! A minute of a saturated grid, event by event: each queue gets its weight's part of it, within five percent.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use proto::{
    internal::{
        Command, CreateQueue, Entry, GrantTasks, JobSubmission, OpenSession, Reserve, SubmitJobs, WorkerReport,
        command::Command as C,
    },
    v1::{
        AttemptKey, Capacity, Cause, Ended, IndexRange, QueueSettings, Report, ReportItem, Resources, report_item::Item,
    },
};
use scheduler::{Applied, Cursor, Event, State, plan};

const MINUTE_MS: u64 = 60_000;

/// Job, ordinal, attempt.
type Attempt = (u64, u32, u32);

struct Grid {
    state: State,
    now_ms: u64,
    /// Ends to come: time (negated, so that the first comes first), session, attempt, how long it ran.
    ends: BinaryHeap<(i64, u64, Attempt, u64)>,
    sequences: BTreeMap<u64, u64>,
    /// What each session was granted and hasn't started, in that order, and its cpus that are free.
    waiting: BTreeMap<u64, (VecDeque<Attempt>, u64)>,
    /// Milliseconds of cpu that the tasks of each job had.
    used: BTreeMap<u64, u64>,
    random: u64,
}

/// A queue, its weight, the cpus of each of its tasks, and how long they run: from, to, in milliseconds.
type Load = (&'static str, u32, u64, (u64, u64));

impl Grid {
    fn new(workers: u64, cpus: u64, loads: &[Load]) -> Self {
        let mut grid = Self {
            state: State::new(),
            now_ms: 0,
            ends: BinaryHeap::new(),
            sequences: BTreeMap::new(),
            waiting: (1..=workers).map(|session| (session, (VecDeque::new(), cpus))).collect(),
            used: BTreeMap::new(),
            random: 7,
        };
        for worker in 0..workers {
            let capacity = Some(Capacity { cpu_milli: cpus * 1000, ..Capacity::default() });
            grid.apply(C::OpenSession(OpenSession {
                worker: format!("w{worker}"),
                capacity,
                ..OpenSession::default()
            }));
        }
        for (name, weight, cpus, _) in loads {
            let settings = Some(QueueSettings { weight: Some(*weight), ..QueueSettings::default() });
            grid.apply(C::CreateQueue(CreateQueue { name: (*name).to_owned(), settings, ..CreateQueue::default() }));
            let job = JobSubmission {
                queue: (*name).to_owned(),
                resources: Some(Resources { cpu_milli: cpus * 1000, ..Resources::default() }),
                ranges: vec![IndexRange { first: 0, last: 999_999, step: 1 }],
                is_array: true,
                ..JobSubmission::default()
            };
            grid.apply(C::SubmitJobs(SubmitJobs { jobs: vec![job], ..SubmitJobs::default() }));
        }
        grid
    }

    fn apply(&mut self, command: C) -> Applied {
        let index = self.state.applied_index() + 1;
        let commands = vec![Command { command: Some(command) }];
        let entry = Entry { proposer: 1, sequence: index, time_ms: self.now_ms, wall_ms: self.now_ms as i64, commands };
        let applied = self.state.apply(index, &entry);
        assert!(applied.outcomes[0].is_ok(), "{:?}", applied.outcomes);
        applied
    }

    fn between(&mut self, (low, high): (u64, u64)) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        low + (self.random >> 33) % (high - low + 1)
    }

    fn grant(&mut self, loads: &[Load]) {
        let heard: BTreeSet<u64> = self.state.sessions().map(|session| session.id).collect();
        let planned = plan(&self.state, &heard, &Cursor::default(), usize::MAX);
        if !planned.reservations.is_empty() {
            self.apply(C::Reserve(Reserve { reservations: planned.reservations }));
        }
        if planned.grants.is_empty() {
            return;
        }
        for event in self.apply(C::GrantTasks(GrantTasks { runs: planned.grants })).events {
            let Event::Granted { session, key, .. } = event else { continue };
            self.waiting.get_mut(&session).unwrap().0.push_back((key.job_id, key.ordinal, key.attempt));
            self.start(session, loads);
        }
    }

    /// Starts what a worker was granted, in that order, as far as it has room.
    fn start(&mut self, session: u64, loads: &[Load]) {
        loop {
            let (waiting, free) = self.waiting.get_mut(&session).unwrap();
            let Some(next) = waiting.front().copied() else { return };
            let (_, _, cpus, runs) = loads[next.0 as usize - 1];
            if cpus > *free {
                return;
            }
            *free -= cpus;
            waiting.pop_front();
            let run_ms = self.between(runs);
            self.ends.push((-((self.now_ms + run_ms) as i64), session, next, run_ms));
        }
    }

    /// Part of all cpu time that each queue's tasks had in this time.
    fn run(&mut self, until_ms: u64, loads: &[Load]) -> Vec<f64> {
        self.used.clear();
        self.grant(loads);
        while let Some((end, session, (job_id, ordinal, attempt), run_ms)) = self.ends.pop() {
            let at_ms = end.unsigned_abs();
            if at_ms > until_ms {
                self.ends.push((end, session, (job_id, ordinal, attempt), run_ms));
                break;
            }
            self.now_ms = at_ms;
            let cpus = loads[job_id as usize - 1].2;
            *self.used.entry(job_id).or_default() += run_ms * cpus;
            self.waiting.get_mut(&session).unwrap().1 += cpus;
            self.start(session, loads);
            let sequence = self.sequences.entry(session).or_default();
            *sequence += 1;
            let ended = Ended { cause: Cause::ExitCode as i32, run_ms, start_time_ms: 1, ..Ended::default() };
            let key = AttemptKey { job_id, ordinal, attempt };
            let items = vec![ReportItem { attempt: Some(key), item: Some(Item::Ended(ended)) }];
            let report = Some(Report { first_sequence: *sequence, items });
            self.apply(C::WorkerReport(WorkerReport { session, report }));
            self.grant(loads);
        }
        let all: u64 = self.used.values().sum();
        (1..=loads.len() as u64).map(|job| self.used[&job] as f64 / all as f64).collect()
    }
}

/// Each queue's part is its weight's, within five percent of it.
fn assert_fair(shares: &[f64], loads: &[Load]) {
    let weights: u32 = loads.iter().map(|(_, weight, ..)| weight).sum();
    for (share, (name, weight, ..)) in shares.iter().zip(loads) {
        let due = f64::from(*weight) / f64::from(weights);
        assert!(
            (share / due - 1.0).abs() < 0.05,
            "queue {name}: {share:.3} of the grid, {due:.3} is its part: {shares:?}"
        );
    }
}

#[test]
fn saturated_queues_share_by_their_weights() {
    let loads: [Load; 3] = [("a", 5, 1, (200, 1_500)), ("b", 2, 1, (500, 900)), ("c", 1, 1, (300, 400))];
    let mut grid = Grid::new(4, 4, &loads);
    let shares = grid.run(MINUTE_MS, &loads);
    assert_fair(&shares, &loads);
}

#[test]
fn two_places_are_shared_by_weights_that_do_not_divide_them() {
    let loads: [Load; 2] = [("a", 3, 1, (200, 300)), ("b", 2, 1, (100, 600))];
    let mut grid = Grid::new(1, 2, &loads);
    let shares = grid.run(MINUTE_MS, &loads);
    assert_fair(&shares, &loads);
}

#[test]
fn wide_tasks_get_no_less_than_narrow_ones() {
    let loads: [Load; 2] = [("wide", 1, 4, (300, 500)), ("narrow", 1, 1, (300, 500))];
    let mut grid = Grid::new(4, 4, &loads);
    let shares = grid.run(MINUTE_MS, &loads);
    assert_fair(&shares, &loads);
}

#[test]
fn very_short_tasks_that_are_granted_ahead_share_as_well() {
    let loads: [Load; 2] = [("a", 3, 1, (5, 15)), ("b", 1, 1, (10, 30))];
    let mut grid = Grid::new(2, 2, &loads);
    let shares = grid.run(MINUTE_MS, &loads);
    assert_fair(&shares, &loads);
}
