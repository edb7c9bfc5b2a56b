//! What the planner costs and how it shares, apart from what it decides (which the transcripts show).
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use proto::{
    internal::{
        Command, Entry, GrantRun, GrantTasks, JobSubmission, OpenSession, SubmitJobs, WorkerReport,
        command::Command as C,
    },
    v1::{AttemptKey, Capacity, Cause, Ended, IndexRange, Report, ReportItem, Resources, report_item::Item},
};
use scheduler::{Applied, Cursor, Event, Plan, State, limits, plan};

struct Grid {
    state: State,
    index: u64,
}

impl Grid {
    fn new(workers: u64, cpus: u64) -> Self {
        let mut grid = Self { state: State::new(), index: 0 };
        for worker in 0..workers {
            let capacity = Some(Capacity { cpu_milli: cpus * 1000, ..Capacity::default() });
            grid.apply(C::OpenSession(OpenSession {
                worker: format!("w{worker}"),
                capacity,
                ..OpenSession::default()
            }));
        }
        grid
    }

    fn apply(&mut self, command: C) -> Applied {
        self.index += 1;
        let commands = vec![Command { command: Some(command) }];
        let entry = Entry { proposer: 1, sequence: self.index, time_ms: 0, wall_ms: 0, commands };
        let applied = self.state.apply(self.index, &entry);
        assert!(applied.outcomes[0].is_ok(), "{:?}", applied.outcomes);
        applied
    }

    fn submit(&mut self, jobs: usize, tasks: u64, cpus: impl Fn(usize) -> u64) {
        let job = |number: usize| JobSubmission {
            resources: Some(Resources { cpu_milli: cpus(number) * 1000, ..Resources::default() }),
            ranges: vec![IndexRange { first: 0, last: tasks - 1, step: 1 }],
            is_array: true,
            ..JobSubmission::default()
        };
        let jobs: Vec<JobSubmission> = (0..jobs).map(job).collect();
        for some in jobs.chunks(limits::JOBS_IN_A_SUBMIT) {
            self.apply(C::SubmitJobs(SubmitJobs { jobs: some.to_vec(), ..SubmitJobs::default() }));
        }
    }

    fn plan(&self, cursor: &Cursor, budget: usize) -> Plan {
        let heard: BTreeSet<u64> = self.state.sessions().map(|session| session.id).collect();
        plan(&self.state, &heard, cursor, budget)
    }

    fn grant(&mut self, runs: Vec<GrantRun>) -> Vec<(u64, AttemptKey)> {
        let applied = self.apply(C::GrantTasks(GrantTasks { runs }));
        let granted = applied.events.iter().filter_map(|event| match event {
            Event::Granted { session, key, .. } => Some((*session, *key)),
            _ => None,
        });
        granted.collect()
    }

    fn end(&mut self, session: u64, first_sequence: u64, keys: &[AttemptKey]) {
        let ended = Ended { cause: Cause::ExitCode as i32, run_ms: 1, ..Ended::default() };
        let item = |key: &AttemptKey| ReportItem { attempt: Some(*key), item: Some(Item::Ended(ended.clone())) };
        let report = Some(Report { first_sequence, items: keys.iter().map(item).collect() });
        self.apply(C::WorkerReport(WorkerReport { session, report }));
    }
}

fn tasks_in(runs: &[GrantRun]) -> u32 {
    runs.iter().map(|run| run.tasks.unwrap().count).sum()
}

#[test]
fn a_full_grid_is_planned_without_a_look_at_the_queued_jobs() {
    let mut grid = Grid::new(3, 2);
    grid.submit(20_000, 10, |number| 1 + number as u64 % 2);
    let first = grid.plan(&Cursor::default(), usize::MAX);
    grid.grant(first.grants);
    // Two shapes and three workers: a dozen steps are plenty, however much is queued.
    let full = grid.plan(&Cursor::default(), 30);
    assert!(full.finished && full.grants.is_empty(), "{full:?}");
}

