//! Ended jobs that have moved to the history answer as before, whatever becomes of a coordinator or of its files.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use e2e::{Cluster, Grid, Options, Place, check_fields, text, until, whole};
use serde_json::Value;

use crate::SOON;

/// A job of each kind of end, by what it is.
fn ended_jobs(grid: &Grid) -> BTreeMap<&'static str, u64> {
    let mut jobs = BTreeMap::new();
    jobs.insert("good", grid.submit(&["--name", "good", "--label", "team=ml", "--", "echo", "well done"]));
    jobs.insert("bad", grid.submit_shell(&[], "echo oops >&2; exit 3"));
    jobs.insert(
        "array",
        grid.submit_shell(&["--array", "0-9"], "echo $MILLGRID_TASK_INDEX; test $MILLGRID_TASK_INDEX != 7"),
    );
    let out = ["--out", "res/*=s3://dev/moved/"];
    jobs.insert("outputs", grid.submit_shell(&out, "mkdir res; echo one > res/a; echo two > res/b"));
    jobs.insert("tried", grid.submit_shell(&["--retries", "2", "--backoff", "10ms"], "exit 4"));
    let bad = jobs["bad"].to_string();
    jobs.insert("skipped", grid.submit(&["--after", &bad, "--", "true"]));
    let held = grid.submit(&["--hold", "--", "true"]);
    grid.millgrid(["cancel", &held.to_string(), "--reason", "changed my mind"]).ok();
    jobs.insert("cancelled", held);
    for id in jobs.values() {
        grid.wait_for_end(*id, SOON);
    }
    // The newest of an owner stays: it is what `last` means.
    let last = grid.submit(&["--", "true"]);
    grid.wait_for_end(last, SOON);
    jobs
}

/// Everything that can be asked of these jobs and doesn't show their age.
fn answers(grid: &Grid, jobs: &BTreeMap<&'static str, u64>) -> Vec<(String, i32, String)> {
    let mut questions: Vec<Vec<String>> = Vec::new();
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    for id in jobs.values() {
        for line in [
            "show ID",
            "show ID --tasks --attempts",
            "explain ID",
            "job outputs ID",
            "wait ID",
            "wait ID --any-outcome",
        ] {
            questions.push(words(&format!("{} -o json", line.replace("ID", &id.to_string()))));
        }
        questions.push(words(&format!("logs {id}")));
    }
    questions.push(words(&format!("explain {}.7 -o json", jobs["array"])));
    questions.push(words(&format!("logs {}.3 --stdout", jobs["array"])));
    questions.push(words("ls --all --limit 100 -o json"));
    questions.push(words("ls --all -s failed -o json"));
    questions.push(words("ls --all -l team=ml -o json"));
    let ask = |question: Vec<String>| {
        let output = grid.millgrid(&question);
        (question.join(" "), output.code, output.stdout)
    };
    questions.into_iter().map(ask).collect()
}

/// `cluster history -o json`.
fn history(output: e2e::Output) -> Value {
    output.ok().json()
}

#[test]
fn what_has_moved_answers_as_before_also_after_each_member_was_restarted() {
    let grid = Grid::start(Options::default());
    let jobs = ended_jobs(&grid);
    let before = answers(&grid, &jobs);
    let untouched = history(grid.millgrid(["cluster", "history", "-o", "json"]));
    check_fields(
        &untouched,
        &[
            ("keep_seconds", "number"),
            ("keep_jobs", "whole"),
            ("moved_jobs", "whole"),
            ("segments", "whole"),
            ("settled_segments", "whole"),
            ("rules_version", "whole"),
        ],
    );
    assert_eq!((whole(&untouched, "moved_jobs"), whole(&untouched, "segments")), (0, 0));

    let set = history(grid.millgrid(["cluster", "history", "--keep-jobs", "0", "-o", "json"]));
    assert_eq!((whole(&set, "keep_jobs"), &set["keep_seconds"]), (0, &untouched["keep_seconds"]));
    until("all jobs but the newest have moved", SOON, || {
        let now = history(grid.millgrid(["cluster", "history", "-o", "json"]));
        whole(&now, "moved_jobs") == jobs.len() as u64 && now["settled_segments"] == now["segments"]
    });
    assert_eq!(answers(&grid, &jobs), before);
    check_writes(&grid, &jobs);
    for name in ["c1", "c2", "c3"] {
        grid.dev("restart", &[name]).ok();
        lead(name, |arguments| grid.millgrid(arguments));
        assert_eq!(answers(&grid, &jobs)[..before.len() - 3], before[..before.len() - 3], "{name} leads");
    }
}

