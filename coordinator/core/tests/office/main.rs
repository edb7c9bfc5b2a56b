//! A coordinator that comes into office: what arrived before it could serve anybody is served then.
#![allow(clippy::unwrap_used)]

mod office;
mod watches;

use coordinator_core::{CallId, Input};
use proto::internal::{Caller, call_request, call_response};
use proto::v1::{
    AttemptKey, CancelJobRequest, Cause, Ended, JobSpec, JobState, Role, SubmitJobRequest, SubmitJobsRequest, Task,
    TaskState, WatchJobsRequest, submit_jobs_request::Edge,
};

use office::{Office, TERM};

#[test]
fn workers_that_come_between_election_and_office_get_their_sessions() {
    let mut office = Office::new();
    office.elect();
    office.connect_worker(1);
    office.connect_worker(2);
    assert_eq!(office.sessions(), []);
    office.take_office();
    assert_eq!(office.sessions(), [(CallId(1), 1), (CallId(2), 2)]);
    assert_eq!(office.finished, []);
}

#[test]
fn who_hangs_up_before_the_office_is_taken_gets_nothing() {
    let mut office = Office::new();
    office.elect();
    office.connect_worker(1);
    office.step(Input::Hangup { call: CallId(1) });
    office.take_office();
    assert_eq!(office.sessions(), []);
    assert_eq!(office.core.state().sessions().count(), 0);
}

#[test]
fn who_is_elected_and_deposed_at_once_sends_everybody_away() {
    let mut office = Office::new();
    office.elect();
    office.connect_worker(1);
    office.step(Input::Role { term: TERM + 1, leading: false });
    assert_eq!(office.finished, [CallId(1)]);
    assert_eq!(office.sessions(), []);
}

/// Each job waits for the five before it, one way or another; all of it is far more than an entry holds.
#[test]
fn a_flow_of_ten_thousand_jobs_is_accepted_whole() {
    const JOBS: u32 = 10_000;
    let mut office = Office::new();
    office.elect();
    office.take_office();
    let spec = |number: u32| JobSpec {
        name: format!("step-{number}"),
        command: vec!["./step".to_owned(), number.to_string()],
        env: [("NUMBER".to_owned(), number.to_string())].into(),
        ..JobSpec::default()
    };
    let edge = |from: u32, to: u32| Edge { from, to, condition: 1 + (to % 2) as i32, exit_codes: Vec::new() };
    let edges: Vec<Edge> =
        (1..JOBS).flat_map(|to| (to.saturating_sub(5)..to).map(move |from| edge(from, to))).collect();
    assert!(edges.len() > 49_900);
    let request = SubmitJobsRequest { request_id: "flow".to_owned(), specs: (0..JOBS).map(spec).collect(), edges };
    let submit = |office: &mut Office, call: u64| {
        let request = call_request::Request::SubmitJobs(request.clone());
        let caller = Caller { name: "ann".to_owned(), role: Role::Client.into() };
        office.step(Input::Open { call: CallId(call), caller, request });
        let Some((_, call_response::Response::SubmitJobs(answer))) = office.answers.pop() else { panic!("no answer") };
        answer.jobs
    };
    let jobs = submit(&mut office, 1);
    assert_eq!((jobs.len(), jobs[0].id, jobs[9_999].id), (10_000, 1, 10_000));
    assert_eq!((jobs[0].state(), jobs[9_999].state()), (JobState::Queued, JobState::Waiting));
    // The same request again is the same flow.
    let again = submit(&mut office, 2);
    assert_eq!((again.len(), again[0].id, again[0].duplicate), (10_000, 1, true));
    let cancel = CancelJobRequest { job_id: 1, cascade: true, ..CancelJobRequest::default() };
    let caller = Caller { name: "ann".to_owned(), role: Role::Client.into() };
    let request = call_request::Request::CancelJob(cancel);
    office.step(Input::Open { call: CallId(3), caller, request });
    let cancelled = |id: u64| office.core.state().job(id).is_some_and(|job| job.state() == JobState::Cancelled);
    assert!((1..=u64::from(JOBS)).all(cancelled));
    office.core.state().check().unwrap();
}

#[test]
fn on_an_idle_grid_a_job_and_its_start_share_an_entry() {
    let mut office = Office::new();
    office.elect();
    office.take_office();
    office.connect_worker(1);
    let submit = |office: &mut Office, call: u64| {
        let before = office.index;
        let spec = Some(JobSpec { command: vec!["true".to_owned()], ..JobSpec::default() });
        let request = call_request::Request::SubmitJob(SubmitJobRequest { spec, request_id: call.to_string() });
        let caller = Caller { name: "ann".to_owned(), role: Role::Client.into() };
        office.step(Input::Open { call: CallId(call), caller, request });
        let Some((_, call_response::Response::Job(job))) =
            office.answers.iter().rfind(|(answered, _)| *answered == CallId(call))
        else {
            panic!("no answer")
        };
        (job.id, office.index - before)
    };
    let leased = |office: &Office, job: u64| office.core.state().job(job).unwrap().tasks.unwrap().leased;
    assert_eq!((submit(&mut office, 2), leased(&office, 1)), ((1, 1), 1));
    // The one cpu is taken: the next job waits, and nothing is said of a start.
    assert_eq!((submit(&mut office, 3), leased(&office, 2)), ((2, 1), 0));
    // A repeat starts nothing.
    assert_eq!(submit(&mut office, 2).0, 1);
    assert_eq!(leased(&office, 1), 1);
    office.core.state().check().unwrap();
}

#[test]
fn what_a_task_wrote_is_told_with_its_end_and_is_not_in_the_log() {
    const ANSWER: &[u8] = b"an answer that nobody else would give";
    let mut office = Office::new();
    office.elect();
    office.take_office();
    office.connect_worker(1);
    let spec = Some(JobSpec { command: vec!["true".to_owned()], answers: true, ..JobSpec::default() });
    office.ask(2, call_request::Request::SubmitJob(SubmitJobRequest { spec, request_id: String::new() }));
    let watch = WatchJobsRequest { job_ids: vec![1], tasks: true, ..WatchJobsRequest::default() };
    office.ask(3, call_request::Request::WatchJobs(watch));
    office.answers.clear();

    let ended = Ended { cause: Cause::ExitCode.into(), answer: Some(ANSWER.into()), ..Ended::default() };
    office.report_end(1, AttemptKey { job_id: 1, ordinal: 0, attempt: 1 }, ended);

    let told: Vec<Task> = office.told(3).into_iter().flat_map(|news| news.tasks).collect();
    let [task] = &told[..] else { panic!("{told:?}") };
    assert_eq!((task.state(), task.answer.as_deref()), (TaskState::Succeeded, Some(ANSWER)));
    assert!(office.log.windows(4).any(|bytes| bytes == b"true"), "the log is what was proposed");
    assert!(!office.log.windows(ANSWER.len()).any(|bytes| bytes == ANSWER));
}
