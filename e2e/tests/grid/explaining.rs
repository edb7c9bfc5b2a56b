//! Explain: why something waits, counted over workers, and why something failed, attempt by attempt.

use e2e::{Grid, Options, check_fields, text, until, whole};
use serde_json::Value;

use crate::SOON;

#[test]
fn what_waits_for_room_says_how_much_and_behind_whom() {
    let grid = Grid::start(Options { workers: 2, cpus: 1, ..Options::default() });
    let blocking = grid.submit(&["--array", "0-1", "--", "sleep", "600"]).to_string();
    until("both cpus are taken", SOON, || {
        whole(&grid.millgrid(["queue", "show", "default", "-o", "json"]).ok().json(), "running") == 2
    });
    let first = grid.submit(&["--", "true"]);
    let second = grid.submit(&["--", "true"]).to_string();
    let explanation = grid.millgrid(["explain", &second, "-o", "json"]).ok().json();
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
            ("attempts", "array"),
            ("log_tail", "text?"),
        ],
    );
    assert_eq!((&explanation["position"], &explanation["ahead"]), (&2.into(), &first.into()), "{explanation}");
    let reason = explanation["reasons"].as_array().unwrap().iter().find(|one| one["reason"] == "resources_cpu");
    let reason = reason.unwrap_or_else(|| panic!("no word of cpus in {explanation}"));
    check_fields(reason, &[("reason", "text"), ("workers", "whole"), ("detail", "text"), ("advice", "text?")]);
    assert_eq!(whole(reason, "workers"), 2, "{explanation}");
    let screen = grid.millgrid(["explain", &second]).ok().stdout;
    for words in ["queued", "resources_cpu", "2 workers", "position 2", &format!("behind job {first}")] {
        assert!(screen.contains(words), "no `{words}`:\n{screen}");
    }
    grid.millgrid(["cancel", &blocking]).ok();
}

#[test]
fn what_failed_is_told_attempt_by_attempt_with_its_last_words() {
    let grid = Grid::shared();
    let script = "for n in $(seq 30); do echo line $n of {attempt}; done; echo no such reference >&2; exit {attempt}";
    let options = ["--array", "5-6", "--retries", "1", "--backoff", "1s"];
    let id = grid.submit_shell(&options, script);
    grid.wait_for_end(id, SOON);
    for selector in [id.to_string(), format!("{id}.5")] {
        let explanation = grid.millgrid(["explain", &selector, "-o", "json"]).ok().json();
        let attempts: Vec<_> = explanation["attempts"].as_array().unwrap().clone();
        let codes: Vec<&Value> = attempts.iter().map(|attempt| &attempt["exit_code"]).collect();
        assert_eq!(codes, [&Value::from(1), &Value::from(2)], "{explanation}");
        assert!(attempts.iter().all(|one| one["index"] == 5 && one["worker"].is_string()), "{explanation}");
        let tail: Vec<&str> = text(&explanation, "log_tail").lines().collect();
        assert_eq!((tail.len(), tail[18], tail[19]), (20, "line 30 of 2", "no such reference"), "{explanation}");
    }
    let screen = grid.millgrid(["explain", &id.to_string()]).ok().stdout;
    for words in ["attempt 1", "attempt 2", "exit_code 2", "no such reference"] {
        assert!(screen.contains(words), "no `{words}`:\n{screen}");
    }
    // One that succeeded has nothing to explain.
    let fine = grid.submit(&["--", "true"]);
    grid.wait_for_end(fine, SOON);
    let explanation = grid.millgrid(["explain", &fine.to_string(), "-o", "json"]).ok().json();
    assert_eq!((&explanation["attempts"], &explanation["log_tail"]), (&serde_json::json!([]), &Value::Null));
}
