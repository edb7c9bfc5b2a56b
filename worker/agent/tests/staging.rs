//! A real worker process with an S3 service: inputs, outputs, publications, logs.

#![allow(clippy::unwrap_used)]

mod grid;

use std::fs;

use grid::{Connection, Grid, await_true, command, key, read, summary};
use proto::v1::{AttemptKey, Cause, Ended, Input, JobSpec, Output, report_item::Item};

fn input(source: &str, path: &str) -> Input {
    Input { source: source.into(), path: path.into() }
}

fn output(glob: &str, prefix: &str) -> Output {
    Output { glob: glob.into(), prefix: prefix.into(), optional: false }
}

/// The next end, not acknowledged.
async fn end(session: &mut Connection) -> (u64, AttemptKey, Ended) {
    loop {
        match session.item().await {
            (sequence, key, Item::Ended(ended)) => return (sequence, key, ended),
            (_, _, Item::Started(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_come_and_outputs_appear_when_they_are_published() {
    let mut grid = Grid::start().await;
    let endpoint = grid.start_s3().await;
    let _agent = grid.start_worker(&format!("s3_endpoint = '{endpoint}'"));
    fs::create_dir(grid.bucket().join("in")).unwrap();
    fs::write(grid.bucket().join("in/3.txt"), "one two three").unwrap();
    let mut session = grid.session().await;
    let spec = JobSpec {
        inputs: vec![input("s3://dev/in/{index}.txt", "words.txt"), input("s3://dev/in/", "all")],
        outputs: vec![output("res/*.txt", "s3://dev/out/{job}/{index}-")],
        ..command(&["sh", "-c", "cmp words.txt all/3.txt && mkdir res && wc -w <words.txt >res/count.txt"])
    };
    session.grant(1, spec, &[key(5, 3)]);
    let (sequence, ended_key, ended) = end(&mut session).await;
    assert_eq!((ended_key, summary(&ended)), (key(5, 3), (Cause::ExitCode, 0, 0)), "{ended:?}");
    let manifest = ended.manifest.expect("it has outputs");
    assert_eq!((manifest.entries.len(), manifest.entries[0].path.as_str()), (1, "res/count.txt"));
    let published = grid.bucket().join("out/5/3-count.txt");
    assert!(!published.exists(), "nobody sees it before the attempt is accepted");
    session.acknowledge(sequence);
    session.publish(2, key(5, 3), manifest.clone());
    let (sequence, _, item) = session.item().await;
    let Item::Published(first) = item else { panic!("{item:?}") };
    assert_eq!((first.etags.len(), read(&published).trim()), (1, "3"));
    session.acknowledge(sequence);
    // Another worker, or this one after a restart, may be asked to do it again.
    session.publish(3, key(5, 3), manifest);
    let (_, _, item) = session.item().await;
    assert!(matches!(item, Item::Published(second) if second.etags == first.etags));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_staged_ends_the_attempt_and_names_the_key() {
    let mut grid = Grid::start().await;
    let endpoint = grid.start_s3().await;
    let _agent = grid.start_worker(&format!("s3_endpoint = '{endpoint}'"));
    let mut session = grid.session().await;
    for (job, spec, cause, named) in [
        (
            1,
            JobSpec { inputs: vec![input("s3://dev/in/absent", "x")], ..command(&["true"]) },
            Cause::StageIn,
            "s3://dev/in/absent",
        ),
        (
            2,
            JobSpec { outputs: vec![output("*.bam", "s3://dev/out/")], ..command(&["true"]) },
            Cause::StageOut,
            "*.bam",
        ),
        (3, JobSpec { outputs: vec![output("*.bam", "s3://dev/out/")], ..command(&["false"]) }, Cause::ExitCode, ""),
    ] {
        session.grant(job, spec, &[key(job, 0)]);
        let (_, ended) = session.ended().await;
        assert_eq!((ended.cause(), ended.retryable, ended.manifest), (cause, cause == Cause::ExitCode, None));
        assert!(ended.detail.contains(named), "{}", ended.detail);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_go_to_s3_and_their_spools_stay_until_then() {
    let mut grid = Grid::start().await;
    let endpoint = grid.start_s3().await;
    let _agent = grid.start_worker(&format!("s3_endpoint = '{endpoint}'"));
    let mut session = grid.session().await;
    session.grant(1, command(&["sh", "-c", "echo small; echo worse >&2"]), &[key(1, 0)]);
    session.grant(2, command(&["sh", "-c", "yes | head -c 1000000"]), &[key(2, 0)]);
    let mut bundle = 0;
    for _ in 0..2 {
        let (ended_key, ended) = session.ended().await;
        match ended_key.job_id {
            1 => {
                assert_eq!((ended.stdout_bytes, ended.stderr_bytes), (6, 6));
                bundle = ended.log_bundle;
            }
            _ => assert_eq!((ended.stdout_bytes, ended.log_bundle), (1_000_000, 0)),
        }
    }
    assert_ne!(bundle, 0);
    let logs = grid.bucket().join(".millgrid/logs/1");
    await_true(|| logs.join(bundle.to_string()).exists());
    let text = String::from_utf8_lossy(&fs::read(logs.join(bundle.to_string())).unwrap()).into_owned();
    assert!(text.starts_with("small\nworse\n") && text.contains(r#""stream":"stdout""#), "{text}");
    await_true(|| logs.join("2.0.1.stdout").exists());
    assert_eq!(fs::metadata(logs.join("2.0.1.stdout")).unwrap().len(), 1_000_000);
    for job in [1, 2] {
        await_true(|| grid.is_swept(key(job, 0)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_agent_uploads_what_its_predecessor_did_not() {
    let mut grid = Grid::start().await;
    let endpoint = grid.start_s3().await;
    let extra = format!("s3_endpoint = '{endpoint}'");
    let agent = grid.start_worker(&extra);
    let mut session = grid.session().await;
    let go_on = grid.state_dir().join("go-on");
    let script = format!("echo x; while ! [ -e {} ]; do sleep 0.01; done; echo done >result", go_on.display());
    let spec = JobSpec { outputs: vec![output("result", "s3://dev/out/")], ..command(&["sh", "-c", &script]) };
    session.grant(1, spec, &[key(1, 0)]);
    session.log(key(1, 0), proto::v1::LogStream::Stdout, 0, true).await;
    agent.kill();
    fs::write(&go_on, "").unwrap();
    let _agent = grid.start_worker(&extra);
    let (mut session, open) = grid.connection().await;
    assert_eq!(open.resume.map(|resume| resume.held), Some(vec![key(1, 0)]));
    session.open(1, 2, 0);
    let (sequence, _, ended) = end(&mut session).await;
    assert_eq!(summary(&ended), (Cause::ExitCode, 0, 0), "{ended:?}");
    assert!(ended.log_bundle > 0 && ended.stdout_bytes == 2, "{ended:?}");
    session.acknowledge(sequence);
    session.publish(9, key(1, 0), ended.manifest.unwrap());
    assert!(matches!(session.item().await.2, Item::Published(_)));
    assert_eq!(read(&grid.bucket().join("out/result")), "done\n");
}
