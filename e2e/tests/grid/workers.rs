//! Workers that die, are drained, or lose half of themselves.

use e2e::{Grid, Options, Test, eventually, processes_of, text, until, whole};

use crate::{EXPIRY, SOON};

fn worker_of(grid: &Test, id: u64) -> String {
    eventually("the task has a worker", SOON, || {
        let task = grid.task(id);
        (task["state"] == "running").then(|| text(&task, "worker").to_owned())
    })
}

#[test]
fn tasks_of_a_lost_worker_run_elsewhere_except_those_that_may_not() {
    let grid = Grid::start(Options { workers: 2, cpus: 2, ..Options::default() });
    let gate = grid.file("worker-gate").display().to_string();
    let starts = grid.file("worker-starts").display().to_string();
    let script = format!("echo $MILLGRID_JOB_ID >> {starts}; until test -e {gate}; do sleep 0.05; done");
    // Four tasks fill two workers of two cpus, so that each worker has one of each kind or two of one.
    let again = [grid.submit_shell(&[], &script), grid.submit_shell(&[], &script)];
    let once = [grid.submit_shell(&["--at-most-once"], &script), grid.submit_shell(&["--at-most-once"], &script)];
    grid.wait_for_lines("worker-starts", 4, SOON);
    let lost = worker_of(&grid, once[0]);
    let on_lost = |id: &u64| worker_of(&grid, *id) == lost;
    let again_lost: Vec<u64> = again.iter().copied().filter(on_lost).collect();
    let once_lost: Vec<u64> = once.iter().copied().filter(on_lost).collect();
    grid.dev("kill", &[&lost]).ok();
    for id in &once_lost {
        let job = grid.wait_for_end(*id, EXPIRY);
        assert_eq!((text(&job, "state"), text(&job, "cause")), ("failed", "worker_lost"), "{job}");
        assert_eq!(whole(&grid.task(*id), "attempt"), 1);
    }
    std::fs::write(grid.file("worker-gate"), "").unwrap();
    for id in again {
        assert_eq!(text(&grid.wait_for_end(id, EXPIRY), "state"), "succeeded");
        let task = grid.task(id);
        if again_lost.contains(&id) {
            assert!(whole(&task, "attempt") >= 2, "{task}");
            assert_eq!(text(&task["attempt_list"][0], "cause"), "worker_lost", "{task}");
        }
    }
    let starts = grid.lines("worker-starts");
    assert_eq!(starts.len(), 4 + again_lost.len(), "{starts:?}");
    let state = eventually("the worker is given up", SOON, || {
        let output = grid.millgrid(["worker", "show", &lost, "-o", "json"]);
        if output.code == 3 { Some("gone".to_owned()) } else { Some(text(&output.json(), "state").to_owned()) }
    });
    assert_ne!(state, "ready", "{lost}");
    grid.dev("restart", &[&lost]).ok();
    let id = grid.submit(&["--array", "0-3", "--", "sleep", "1"]);
    until("it works again", SOON, || grid.tasks(id).iter().any(|task| task["worker"] == *lost));
    grid.wait_for_end(id, SOON);
}

#[test]
fn a_worker_lost_while_it_stages_costs_nothing_but_time() {
    let grid = Grid::start(Options { workers: 2, cpus: 1, ..Options::default() });
    let large = std::fs::File::create({
        std::fs::create_dir_all(grid.object("")).unwrap();
        grid.object("large")
    });
    large.unwrap().set_len(600 << 20).unwrap();
    let input = ["--in", "s3://dev/large:large", "--out", "size=s3://dev/staged/"];
    let id = grid.submit_shell(&input, "stat -c %s large > size");
    let worker = eventually("a worker stages", SOON, || {
        ["worker-1", "worker-2"]
            .into_iter()
            .find(|name| grid.folder().join("state").join(name).join("tasks").join(format!("{id}.0.1")).is_dir())
    });
    grid.dev("kill", &[worker]).ok();
    let job = grid.wait_for_end(id, EXPIRY);
    assert_eq!(text(&job, "state"), "succeeded", "{job}");
    assert_eq!(grid.get("staged/size").as_deref(), Some("629145600\n"));
    assert_eq!(whole(&grid.task(id), "attempt"), 2, "{}", grid.task(id));
    grid.dev("restart", &[worker]).ok();
}

