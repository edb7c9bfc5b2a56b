//! One scenario's state, and what each line does to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use proto::{
    internal::{
        AssignPublications, CancelTasks, Command, CreateQueue, CutSegment, DeleteQueue, Dependency, DrainWorker, Entry,
        ExpireSession, GrantRun, GrantTasks, JobSubmission, Mark, NoteSilence, OpenSession, OrdinalRange, PutBlob,
        RaiseRules, Refusal, Request, Reserve, RetryTasks, SetCordon, SetFairShare, SetHistory, SetHold, SetJob,
        SetLicense, SetQueue, SettleSegments, StreamJobs, SubmitJobs, Tick, WorkerReport,
        assign_publications::Assignment, command, dependency::On, reserve::Reservation, stream_jobs,
    },
    v1::{
        Capacity, Cause, Constraint, DependencyCondition, Ended, License, Manifest, ManifestEntry, PublicationFailed,
        Published, QueueSettings, Report, ReportItem, Resources, RetryRule, Returned, Started, report_item::Item,
    },
};
use scheduler::{Archive, Cursor, Detail, Event, Pool, State, plan};

use crate::{
    line::{Line, milliseconds, spans},
    render,
};

/// Wall clock at log time 0.
const EPOCH_MS: i64 = 1_700_000_000_000;

pub struct World {
    state: State,
    /// Whether the state is swapped for decode(encode(state)) after every line.
    swapped: bool,
    index: u64,
    time_ms: u64,
    /// Highest sequence that each session used.
    sequences: BTreeMap<u64, u64>,
    /// All segments of the history.
    archives: Vec<Arc<Archive>>,
}

impl World {
    pub fn new(swapped: bool) -> Self {
        Self { state: State::new(), swapped, index: 0, time_ms: 0, sequences: BTreeMap::new(), archives: Vec::new() }
    }

    pub fn obey(&mut self, time_ms: u64, text: &str) -> String {
        assert!(time_ms >= self.time_ms, "time goes back: {text}");
        self.time_ms = time_ms;
        let line = Line::new(text);
        let result = match self.command(&line, text) {
            Some(command) => self.apply(command),
            None => self.read(&line),
        };
        self.state.check().unwrap_or_else(|violation| panic!("{text}: {violation}"));
        if self.swapped {
            let pieces: Vec<Bytes> = self.state.encode().collect();
            let swapped = State::decode(pieces.clone()).unwrap();
            assert_eq!(swapped.encode().collect::<Vec<_>>(), pieces, "{text}: encoding is canonical");
            self.state = swapped;
        }
        result
    }

    fn apply(&mut self, command: command::Command) -> String {
        self.index += 1;
        let commands = vec![Command { command: Some(command) }];
        let admitted = self.state.check_command(&commands[0]);
        let answered = self.state.answered(&commands[0]);
        let wall_ms = EPOCH_MS + self.time_ms as i64;
        let entry = Entry { proposer: 1, sequence: self.index, time_ms: self.time_ms, wall_ms, commands };
        let applied = self.state.apply(self.index, &entry);
        assert_eq!(admitted.err().as_ref(), applied.outcomes[0].as_ref().err(), "check_command says what apply does");
        if let Some(answered) = answered {
            assert_eq!(Ok(answered), applied.outcomes[0], "a repeat gets the first answer");
        }
        for event in &applied.events {
            if let Event::SegmentCut { number, data, .. } = event {
                self.archives.push(Arc::new(Archive::read(*number, data).unwrap()));
            }
        }
        render::applied(&applied)
    }

