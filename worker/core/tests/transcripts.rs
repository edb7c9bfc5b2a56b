//! Transcripts of a core: each line that begins with a time is an input, the indented lines below it are what the
//! core wanted done. `UPDATE_GOLDEN=1` writes them anew.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, fmt::Write, fs, path::Path};

use proto::v1::{
    Acknowledged, Capacity, Cause, CoordinatorMessage, Grant, GrantedJob, Instructions, JobSpec, Kill, Manifest,
    Publish, ReadLog, Renewed, Resources, SessionEnded, SessionOpened, TimeLimit, WorkerMessage, acknowledged,
    coordinator_message::Message, report_item::Item, worker_message,
};
use worker_core::{Adopted, Core, End, Exit, Failure, Input, Key, Output, PublishFailure, Settings, Standing};

#[test]
fn every_transcript_is_what_the_core_does() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let written = fs::read_to_string(&path).unwrap();
        let played = play(&written);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, &played).unwrap();
        } else {
            assert_eq!(written, played, "{} differs; UPDATE_GOLDEN=1 shows how", path.display());
        }
        count += 1;
    }
    assert!(count > 0, "no transcripts were found");
}

fn play(written: &str) -> String {
    let mut core = Core::new(settings());
    let mut player = Player { stream: 0 };
    let mut played = String::new();
    for line in written.lines() {
        if line.starts_with('#') || line.is_empty() {
            writeln!(played, "{line}").unwrap();
        } else if !line.starts_with(' ') {
            let (time, words) = line.split_once(' ').unwrap();
            let now_ms = time.trim_end_matches("ms").parse().unwrap();
            writeln!(played, "{line}").unwrap();
            for words in words.split(" & ") {
                core.step(player.input(words.trim()), now_ms, 1_000_000 + now_ms as i64);
            }
            for output in core.outputs(now_ms) {
                writeln!(played, "    {}", player.say(output)).unwrap();
            }
            if let Some(at_ms) = core.next_timer_ms() {
                writeln!(played, "    (timer at {at_ms}ms)").unwrap();
            }
        }
    }
    played
}

fn settings() -> Settings {
    let capacity = Capacity { cpu_milli: 2000, memory_mib: 1000, gpus: 0, scratch_gib: 0 };
    Settings { pool: "local".into(), labels: Vec::new(), capacity, version: "1".into(), jitter: 0 }
}

struct Player {
    stream: u64,
}