/// What is asked of, or done to, jobs that have moved.
fn check_writes(grid: &Grid, jobs: &BTreeMap<&'static str, u64>) {
    let id = |name: &str| jobs[name].to_string();
    let state = |option: &str, of: &str| {
        let job = grid.submit(&[option, &id(of), "--", "true"]);
        text(&grid.wait_for_end(job, SOON), "state").to_owned()
    };
    for (option, of, expected) in [
        ("--after", "good", "succeeded"),
        ("--after", "bad", "skipped"),
        ("--after-any", "bad", "succeeded"),
        ("--after-any", "skipped", "succeeded"),
        ("--after-failed", "bad", "succeeded"),
        ("--after-failed", "good", "skipped"),
    ] {
        assert_eq!(state(option, of), expected, "{option} {of}");
    }
    let exit = format!("{}=3", id("bad"));
    let job = grid.submit(&["--after-exit", &exit, "--", "true"]);
    assert_eq!(text(&grid.wait_for_end(job, SOON), "state"), "succeeded");
    let input = format!("job:{}/res/b", id("outputs"));
    assert_eq!(grid.millgrid(["run", "--in", &input, "--", "cat", "b"]).ok().stdout, "two\n");

    grid.millgrid(["cancel", &id("good")]).ok().complains(&["had ended before"]);
    let refused = grid.millgrid(["retry", &id("bad"), "-o", "json"]).exits(6).error();
    assert_eq!(text(&refused, "reason"), "JOB_MOVED");
    assert!(text(&refused, "hint").contains("submit it again"), "{refused}");
    grid.millgrid(["job", "hold", &id("good")]).exits(6).complains(&["has ended"]);
    grid.millgrid(["show", "9999"]).exits(3);

    // A request that is repeated gets its first answer, wherever the job is.
    let same = ["--request-id", "moving", "--", "echo", "once"];
    let first = grid.submit(&same);
    grid.wait_for_end(first, SOON);
    let newest = grid.submit(&["--", "true"]);
    grid.wait_for_end(newest, SOON);
    let moved = || whole(&history(grid.millgrid(["cluster", "history", "-o", "json"])), "moved_jobs");
    until("it has moved", SOON, || moved() == newest - 1);
    assert_eq!(grid.submit(&same), first);
    grid.millgrid(["submit", "--request-id", "moving", "--", "echo", "twice"]).exits(6);
    assert_eq!(grid.millgrid(["wait", &first.to_string()]).ok().stdout, "");
}

/// Moves leadership; it is refused until the member has caught up.
#[track_caller]
fn lead(name: &str, millgrid: impl Fn([&str; 3]) -> e2e::Output) {
    until("leadership moves", SOON, || millgrid(["cluster", "transfer-leader", name]).code == 0);
}

/// A cluster that moves ended jobs at once, and forgets its log soon.
fn hasty() -> Cluster {
    let mut grid = Cluster::prepare(Place::Loopback);
    for name in ["c1", "c2", "c3"] {
        grid.set(name, "MILLGRID_COORDINATOR_HISTORY_PAUSE", "100ms");
        grid.set(name, "MILLGRID_COORDINATOR_SNAPSHOT_COMMANDS", "100");
        grid.set(name, "MILLGRID_COORDINATOR_LOG_ENTRIES_KEPT", "10");
    }
    grid
}

