//! The client against coordinators of the test's own: failover, retries, identities, streams that resume.
#![allow(clippy::unwrap_used)]

mod fake;

use std::time::{Duration, Instant};

use client::{Error, Grid, Settings};
use fake::{Authority, Coordinator, Next};
use proto::v1::{GetJobRequest, JobSpec, LogStream, ReadLogsRequest, SubmitJobRequest, WatchJobsRequest};
use tonic::Code;

fn settings(authority: &Authority, coordinators: &[&Coordinator]) -> Settings {
    let (cert, key) = authority.issue("me");
    let endpoints = coordinators.iter().map(|one| one.url()).collect();
    Settings { timeout: Duration::from_secs(3), ..Settings::new(endpoints, authority.ca(), cert, key) }
}

fn submit() -> SubmitJobRequest {
    SubmitJobRequest { request_id: String::new(), spec: Some(JobSpec::default()) }
}

#[tokio::test]
async fn a_write_is_repeated_under_one_request_id_until_it_is_answered() {
    let authority = Authority::new();
    let (one, two) = (Coordinator::start(&authority).await, Coordinator::start(&authority).await);
    one.say([Next::Unavailable, Next::Unavailable, Next::Aborted]);
    two.say([Next::Unavailable, Next::Aborted, Next::Unavailable]);
    let grid = Grid::connect(settings(&authority, &[&one, &two])).unwrap();
    let job = grid.jobs().submit(submit()).await.unwrap();
    assert_eq!(job.id, 1);
    let mut ids = one.request_ids();
    ids.extend(two.request_ids());
    assert!(ids.len() >= 3, "{ids:?}");
    assert_eq!(ids[0].len(), 32);
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[tokio::test]
async fn a_refusal_is_final_and_keeps_its_details() {
    let authority = Authority::new();
    let one = Coordinator::start(&authority).await;
    one.say([Next::Refuse]);
    let grid = Grid::connect(settings(&authority, &[&one])).unwrap();
    let error = grid.jobs().submit(submit()).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert_eq!((error.reason(), error.hint(), error.field()), ("BAD_NAME", "choose another", "spec.name"));
    assert_eq!(error.to_string(), "the name is bad");
    assert_eq!(one.request_ids(), [error.request_id()]);
}

#[tokio::test]
async fn a_dead_coordinator_costs_no_time() {
    let authority = Authority::new();
    let (mut one, two) = (Coordinator::start(&authority).await, Coordinator::start(&authority).await);
    let grid = Grid::connect(settings(&authority, &[&one, &two])).unwrap();
    // Connections to both, whichever is first.
    one.say([Next::Unavailable]);
    two.say([Next::Unavailable]);
    grid.jobs().submit(submit()).await.unwrap();
    one.stop().await;
    let started = Instant::now();
    for _ in 0..5 {
        grid.jobs().submit(submit()).await.unwrap();
    }
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_coordinator_that_says_nothing_is_told_from_one_that_is_not_there() {
    let authority = Authority::new();
    let mut one = Coordinator::start(&authority).await;
    let settings = settings(&authority, &[&one]);
    let brief = Settings { timeout: Duration::from_millis(300), ..settings };
    let grid = Grid::connect(brief.clone()).unwrap();
    one.say([Next::Silence]);
    assert!(matches!(grid.jobs().submit(submit()).await, Err(Error::TimedOut { .. })));
    one.say(std::iter::repeat_n(Next::Unavailable, 1000));
    assert!(matches!(grid.jobs().submit(submit()).await, Err(Error::Unavailable { .. })));
    one.stop().await;
    let grid = Grid::connect(brief).unwrap();
    let error = grid.jobs().get(GetJobRequest { job_id: 1, last: false }).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert_eq!(error.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_strangers_certificate_ends_at_once() {
    let (authority, other) = (Authority::new(), Authority::new());
    let one = Coordinator::start(&authority).await;
    let (cert, key) = other.issue("me");
    let mine = Settings::new(vec![one.url()], authority.ca(), cert, key);
    let started = Instant::now();
    let error = Grid::connect(mine).unwrap().jobs().submit(submit()).await.unwrap_err();
    assert!(matches!(error, Error::Identity { .. }), "{error:?}");
    let (cert, key) = authority.issue("me");
    let theirs = Settings::new(vec![one.url()], other.ca(), cert, key);
    let error = Grid::connect(theirs).unwrap().jobs().submit(submit()).await.unwrap_err();
    assert!(matches!(error, Error::Identity { .. }), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(5));
    let error = Grid::connect(Settings::new(vec!["http://x".to_owned()], vec![], vec![], vec![])).err().unwrap();
    assert_eq!(error.field(), "endpoints");
}

#[tokio::test]
async fn an_expired_certificate_is_named_as_such() {
    let authority = Authority::new();
    let one = Coordinator::start(&authority).await;
    let (cert, key) = authority.issue_expired("me");
    let grid = Grid::connect(Settings::new(vec![one.url()], authority.ca(), cert, key)).unwrap();
    let error = grid.jobs().submit(submit()).await.unwrap_err();
    assert!(error.to_string().contains("expired"), "{error}");
}

#[tokio::test]
async fn a_watch_goes_on_behind_the_last_message() {
    let authority = Authority::new();
    let (one, two) = (Coordinator::start(&authority).await, Coordinator::start(&authority).await);
    let grid = Grid::connect(settings(&authority, &[&one, &two])).unwrap();
    let request = WatchJobsRequest { job_ids: vec![1], ..Default::default() };
    let mut watch = grid.jobs().watch(request);
    // Each stream of the fake ends after two messages, with a failure or without.
    let mut indexes = Vec::new();
    for _ in 0..7 {
        indexes.push(watch.next().await.unwrap().index);
    }
    assert_eq!(indexes, [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(watch.resume_token(), "7");
}

#[tokio::test]
async fn each_byte_of_a_log_comes_once_through_broken_streams_and_retries() {
    let authority = Authority::new();
    let one = Coordinator::start(&authority).await;
    let grid = Grid::connect(settings(&authority, &[&one])).unwrap();
    let mut logs = grid.jobs().logs(ReadLogsRequest { job_id: 1, follow: true, ..ReadLogsRequest::default() });
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while let Some(piece) = logs.next().await.unwrap() {
        match piece.stream {
            LogStream::Stderr => stderr.extend_from_slice(&piece.data),
            _ => stdout.extend_from_slice(&piece.data),
        }
    }
    // The fake cuts every stream after 5 messages of 3 bytes, and sends the last byte again.
    assert_eq!(String::from_utf8(stdout).unwrap(), format!("{}{}", fake::log("out", 1), fake::log("out", 2)));
    assert_eq!(String::from_utf8(stderr).unwrap(), format!("{}{}", fake::log("err", 1), fake::log("err", 2)));
}