    fn command(&mut self, line: &Line<'_>, text: &str) -> Option<command::Command> {
        use command::Command as C;
        let request = || {
            line.get("id").map(|id| Request {
                owner: line.get("owner").unwrap_or("ann").to_owned(),
                id: id.to_owned(),
                payload_hash: Bytes::copy_from_slice(blake3::hash(content(text).as_bytes()).as_bytes()),
            })
        };
        let job_id = line.number("job").unwrap_or_default();
        let session = line.number("session").unwrap_or_default();
        Some(match line.verb() {
            "submit" => C::SubmitJobs(SubmitJobs {
                request: request().or_else(|| {
                    let owner = line.get("owner").unwrap_or("ann").to_owned();
                    Some(Request { owner, ..Request::default() })
                }),
                jobs: text.strip_prefix("submit").unwrap().split(" + ").map(submission).collect(),
                parts: Vec::new(),
            }),
            "stream" => C::StreamJobs(StreamJobs {
                request: Some(Request {
                    owner: line.get("owner").unwrap_or("ann").to_owned(),
                    id: line.get("id").unwrap_or("s").to_owned(),
                    payload_hash: Bytes::new(),
                }),
                first_sequence: line.number("first").unwrap(),
                items: match text.split_once(" : ") {
                    None => Vec::new(),
                    Some((_, jobs)) => jobs.split(" + ").map(item).collect(),
                },
                answered_sequence: line.number("answered").unwrap_or(0),
                close: line.flag("close"),
            }),
            "blob" => C::PutBlob(PutBlob { data: line.get("data").unwrap_or_default().to_owned().into() }),
            "cancel" => C::CancelTasks(CancelTasks {
                request: request(),
                job_id,
                tasks: line.positions(),
                reason: line.get("reason").unwrap_or_default().to_owned(),
                cascade: line.flag("cascade"),
            }),
            "retry" => C::RetryTasks(RetryTasks {
                request: request(),
                job_id,
                tasks: line.positions(),
                failed_only: line.flag("failed"),
                resources: (line.get("cpu").is_some() || line.get("mem").is_some()).then(|| resources(line, 0)),
            }),
            "hold" | "release" => C::SetHold(SetHold { request: request(), job_id, hold: line.verb() == "hold" }),
            "join" => C::OpenSession(OpenSession {
                worker: line.get("worker").unwrap_or_default().to_owned(),
                pool: line.get("pool").unwrap_or("local").to_owned(),
                labels: pairs(line.get("labels")),
                capacity: Some(Capacity {
                    cpu_milli: line.number("cpu").unwrap_or(1) * 1000,
                    memory_mib: line.number("mem").unwrap_or(1024),
                    gpus: line.number("gpus").unwrap_or(0) as u32,
                    scratch_gib: line.number("scratch").unwrap_or(0),
                }),
                ..OpenSession::default()
            }),
            "expire" => C::ExpireSession(ExpireSession { session, reason: "no renewal for 35 s".to_owned() }),
            "silent" | "heard" => C::NoteSilence(NoteSilence { session, silent: line.verb() == "silent" }),
            "drain" => C::DrainWorker(DrainWorker {
                request: request(),
                worker: line.get("worker").unwrap_or_default().to_owned(),
                reason: line.get("reason").unwrap_or_default().to_owned(),
                session: line.number("session").unwrap_or(0),
            }),
            "grant" => C::GrantTasks(GrantTasks {
                runs: line
                    .positions()
                    .into_iter()
                    .map(|tasks| GrantRun {
                        session,
                        job_id,
                        tasks: Some(tasks),
                        ahead: line.flag("ahead"),
                        alternative: line.number("alternative").unwrap_or(0) as u32,
                    })
                    .collect(),
            }),
            "assign" => C::AssignPublications(AssignPublications {
                assignments: vec![Assignment { attempt: Some(line.attempt()), session }],
            }),
            "start" | "end" | "return" | "published" | "publish-failed" => self.report(line, session),
            "raise" => C::RaiseRules(RaiseRules { version: line.number("to").unwrap() as u32 }),
            "history" if line.get("keep").or(line.get("jobs")).is_some() => C::SetHistory(SetHistory {
                request: request(),
                keep_ms: line.get("keep").map(milliseconds),
                keep_jobs: line.number("jobs"),
            }),
            "cut" => C::CutSegment(CutSegment {}),
            "settle" => C::SettleSegments(SettleSegments { through: line.number("through").unwrap() as u32 }),
            "tick" => C::Tick(Tick {}),
            "mark" => C::Mark(Mark::default()),
            "set" => C::SetJob(SetJob {
                request: request(),
                job_id,
                priority: line.get("priority").map(|priority| priority.parse().unwrap()),
                time_limit_ms: line.get("time").map(milliseconds),
                queue_time_limit_ms: line.get("queue-time").map(milliseconds),
                total_time_limit_ms: line.get("total-time").map(milliseconds),
                max_running: line.number("max-running").map(|most| most as u32),
                max_failures: line.number("max-failures").map(|most| most as u32),
            }),
            "create-queue" => {
                C::CreateQueue(CreateQueue { request: request(), name: name(line), settings: Some(settings(line)) })
            }
            "set-queue" => {
                C::SetQueue(SetQueue { request: request(), name: name(line), settings: Some(settings(line)) })
            }
            "delete-queue" => C::DeleteQueue(DeleteQueue { request: request(), name: name(line) }),
            "fair-share" => {
                let half_life_ms = line.get("half-life").map_or(0, milliseconds);
                C::SetFairShare(SetFairShare { request: request(), half_life_ms })
            }
            "license" => {
                let total = line.number("total").unwrap_or_default();
                C::SetLicense(SetLicense { request: request(), name: name(line), total })
            }
            "cordon" | "uncordon" => C::SetCordon(SetCordon {
                request: request(),
                worker: name(line),
                cordoned: line.verb() == "cordon",
                reason: line.get("reason").unwrap_or_default().to_owned(),
            }),
            "reserve" => {
                let queue = line.get("queue").unwrap_or("default").to_owned();
                C::Reserve(Reserve { reservations: vec![Reservation { queue, job_id, session }] })
            }
            "plan" => return self.plan(line),
            _ => return None,
        })
    }