#[test]
fn outputs_of_a_worker_lost_while_it_publishes_are_whole_all_the_same() {
    let grid = Grid::start(Options { workers: 2, cpus: 1, ..Options::default() });
    let file = grid.file("published").display().to_string();
    // Many files, so that there is a while between the first upload and the last completion.
    let script =
        format!("for n in $(seq 40); do head -c 8000000 /dev/zero > part-$n; done; echo $MILLGRID_ATTEMPT >> {file}");
    let id = grid.submit_shell(&["--out", "part-*=s3://dev/lost/"], &script);
    let worker = worker_of(&grid, id);
    grid.wait_for_lines("published", 1, SOON);
    grid.dev("kill", &[&worker]).ok();
    let job = grid.wait_for_end(id, EXPIRY);
    assert_eq!(text(&job, "state"), "succeeded", "{job}");
    for number in 1..=40 {
        let size = std::fs::metadata(grid.object(&format!("lost/part-{number}"))).map(|metadata| metadata.len());
        assert_eq!(size.ok(), Some(8_000_000), "part-{number}");
    }
    grid.dev("restart", &[&worker]).ok();
}

#[test]
fn a_task_outlives_its_agent() {
    let grid = Grid::start(Options { workers: 1, ..Options::default() });
    let (gate, file) = (grid.file("agent-gate"), grid.file("agent").display().to_string());
    let gate_text = gate.display().to_string();
    let script =
        format!("echo up >> {file}; until test -e {gate_text}; do sleep 0.05; done; echo end >> {file}; exit 4");
    let id = grid.submit_shell(&[], &script);
    grid.wait_for_lines("agent", 1, SOON);
    grid.dev("kill", &["worker-1", "--agent-only"]).ok();
    until("the agent is dead", SOON, || grid.process("worker-1")["pid"].is_null());
    assert!(grid.process("worker-1-keeper")["pid"].is_u64());
    grid.dev("restart", &["worker-1"]).ok();
    std::fs::write(&gate, "").unwrap();
    let job = grid.wait_for_end(id, SOON);
    assert_eq!((text(&job, "state"), &job["exit_code"]), ("failed", &4.into()), "{job}");
    assert_eq!(grid.lines("agent"), ["up", "end"]);
    assert_eq!(whole(&grid.task(id), "attempt"), 1);
}

#[test]
fn a_task_that_ends_without_an_agent_is_recorded_when_one_is_back() {
    let grid = Grid::start(Options { workers: 1, ..Options::default() });
    let file = grid.file("ends").display().to_string();
    let script = format!("echo up >> {file}; sleep 1; echo said; echo result > out; echo end >> {file}");
    let id = grid.submit_shell(&["--out", "out=s3://dev/ends/"], &script);
    grid.wait_for_lines("ends", 1, SOON);
    grid.dev("kill", &["worker-1", "--agent-only"]).ok();
    grid.wait_for_lines("ends", 2, SOON);
    grid.dev("restart", &["worker-1"]).ok();
    let job = grid.wait_for_end(id, SOON);
    assert_eq!(text(&job, "state"), "succeeded", "{job}");
    assert_eq!(grid.lines("ends"), ["up", "end"]);
    assert_eq!(grid.get("ends/out").as_deref(), Some("result\n"));
    assert_eq!(grid.millgrid(["logs", &id.to_string()]).ok().stdout, "said\n");
}

