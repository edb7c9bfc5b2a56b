//! The documents, byte for byte: names and order are a contract.

use prost_types::Timestamp;
use proto::v1::*;
use serde::Serialize;

use super::{cluster::Status, explanation, history::History, job, queue, spec, task, worker};

const TIME: Option<Timestamp> = Some(Timestamp { seconds: 1_795_000_000, nanos: 0 });

fn check<T: Serialize>(view: &T, expected: &str) {
    assert_eq!(serde_json::to_string(view).unwrap(), expected);
}

#[test]
fn a_job_has_every_field() {
    let mut message =
        Job { id: 42, name: "fit".to_owned(), queue: "default".to_owned(), owner: "ada".to_owned(), ..Job::default() };
    message.set_state(JobState::Queued);
    message.labels.insert("team".to_owned(), "ml".to_owned());
    (message.priority, message.task_count, message.create_time) = (-3, 2, TIME);
    message.tasks = Some(TaskCounts { queued: 2, ..TaskCounts::default() });
    let expected = concat!(
        r#"{"schema":"millgrid/v1","id":42,"name":"fit","state":"queued","held":false,"queue":"default","owner":"ada","#,
        r#""labels":{"team":"ml"},"priority":-3,"task_count":2,"tasks":{"waiting":0,"queued":2,"leased":0,"running":0,"#,
        r#""succeeded":0,"failed":0,"cancelled":0,"skipped":0},"exit_code":null,"cause":null,"#,
        r#""create_time":"2026-11-18T11:06:40Z","start_time":null,"end_time":null,"spec":null}"#
    );
    check(&job::Job::from(&message), expected);
    message.set_state(JobState::Failed);
    message.set_cause(Cause::ExitCode);
    (message.exit_code, message.end_time) = (Some(3), TIME);
    let mut view = job::Job::from(&message);
    view.task_list = Some(Vec::new());
    let text = serde_json::to_string(&view).unwrap();
    assert!(text.ends_with(
        r#""exit_code":3,"cause":"exit_code","create_time":"2026-11-18T11:06:40Z","start_time":null,"end_time":"2026-11-18T11:06:40Z","spec":null,"task_list":[]}"#
    ), "{text}");
}

#[test]
fn a_task_and_its_attempts_have_the_same_fields() {
    let attempt = Attempt {
        number: 1,
        state: TaskState::Failed.into(),
        exit_code: Some(1),
        cause: Cause::ExitCode.into(),
        worker: "worker-1".to_owned(),
        create_time: TIME,
        start_time: TIME,
        end_time: TIME,
        seconds: 1.5,
        cpu_seconds: 1.25,
        max_memory_mib: 7,
        ..Attempt::default()
    };
    let task = Task {
        job_id: 42,
        index: 7,
        state: TaskState::Queued.into(),
        attempt: 1,
        create_time: TIME,
        attempts: vec![attempt],
        ..Task::default()
    };
    let queued = concat!(
        r#"{"job_id":42,"index":7,"state":"queued","attempt":1,"exit_code":null,"cause":null,"worker":null,"#,
        r#""create_time":"2026-11-18T11:06:40Z","start_time":null,"end_time":null,"seconds":null,"cpu_seconds":null,"max_memory_mib":null"#
    );
    let failed = concat!(
        r#"{"job_id":42,"index":7,"state":"failed","attempt":1,"exit_code":1,"cause":"exit_code","worker":"worker-1","#,
        r#""create_time":"2026-11-18T11:06:40Z","start_time":"2026-11-18T11:06:40Z","end_time":"2026-11-18T11:06:40Z","#,
        r#""seconds":1.5,"cpu_seconds":1.25,"max_memory_mib":7}"#
    );
    check(&task::Task::new(&task, false), &format!("{queued}}}"));
    check(&task::Task::new(&task, true), &format!("{queued},\"attempt_list\":[{failed}]}}"));
}

#[test]
fn the_history_has_every_field_and_says_why_nothing_moves() {
    let mut message = v1_history();
    let expected = concat!(
        r#"{"keep_seconds":604800.0,"keep_jobs":1000000,"moved_jobs":5,"segments":3,"settled_segments":2,"#,
        r#""rules_version":2}"#
    );
    check(&History::from(&message), expected);
    let screen = |message: &proto::v1::History| History::from(message).screen();
    let text = screen(&message);
    assert!(text.contains("for 7d, 1000000 of them at most") && text.contains("5 jobs in 3 segments"), "{text}");
    assert!(!text.contains("nothing moves"), "{text}");
    message.rules_version = 1;
    assert!(screen(&message).contains("nothing moves before version 2"));
    message.keep_jobs = 0;
    assert!(screen(&message).contains("don't stay at hand"));
}