    /// What the planner proposes becomes a command; reads as `nothing` when it proposes nothing.
    fn plan(&mut self, line: &Line<'_>) -> Option<command::Command> {
        let heard: BTreeSet<u64> = match line.get("heard") {
            Some(_) => line.numbers("heard").into_iter().collect(),
            None => self.state.sessions().map(|session| session.id).collect(),
        };
        let budget = line.number("budget").unwrap_or(1_000_000) as usize;
        let planned = plan(&self.state, &heard, &Cursor::default(), budget);
        // They are a command of their own, which the next line gives.
        if planned.grants.is_empty() && !planned.reservations.is_empty() {
            return Some(command::Command::Reserve(Reserve { reservations: planned.reservations }));
        }
        if !planned.publications.is_empty() {
            let assignments = planned.publications;
            return Some(command::Command::AssignPublications(AssignPublications { assignments }));
        }
        let runs = planned.grants;
        (!runs.is_empty()).then_some(command::Command::GrantTasks(GrantTasks { runs }))
    }

    fn report(&mut self, line: &Line<'_>, session: u64) -> command::Command {
        let next = self.sequences.get(&session).copied().unwrap_or(0) + 1;
        let sequence = line.number("seq").unwrap_or(next);
        self.sequences.insert(session, sequence.max(next - 1));
        let now = EPOCH_MS + self.time_ms as i64;
        let retryable = !line.flag("final");
        let detail = line.get("detail").unwrap_or_default().to_owned();
        let item = match line.verb() {
            "start" => Item::Started(Started { start_time_ms: now }),
            "return" => Item::Returned(Returned {}),
            "published" => Item::Published(Published { etags: vec!["etag".to_owned()] }),
            "publish-failed" => Item::PublicationFailed(PublicationFailed { detail, retryable }),
            _ => {
                let run_ms = line.get("run").map_or(1000, milliseconds);
                Item::Ended(Ended {
                    cause: cause(line) as i32,
                    exit_code: line.number("exit").unwrap_or(0) as i32,
                    signal: line.number("signal").unwrap_or(0) as i32,
                    detail,
                    retryable,
                    start_time_ms: now - run_ms as i64,
                    end_time_ms: now,
                    run_ms,
                    cpu_ms: run_ms / 2,
                    max_memory_kib: 2048,
                    stdout_bytes: 3,
                    log_bundle: 1,
                    manifest: line.get("outputs").map(manifest),
                    ..Ended::default()
                })
            }
        };
        let keys = match line.get("tasks") {
            None => vec![line.attempt()],
            Some(_) => {
                let attempt = line.number("attempt").unwrap_or(1) as u32;
                let job_id = line.number("job").unwrap();
                let ordinals =
                    line.positions().into_iter().flat_map(|run: OrdinalRange| run.first..run.first + run.count);
                ordinals.map(|ordinal| proto::v1::AttemptKey { job_id, ordinal, attempt }).collect()
            }
        };
        self.sequences.insert(session, (sequence + keys.len() as u64 - 1).max(next - 1));
        let items = keys.into_iter().map(|key| ReportItem { attempt: Some(key), item: Some(item.clone()) }).collect();
        let report = Some(Report { first_sequence: sequence, items });
        command::Command::WorkerReport(WorkerReport { session, report })
    }

