//! The documents of `-o json`: every field of interfaces, section 2, always there and of its type.

use e2e::{Grid, check_fields, text, whole};
use serde_json::Value;

use crate::SOON;

const JOB: [(&str, &str); 16] = [
    ("schema", "text"),
    ("id", "whole"),
    ("name", "text?"),
    ("state", "text"),
    ("held", "bool"),
    ("queue", "text"),
    ("owner", "text"),
    ("labels", "object"),
    ("priority", "integer"),
    ("task_count", "whole"),
    ("tasks", "object"),
    ("exit_code", "integer?"),
    ("cause", "text?"),
    ("create_time", "time"),
    ("start_time", "time?"),
    ("end_time", "time?"),
];

const TASK: [(&str, &str); 13] = [
    ("job_id", "whole"),
    ("index", "whole"),
    ("state", "text"),
    ("attempt", "whole?"),
    ("exit_code", "integer?"),
    ("cause", "text?"),
    ("worker", "text?"),
    ("create_time", "time"),
    ("start_time", "time?"),
    ("end_time", "time?"),
    ("seconds", "number?"),
    ("cpu_seconds", "number?"),
    ("max_memory_mib", "number?"),
];

const COUNTS: [&str; 8] = ["waiting", "queued", "leased", "running", "succeeded", "failed", "cancelled", "skipped"];

fn check_job(job: &Value) {
    check_fields(job, &JOB);
    assert_eq!(job["schema"], "millgrid/v1");
    let sum: u64 = COUNTS.iter().map(|name| whole(&job["tasks"], name)).sum();
    assert_eq!(sum, whole(job, "task_count"), "each task is in one state: {job}");
}

#[test]
fn a_job_has_all_its_fields_before_and_after_its_end() {
    let grid = Grid::shared();
    let id = grid.submit(&["--hold", "--name", "shape", "--label", "team=ml", "--priority", "-3", "--", "true"]);
    let job = grid.job(id);
    check_job(&job);
    assert_eq!((text(&job, "state"), &job["held"], &job["priority"]), ("queued", &Value::from(true), &Value::from(-3)));
    assert_eq!((text(&job, "name"), text(&job, "queue"), text(&job["labels"], "team")), ("shape", "default", "ml"));
    assert!(job["exit_code"].is_null() && job["cause"].is_null() && job["end_time"].is_null(), "{job}");
    grid.millgrid(["job", "release", &id.to_string()]).ok();
    let job = grid.wait_for_end(id, SOON);
    check_job(&job);
    assert_eq!((&job["exit_code"], &job["held"]), (&Value::from(0), &Value::from(false)));
    assert!(job["start_time"].is_string() && job["end_time"].is_string(), "{job}");
}

#[test]
fn a_failed_job_says_its_code_and_cause() {
    let grid = Grid::shared();
    let id = grid.submit_shell(&[], "exit 5");
    let job = grid.wait_for_end(id, SOON);
    check_job(&job);
    assert_eq!((text(&job, "state"), &job["exit_code"], text(&job, "cause")), ("failed", &Value::from(5), "exit_code"));
}

#[test]
fn tasks_and_attempts_have_all_their_fields() {
    let grid = Grid::shared();
    let id = grid.submit_shell(&["--array", "3-5", "--retries", "1"], "test $MILLGRID_ATTEMPT = 2");
    let job = grid.wait_for_end(id, SOON);
    assert_eq!(job["state"], "succeeded", "{job}");
    let tasks = grid.tasks(id);
    assert_eq!(tasks.iter().map(|task| whole(task, "index")).collect::<Vec<_>>(), [3, 4, 5]);
    for task in &tasks {
        check_fields(task, &TASK);
        assert_eq!((whole(task, "job_id"), whole(task, "attempt")), (id, 2));
        assert!(task["worker"].is_string() && task["seconds"].is_number(), "{task}");
        let attempts = task["attempt_list"].as_array().unwrap();
        assert_eq!(attempts.len(), 2, "{task}");
        for attempt in attempts {
            check_fields(attempt, &TASK);
        }
        assert_eq!((&attempts[0]["exit_code"], &attempts[1]["exit_code"]), (&Value::from(1), &Value::from(0)));
        assert_eq!(text(&attempts[0], "cause"), "exit_code");
    }
    // A task that nothing started yet has the same fields.
    let held = grid.submit(&["--hold", "--", "true"]);
    check_fields(&grid.task(held), &TASK);
    grid.millgrid(["cancel", &held.to_string()]).ok();
}

