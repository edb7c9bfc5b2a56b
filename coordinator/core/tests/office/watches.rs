//! Watches by label, and news that wait for company.

use coordinator_core::{CallId, Input};
use proto::internal::call_request::Request;
use proto::v1::{
    AttemptKey, Cause, Ended, HoldJobRequest, JobSpec, ReleaseJobRequest, SubmitJobRequest, TaskState,
    WatchJobsRequest, WatchJobsResponse,
};

use crate::office::Office;

const WATCH: u64 = 50;

fn office() -> Office {
    let mut office = Office::new();
    office.elect();
    office.take_office();
    office.connect_worker(1);
    office
}

fn submit(office: &mut Office, call: u64, labels: &[(&str, &str)]) {
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let spec = Some(JobSpec { command: vec!["true".to_owned()], labels, ..JobSpec::default() });
    office.ask(call, Request::SubmitJob(SubmitJobRequest { spec, request_id: String::new() }));
}

fn watch(patience_ms: i32) -> WatchJobsRequest {
    let labels = [("of", "me"), ("run", "7")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let patience = Some(prost_types::Duration { seconds: 0, nanos: patience_ms * 1_000_000 });
    WatchJobsRequest { labels: labels.into(), tasks: true, patience, ..WatchJobsRequest::default() }
}

/// The jobs whose tasks were told of, message by message.
fn jobs(told: &[WatchJobsResponse]) -> Vec<Vec<u64>> {
    told.iter().map(|news| news.tasks.iter().map(|task| task.job_id).collect()).collect()
}

fn end(job_id: u64) -> (AttemptKey, Ended) {
    (AttemptKey { job_id, ordinal: 0, attempt: 1 }, Ended { cause: Cause::ExitCode.into(), ..Ended::default() })
}

#[test]
fn a_watch_by_labels_tells_of_jobs_that_come_later_and_of_no_others() {
    let mut office = office();
    submit(&mut office, 2, &[("of", "me"), ("run", "7")]);
    office.ask(WATCH, Request::WatchJobs(watch(0)));
    submit(&mut office, 3, &[("of", "me"), ("run", "8")]);
    submit(&mut office, 4, &[("run", "7"), ("of", "me"), ("more", "")]);
    submit(&mut office, 5, &[("of", "me")]);
    let told = office.told(WATCH);
    assert!(told[0].reset && told[0].jobs.is_empty(), "what is there already is listed");
    assert_eq!(jobs(&told[1..]), [[3]]);
    let (key, ended) = end(1);
    office.report_end(1, key, ended);
    let told = office.told(WATCH);
    let [.., last] = &told[..] else { panic!("{told:?}") };
    assert_eq!(
        (last.tasks[0].job_id, last.tasks[0].state()),
        (1, TaskState::Succeeded),
        "it is one of them all the same"
    );

    // One that comes back hears what it missed, and what comes then.
    office.step(Input::Hangup { call: CallId(WATCH) });
    submit(&mut office, 6, &[("of", "me"), ("run", "7")]);
    submit(&mut office, 7, &[]);
    let resume_token = last.resume_token.clone();
    office.answers.clear();
    office.ask(WATCH + 1, Request::WatchJobs(WatchJobsRequest { resume_token, ..watch(0) }));
    let told = office.told(WATCH + 1);
    assert!(!told[0].reset);
    assert!(jobs(&told).concat().contains(&5) && !jobs(&told).concat().contains(&6), "{told:?}");
    submit(&mut office, 8, &[("of", "me"), ("run", "7")]);
    assert_eq!(jobs(&office.told(WATCH + 1)).concat().last(), Some(&7));
}

#[test]
fn news_wait_for_company_and_ends_do_not() {
    let mut office = office();
    office.ask(WATCH, Request::WatchJobs(watch(20)));
    submit(&mut office, 2, &[("of", "me"), ("run", "7")]);
    assert_eq!(office.told(WATCH).len(), 1, "the reset alone");
    office.now_ms += 19;
    office.step(Input::Tick);
    assert_eq!(office.told(WATCH).len(), 1);
    let (key, ended) = end(1);
    office.report_end(1, key, ended);
    let told = office.told(WATCH);
    assert_eq!((told.len(), told[1].tasks[0].state()), (2, TaskState::Succeeded), "its start was never told alone");
    // What is no end is told in the end.
    submit(&mut office, 3, &[("of", "me"), ("run", "7")]);
    let job_id = 2;
    office.ask(4, Request::HoldJob(HoldJobRequest { job_id, request_id: String::new() }));
    office.ask(5, Request::ReleaseJob(ReleaseJobRequest { job_id, request_id: String::new() }));
    assert_eq!(office.told(WATCH).len(), 2);
    office.now_ms += 20;
    office.step(Input::Tick);
    assert_eq!(jobs(&office.told(WATCH))[2..], [[2]]);
}

#[test]
fn wrong_watches_are_refused() {
    let mut office = office();
    submit(&mut office, 2, &[]);
    let both = WatchJobsRequest { job_ids: vec![1], ..watch(0) };
    let nothing = WatchJobsRequest::default();
    let long = WatchJobsRequest { patience: Some(prost_types::Duration { seconds: 11, nanos: 0 }), ..watch(0) };
    let labels = (0..17).map(|number| (number.to_string(), String::new())).collect();
    let many = WatchJobsRequest { labels, ..WatchJobsRequest::default() };
    for (number, (request, field)) in
        [(both, "labels"), (nothing, "job_ids"), (long, "patience"), (many, "labels")].into_iter().enumerate()
    {
        let call = WATCH + number as u64;
        let refused = refusal(&mut office, call, Request::WatchJobs(request));
        assert_eq!(refused.as_deref(), Some(field));
    }
}

/// The field that a call was refused for.
fn refusal(office: &mut Office, call: u64, request: Request) -> Option<String> {
    office.refused.clear();
    office.ask(call, request);
    office.refused.pop().map(|(_, refusal)| refusal.field)
}
