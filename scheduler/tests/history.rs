//! Jobs that are larger than a segment, and what a state says that has some of their segments and not all.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bytes::Bytes;
use proto::{
    internal::{
        Command, CutSegment, Entry, GrantRun, GrantTasks, JobSubmission, OpenSession, OrdinalRange, RaiseRules,
        RetryTasks, SetHistory, SettleSegments, SubmitJobs, WorkerReport, command::Command as C,
    },
    v1::{AttemptKey, Capacity, Cause, Ended, IndexRange, Report, ReportItem, Resources, report_item::Item},
};
use scheduler::{Archive, Detail, Event, JobFilter, Outcome, State};

const TASKS: u32 = 60_000;

struct Grid {
    state: State,
    archives: Vec<Arc<Archive>>,
    sequence: u64,
}

impl Grid {
    fn new() -> Self {
        let mut grid = Self { state: State::new(), archives: Vec::new(), sequence: 0 };
        grid.apply(C::RaiseRules(RaiseRules { version: 2 }));
        grid.apply(C::SetHistory(SetHistory { keep_jobs: Some(0), ..SetHistory::default() }));
        let capacity = Some(Capacity { cpu_milli: 1_000_000, ..Capacity::default() });
        grid.apply(C::OpenSession(OpenSession { worker: "w".to_owned(), capacity, ..OpenSession::default() }));
        grid
    }

    fn apply(&mut self, command: C) -> Outcome {
        let index = self.state.applied_index() + 1;
        let commands = vec![Command { command: Some(command) }];
        let entry = Entry { time_ms: index, wall_ms: index as i64, commands, ..Entry::default() };
        let applied = self.state.apply(index, &entry);
        for event in applied.events {
            if let Event::SegmentCut { number, data, .. } = event {
                let segment = self.state.segments()[number as usize - 1].clone();
                assert_eq!(segment.checksum, *blake3::hash(&data).as_bytes());
                assert!(data.len() < 600 << 10, "{} bytes", data.len());
                self.archives.push(Arc::new(Archive::read(number, &data).unwrap()));
            }
        }
        applied.outcomes.into_iter().next().unwrap().unwrap()
    }

    fn submit(&mut self, tasks: u32) {
        let resources = Some(Resources { cpu_milli: 1, ..Resources::default() });
        let ranges = vec![IndexRange { first: 0, last: u64::from(tasks) - 1, step: 1 }];
        let job = JobSubmission { resources, ranges, is_array: true, ..JobSubmission::default() };
        self.apply(C::SubmitJobs(SubmitJobs { jobs: vec![job], ..SubmitJobs::default() }));
    }

    fn run(&mut self, job_id: u64, tasks: u32, attempt: u32) {
        for first in (0..tasks).step_by(1_000) {
            let range = OrdinalRange { first, count: 1_000.min(tasks - first) };
            let run = GrantRun { session: 1, job_id, tasks: Some(range), ..GrantRun::default() };
            self.apply(C::GrantTasks(GrantTasks { runs: vec![run] }));
            let ended = |ordinal: u32| {
                let ended = Ended {
                    cause: Cause::ExitCode as i32,
                    exit_code: i32::from(ordinal % 1_000 == 7),
                    run_ms: u64::from(ordinal),
                    max_memory_kib: 1 << 30,
                    stdout_bytes: u64::from(ordinal) << 20,
                    ..Ended::default()
                };
                let key = AttemptKey { job_id, ordinal, attempt };
                ReportItem { attempt: Some(key), item: Some(Item::Ended(ended)) }
            };
            let items: Vec<_> = (first..first + range.count).map(ended).collect();
            let first_sequence = self.sequence + 1;
            self.sequence += items.len() as u64;
            let report = Some(Report { first_sequence, items });
            self.apply(C::WorkerReport(WorkerReport { session: 1, report }));
        }
        assert!(self.state.job(job_id).unwrap().end_time.is_some());
    }

    fn cut(&mut self) -> Outcome {
        self.apply(C::CutSegment(CutSegment {}))
    }
}