fn v1_history() -> proto::v1::History {
    proto::v1::History {
        keep: Some(prost_types::Duration { seconds: 604_800, nanos: 0 }),
        keep_jobs: 1_000_000,
        moved_jobs: 5,
        segments: 3,
        settled_segments: 2,
        rules_version: 2,
    }
}

#[test]
fn an_explanation_has_every_field() {
    let mut message = Explanation {
        job_id: 42,
        index: Some(7),
        summary: "waits".to_owned(),
        ahead: Some(41),
        ..Explanation::default()
    };
    message.set_state(TaskState::Queued);
    let advice = "ask for less".to_owned();
    let reason = WaitReason::ResourcesCpu.into();
    message.reasons.push(Reason { reason, workers: 2, detail: "busy".to_owned(), advice });
    check(
        &explanation::Explanation::from(&message),
        concat!(
            r#"{"job_id":42,"index":7,"state":"queued","summary":"waits","#,
            r#""reasons":[{"reason":"resources_cpu","workers":2,"detail":"busy","advice":"ask for less"}],"#,
            r#""position":null,"ahead":41,"estimated_start_time":null,"attempts":[],"log_tail":null}"#
        ),
    );
}

#[test]
fn an_explanation_of_a_failure_has_its_attempts() {
    let attempt = |number| Attempt {
        number,
        state: TaskState::Failed.into(),
        exit_code: Some(3),
        cause: Cause::ExitCode.into(),
        worker: "worker-1".to_owned(),
        ..Attempt::default()
    };
    let mut message = Explanation { job_id: 42, summary: "failed".to_owned(), ..Explanation::default() };
    message.set_job_state(JobState::Failed);
    (message.attempts, message.attempts_index) = (vec![attempt(1), attempt(2)], Some(7));
    let mut view = explanation::Explanation::from(&message);
    view.log_tail = Some("no such\nfile".to_owned());
    let value = serde_json::to_value(&view).unwrap();
    assert_eq!(value["attempts"][1]["attempt"], 2);
    assert_eq!((&value["attempts"][0]["index"], &value["log_tail"]), (&7.into(), &"no such\nfile".into()));
    let expected = "job 42  failed\n  failed\n  attempt 1 of 42.7   failed   exit_code 3   worker-1\n  \
                    attempt 2 of 42.7   failed   exit_code 3   worker-1\n  its last lines:\n    no such\n    file";
    assert_eq!(view.screen(), expected);
}

