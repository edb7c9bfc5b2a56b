//! What is shown behind the arrow: as short as a person can read it.

use proto::v1::{self, AttemptKey, Cause, JobState, Manifest, TaskState, WaitReason, WorkerState};
use scheduler::{Applied, Decided, End, Event, Instruction, Outcome, SessionEnd, Verdict};

fn word(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix).to_lowercase()
}

fn cause_word(cause: Cause) -> String {
    word(cause.as_str_name(), "CAUSE_")
}

fn key(key: &AttemptKey) -> String {
    format!("{}/{}#{}", key.job_id, key.ordinal, key.attempt)
}

pub fn applied(applied: &Applied) -> String {
    let mut parts = Vec::new();
    match &applied.outcomes[0] {
        Err(rejection) => {
            let field = if rejection.field.is_empty() { String::new() } else { format!(" {}", rejection.field) };
            let hint = if rejection.hint.is_empty() { String::new() } else { format!(" ({})", rejection.hint) };
            parts.push(format!("REJECTED {}{field}: {}{hint}", rejection.reason, rejection.message));
        }
        Ok(outcome) => parts.extend(outcome_text(outcome)),
    }
    parts.extend(applied.events.iter().filter_map(event));
    if parts.is_empty() { "ok".to_owned() } else { parts.join("; ") }
}

fn outcome_text(outcome: &Outcome) -> Option<String> {
    Some(match outcome {
        Outcome::Jobs { first, count, duplicate } => {
            let again = if *duplicate { " (again)" } else { "" };
            match count {
                1 => format!("job {first}{again}"),
                _ => format!("jobs {first} to {}{again}", first + u64::from(*count) - 1),
            }
        }
        Outcome::Blob(hash) => format!("blob {:02x}{:02x}", hash[0], hash[1]),
        Outcome::Cancelled { job, count, note } => {
            let note = if note.is_empty() { String::new() } else { format!(" ({note})") };
            format!("{count} of job {job} stopped{note}")
        }
        Outcome::Job(job) => format!("job {job}"),
        Outcome::Session(session) => format!("session {session}"),
        Outcome::Reported { applied_sequence, gap: true, .. } => format!("GAP({applied_sequence})"),
        Outcome::Reported { verdicts, .. } if verdicts.is_empty() => return None,
        Outcome::Reported { verdicts, .. } => {
            let one = |(sequence, verdict): &(u64, Verdict)| {
                format!("{sequence} {}", verdict.as_str_name().trim_start_matches("OUTCOME_"))
            };
            verdicts.iter().map(one).collect::<Vec<_>>().join(", ")
        }
        Outcome::Streamed { last, whole, decided } => {
            let one = |decided: &Decided| match decided {
                Decided::Jobs { first, count: 1, job } => format!("{first} is job {job}"),
                Decided::Jobs { first, count, job } => {
                    let more = u64::from(*count) - 1;
                    format!("{first} to {} are jobs {job} to {}", first + more, job + more)
                }
                Decided::Refused { sequence, refusal } => format!("{sequence} REFUSED {}", refusal.reason),
            };
            let all = decided.iter().map(one).chain((!whole).then(|| format!("no more than {last}")));
            let text = all.collect::<Vec<_>>().join(", ");
            if text.is_empty() { format!("up to {last}") } else { text }
        }
        Outcome::Worker(name) => format!("worker {name}"),
        Outcome::Queue(name) => format!("queue {name}"),
        Outcome::License(name) => format!("license {name}"),
        Outcome::FairShare(half_life_ms) => format!("half-life {half_life_ms} ms"),
        Outcome::History => return None,
        Outcome::Count(0) => "nothing".to_owned(),
        Outcome::Count(count) => format!("{count}"),
        Outcome::Nothing => return None,
    })
}

/// What an attempt gets that isn't what its job asks for first.
fn with(resources: &Option<v1::Resources>) -> String {
    let text = |one: &v1::Resources| format!(" with cpu={} mem={} gpus={}", one.cpu_milli, one.memory_mib, one.gpus);
    resources.as_ref().map(text).unwrap_or_default()
}