#[test]
fn a_job_that_is_larger_than_a_segment_is_read_back_whole() {
    let mut grid = Grid::new();
    grid.submit(TASKS);
    grid.submit(3);
    grid.submit(1);
    grid.run(1, TASKS, 1);
    grid.run(2, 3, 1);
    let tasks = |state: &State| state.tasks(1, &[], &[], true, 0, TASKS as usize).map(|(tasks, _)| tasks);
    let (before, job) = (grid.state.clone(), grid.state.job(1));
    let all = tasks(&before);
    while grid.state.is_history_due(0) {
        grid.cut();
        grid.state.check().unwrap();
        // Half-written jobs survive a snapshot too.
        let pieces: Vec<Bytes> = grid.state.encode().collect();
        grid.state = State::decode(pieces).unwrap();
    }
    let through = grid.archives.len() as u32;
    assert!(through >= 4, "{through} segments");
    assert_eq!(grid.apply(C::SettleSegments(SettleSegments { through: through - 1 })), Outcome::Count(0));
    assert_eq!(grid.apply(C::SettleSegments(SettleSegments { through })), Outcome::Count(2));
    grid.state.check().unwrap();
    assert_eq!((grid.state.job(1), grid.state.gone(1).unwrap().segments), (None, through));
    assert_eq!(grid.state.segments_of(1, Detail::Tasks), 1..through + 1);
    assert_eq!(grid.state.segments_of(1, Detail::Record), 1..2);

    let whole = grid.state.with_archives(&grid.archives, Detail::Tasks).unwrap();
    assert_eq!(whole.job(1), job);
    assert_eq!(tasks(&whole), all);
    // Without one of its segments nothing is said of its tasks; without any but the first the job is there.
    let some: Vec<_> = grid.archives.iter().filter(|one| one.number() != 2).cloned().collect();
    let without_one = grid.state.with_archives(&some, Detail::Tasks).unwrap();
    assert_eq!((without_one.job(1), without_one.job(2).is_some()), (None, true));
    let record = grid.state.with_archives(&grid.archives[..1], Detail::Record).unwrap();
    assert_eq!(record.job(1), job);
}

#[test]
fn a_list_ends_at_what_is_not_at_hand() {
    let mut grid = Grid::new();
    for _ in 0..5 {
        grid.submit(1);
    }
    for job in 2..=3 {
        grid.run(job, 1, 1);
        grid.cut();
    }
    grid.apply(C::SettleSegments(SettleSegments { through: 2 }));
    let filter = JobFilter { ended: true, ..JobFilter::default() };
    let list = |state: &State, before| {
        let page = state.jobs(&filter, before, 10);
        (page.jobs.iter().map(|job| job.id).collect::<Vec<_>>(), page.next, page.missing)
    };
    assert_eq!(list(&grid.state, None), (vec![5, 4], Some(4), Some(3)));
    assert_eq!(grid.state.segments_below(3, 1).into_iter().collect::<Vec<_>>(), [2]);
    assert_eq!(grid.state.segments_below(3, 9).into_iter().collect::<Vec<_>>(), [1, 2]);
    // Who doesn't ask for such needs nothing of them.
    let failed = JobFilter { states: vec![proto::v1::JobState::Failed], ..filter.clone() };
    let page = grid.state.jobs(&failed, None, 10);
    assert_eq!((page.jobs.len(), page.next, page.missing), (0, None, None));
    let open = grid.state.jobs(&JobFilter::default(), None, 10);
    assert_eq!((open.jobs.len(), open.missing), (3, None));
    let one = grid.state.with_archives(&grid.archives[1..], Detail::Record).unwrap();
    assert_eq!(list(&one, Some(4)), (vec![3], Some(3), Some(2)));
    let all = grid.state.with_archives(&grid.archives, Detail::Record).unwrap();
    assert_eq!(list(&all, Some(4)), (vec![3, 2, 1], None, None));
}

#[test]
fn a_retry_in_the_middle_of_writing_begins_it_anew() {
    let mut grid = Grid::new();
    grid.submit(TASKS);
    grid.submit(1);
    grid.run(1, TASKS, 1);
    grid.cut();
    grid.cut();
    grid.apply(C::RetryTasks(RetryTasks { job_id: 1, ..RetryTasks::default() }));
    grid.state.check().unwrap();
    assert!(!grid.state.is_history_due(0));
    assert_eq!(grid.cut(), Outcome::Count(0));
    grid.run(1, TASKS, 2);
    while grid.state.is_history_due(0) {
        grid.cut();
    }
    let through = grid.archives.len() as u32;
    let before = grid.state.task(1, 12_345, true);
    assert_eq!(grid.apply(C::SettleSegments(SettleSegments { through })), Outcome::Count(1));
    assert_eq!(grid.state.gone(1).unwrap().first_segment, 3);
    let whole = grid.state.with_archives(&grid.archives, Detail::Tasks).unwrap();
    assert_eq!(whole.task(1, 12_345, true), before);
}
