//! A real worker process under a coordinator of the test's own: commands, logs, kills, restarts, fencing.

#![allow(clippy::unwrap_used)]

mod grid;

use std::{fs, time::Instant};

use grid::{Grid, await_true, command, key, read, summary};
use proto::v1::{
    Cause, Grant, GrantedJob, Instructions, JobSpec, Kill, LocalFile, LogStream, Resources, TaskArray, TimeLimit,
    coordinator_message::Message as Down, report_item::Item,
};

#[tokio::test(flavor = "multi_thread")]
async fn commands_run_and_their_ends_are_reported() {
    let mut grid = Grid::start().await;
    let _agent = grid.start_worker("");
    let mut session = grid.session().await;
    for (job, spec, expected) in [
        (1, command(&["true"]), (Cause::ExitCode, 0, 0)),
        (2, command(&["sh", "-c", "exit {index}3"]), (Cause::ExitCode, 3, 0)),
        (3, command(&["no-such-program"]), (Cause::CommandNotFound, 0, 0)),
        (4, command(&["/etc/passwd"]), (Cause::CommandNotExecutable, 0, 0)),
        (5, command(&["sh", "-c", "kill -9 $$"]), (Cause::Signal, 0, 9)),
        (
            6,
            JobSpec { script: "#!/bin/sh\n[ $1 = 0 ] && exit 4".into(), ..command(&["{index}"]) },
            (Cause::ExitCode, 4, 0),
        ),
        (7, JobSpec { script: "exit $(cat | wc -c)5".into(), ..command(&[]) }, (Cause::ExitCode, 5, 0)),
        (8, command(&["echo", "{nosuch}"]), (Cause::StageIn, 0, 0)),
    ] {
        session.grant(job, spec, &[key(job, 0)]);
        let (ended_key, ended) = session.ended().await;
        assert_eq!((ended_key, summary(&ended)), (key(job, 0), expected), "{ended:?}");
        assert_eq!(ended.start_time_ms > 0, expected.0 == Cause::ExitCode || expected.0 == Cause::Signal, "{ended:?}");
        assert!(ended.end_time_ms >= ended.start_time_ms);
        await_true(|| grid.is_swept(key(job, 0)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_sees_its_environment_and_its_directory() {
    let mut grid = Grid::start().await;
    let _agent = grid.start_worker("s3_endpoint = 'http://127.0.0.1:9'");
    let mut session = grid.session().await;
    let spec = JobSpec {
        env: [("LEVEL".to_owned(), "{row.level}".to_owned())].into(),
        resources: Some(Resources { cpu_milli: 1500, memory_mib: 100, ..Default::default() }),
        time_limit: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        array: Some(TaskArray::default()),
        ..command(&["sh", "-c", "env; pwd; ls -A; echo {level} >&2"])
    };
    let job = GrantedJob {
        job_id: 9,
        resources: Some(Resources { cpu_milli: 1000, memory_mib: 50, ..Default::default() }),
        spec: Some(spec),
        owner: "me".into(),
        time_limit_ms: 60_000,
    };
    let grant = Grant {
        attempt: Some(key(9, 2)),
        task_index: 20,
        row: r#"{"level":"x y"}"#.into(),
        // More than its job: what this attempt is given counts.
        resources: Some(Resources { cpu_milli: 1500, memory_mib: 100, ..Default::default() }),
        ..Default::default()
    };
    session.send(Down::Instructions(Instructions {
        index: 1,
        jobs: vec![job],
        grants: vec![grant],
        ..Default::default()
    }));
    let (_, key, item) = session.item().await;
    let Item::Ended(ended) = item else { panic!("{item:?}") };
    // Not acknowledged yet: the spools are there.
    let (stdout, stderr) = (read(&grid.directory(key).join("stdout")), read(&grid.directory(key).join("stderr")));
    assert_eq!(summary(&ended), (Cause::ExitCode, 0, 0), "{stderr}");
    for line in [
        "MILLGRID_JOB_ID=9",
        "MILLGRID_TASK_INDEX=20",
        "MILLGRID_ATTEMPT=1",
        r#"MILLGRID_ENTRY={"level":"x y"}"#,
        "MILLGRID_CPUS=1.5",
        "MILLGRID_MEMORY_MIB=100",
        "MILLGRID_GPUS=0",
        "OMP_NUM_THREADS=1",
        "LEVEL=x y",
        "AWS_ENDPOINT_URL_S3=http://127.0.0.1:9",
    ] {
        assert!(stdout.lines().any(|printed| printed == line), "{line} in {stdout}");
    }
    let work = grid.directory(key).join("work");
    assert_eq!(stdout.lines().last().unwrap(), work.to_str().unwrap(), "it begins in an empty directory of its own");
    assert!(stdout.contains("MILLGRID_DEADLINE=") && !stdout.contains("MILLGRID_LOG"), "{stdout}");
    assert_eq!((stderr.as_str(), ended.stderr_bytes), ("x y\n", 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_read_while_the_task_writes_them() {
    let mut grid = Grid::start().await;
    let _agent = grid.start_worker("");
    let mut session = grid.session().await;
    let go_on = grid.state_dir().join("go-on");
    let script = format!("echo one; while ! [ -e {} ]; do sleep 0.01; done; echo two; echo three >&2", go_on.display());
    session.grant(1, command(&["sh", "-c", &script]), &[key(1, 0)]);
    let data = session.log(key(1, 0), LogStream::Stdout, 0, true).await;
    assert_eq!((data.data.as_ref(), data.end), (b"one\n".as_ref(), false));
    fs::write(go_on, "").unwrap();
    let data = session.log(key(1, 0), LogStream::Stdout, 4, true).await;
    assert_eq!((data.data.as_ref(), data.offset), (b"two\n".as_ref(), 4));
    let data = session.log(key(1, 0), LogStream::Stdout, 8, true).await;
    assert_eq!((data.data.len(), data.end), (0, true));
    let data = session.log(key(1, 0), LogStream::Stderr, -3, false).await;
    assert_eq!((data.data.as_ref(), data.offset, data.end), (b"ee\n".as_ref(), 3, true));
    assert!(session.log(key(5, 0), LogStream::Stdout, 0, true).await.gone);
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_and_time_limits_end_tasks_with_their_cause() {
    let mut grid = Grid::start().await;
    let _agent = grid.start_worker("");
    let mut session = grid.session().await;
    session.grant(1, command(&["sleep", "1000"]), &[key(1, 0)]);
    let (sequence, _, item) = session.item().await;
    assert!(matches!(item, Item::Started(_)), "a task that runs for half a second is reported: {item:?}");
    session.acknowledge(sequence);
    let kill = Kill { attempt: Some(key(1, 0)), cause: Cause::Cancelled.into() };
    session.send(Down::Instructions(Instructions { index: 2, kills: vec![kill], ..Default::default() }));
    let (_, ended) = session.ended().await;
    assert_eq!(summary(&ended), (Cause::Cancelled, 0, 15));
    let limited = JobSpec {
        time_limit: Some(prost_types::Duration { seconds: 0, nanos: 200_000_000 }),
        ..command(&["sleep", "1000"])
    };
    session.grant(3, limited, &[key(3, 0)]);
    let (_, ended) = session.ended().await;
    assert_eq!(ended.cause(), Cause::TimeLimit);
    assert!((200..5000).contains(&ended.run_ms), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_time_limit_holds_for_what_runs_and_outlives_the_agent() {
    let mut grid = Grid::start().await;
    let agent = grid.start_worker("");
    let mut session = grid.session().await;
    session.grant(1, command(&["sh", "-c", "echo $$; exec sleep 1000"]), &[key(1, 0), key(1, 1)]);
    let limit = |index, time_limit_ms| {
        let time_limits = vec![TimeLimit { job_id: 1, time_limit_ms }];
        Down::Instructions(Instructions { index, time_limits, ..Default::default() })
    };
    for ordinal in [0, 1] {
        session.log(key(1, ordinal), LogStream::Stdout, 0, true).await;
    }
    session.send(limit(2, 3_000));
    // What is sent behind it is answered, so that it was taken.
    session.log(key(1, 0), LogStream::Stdout, 0, false).await;
    agent.kill();
    let _agent = grid.start_worker("");
    let (mut session, _) = grid.connection().await;
    session.open(1, 2, 0);
    for _ in 0..2 {
        let (_, ended) = session.ended().await;
        assert_eq!(ended.cause(), Cause::TimeLimit, "{ended:?}");
        assert!((3_000..10_000).contains(&ended.run_ms), "{ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_at_the_leader_where_that_is_named() {
    let mut moved = 0;
    for leader in 0..2 {
        let mut grid = Grid::start_led_by(leader, 2).await;
        let _agent = grid.start_worker("");
        let mut session = grid.session().await;
        if session.at != leader {
            let (next, open) = grid.connection().await;
            let resume = open.resume.unwrap();
            assert_eq!((next.at, resume.session, resume.connection), (leader, 1, 2));
            next.open(1, 2, 0);
            session = next;
            moved += 1;
        }
        session.grant(1, command(&["true"]), &[key(1, 0)]);
        let (_, ended) = session.ended().await;
        assert_eq!(summary(&ended), (Cause::ExitCode, 0, 0));
    }
    assert_eq!(moved, 1, "a worker's first coordinator follows from its name");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_agent_goes_on_with_what_runs() {
    let mut grid = Grid::start().await;
    let agent = grid.start_worker("");
    let mut session = grid.session().await;
    let go_on = grid.state_dir().join("go-on");
    let script = format!("echo $$; while ! [ -e {} ]; do sleep 0.01; done; exit 6", go_on.display());
    session.grant(1, command(&["sh", "-c", &script]), &[key(1, 0)]);
    session.grant(2, command(&["sh", "-c", "exit 7"]), &[key(2, 0)]);
    let pid = session.log(key(1, 0), LogStream::Stdout, 0, true).await.data;
    let (sequence, ended_key, _) = session.item().await;
    assert_eq!((sequence, ended_key), (1, key(2, 0)));
    // Its end was applied, but the agent never hears of it.
    agent.kill();
    let _agent = grid.start_worker("");
    let (mut session, open) = grid.connection().await;
    let resume = open.resume.expect("the keeper held the session");
    assert_eq!((resume.session, resume.connection), (1, 2));
    assert_eq!(resume.held, [key(1, 0), key(2, 0)]);
    session.open(1, 2, 1);
    // The coordinator hasn't called it unknown, so the end is told again, with the next number.
    let (sequence, ended_key, item) = session.item().await;
    assert_eq!((sequence, ended_key), (2, key(2, 0)));
    assert!(matches!(item, Item::Ended(ended) if ended.exit_code == 7));
    session.acknowledge(2);
    fs::write(go_on, "").unwrap();
    let (ended_key, ended) = session.ended().await;
    assert_eq!((ended_key, summary(&ended)), (key(1, 0), (Cause::ExitCode, 6, 0)));
    assert_eq!(ended.stdout_bytes, pid.len() as u64, "it is the same process");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_not_renewed_kills_what_runs_and_begins_anew() {
    let mut grid = Grid::start().await;
    let _agent = grid.start_worker("");
    let (mut session, _) = grid.connection().await;
    session.renews = false;
    session.open_for(1, 1, 0, 1000);
    session.grant(1, command(&["sh", "-c", "trap '' TERM; echo $$; exec sleep 1000"]), &[key(1, 0)]);
    let pid = session.log(key(1, 0), LogStream::Stdout, 0, true).await.data;
    let pid: i32 = std::str::from_utf8(&pid).unwrap().trim().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let (session, open) = grid.connection().await;
    assert!(open.resume.is_none(), "the old session is forgotten: {open:?}");
    await_true(|| rustix::process::test_kill_process(pid).is_err());
    session.open(2, 1, 0);
    await_true(|| grid.is_swept(key(1, 0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keeper_that_dies_is_replaced_and_its_tasks_are_reported_lost() {
    let mut grid = Grid::start().await;
    let _agent = grid.start_worker("");
    let mut session = grid.session().await;
    session.grant(1, command(&["sh", "-c", "echo $$; exec sleep 1000"]), &[key(1, 0)]);
    let pid = session.log(key(1, 0), LogStream::Stdout, 0, true).await.data;
    let pid: i32 = std::str::from_utf8(&pid).unwrap().trim().parse().unwrap();
    let keeper = rustix::process::Pid::from_raw(grid.keeper_pid().unwrap()).unwrap();
    rustix::process::kill_process(keeper, rustix::process::Signal::KILL).unwrap();
    let (_, ended) = session.ended().await;
    assert_eq!(ended.cause(), Cause::WorkerLost);
    assert!(rustix::process::test_kill_process(rustix::process::Pid::from_raw(pid).unwrap()).is_err(), "it is dead");
    session.grant(2, command(&["true"]), &[key(2, 0)]);
    assert_eq!(summary(&session.ended().await.1), (Cause::ExitCode, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn local_files_travel_along() {
    let mut grid = Grid::start().await;
    let _agent = grid.start_worker("");
    let mut session = grid.session().await;
    let blob = |grid: &Grid, chunks: &[&[u8]]| proto::v1::Blob {
        chunk_hashes: chunks.iter().map(|chunk| grid.put_blob(chunk).into()).collect(),
        size: chunks.iter().map(|chunk| chunk.len() as u64).sum(),
    };
    let spec = JobSpec {
        files: vec![
            LocalFile {
                path: "bin/tool".into(),
                blob: Some(blob(&grid, &[b"#!/bin/sh\n", b"cat input.txt; exit 8"])),
                executable: true,
            },
            LocalFile { path: "input.txt".into(), blob: Some(blob(&grid, &[b"words"])), executable: false },
        ],
        ..command(&["bin/tool"])
    };
    session.grant(1, spec, &[key(1, 0)]);
    let (_, ended_key, item) = session.item().await;
    let Item::Ended(ended) = item else { panic!("{item:?}") };
    assert_eq!((summary(&ended), ended.stdout_bytes), ((Cause::ExitCode, 8, 0), 5));
    assert_eq!(read(&grid.directory(ended_key).join("stdout")), "words");
}

/// The figure that the design asks for is measured by the benches; this shows that nothing is lost in a hurry.
#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_short_tasks_each_end_once() {
    const TASKS: u32 = 2_000;
    let mut grid = Grid::start().await;
    let _agent = grid.start_worker("log = 'text'");
    let mut session = grid.session().await;
    let start = Instant::now();
    let (mut granted, mut ended) = (0, std::collections::BTreeSet::new());
    while ended.len() < TASKS as usize {
        while granted < TASKS && (granted as usize) < ended.len() + 200 {
            let keys: Vec<_> = (granted..granted + 50).map(|ordinal| key(1, ordinal)).collect();
            session.grant(u64::from(granted) + 1, command(&["/bin/true"]), &keys);
            granted += 50;
        }
        let (ended_key, end) = session.ended().await;
        assert_eq!(summary(&end), (Cause::ExitCode, 0, 0));
        assert!(ended.insert(ended_key.ordinal), "{ended_key:?} ended twice");
    }
    let seconds = start.elapsed().as_secs_f64();
    eprintln!("{TASKS} tasks in {seconds:.2} s: {:.0} a second", f64::from(TASKS) / seconds);
}