#[test]
fn a_plan_that_ran_out_goes_on_from_its_cursor() {
    let mut grid = Grid::new(5, 100);
    grid.submit(400, 1, |_| 1);
    let (mut cursor, mut plans, mut granted) = (Cursor::default(), 0, 0);
    loop {
        let planned = grid.plan(&cursor, 20);
        granted += grid.grant(planned.grants).len();
        plans += 1;
        cursor = planned.cursor;
        if planned.finished {
            break;
        }
        assert!(plans < 400, "it gets on");
    }
    assert_eq!(granted, 400);
    assert!(plans > 10, "a budget of 20 steps is kept: {plans} plans");
}

#[test]
fn a_budget_below_the_number_of_workers_still_gets_on() {
    let mut grid = Grid::new(50, 1);
    grid.submit(1, 50, |_| 1);
    let planned = grid.plan(&Cursor::default(), 1);
    assert!(tasks_in(&planned.grants) > 0);
}

#[test]
fn an_entry_never_grants_more_than_its_limit() {
    let mut grid = Grid::new(10, 1_000);
    grid.submit(1, 20_000, |_| 1);
    let planned = grid.plan(&Cursor::default(), usize::MAX);
    assert_eq!(tasks_in(&planned.grants) as usize, limits::GRANTS_IN_AN_ENTRY);
    assert!(!planned.finished);
    assert!(planned.grants.len() <= 10, "each worker gets one run of neighbours: {}", planned.grants.len());
}

#[test]
fn work_ahead_is_bounded_even_and_topped_up_in_large_pieces() {
    let mut grid = Grid::new(2, 1);
    grid.submit(1, 100_000, |_| 1);
    let mut sequences = BTreeMap::from([(1u64, 1u64), (2, 1)]);
    // Sixteen ends prove that the tasks are short.
    for _ in 0..8 {
        let planned = grid.plan(&Cursor::default(), 1_000);
        assert_eq!(tasks_in(&planned.grants), 2, "nothing ahead before it is proven");
        for (session, key) in grid.grant(planned.grants) {
            let sequence = sequences.get_mut(&session).unwrap();
            grid.end(session, *sequence, &[key]);
            *sequence += 1;
        }
    }
    let planned = grid.plan(&Cursor::default(), 10_000);
    let granted = grid.grant(planned.grants);
    let by_session = |session: u64| granted.iter().filter(|(by, _)| *by == session).count();
    // Tasks of 1 ms: one that runs and a hundred ahead.
    assert_eq!((by_session(1), by_session(2)), (101, 101));
    let first: Vec<AttemptKey> = granted.iter().filter(|(by, _)| *by == 1).map(|(_, key)| *key).collect();
    grid.end(1, sequences[&1], &first[..40]);
    assert!(grid.plan(&Cursor::default(), 10_000).grants.is_empty(), "more than half is left");
    grid.end(1, sequences[&1] + 40, &first[40..60]);
    assert_eq!(tasks_in(&grid.plan(&Cursor::default(), 10_000).grants), 60);
    grid.state.check().unwrap();
}

#[test]
fn the_last_tasks_are_shared_evenly() {
    let mut grid = Grid::new(2, 1);
    grid.submit(1, 16 + 2 + 50, |_| 1);
    let mut sequences = BTreeMap::from([(1u64, 1u64), (2, 1)]);
    for _ in 0..8 {
        let planned = grid.plan(&Cursor::default(), 1_000);
        for (session, key) in grid.grant(planned.grants) {
            let sequence = sequences.get_mut(&session).unwrap();
            grid.end(session, *sequence, &[key]);
            *sequence += 1;
        }
    }
    let planned = grid.plan(&Cursor::default(), 10_000);
    let granted = grid.grant(planned.grants);
    let of_first = granted.iter().filter(|(session, _)| *session == 1).count();
    assert_eq!((granted.len(), of_first), (52, 26));
}