impl Player {
    fn input(&self, text: &str) -> Input {
        let words: Vec<&str> = text.split_whitespace().collect();
        let named: BTreeMap<&str, &str> = words.iter().filter_map(|word| word.split_once('=')).collect();
        let number = |name: &str| named.get(name).map_or(0, |value| value.parse().unwrap());
        let keys: Vec<Key> = words[1..].iter().filter_map(|word| key(word)).collect();
        let has = |word: &str| words.contains(&word);
        let failure = |cause| Failure { cause, detail: "s3://b/k: missing".into(), retryable: has("retryable") };
        let stream = self.stream;
        let message = |message| Input::Received { stream, message: CoordinatorMessage { message: Some(message) } };
        match words[0] {
            "tick" => Input::Tick,
            // With `follows` it knows how to start one process after another.
            "keeper" => Input::KeeperConnected {
                standing: named.contains_key("session").then(|| Standing {
                    session: number("session"),
                    connection: number("connection"),
                    deadline_ms: number("deadline"),
                }),
                follows: has("follows"),
                processes: keys.iter().map(|key| adopted(*key, named.get(key.to_string().as_str()).copied())).collect(),
            },
            "keeper-lost" => Input::KeeperLost,
            "expired" => Input::Expired,
            "spot-notice" => Input::SpotNotice { ends_ms: number("ends") },
            "up" => Input::StreamOpened { stream },
            "down" => Input::StreamClosed { stream, elsewhere: !has("stay") },
            "prepared" => Input::Prepared {
                key: keys[0],
                result: if has("fails") { Err(failure(Cause::StageIn)) } else { Ok(()) },
            },
            "started" => Input::Started { key: keys[0], start_time_ms: 7 },
            "exited" => Input::Exited { key: keys[0], exit: exit(words[2]) },
            "staged-out" => Input::StagedOut {
                key: keys[0],
                result: if has("fails") { Err(failure(Cause::StageOut)) } else { Ok(manifest()) },
            },
            "publish-ended" => Input::PublishEnded {
                key: keys[0],
                result: match words.get(2) {
                    Some(&"passing") => Err(PublishFailure::Passing { detail: "slow down".into() }),
                    Some(_) => Err(PublishFailure::Final { detail: "gone".into(), retryable: true }),
                    None => Ok(vec!["etag".into()]),
                },
            },
            "opened" => message(Message::Opened(SessionOpened {
                session: number("session"),
                connection: number("connection").max(1),
                renew_interval_ms: 3000,
                lifetime_ms: 30_000,
                applied_sequence: number("applied"),
                unknown: keys.into_iter().map(Into::into).collect(),
                ..Default::default()
            })),
            "renewed" => message(Message::Renewed(Renewed { nonce: words[1].parse().unwrap() })),
            "ended" => message(Message::Ended(SessionEnded { reason: words[1..].join(" ") })),
            "ack" => message(Message::Acknowledged(Acknowledged {
                sequence: words[1].parse().unwrap(),
                gap: has("gap"),
                verdicts: named
                    .get("fenced")
                    .map(|sequence| acknowledged::Verdict {
                        sequence: sequence.parse().unwrap(),
                        outcome: acknowledged::Outcome::Fenced.into(),
                    })
                    .into_iter()
                    .collect(),
            })),
            "read" => message(Message::ReadLog(ReadLog { attempt: Some(keys[0].into()), ..Default::default() })),
            "grant" => message(Message::Instructions(Instructions {
                index: number("index"),
                jobs: if has("without-specs") { Vec::new() } else { keys.iter().map(|key| job(key.job)).collect() },
                grants: keys
                    .iter()
                    .map(|key| Grant {
                        attempt: Some((*key).into()),
                        task_index: u64::from(key.ordinal),
                        row: String::new(),
                        ahead: has("ahead"),
                        resources: named
                            .get("cpus")
                            .map(|cpus| Resources { cpu_milli: cpus.parse::<u64>().unwrap() * 1000, ..resources(0) }),
                    })
                    .collect(),
                ..Default::default()
            })),
            "kill" => message(Message::Instructions(Instructions {
                index: number("index"),
                kills: keys
                    .iter()
                    .map(|key| Kill {
                        attempt: Some((*key).into()),
                        cause: if has("time-limit") { Cause::TimeLimit } else { Cause::Cancelled }.into(),
                    })
                    .collect(),
                ..Default::default()
            })),
            "time-limit" => message(Message::Instructions(Instructions {
                index: number("index"),
                time_limits: vec![TimeLimit { job_id: number("job"), time_limit_ms: number("limit") }],
                ..Default::default()
            })),
            "publish" => message(Message::Instructions(Instructions {
                index: number("index"),
                publications: keys
                    .iter()
                    .map(|key| Publish { attempt: Some((*key).into()), manifest: Some(manifest()), task_index: 0 })
                    .collect(),
                ..Default::default()
            })),
            other => panic!("no such input: {other}"),
        }
    }

    fn say(&mut self, output: Output) -> String {
        match output {
            Output::Connect { stream, elsewhere } => {
                self.stream = stream;
                format!("connect {stream}{}", if elsewhere { " elsewhere" } else { "" })
            }
            Output::Disconnect { stream } => format!("disconnect {stream}"),
            Output::Send { stream, message } => format!("{stream}> {}", say_message(message)),
            Output::SetSession { session, connection, deadline_ms } => {
                format!("keeper: session {session}/{connection} until {deadline_ms}ms")
            }
            Output::Prepare { task } => format!("prepare {}", task.key),
            Output::Spawn { task, session, time_limit_ms, after } => {
                let limit = if time_limit_ms > 0 { format!(" within {time_limit_ms}ms") } else { String::new() };
                let after = after.map(|after| format!(" after {after}")).unwrap_or_default();
                format!("keeper: spawn {} for session {session}{limit}{after}", task.key)
            }
            Output::SpawnNow { key, session } => format!("keeper: spawn {key} for session {session} now"),
            Output::Withdraw { key } => format!("keeper: withdraw {key}"),
            Output::SetTimeLimit { key, time_limit_ms: 0 } => format!("keeper: {key} without limit"),
            Output::SetTimeLimit { key, time_limit_ms } => format!("keeper: {key} within {time_limit_ms}ms"),
            Output::Stop { key, immediately } => {
                format!("keeper: {} {key}", if immediately { "kill" } else { "stop" })
            }
            Output::StageOut { key } => format!("stage out {key}"),
            Output::BreakOff { key } => format!("break off {key}"),
            Output::Publish { key, .. } => format!("publish {key}"),
            Output::BreakOffPublish { key } => format!("break off publishing {key}"),
            Output::Forget { keys } => {
                format!("keeper: forget {}", keys.iter().map(Key::to_string).collect::<Vec<_>>().join(" "))
            }
            Output::Discard { key, logs } => format!("discard {key}{}", if logs { "" } else { " and its logs" }),
            Output::ReadLog { stream, request } => {
                format!("read log of {} for {stream}", Key::from(request.attempt.unwrap()))
            }
            Output::SessionOpened { session, .. } => format!("session {session} stands"),
            Output::SessionLost { session, reason } => format!("session {session} lost: {reason}"),
            Output::Leave => "leave".into(),
        }
    }
}