#[test]
fn a_spec_has_every_field_and_a_screen_what_was_asked_for() {
    let rule = RetryRule {
        cause: Cause::OutOfMemory.into(),
        memory_factor_milli: 1500,
        max_memory_mib: 8192,
        ..RetryRule::default()
    };
    let codes = RetryRule { cause: Cause::ExitCode.into(), exit_codes: vec![75, 76], ..RetryRule::default() };
    let constraint = |label: &str, values: &[&str], negated, preferred| Constraint {
        label: label.to_owned(),
        values: values.iter().map(|value| (*value).to_owned()).collect(),
        negated,
        preferred,
    };
    let asked = JobSpec {
        command: vec!["x".to_owned()],
        resources: Some(Resources { cpu_milli: 500, memory_mib: 2048, ..Resources::default() }),
        alternatives: vec![Resources { cpu_milli: 8000, gpus: 1, ..Resources::default() }],
        constraints: vec![constraint("zone", &["a", "b"], true, false), constraint("gpu", &[], false, true)],
        licenses: [("matlab".to_owned(), 2)].into(),
        time_limit: Some(prost_types::Duration { seconds: 3600, nanos: 0 }),
        queue_time_limit: Some(prost_types::Duration { seconds: 0, nanos: 0 }),
        retry: Some(RetryPolicy { retries: 3, rules: vec![codes, rule], ..RetryPolicy::default() }),
        after: vec![Dependency { job_id: 41, condition: DependencyCondition::ExitCode.into(), exit_codes: vec![3] }],
        ..JobSpec::default()
    };
    let view = spec::Spec::from(&asked);
    check(
        &view,
        concat!(
            r#"{"command":["x"],"resources":{"cpu_milli":500,"memory_mib":2048,"gpus":0,"scratch_gib":0},"#,
            r#""alternatives":[{"cpu_milli":8000,"memory_mib":0,"gpus":1,"scratch_gib":0}],"#,
            r#""constraints":[{"label":"zone","values":["a","b"],"negated":true,"preferred":false},"#,
            r#"{"label":"gpu","values":[],"negated":false,"preferred":true}],"licenses":{"matlab":2},"#,
            r#""time_limit":3600.0,"queue_time_limit":null,"total_time_limit":null,"max_running":null,"max_failures":null,"#,
            r#""retries":3,"retry_on":[{"cause":"exit_code","exit_codes":[75,76],"memory_factor":null,"max_memory_mib":null},"#,
            r#"{"cause":"out_of_memory","exit_codes":[],"memory_factor":1.5,"max_memory_mib":8192}],"#,
            r#""min_backoff":null,"max_backoff":null,"at_most_once":false,"#,
            r#""after":[{"job_id":41,"condition":"exit_code","exit_codes":[3]}]}"#
        ),
    );
    let lines: Vec<String> = view.lines().into_iter().map(|(name, words)| format!("{name}: {words}")).collect();
    let expected = [
        "needs: 0.5 cpus, 2G memory",
        "or: 8 cpus, 1 gpu",
        "licenses: 2 x matlab",
        "where: zone!=a,b",
        "prefers: gpu",
        "limits: attempt 1h",
        "retries: 3 after exit_code 75 76, out_of_memory (memory x 1.5 up to 8G)",
        "after: 41 exit_code 3",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn queues_and_workers_have_every_field() {
    let queue = Queue {
        name: "gpu".to_owned(),
        weight: 1,
        limits: Some(QueueLimits { max_running: 5, ..QueueLimits::default() }),
        guarantee: Some(QueueGuarantee { cpu_milli: 500, ..QueueGuarantee::default() }),
        draining: true,
        ..Queue::default()
    };
    check(
        &queue::Queue::from(&queue),
        concat!(
            r#"{"name":"gpu","weight":1,"paused":false,"limits":{"max_running":5,"max_cpu_milli":null,"max_memory_mib":null,"#,
            r#""max_queued":null},"queued":0,"running":0,"share":0.0,"draining":true,"#,
            r#""guarantee":{"running":null,"cpu_milli":500,"memory_mib":null},"placement":"spread","usage":0.0}"#
        ),
    );
    let worker = Worker {
        name: "worker-1".to_owned(),
        pool: "local".to_owned(),
        state: WorkerState::Ready.into(),
        join_time: TIME,
        ..Worker::default()
    };
    check(
        &worker::Worker::from(&worker),
        concat!(
            r#"{"name":"worker-1","pool":"local","state":"ready","labels":{},"#,
            r#""capacity":{"cpu_milli":0,"memory_mib":0,"gpus":0,"scratch_gib":0},"#,
            r#""free":{"cpu_milli":0,"memory_mib":0,"gpus":0,"scratch_gib":0},"running":0,"#,
            r#""join_time":"2026-11-18T11:06:40Z","reason":null}"#
        ),
    );
}

#[test]
fn a_member_that_is_away_has_nulls() {
    let here = MemberStatus {
        id: 1,
        name: "c1".to_owned(),
        role: "leader".to_owned(),
        address: "https://a".to_owned(),
        reachable: true,
        term: 2,
        commit_index: 9,
        applied_index: 9,
        digest_index: 8,
        digest: "ab".to_owned(),
        state_digest_index: 5,
        state_digest: "cd".to_owned(),
    };
    let away = MemberStatus { id: 2, name: "c2".to_owned(), ..MemberStatus::default() };
    let status =
        ClusterStatus { leader: "c1".to_owned(), term: 2, members: vec![here, away], ..ClusterStatus::default() };
    check(
        &Status::from(&status),
        concat!(
            r#"{"leader":"c1","term":2,"members":[{"id":1,"name":"c1","role":"leader","address":"https://a","reachable":true,"#,
            r#""term":2,"commit_index":9,"applied_index":9,"digest_index":8,"digest":"ab","state_digest_index":5,"#,
            r#""state_digest":"cd"},"#,
            r#"{"id":2,"name":"c2","role":null,"address":"","reachable":false,"term":null,"commit_index":null,"#,
            r#""applied_index":null,"digest_index":null,"digest":null,"state_digest_index":null,"#,
            r#""state_digest":null}]}"#
        ),
    );
}