fn segment(grid: &Cluster, name: &str, number: u64) -> PathBuf {
    grid.data(name).join(format!("history/segment-{number:010}"))
}

/// Waits until a member has this many segments, each as another has it.
#[track_caller]
fn has_all(grid: &Cluster, name: &str, segments: u64, other: &str) {
    let same = |number| {
        let read = |name: &str| fs::read(segment(grid, name, number)).ok();
        read(name).is_some() && read(name) == read(other)
    };
    until(&format!("{name} has {segments} segments"), SOON, || (1..=segments).all(same));
}

/// Runs jobs to their ends, and waits until all but the newest have moved.
#[track_caller]
fn run_and_move(grid: &Cluster, count: usize) -> Value {
    let script = ["--", "sh", "-c", "exit 3"];
    let newest = (0..count).map(|_| grid.submit(&script)).max().unwrap();
    grid.wait_for_state(newest, "failed", SOON);
    moved(grid, newest - 1)
}

#[track_caller]
fn moved(grid: &Cluster, jobs: u64) -> Value {
    e2e::eventually(&format!("{jobs} jobs have moved"), SOON, || {
        let now = history(grid.millgrid(["cluster", "history", "-o", "json"]));
        (whole(&now, "moved_jobs") == jobs && now["settled_segments"] == now["segments"]).then_some(now)
    })
}

#[track_caller]
fn list(grid: &Cluster) -> String {
    grid.millgrid(["ls", "--all", "-o", "json", "--limit", "1000"]).ok().stdout
}

#[test]
fn a_member_that_comes_back_by_a_snapshot_has_and_gives_the_history() {
    let mut grid = hasty();
    grid.start_with_worker();
    grid.millgrid(["cluster", "history", "--keep-jobs", "0"]).ok();
    let first = whole(&run_and_move(&grid, 5), "segments");
    let leader = grid.leader();
    let [away, third] = grid.others(&leader);
    grid.kill(away);
    let segments = whole(&run_and_move(&grid, 60), "segments");
    assert!(segments > first, "{segments} segments, {first} before it went");
    until("the others have dropped what it misses of the log", SOON, || {
        grid.log(&leader).contains("log compacted") && grid.log(third).contains("log compacted")
    });
    let before = list(&grid);
    grid.start_one(away);
    until("it gets a snapshot", SOON, || grid.log(away).contains("a snapshot of the leader's replaces the state"));
    has_all(&grid, away, segments, &leader);
    grid.check_replicas();

    lead(away, |arguments| grid.millgrid(arguments));
    assert_eq!(list(&grid), before);
    // It alone has this one now, and gives it to the one that is asked.
    for name in [&leader, third] {
        fs::remove_file(segment(&grid, name, segments)).unwrap();
    }
    grid.kill(third);
    grid.start_one(third);
    has_all(&grid, third, segments, away);
    lead(third, |arguments| grid.millgrid(arguments));
    assert_eq!(list(&grid), before);
    grid.check_replicas();
}