fn event(event: &Event) -> Option<String> {
    Some(match event {
        Event::JobChanged { .. } | Event::TasksChanged { .. } | Event::BlobStored { .. } => return None,
        Event::Granted { session, key: of, ahead, resources } => {
            format!("{} to session {session}{}{}", key(of), if *ahead { " ahead" } else { "" }, with(resources))
        }
        Event::TimeLimitChanged { job, time_limit_ms } => format!("job {job} may take {time_limit_ms} ms"),
        Event::AttemptStarted { key: of, .. } => format!("{} runs", key(of)),
        Event::AttemptReturned { key: of, .. } => format!("{} returned", key(of)),
        Event::AttemptEnded { key: of, cause, exit_code, signal, end, .. } => {
            let what = match cause {
                Cause::ExitCode => format!("exit {exit_code}"),
                Cause::Signal => format!("signal {signal}"),
                cause => cause_word(*cause),
            };
            let end = match end {
                End::Succeeded => "succeeded".to_owned(),
                End::Publishing => "publishing".to_owned(),
                End::Failed => "failed".to_owned(),
                End::Cancelled => "cancelled".to_owned(),
                End::Retried { not_before_ms } => format!("again at {not_before_ms} ms"),
            };
            format!("{} {what}: {end}", key(of))
        }
        Event::KillAsked { session, key: of, cause } => {
            format!("session {session} kill {} {}", key(of), cause_word(*cause))
        }
        Event::PublicationAssigned { session, key: of } => format!("session {session} publish {}", key(of)),
        Event::Published { key: of, .. } => format!("{} published", key(of)),
        Event::SessionOpened { worker, .. } => format!("{worker} joined"),
        Event::SessionChanged { session, silent, draining } => {
            format!("session {session} silent={silent} draining={draining}")
        }
        Event::SessionEnded { session, reason, .. } => match reason {
            SessionEnd::Expired(_) => format!("session {session} expired"),
            SessionEnd::Replaced(by) => format!("session {session} replaced by {by}"),
        },
        Event::SegmentCut { number, .. } => format!("segment {number}"),
        Event::BlobForgotten { hash } => format!("blob {:02x}{:02x} forgotten", hash[0], hash[1]),
    })
}

