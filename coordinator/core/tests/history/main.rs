//! Jobs that move to the history, and rules that rise.
#![allow(clippy::unwrap_used)]

mod grid;

use bytes::Bytes;
use coordinator_core::{Core, Input, Output};
use proto::{
    internal::{call_request::Request, call_response::Response},
    v1::{self, GetJobRequest, ListJobsRequest, ListTasksRequest, ReadLogsRequest, SubmitJobRequest, WatchJobsRequest},
};
use scheduler::State;

use self::grid::{Grid, TERM, settings};

const NEWEST: [u32; 3] = [2, 2, 2];

fn get(job_id: u64) -> Request {
    Request::GetJob(GetJobRequest { job_id, last: false })
}

#[test]
fn jobs_leave_when_most_members_have_them_and_no_sooner() {
    let mut grid = Grid::new(NEWEST);
    grid.keep_nothing();
    grid.storing = [0].into();
    let job = grid.ended_job("a");
    grid.ended_job("b");
    assert_eq!((grid.state().segments().len(), grid.state().moved_jobs()), (1, 0));
    let data = grid.segments[0][&1].clone();
    grid.store(2, 1, data);
    grid.settle();
    assert_eq!((grid.state().settled_segments(), grid.state().moved_jobs()), (1, 1));
    assert!(grid.state().gone(job).is_some());
    let digests = &grid.digests;
    assert!(digests[0] == digests[1] && digests[1] == digests[2]);
}

#[test]
fn what_has_moved_is_read_as_before() {
    let mut grid = Grid::new(NEWEST);
    let (job, other) = (grid.ended_job("a"), grid.ended_job("b"));
    let tasks = Request::ListTasks(ListTasksRequest { job_id: job, attempts: true, ..ListTasksRequest::default() });
    let list = Request::ListJobs(ListJobsRequest { all: true, ..ListJobsRequest::default() });
    let repeat = SubmitJobRequest {
        spec: Some(v1::JobSpec { command: vec!["true".to_owned()], ..v1::JobSpec::default() }),
        request_id: "a".to_owned(),
    };
    let cancel = v1::CancelJobRequest { job_id: job, ..v1::CancelJobRequest::default() };
    let requests = [get(job), tasks, list, Request::SubmitJob(repeat), Request::CancelJob(cancel), get(other), get(99)];
    let before: Vec<_> = requests.iter().map(|request| grid.ask(request.clone())).collect();
    assert_eq!((grid.reads, before[6].is_err()), (0, true));
    grid.keep_nothing();
    grid.settle();
    assert!(grid.state().gone(job).is_some() && grid.state().gone(other).is_none());
    for (request, before) in requests.iter().zip(before) {
        assert_eq!(grid.ask(request.clone()), before, "{request:?}");
    }
    assert_eq!(grid.reads, 5);
    // What can't be read now is said to be so, and not to be missing.
    grid.readable = false;
    let refused = grid.ask(get(job)).unwrap_err();
    assert_eq!((refused.code, refused.reason.as_str()), (14, "HISTORY_UNAVAILABLE"));
    assert!(grid.ask(get(other)).is_ok());
    let retry = v1::RetryJobRequest { job_id: job, ..v1::RetryJobRequest::default() };
    assert_eq!(grid.ask(Request::RetryJob(retry)).unwrap_err().reason, "JOB_MOVED");
}

#[test]
fn a_watch_and_a_log_of_what_has_moved_end_as_before() {
    let mut grid = Grid::new(NEWEST);
    let job = grid.ended_job("a");
    grid.ended_job("b");
    grid.keep_nothing();
    grid.settle();
    assert!(grid.state().gone(job).is_some());
    let watch = WatchJobsRequest { job_ids: vec![job], ..WatchJobsRequest::default() };
    let call = grid.open(Request::WatchJobs(watch));
    let answers = grid.answers(call);
    let [Ok(Response::WatchJobs(shown))] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!((shown.reset, shown.jobs[0].state()), (true, v1::JobState::Cancelled));
    let read = ReadLogsRequest { job_id: job, follow: true, ..ReadLogsRequest::default() };
    let call = grid.open(Request::ReadLogs(read));
    // It never ran: there is nothing to say, and nothing to wait for.
    assert_eq!(grid.answers(call), []);
    let call = grid.open(Request::ReadLogs(ReadLogsRequest { index: 3, ..read }));
    assert_eq!(grid.answers(call)[0].as_ref().unwrap_err().code, 5);
}