#[test]
fn a_segment_that_is_lost_on_a_disk_is_taken_from_another_member() {
    let mut grid = hasty();
    grid.start_with_worker();
    grid.millgrid(["cluster", "history", "--keep-jobs", "0"]).ok();
    run_and_move(&grid, 3);
    let before = list(&grid);
    let names = ["c1", "c2", "c3"];
    for name in names {
        has_all(&grid, name, 1, "c1");
    }
    let good = fs::read(segment(&grid, "c1", 1)).unwrap();
    let is_whole = |path: &Path| fs::read(path).is_ok_and(|file| file == good);
    // Nobody has it in memory.
    for name in names {
        grid.kill(name);
        grid.start_one(name);
    }
    grid.check_replicas();

    for (name, damage) in [("c1", None), ("c2", Some(good.len() - 1)), ("c3", Some(9))] {
        let path = segment(&grid, name, 1);
        match damage {
            None => fs::remove_file(&path).unwrap(),
            Some(byte) => {
                let mut damaged = good.clone();
                damaged[byte] ^= 1;
                fs::write(&path, damaged).unwrap();
            }
        }
        // Whoever is asked reads it, from its disk as long as it has not read it before.
        let asked = ["ls", "--all", "-o", "json", "--limit", "1000", "--endpoint", &grid.endpoint(name)];
        assert_eq!(grid.millgrid(asked).ok().stdout, before, "{name} is asked");
        until(&format!("{name} has it again"), SOON, || is_whole(&path));
        assert_eq!(grid.log(name).contains("is damaged"), damage.is_some(), "{name}");
    }

    // Nobody reads: it is found at the start all the same, in its content too.
    grid.kill("c2");
    let path = segment(&grid, "c2", 1);
    let mut damaged = good.clone();
    damaged[good.len() - 1] ^= 1;
    fs::write(&path, damaged).unwrap();
    grid.start_one("c2");
    until("c2 has it again", SOON, || is_whole(&path));

    // Nobody has it, not in memory either: the job is known, and it is said why it can't be shown.
    for name in names {
        grid.kill(name);
    }
    for name in names {
        grid.start_one(name);
    }
    grid.check_replicas();
    for name in names {
        has_all(&grid, name, 1, "c1");
    }
    for name in names {
        fs::remove_file(segment(&grid, name, 1)).unwrap();
    }
    let refused = grid.millgrid(["show", "1", "-o", "json", "--timeout", "2s"]).exits(5).error();
    assert_eq!(text(&refused, "reason"), "HISTORY_UNAVAILABLE");
    fs::write(segment(&grid, "c2", 1), &good).unwrap();
    assert_eq!(list(&grid), before);
}

#[test]
fn the_rules_rise_once_every_member_follows_them_and_nobody_goes_back() {
    let mut grid = hasty();
    let newest_rules = "MILLGRID_COORDINATOR_NEWEST_RULES";
    grid.set("c1", newest_rules, "1");
    grid.start_with_worker();
    // Whoever leads.
    for name in ["c2", "c3", "c1"] {
        lead(name, |arguments| grid.millgrid(arguments));
        let id = grid.submit(&["--", "true"]);
        grid.wait_for_state(id, "succeeded", SOON);
        let now = history(grid.millgrid(["cluster", "history", "-o", "json"]));
        assert_eq!((whole(&now, "rules_version"), whole(&now, "moved_jobs")), (1, 0));
    }
    let refused = grid.millgrid(["cluster", "history", "--keep-jobs", "0", "-o", "json"]).exits(6).error();
    assert_eq!(text(&refused, "reason"), "RULES_TOO_OLD");
    assert!(grid.millgrid(["cluster", "history"]).ok().stdout.contains("nothing moves before version 2"));
    grid.check_replicas();

    grid.kill("c1");
    grid.set("c1", newest_rules, "2");
    grid.start_one("c1");
    until("the rules have risen", SOON, || {
        whole(&history(grid.millgrid(["cluster", "history", "-o", "json"])), "rules_version") == 2
    });
    grid.millgrid(["cluster", "history", "--keep-jobs", "0"]).ok();
    // What ended under the old rules moves too.
    run_and_move(&grid, 2);
    grid.check_replicas();

    let [older, _] = grid.others(&grid.leader());
    grid.kill(older);
    grid.set(older, newest_rules, "1");
    for _ in 0..2 {
        let before = grid.log(older).len();
        grid.start_one(older);
        assert_eq!(grid.exit_code(older, SOON), 72);
        let log = grid.log(older).split_off(before);
        let why = "the grid follows rules 2, this coordinator no more than 1: run a newer release";
        assert!(log.contains(why), "no `{why}` in\n{log}");
    }
    grid.set(older, newest_rules, "2");
    grid.start_one(older);
    grid.check_replicas();
}