    fn read(&self, line: &Line<'_>) -> String {
        let pools = [Pool {
            name: "local".to_owned(),
            largest: Capacity { cpu_milli: 4000, memory_mib: 8192, gpus: 0, scratch_gib: 100 },
        }];
        let job = line.number("job").unwrap_or_default();
        let ordinal = line.number("at").map(|ordinal| ordinal as u32);
        // What has left is looked at as whoever has all segments does.
        let state = self.state.with_archives(&self.archives, Detail::Tasks).unwrap();
        match line.verb() {
            "history" => {
                let (keep_ms, keep_jobs) = state.kept_jobs();
                let (moved, cut, settled) = (state.moved_jobs(), state.segments().len(), state.settled_segments());
                format!("keep={keep_ms} ms jobs={keep_jobs} moved={moved} cut={cut} settled={settled}")
            }
            "where" => format!("{:?}", state.gone(job)),
            "plan" => "nothing".to_owned(),
            "show" => state.job(job).map_or_else(|| "not found".to_owned(), |job| render::job(&job)),
            "task" => {
                let task = state.task(job, ordinal.unwrap_or(0), line.flag("attempts"));
                task.map_or_else(|| "not found".to_owned(), |task| render::task(&task))
            }
            "explain" => {
                let explained = state.explain(job, ordinal, &pools);
                explained.map_or_else(|| "not found".to_owned(), |explained| render::explanation(&explained))
            }
            "feasible" => {
                Pool::feasible(&pools, &resources(line, 1), &[]).map_or_else(|most| most, |()| "yes".to_owned())
            }
            "worker" => render::worker(&state.worker(line.get("name").unwrap()).unwrap()),
            "queue" => {
                let queue = state.queue(line.get("name").unwrap_or("default"));
                queue.map_or_else(|| "not found".to_owned(), |queue| render::queue(&queue))
            }
            "licenses" => {
                let one = |one: License| format!("{} {} of {}", one.name, one.used, one.total);
                let all: Vec<String> = state.licenses().into_iter().map(one).collect();
                if all.is_empty() { "none".to_owned() } else { all.join("; ") }
            }
            "instructions" => render::instructions(&state.instructions_of(line.number("session").unwrap())),
            "logs" => {
                let attempt = line.number("attempt").unwrap_or(0) as u32;
                format!("{:?}", state.logs(job, ordinal.unwrap_or(0), attempt))
            }
            "outputs" => render::published(state.published(job, ordinal.unwrap_or(0))),
            "timer" => format!("{:?}", state.next_timer_ms()),
            verb => panic!("unknown verb: {verb}"),
        }
    }
}