#[test]
fn a_slow_watch_sees_the_end_of_a_job_that_has_moved_meanwhile() {
    let mut grid = Grid::new(NEWEST);
    grid.keep_nothing();
    let spec = Some(v1::JobSpec { command: vec!["true".to_owned()], ..v1::JobSpec::default() });
    let submit = SubmitJobRequest { spec, request_id: String::new() };
    let Ok(Response::Job(job)) = grid.ask(Request::SubmitJob(submit)) else { panic!() };
    let watch = WatchJobsRequest { job_ids: vec![job.id], tasks: true, ..WatchJobsRequest::default() };
    let call = grid.open(Request::WatchJobs(watch));
    let mut shown = grid.answers(call);
    // Its caller takes nothing: after some messages nothing more is sent.
    for round in 0..20 {
        let hold = v1::HoldJobRequest { job_id: job.id, request_id: String::new() };
        let release = v1::ReleaseJobRequest { job_id: job.id, request_id: String::new() };
        let request = if round % 2 == 0 { Request::HoldJob(hold) } else { Request::ReleaseJob(release) };
        assert!(grid.ask(request).is_ok());
    }
    let cancel = v1::CancelJobRequest { job_id: job.id, ..v1::CancelJobRequest::default() };
    assert!(grid.ask(Request::CancelJob(cancel)).is_ok());
    grid.ended_job("next");
    assert!(grid.state().gone(job.id).is_some());
    shown.extend(grid.answers(call));
    let ended = |answers: &[Result<Response, _>]| {
        answers.iter().flatten().any(|answer| match answer {
            Response::WatchJobs(shown) => shown.jobs.iter().any(|job| job.state() == v1::JobState::Cancelled),
            _ => false,
        })
    };
    assert!(!ended(&shown));
    grid.tell(0, Input::Taken { call, count: 16 });
    let rest = grid.answers(call);
    assert!(ended(&rest), "{rest:?}");
    let tasks = rest.iter().flatten().filter_map(|answer| match answer {
        Response::WatchJobs(shown) => shown.tasks.last(),
        _ => None,
    });
    assert_eq!(tasks.last().unwrap().state(), v1::TaskState::Cancelled);
}

#[test]
fn a_snapshot_waits_for_the_segments_that_it_relies_on() {
    let mut grid = Grid::new(NEWEST);
    grid.keep_nothing();
    grid.storing = [0, 1].into();
    for request in ["a", "b", "c", "d", "e", "f"] {
        grid.ended_job(request);
    }
    let first_cut = grid.state().segments()[0].index;
    assert!(grid.snapshots[0].iter().any(|index| *index > first_cut));
    assert!(grid.snapshots[2].iter().all(|index| *index < first_cut), "{:?}", grid.snapshots[2]);
    let data = grid.segments[0].clone();
    for (number, data) in data {
        grid.store(2, number, data);
    }
    grid.settle();
    assert!(grid.snapshots[2].iter().any(|index| *index > first_cut));
}

#[test]
fn a_member_that_took_a_snapshot_over_says_what_must_be_on_its_disk() {
    let mut grid = Grid::new(NEWEST);
    grid.keep_nothing();
    grid.ended_job("a");
    grid.ended_job("b");
    let pieces: Vec<Bytes> = grid.state().encode().collect();
    let index = grid.state().applied_index();
    let mut core = Core::new(settings(3, 2), 0, State::new());
    let kept = |core: &mut Core| {
        core.flush(0, 0).into_iter().find_map(|output| match output {
            Output::KeepSegments { segments } => Some(segments.len()),
            _ => None,
        })
    };
    assert_eq!(kept(&mut core), Some(0));
    core.step(Input::Restored { index, state: Box::new(State::decode(pieces).unwrap()) }, 0, 0);
    assert_eq!((kept(&mut core), kept(&mut core)), (Some(1), None));
}

#[test]
fn two_releases_of_the_rules_meet_in_one_log() {
    let mut grid = Grid::new([2, 1, 2]);
    grid.ended_job("a");
    grid.ended_job("b");
    assert_eq!(grid.state().rules_version(), 1, "one member doesn't follow the next rules");
    let set = v1::SetHistoryRequest { keep_jobs: Some(0), ..v1::SetHistoryRequest::default() };
    assert_eq!(grid.ask(Request::SetHistory(set)).unwrap_err().reason, "RULES_TOO_OLD");
    let digests = &grid.digests;
    assert!(digests[0] == digests[1] && digests[1] == digests[2], "both make the same of the old rules");
    assert!(grid.halted.is_empty());

    // The older release is replaced, and goes on from what it had.
    let pieces: Vec<Bytes> = grid.cores[1].state().encode().collect();
    let (applied, state) = (grid.cores[1].applied_index(), State::decode(pieces).unwrap());
    let old = std::mem::replace(&mut grid.cores[1], Core::new(settings(2, 2), applied, state));
    grid.settle();
    assert_eq!(grid.cores.iter().map(|core| core.state().rules_version()).collect::<Vec<_>>(), [2, 2, 2]);
    grid.keep_nothing();
    grid.ended_job("c");
    assert_eq!(grid.state().moved_jobs(), 2);
    let digests = &grid.digests;
    assert!(digests[0] == digests[1] && digests[1] == digests[2]);

    // The older one, if it came back, reads on up to the entry that raises the rules, and stops there.
    let mut old = old;
    let mut reason = None;
    for (index, data) in grid.log.iter().skip(applied as usize) {
        old.step(Input::Committed { index: *index, term: TERM, data: data.clone() }, 0, 0);
        reason = reason.or(halt(old.flush(0, 0)));
        if reason.is_some() {
            break;
        }
        assert_eq!(old.state().digest(), grid.digests[0][index]);
    }
    assert_eq!(
        reason.as_deref(),
        Some("the grid follows rules 2, this coordinator no more than 1: run a newer release")
    );
    // Nor does it start from a snapshot of the new rules.
    let pieces: Vec<Bytes> = grid.state().encode().collect();
    let mut late = Core::new(settings(2, 1), grid.state().applied_index(), State::decode(pieces).unwrap());
    assert_eq!(halt(late.flush(0, 0)), reason);
}

fn halt(outputs: Vec<Output>) -> Option<String> {
    outputs.into_iter().find_map(|output| match output {
        Output::Halt { reason } => Some(reason),
        _ => None,
    })
}