#[test]
fn selectors_decide_between_object_array_and_lines() {
    let grid = Grid::shared();
    let first = grid.submit(&["--hold", "--", "true"]).to_string();
    let second = grid.submit(&["--hold", "--", "true"]).to_string();
    assert!(grid.millgrid(["show", &first, "-o", "json"]).ok().json().is_object());
    let both = grid.millgrid(["show", &first, &second, "-o", "json"]).ok().json();
    assert_eq!(both.as_array().unwrap().len(), 2);
    let lines = grid.millgrid(["show", &first, &second, "-o", "jsonl"]).ok().stdout;
    assert_eq!(lines.lines().filter(|line| serde_json::from_str::<Value>(line).unwrap().is_object()).count(), 2);
    let one_task = grid.millgrid(["show", &format!("{first}.0"), "-o", "json"]).ok().json();
    check_fields(&one_task, &TASK);
    let tasks = grid.millgrid(["show", &first, "--tasks", "-o", "jsonl"]).ok().stdout;
    assert_eq!(tasks.lines().count(), 1);
    check_fields(&serde_json::from_str(&tasks).unwrap(), &TASK);
    let list = grid.millgrid(["ls", "-o", "json"]).ok().json();
    list.as_array().unwrap().iter().for_each(check_job);
    let ids = grid.millgrid(["ls", "-o", "id"]).ok().stdout;
    assert!(ids.lines().any(|line| line == first) && ids.lines().any(|line| line == second), "{ids}");
    grid.millgrid(["cancel", &first, &second]).ok();
}

#[test]
fn submit_wait_gives_the_job_at_its_end() {
    let grid = Grid::shared();
    let output = grid.millgrid(["submit", "--wait", "-o", "json", "--", "sh", "-c", "exit 4"]).exits(4);
    let job = output.json();
    check_job(&job);
    assert_eq!((text(&job, "state"), &job["exit_code"]), ("failed", &Value::from(4)));
}

#[test]
fn an_explanation_has_all_its_fields() {
    let grid = Grid::shared();
    let id = grid.submit(&["--hold", "--", "true"]).to_string();
    let explanation = grid.millgrid(["explain", &id, "-o", "json"]).ok().json();
    check_fields(
        &explanation,
        &[
            ("job_id", "whole"),
            ("index", "whole?"),
            ("state", "text"),
            ("summary", "text"),
            ("reasons", "array"),
            ("position", "whole?"),
            ("ahead", "whole?"),
            ("estimated_start_time", "time?"),
        ],
    );
    let reasons = explanation["reasons"].as_array().unwrap();
    assert!(reasons.iter().any(|reason| reason["reason"] == "held"), "{explanation}");
    for reason in reasons {
        check_fields(reason, &[("reason", "text"), ("workers", "whole?"), ("detail", "text?")]);
    }
    grid.millgrid(["cancel", &id]).ok();
}

#[test]
fn workers_and_queues_have_all_their_fields() {
    let grid = Grid::shared();
    let workers = grid.millgrid(["worker", "ls", "-o", "json"]).ok().json();
    let workers = workers.as_array().unwrap();
    assert_eq!(workers.len(), 2, "{workers:?}");
    for worker in workers {
        check_fields(
            worker,
            &[
                ("name", "text"),
                ("pool", "text"),
                ("state", "text"),
                ("labels", "object"),
                ("capacity", "object"),
                ("free", "object"),
                ("running", "whole"),
                ("join_time", "time?"),
                ("reason", "text?"),
            ],
        );
        for size in ["capacity", "free"] {
            let fields = [("cpu_milli", "whole"), ("memory_mib", "whole"), ("gpus", "whole"), ("scratch_gib", "whole")];
            check_fields(&worker[size], &fields);
        }
        assert_eq!((text(worker, "pool"), whole(&worker["capacity"], "cpu_milli")), ("local", 2000));
    }
    let queue = grid.millgrid(["queue", "show", "default", "-o", "json"]).ok().json();
    check_fields(
        &queue,
        &[
            ("name", "text"),
            ("weight", "number"),
            ("paused", "bool"),
            ("limits", "object"),
            ("queued", "whole"),
            ("running", "whole"),
            ("share", "number?"),
        ],
    );
    let limits = [("max_running", "whole?"), ("max_cpu_milli", "whole?"), ("max_memory_mib", "whole?")];
    check_fields(&queue["limits"], &[&limits[..], &[("max_queued", "whole?")]].concat());
    assert!(grid.millgrid(["queue", "ls", "-o", "json"]).ok().json().is_array());
}

#[test]
fn an_error_is_a_document_on_stderr() {
    let grid = Grid::shared();
    for (code, arguments) in [(3, vec!["submit", "--queue", "no-such-queue"]), (2, vec!["submit", "--cpus", "-1"])] {
        let output = grid.millgrid([arguments, vec!["-o", "json", "--", "true"]].concat()).exits(code);
        let fields = [("code", "text"), ("reason", "text?"), ("message", "text"), ("hint", "text?")];
        check_fields(&output.error(), &fields);
        assert!(output.error().get("request_id").is_some(), "{}", output.stderr);
        assert_eq!(output.stdout, "");
    }
}