/// A request's content is its line without its id.
fn content(text: &str) -> String {
    text.split_whitespace().filter(|word| !word.starts_with("id=")).collect::<Vec<_>>().join(" ")
}

fn resources(line: &Line<'_>, cpu: u64) -> Resources {
    Resources {
        cpu_milli: line.number("cpu").unwrap_or(cpu) * 1000,
        memory_mib: line.number("mem").unwrap_or(0),
        gpus: line.number("gpus").unwrap_or(0) as u32,
        scratch_gib: line.number("scratch").unwrap_or(0),
    }
}

/// A job of a stream; `refused` stands for one that was no job.
fn item(text: &str) -> stream_jobs::Item {
    let refusal = || Refusal { code: 3, reason: "INVALID_ARGUMENT".to_owned(), ..Refusal::default() };
    let item = match text.trim() {
        "refused" => stream_jobs::item::Item::Refusal(refusal()),
        job => stream_jobs::item::Item::Job(submission(job)),
    };
    stream_jobs::Item { item: Some(item) }
}

fn submission(text: &str) -> JobSubmission {
    let line = Line::new(text);
    let ranges = match (line.get("array"), line.number("tasks")) {
        (Some(array), _) => spans(array),
        (None, tasks) => spans(&format!("0-{}", tasks.unwrap_or(1).max(1) - 1)),
    };
    let mut after = Vec::new();
    for (name, condition) in [
        ("after", DependencyCondition::Success),
        ("after-any", DependencyCondition::Any),
        ("after-failed", DependencyCondition::Failure),
        ("after-exit", DependencyCondition::ExitCode),
        ("after-element", DependencyCondition::Element),
    ] {
        let of_exit = condition == DependencyCondition::ExitCode;
        let codes: Vec<u32> = line.numbers("codes").into_iter().filter(|_| of_exit).map(|code| code as u32).collect();
        let edge = |on| Dependency { on: Some(on), condition: condition as i32, exit_codes: codes.clone() };
        after.extend(line.numbers(name).into_iter().map(|id| edge(On::JobId(id))));
        let positions = line.numbers(&format!("{name}-position"));
        after.extend(positions.into_iter().map(|at| edge(On::Position(at as u32))));
    }
    let (low, high) = line.get("backoff").map_or((0, 0), |span| {
        let (low, high) = span.split_once("..").unwrap();
        (milliseconds(low), milliseconds(high))
    });
    let small = |name: &str| line.number(name).unwrap_or(0) as u32;
    JobSubmission {
        spec: Bytes::from_static(b"spec"),
        name: line.get("name").unwrap_or_default().to_owned(),
        queue: line.get("queue").unwrap_or_default().to_owned(),
        priority: line.get("priority").map_or(0, |priority| priority.parse().unwrap()),
        resources: Some(resources(&line, 1)),
        is_array: line.get("array").is_some() || line.number("tasks").is_some_and(|tasks| tasks > 1),
        ranges,
        retries: small("retries"),
        retry_rules: line.get("retry-on").map_or_else(Vec::new, |rules| rules.split('+').map(rule).collect()),
        alternatives: line.get("alt").map_or_else(Vec::new, |alternatives| {
            alternatives
                .split('+')
                .map(|one| resources(&Line::new(&one.replace(':', "=").replace(',', " ")), 1))
                .collect()
        }),
        constraints: ["need", "not", "prefer"].into_iter().flat_map(|kind| constraints(&line, kind)).collect(),
        licenses: pairs(line.get("licenses")).into_iter().map(|(name, count)| (name, count.parse().unwrap())).collect(),
        time_limit_ms: line.get("time").map_or(0, milliseconds),
        queue_time_limit_ms: line.get("queue-time").map_or(0, milliseconds),
        total_time_limit_ms: line.get("total-time").map_or(0, milliseconds),
        min_backoff_ms: low,
        max_backoff_ms: high,
        at_most_once: line.flag("at-most-once"),
        max_running: small("max-running"),
        max_failures: small("max-failures"),
        has_outputs: line.flag("outputs"),
        hold: line.flag("hold"),
        after,
        blobs: line.get("blobs").map_or_else(Vec::new, |names| {
            names.split(',').map(|data| Bytes::copy_from_slice(blake3::hash(data.as_bytes()).as_bytes())).collect()
        }),
        ..JobSubmission::default()
    }
}