fn say_message(message: WorkerMessage) -> String {
    let list = |keys: &[proto::v1::AttemptKey]| {
        keys.iter().map(|key| Key::from(*key).to_string()).collect::<Vec<_>>().join(" ")
    };
    match message.message.unwrap() {
        worker_message::Message::Open(open) => match open.resume {
            None => "open".into(),
            Some(resume) => format!(
                "resume {}/{} held [{}] publishing [{}] instructions {}",
                resume.session,
                resume.connection,
                list(&resume.held),
                list(&resume.publishing),
                resume.instructions_index
            ),
        },
        worker_message::Message::Renew(renew) => {
            format!("renew {} instructions {}", renew.nonce, renew.instructions_index)
        }
        worker_message::Message::Report(report) => {
            let mut said = format!("report {}:", report.first_sequence);
            for item in report.items {
                let key = Key::from(item.attempt.unwrap());
                match item.item.unwrap() {
                    Item::Started(_) => write!(said, " started {key};"),
                    Item::Returned(_) => write!(said, " returned {key};"),
                    Item::Ended(ended) => {
                        write!(said, " ended {key} {:?} {}", ended.cause(), ended.exit_code).unwrap();
                        if ended.signal != 0 {
                            write!(said, " signal {}", ended.signal).unwrap();
                        }
                        if ended.manifest.is_some() {
                            write!(said, " with outputs").unwrap();
                        }
                        write!(said, "{};", if ended.retryable { "" } else { " for good" })
                    }
                    Item::Published(published) => write!(said, " published {key} {:?};", published.etags),
                    Item::PublicationFailed(failed) => write!(said, " publication of {key} failed: {};", failed.detail),
                }
                .unwrap();
            }
            said
        }
        worker_message::Message::LogData(_) => "log data".into(),
        worker_message::Message::SpotNotice(_) => "spot notice".into(),
    }
}

fn key(word: &str) -> Option<Key> {
    let name = word.split('=').next()?;
    let mut parts = name.split('.');
    let key = Key {
        job: parts.next()?.parse().ok()?,
        ordinal: parts.next()?.parse().ok()?,
        attempt: parts.next()?.parse().ok()?,
    };
    parts.next().is_none().then_some(key)
}

/// Jobs from 100 on have outputs, those from 200 to 299 a limit of 5 s; jobs from 10 to 99 need two cpus, others one.
fn job(id: u64) -> GrantedJob {
    let output = proto::v1::Output { glob: "*".into(), prefix: "s3://b/".into(), optional: false };
    let spec = JobSpec { outputs: if id >= 100 { vec![output] } else { Vec::new() }, ..Default::default() };
    let time_limit_ms = if (200..300).contains(&id) { 5000 } else { 0 };
    GrantedJob { job_id: id, spec: Some(spec), resources: Some(resources(id)), owner: "me".into(), time_limit_ms }
}

fn resources(job: u64) -> Resources {
    Resources { cpu_milli: if (10..100).contains(&job) { 2000 } else { 1000 }, ..Default::default() }
}

/// `after:1.0.1` is one that waits for that one.
fn adopted(key: Key, state: Option<&str>) -> Adopted {
    let after = state.and_then(|state| self::key(state.strip_prefix("after:")?));
    let exit = state.filter(|_| after.is_none()).map(exit);
    let start_time_ms = if after.is_none() { 7 } else { 0 };
    Adopted { key, resources: resources(key.job), outputs: key.job >= 100, start_time_ms, after, exit }
}

/// `0`, `3`, `signal:9`, `stopped:15`, `time-limit`, `memory`, `not-found`, `not-executable`, `not-started`.
fn exit(word: &str) -> Exit {
    let (kind, value) = word.split_once(':').unwrap_or((word, "0"));
    let signal = value.parse().unwrap();
    let end = match kind {
        "signal" => End::Signal,
        "stopped" => End::Stopped,
        "expired" => End::Expired,
        "time-limit" => End::TimeLimit,
        "memory" => End::OutOfMemory,
        "not-found" => End::CommandNotFound,
        "not-executable" => End::CommandNotExecutable,
        "not-started" => End::NotStarted,
        _ => End::ExitCode,
    };
    Exit { end, exit_code: kind.parse().unwrap_or(0), signal, start_time_ms: 7, end_time_ms: 9, ..Default::default() }
}

fn manifest() -> Manifest {
    Manifest { entry_count: 1, ..Default::default() }
}