#[test]
fn a_drained_worker_ends_what_it_has_and_gets_nothing_new() {
    let grid = Grid::start(Options { workers: 2, cpus: 1, ..Options::default() });
    let running = grid.submit_shell(&[], "sleep 2");
    let drained = worker_of(&grid, running);
    grid.millgrid(["worker", "drain", &drained]).ok();
    let array = grid.submit(&["--array", "0-19", "--", "true"]);
    assert_eq!(text(&grid.wait_for_end(array, SOON), "state"), "succeeded");
    assert!(grid.tasks(array).iter().all(|task| task["worker"] != *drained));
    assert_eq!(text(&grid.wait_for_end(running, SOON), "state"), "succeeded");
    assert_eq!(whole(&grid.task(running), "attempt"), 1);
    let worker = grid.millgrid(["worker", "show", &drained, "-o", "json"]).ok().json();
    assert!(text(&worker, "state").starts_with("drain"), "{worker}");
    // A task that nothing may run says so.
    let other = if drained == "worker-1" { "worker-2" } else { "worker-1" };
    grid.millgrid(["worker", "drain", other]).ok();
    let waiting = grid.submit(&["--", "true"]).to_string();
    let explanation = grid.millgrid(["explain", &waiting, "-o", "json"]).ok().json();
    let reasons = explanation["reasons"].as_array().unwrap();
    assert!(reasons.iter().any(|reason| reason["reason"] == "worker_draining"), "{explanation}");
}

#[test]
fn what_runs_on_a_reclaimed_machine_gets_its_grace_and_runs_elsewhere() {
    let grid = Grid::start(Options { workers: 2, cpus: 1, ..Options::default() });
    assert_eq!(grid.dev("spot", &["worker-9"]).code, 3);
    assert_eq!(grid.dev("spot", &["c1"]).code, 2);
    assert_eq!(grid.dev("spot", &["worker-1-keeper"]).code, 2);
    // Until the end of the test the other worker has a task, so that this one is where the long one runs.
    let (gate, file) = (grid.file("spot-gate").display().to_string(), grid.file("spot").display().to_string());
    let blocker = grid.submit_shell(&[], &format!("until test -e {gate}; do sleep 0.05; done"));
    let other = worker_of(&grid, blocker);
    let script = format!(
        "echo up $MILLGRID_ATTEMPT >> {file}; echo said by $MILLGRID_ATTEMPT; test $MILLGRID_ATTEMPT = 1 || exit 0; \
         trap 'echo term >> {file}; echo last words; exit 0' TERM; while true; do sleep 0.05; done"
    );
    let id = grid.submit_shell(&["--name", "long"], &script);
    let worker = worker_of(&grid, id);
    assert_ne!(worker, other);
    grid.wait_for_lines("spot", 1, SOON);
    // More than there is room for: what this worker holds of it, it returns.
    let array = grid.submit(&["--array", "0-9", "--", "true"]);

    grid.dev("spot", &[&worker, "--notice", "6s"]).ok();
    let shown = eventually("it drains", SOON, || {
        let shown = grid.millgrid(["worker", "show", &worker, "-o", "json"]).ok().json();
        text(&shown, "state").starts_with("drain").then_some(shown)
    });
    assert!(text(&shown, "reason").contains("spot reclaim"), "{shown}");
    grid.wait_for_lines("spot", 2, SOON);
    let attempt = eventually("its attempt ends", SOON, || {
        let attempt = grid.task(id)["attempt_list"][0].clone();
        attempt["end_time"].is_string().then_some(attempt)
    });
    assert_eq!((text(&attempt, "cause"), text(&attempt, "worker")), ("spot_reclaimed", &*worker), "{attempt}");
    until("the machine is gone", SOON, || grid.process(&worker)["pid"].is_null());
    assert!(grid.process(&format!("{worker}-keeper"))["pid"].is_null());
    assert_eq!(processes_of(&grid.state().join(&worker)), Vec::<String>::new(), "something of {worker} is left");

    std::fs::write(grid.file("spot-gate"), "").unwrap();
    for ended in [id, array] {
        assert_eq!(text(&grid.wait_for_end(ended, SOON), "state"), "succeeded");
        assert!(grid.tasks(ended).iter().all(|task| task["worker"] == *other), "{:?}", grid.tasks(ended));
    }
    assert_eq!(grid.lines("spot"), ["up 1", "term", "up 2"]);
    // No retry was asked for, none was spent; the words of both attempts are kept.
    assert_eq!(whole(&grid.task(id), "attempt"), 2);
    let log = |attempt: &str| grid.millgrid(["logs", &id.to_string(), "--attempt", attempt]).ok().stdout;
    assert_eq!((log("1").as_str(), log("2").as_str()), ("said by 1\nlast words\n", "said by 2\n"));

    // Another machine, of which nobody has said that it goes.
    grid.dev("restart", &[&worker]).ok();
    let again = grid.submit(&["--array", "0-3", "--", "sleep", "1"]);
    until("it works again", SOON, || grid.tasks(again).iter().any(|task| task["worker"] == *worker));
    assert_eq!(text(&grid.wait_for_end(again, SOON), "state"), "succeeded");
}