fn name(line: &Line<'_>) -> String {
    line.get("name").unwrap_or_default().to_owned()
}

/// `a:1,b:2`.
fn pairs(text: Option<&str>) -> BTreeMap<String, String> {
    let pair = |one: &str| {
        let (name, value) = one.split_once(':').unwrap();
        (name.to_owned(), value.to_owned())
    };
    text.map_or_else(BTreeMap::new, |text| text.split(',').map(pair).collect())
}

/// `need=zone:a/b,arch:arm`.
fn constraints(line: &Line<'_>, kind: &str) -> Vec<Constraint> {
    let of = |(label, values): (String, String)| Constraint {
        label,
        values: values.split('/').filter(|value| !value.is_empty()).map(str::to_owned).collect(),
        negated: kind == "not",
        preferred: kind == "prefer",
    };
    pairs(line.get(kind)).into_iter().map(of).collect()
}

/// `exit_code:75/76`, `time_limit`, `out_of_memory:1500:4096`.
fn rule(text: &str) -> RetryRule {
    let mut parts = text.split(':');
    let cause = Cause::from_str_name(&format!("CAUSE_{}", parts.next().unwrap().to_uppercase())).unwrap();
    let first = parts.next();
    let codes = first.filter(|_| cause == Cause::ExitCode);
    RetryRule {
        cause: cause as i32,
        exit_codes: codes.map_or_else(Vec::new, |codes| codes.split('/').map(|code| code.parse().unwrap()).collect()),
        memory_factor_milli: first.filter(|_| codes.is_none()).map_or(0, |factor| factor.parse().unwrap()),
        max_memory_mib: parts.next().map_or(0, |most| most.parse().unwrap()),
    }
}

fn settings(line: &Line<'_>) -> QueueSettings {
    let flag = |name: &str| line.get(name).map(|value| value == "yes");
    QueueSettings {
        weight: line.number("weight").map(|weight| weight as u32),
        paused: flag("paused"),
        draining: flag("draining"),
        max_running: line.number("max-running"),
        max_cpu_milli: line.number("max-cpu").map(|cpus| cpus * 1000),
        max_memory_mib: line.number("max-mem"),
        max_queued: line.number("max-queued"),
        guaranteed_running: line.number("guaranteed-running"),
        guaranteed_cpu_milli: line.number("guaranteed-cpu").map(|cpus| cpus * 1000),
        guaranteed_memory_mib: line.number("guaranteed-mem"),
        placement: line.get("placement").map(|word| if word == "pack" { 2 } else { 1 }),
    }
}

fn cause(line: &Line<'_>) -> Cause {
    match line.get("cause") {
        None if line.get("signal").is_some() => Cause::Signal,
        None => Cause::ExitCode,
        Some(word) => Cause::from_str_name(&format!("CAUSE_{}", word.to_uppercase())).unwrap(),
    }
}

fn manifest(keys: &str) -> Manifest {
    let entry = |key: &str| ManifestEntry {
        bucket: "dev".to_owned(),
        key: key.to_owned(),
        path: key.to_owned(),
        size: 3,
        upload_id: "upload".to_owned(),
        part_etags: vec!["part".to_owned()],
        ..ManifestEntry::default()
    };
    let entries: Vec<_> = keys.split(',').filter(|key| !key.is_empty()).map(entry).collect();
    Manifest { entry_count: entries.len() as u32, entries, ..Manifest::default() }
}
