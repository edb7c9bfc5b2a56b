//! What a task costs the rules: `cargo run --release -p scheduler --example throughput [TASKS]`.
//!
//! Two workers of one cpu run a flood of short tasks; printed are microseconds a task of planning, granting and
//! ending, and the bytes of the snapshot afterwards.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use proto::{
    internal::{
        Command, Entry, GrantTasks, JobSubmission, OpenSession, SubmitJobs, WorkerReport, command::Command as C,
    },
    v1::{AttemptKey, Capacity, Cause, Ended, IndexRange, Report, ReportItem, Resources, report_item::Item},
};
use scheduler::{Applied, Cursor, Event, Outcome, State, plan};

/// Ends in one report.
const BATCH: usize = 40;

struct Grid {
    state: State,
    index: u64,
}

impl Grid {
    fn apply(&mut self, command: C) -> (Applied, Duration) {
        self.index += 1;
        let (time_ms, wall_ms) = (self.index, self.index as i64);
        let commands = vec![Command { command: Some(command) }];
        let entry = Entry { proposer: 1, sequence: self.index, time_ms, wall_ms, commands };
        let start = Instant::now();
        let applied = self.state.apply(self.index, &entry);
        (applied, start.elapsed())
    }
}

fn ended(key: AttemptKey) -> ReportItem {
    let ended = Ended {
        cause: Cause::ExitCode as i32,
        start_time_ms: 5,
        end_time_ms: 6,
        run_ms: 1,
        cpu_ms: 1,
        max_memory_kib: 1800,
        ..Ended::default()
    };
    ReportItem { attempt: Some(key), item: Some(Item::Ended(ended)) }
}

fn main() {
    let tasks: u64 = std::env::args().nth(1).map_or(500_000, |count| count.parse().unwrap());
    let mut grid = Grid { state: State::new(), index: 0 };
    let capacity = Some(Capacity { cpu_milli: 1000, ..Capacity::default() });
    for worker in ["w1", "w2"] {
        grid.apply(C::OpenSession(OpenSession { worker: worker.to_owned(), capacity, ..OpenSession::default() }));
    }
    let job = JobSubmission {
        resources: Some(Resources { cpu_milli: 1000, ..Resources::default() }),
        ranges: vec![IndexRange { first: 0, last: 2 * tasks - 1, step: 1 }],
        is_array: true,
        ..JobSubmission::default()
    };
    let (_, submitted) = grid.apply(C::SubmitJobs(SubmitJobs { jobs: vec![job], ..SubmitJobs::default() }));
    println!("submit of {} tasks: {submitted:?}", 2 * tasks);

    let heard: BTreeSet<u64> = [1, 2].into();
    let mut held: [Vec<AttemptKey>; 2] = Default::default();
    let (mut sequences, mut done, mut plans) = ([0u64; 2], 0u64, 0u64);
    let [mut planning, mut granting, mut ending] = [Duration::ZERO; 3];
    while done < tasks {
        let start = Instant::now();
        let planned = plan(&grid.state, &heard, &Cursor::default(), 100_000);
        planning += start.elapsed();
        plans += 1;
        if !planned.grants.is_empty() {
            let (applied, took) = grid.apply(C::GrantTasks(GrantTasks { runs: planned.grants }));
            granting += took;
            for event in applied.events {
                if let Event::Granted { session, key, .. } = event {
                    held[session as usize - 1].push(key);
                }
            }
        }
        for worker in 0..2 {
            let count = held[worker].len().min(BATCH);
            let items: Vec<ReportItem> = held[worker].drain(..count).map(ended).collect();
            let first_sequence = sequences[worker] + 1;
            sequences[worker] += items.len() as u64;
            done += items.len() as u64;
            let report = Some(Report { first_sequence, items });
            let (applied, took) = grid.apply(C::WorkerReport(WorkerReport { session: worker as u64 + 1, report }));
            ending += took;
            assert!(matches!(&applied.outcomes[0], Ok(Outcome::Reported { verdicts, .. }) if verdicts.is_empty()));
        }
    }
    let each = |total: Duration| total.as_secs_f64() * 1e6 / done as f64;
    println!("{done} ends, {plans} plans; microseconds a task:");
    println!("plan {:.2}  grant {:.2}  end {:.2}", each(planning), each(granting), each(ending));

    let start = Instant::now();
    let snapshot: Vec<_> = grid.state.encode().collect();
    let bytes: usize = snapshot.iter().map(|piece| piece.len()).sum();
    println!("snapshot: {bytes} bytes in {:?}", start.elapsed());
    let start = Instant::now();
    let restored = State::decode(snapshot).unwrap();
    println!("restored in {:?}, digest {}", start.elapsed(), restored.digest() == grid.state.digest());
}