pub fn job(job: &v1::Job) -> String {
    let state = JobState::try_from(job.state).unwrap();
    let mut parts = vec![word(state.as_str_name(), "JOB_STATE_")];
    if job.held {
        parts.push("held".to_owned());
    }
    let counts = job.tasks.unwrap();
    let counts = [
        ("waiting", counts.waiting),
        ("queued", counts.queued),
        ("leased", counts.leased),
        ("running", counts.running),
        ("succeeded", counts.succeeded),
        ("failed", counts.failed),
        ("cancelled", counts.cancelled),
        ("skipped", counts.skipped),
    ];
    parts.extend(counts.into_iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{name}={count}")));
    if job.cause != 0 {
        parts.push(cause_word(Cause::try_from(job.cause).unwrap()));
    }
    parts.extend(job.exit_code.map(|code| format!("exit={code}")));
    if job.signal != 0 {
        parts.push(format!("signal={}", job.signal));
    }
    if job.grid_failures != 0 {
        parts.push(format!("grid_failures={}", job.grid_failures));
    }
    for group in &job.failures {
        let cause = cause_word(Cause::try_from(group.cause).unwrap());
        let code = group.exit_code.map(|code| format!(" {code}")).unwrap_or_default();
        let detail = if group.detail.is_empty() { String::new() } else { format!(" `{}`", group.detail) };
        parts.push(format!("[{cause}{code} x{} at {:?}{detail}]", group.count, group.indexes));
    }
    if !job.reason.is_empty() {
        parts.push(format!("reason: {}", job.reason));
    }
    parts.join(" ")
}

pub fn task(task: &v1::Task) -> String {
    let state = TaskState::try_from(task.state).unwrap();
    let mut parts = vec![format!("index {}", task.index), word(state.as_str_name(), "TASK_STATE_")];
    parts.push(format!("attempt={}", task.attempt));
    if task.cause != 0 {
        parts.push(cause_word(Cause::try_from(task.cause).unwrap()));
    }
    parts.extend(task.exit_code.map(|code| format!("exit={code}")));
    if !task.worker.is_empty() {
        parts.push(format!("worker={}", task.worker));
    }
    if !task.detail.is_empty() {
        parts.push(format!("`{}`", task.detail));
    }
    if task.publishing {
        parts.push("publishing".to_owned());
    }
    for attempt in &task.attempts {
        let state = TaskState::try_from(attempt.state).unwrap();
        let cause = cause_word(Cause::try_from(attempt.cause).unwrap());
        let state = word(state.as_str_name(), "TASK_STATE_");
        parts.push(format!("[{} {state} {cause} {}]", attempt.number, attempt.worker));
    }
    parts.join(" ")
}

pub fn explanation(explained: &v1::Explanation) -> String {
    let reasons: Vec<String> = explained
        .reasons
        .iter()
        .map(|reason| {
            let name = WaitReason::try_from(reason.reason).unwrap();
            let name = word(name.as_str_name(), "WAIT_REASON_");
            format!("{name} x{}: {}", reason.workers, reason.detail)
        })
        .collect();
    let attempts: Vec<String> = explained
        .attempts
        .iter()
        .map(|one| {
            let cause = cause_word(Cause::try_from(one.cause).unwrap());
            let code = one.exit_code.map(|code| format!(" {code}")).unwrap_or_default();
            format!("#{} {cause}{code} on {}", one.number, one.worker)
        })
        .collect();
    let attempts = if attempts.is_empty() { String::new() } else { format!(" ({})", attempts.join(", ")) };
    let start = explained.estimated_start_time.map_or_else(String::new, |time| {
        format!(" [starts at {} ms]", time.seconds * 1000 + i64::from(time.nanos / 1_000_000) - 1_700_000_000_000)
    });
    let place = match (explained.position, explained.ahead) {
        (None, _) => String::new(),
        (Some(position), None) => format!(" [position {position}]"),
        (Some(position), Some(ahead)) => format!(" [position {position}, behind job {ahead}]"),
    };
    format!("{}{place}{start} {{{}}}{attempts}", explained.summary, reasons.join("; "))
}

pub fn worker(worker: &v1::Worker) -> String {
    let state = WorkerState::try_from(worker.state).unwrap();
    let free = worker.free.unwrap();
    let state = word(state.as_str_name(), "WORKER_STATE_");
    let reason = if worker.reason.is_empty() { String::new() } else { format!(" because of {}", worker.reason) };
    format!(
        "{state}{reason} session={} running={} free cpu={} mem={}",
        worker.session, worker.running, free.cpu_milli, free.memory_mib
    )
}

pub fn queue(queue: &v1::Queue) -> String {
    let mut text = format!("queued={} running={} share={:.2}", queue.queued, queue.running, queue.share);
    for (flag, word) in [(queue.paused, " paused"), (queue.draining, " draining")] {
        text.push_str(if flag { word } else { "" });
    }
    if queue.weight != 1 {
        text.push_str(&format!(" weight={}", queue.weight));
    }
    if queue.usage > 0.0 {
        text.push_str(&format!(" usage={:.3}", queue.usage));
    }
    if queue.reserved_job > 0 {
        text.push_str(&format!(" room kept for job {} on {}", queue.reserved_job, queue.reserved_on));
    }
    text
}

pub fn instructions(instructions: &[Instruction]) -> String {
    let one = |instruction: &Instruction| match instruction {
        Instruction::Grant { key: of, granted_index, ahead, resources } => {
            format!("run {}{}{} @{granted_index}", key(of), if *ahead { " ahead" } else { "" }, with(resources))
        }
        Instruction::Kill { key: of, cause, index } => format!("kill {} {} @{index}", key(of), cause_word(*cause)),
        Instruction::Publish { key: of, manifest, index } => {
            format!("publish {} of {} @{index}", key(of), manifest.entries.len())
        }
    };
    if instructions.is_empty() {
        "none".to_owned()
    } else {
        instructions.iter().map(one).collect::<Vec<_>>().join("; ")
    }
}

pub fn published(published: Option<(u32, Manifest, Vec<String>)>) -> String {
    let Some((attempt, manifest, etags)) = published else { return "none".to_owned() };
    let keys: Vec<&str> = manifest.entries.iter().map(|entry| entry.key.as_str()).collect();
    assert!(manifest.entries.iter().all(|entry| entry.upload_id.is_empty()), "upload ids mean nothing any more");
    format!("attempt {attempt}: {} etags {}", keys.join(","), etags.join(","))
}