#[test]
fn a_notice_that_comes_while_nobody_answers_is_told_later_and_a_finished_task_counts() {
    let grid = Grid::start(Options { workers: 1, cpus: 1, ..Options::default() });
    let (gate, file) = (grid.file("later-gate"), grid.file("later").display().to_string());
    let gate_text = gate.display().to_string();
    let script = format!("echo up >> {file}; until test -e {gate_text}; do sleep 0.05; done; echo end >> {file}");
    let id = grid.submit_shell(&[], &script);
    grid.wait_for_lines("later", 1, SOON);
    for coordinator in ["c1", "c2", "c3"] {
        grid.dev("kill", &[coordinator]).ok();
    }
    // Long enough that the task has more than its grace.
    grid.dev("spot", &["worker-1", "--notice", "90s"]).ok();
    // The agent, too, hears of it again when it is restarted.
    grid.dev("restart", &["worker-1"]).ok();
    std::fs::write(&gate, "").unwrap();
    grid.wait_for_lines("later", 2, SOON);
    for coordinator in ["c1", "c2", "c3"] {
        grid.dev("restart", &[coordinator]).ok();
    }
    grid.leader();
    assert_eq!(text(&grid.wait_for_end(id, SOON), "state"), "succeeded");
    assert_eq!(whole(&grid.task(id), "attempt"), 1);
    let shown = eventually("it has drained", SOON, || {
        let shown = grid.millgrid(["worker", "show", "worker-1", "-o", "json"]).ok().json();
        text(&shown, "state").starts_with("drain").then_some(shown)
    });
    assert!(text(&shown, "reason").contains("spot reclaim"), "{shown}");
    let waiting = grid.submit(&["--", "true"]).to_string();
    let explanation = grid.millgrid(["explain", &waiting, "-o", "json"]).ok().json();
    let reasons = explanation["reasons"].as_array().unwrap();
    assert!(reasons.iter().any(|reason| reason["reason"] == "worker_draining"), "{explanation}");
}

#[test]
fn a_paused_worker_shorter_than_its_lease_loses_nothing() {
    let grid = Grid::start(Options { workers: 1, ..Options::default() });
    let file = grid.file("paused").display().to_string();
    let id = grid.submit_shell(&[], &format!("echo up >> {file}; sleep 2; echo end >> {file}"));
    grid.wait_for_lines("paused", 1, SOON);
    grid.dev("pause", &["worker-1"]).ok();
    let paused = std::time::Instant::now();
    until("it was away for 10 s", SOON, || paused.elapsed().as_secs() >= 10);
    grid.dev("resume", &["worker-1"]).ok();
    assert_eq!(text(&grid.wait_for_end(id, SOON), "state"), "succeeded");
    assert_eq!(grid.lines("paused"), ["up", "end"]);
    assert_eq!(whole(&grid.task(id), "attempt"), 1);
}
