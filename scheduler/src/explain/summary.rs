//! One sentence about a job or a task, for people.

use proto::v1::{self, Cause, JobState, Reason, TaskState};

use crate::{State, job::Job, view::state_of};

impl State {
    pub(super) fn job_summary(&self, id: u64, job: &Job, reasons: &[Reason]) -> String {
        let counts = &job.counts;
        let total = job.tasks.count();
        let reason = job.extra.as_deref().and_then(|extra| extra.reason.as_deref()).unwrap_or_default();
        match job.state() {
            JobState::Unspecified => String::new(),
            JobState::Waiting => format!("job {id} waits for other jobs{}", because(reasons)),
            JobState::Queued => format!("job {id} is queued{}", because(reasons)),
            JobState::Running => {
                let rest = counts.pending + counts.backoff;
                let waiting = if rest > 0 { format!(", {rest} are queued{}", because(reasons)) } else { String::new() };
                format!("job {id} runs: {} of {total} tasks have a worker{waiting}", counts.active())
            }
            JobState::Succeeded => format!("job {id} succeeded: all of its {total} tasks did"),
            JobState::Failed => {
                let kinds: Vec<String> = job.failures().map_or_else(Vec::new, |failures| {
                    let mut groups: Vec<_> = failures.groups.iter().collect();
                    groups.sort_by_key(|(_, group)| std::cmp::Reverse(group.count));
                    groups
                        .into_iter()
                        .take(5)
                        .map(|((cause, exit_code, signal), group)| {
                            let cause = Cause::try_from(*cause).unwrap_or_default();
                            let end = describe_end(cause, Some(*exit_code), *signal, &group.detail);
                            format!("{} by {end}", group.count)
                        })
                        .collect()
                });
                let more = if reason.is_empty() { String::new() } else { format!("; {reason}") };
                format!("job {id} failed: {} of {total} tasks did, {}{more}", counts.failed, kinds.join("; "))
            }
            JobState::Cancelled if reason.is_empty() => format!("job {id} was cancelled"),
            JobState::Cancelled => format!("job {id} was cancelled: {reason}"),
            JobState::Skipped => format!("job {id} was skipped: {reason}"),
        }
    }

    pub(super) fn task_summary(&self, id: u64, job: &Job, ordinal: u32, reasons: &[Reason]) -> String {
        let Some(task) = self.task(id, ordinal, false) else { return String::new() };
        let name = format!("task {id}.{}", task.index);
        let cause = Cause::try_from(task.cause).unwrap_or_default();
        match state_of(job, ordinal) {
            TaskState::Unspecified => String::new(),
            TaskState::Waiting => format!("{name} waits for other jobs{}", because(reasons)),
            TaskState::Queued => format!("{name} is queued{}", because(reasons)),
            TaskState::Leased => format!("{name} is leased to worker `{}`, which has not started it yet", task.worker),
            TaskState::Running if task.publishing => {
                format!("{name} has exited with 0 and its outputs are being published")
            }
            TaskState::Running => format!("{name} runs on worker `{}` as attempt {}", task.worker, task.attempt),
            TaskState::Succeeded => format!("{name} succeeded on worker `{}`, attempt {}", task.worker, task.attempt),
            TaskState::Failed => {
                let end = describe_end(cause, task.exit_code, task.signal, &task.detail);
                let place =
                    if task.worker.is_empty() { String::new() } else { format!(" on worker `{}`", task.worker) };
                format!("{name} failed by {end}, attempt {}{place}", task.attempt)
            }
            TaskState::Cancelled => format!("{name} was cancelled"),
            TaskState::Skipped => {
                let reason = job.extra.as_deref().and_then(|extra| extra.reason.as_deref()).unwrap_or_default();
                format!("{name} was skipped: {reason}")
            }
        }
    }
}

/// The first reason, as a part of a sentence.
fn because(reasons: &[Reason]) -> String {
    match reasons {
        [] => String::new(),
        [one] => format!(": {}", reason_text(one)),
        [first, rest @ ..] => format!(": {}, and for {} more reason(s)", reason_text(first), rest.len()),
    }
}

fn reason_text(reason: &Reason) -> String {
    let word = v1::WaitReason::try_from(reason.reason).unwrap_or_default().as_str_name();
    let word = word.trim_start_matches("WAIT_REASON_").to_lowercase();
    if reason.detail.is_empty() { word } else { format!("{word} ({})", reason.detail) }
}

/// A cause with what belongs to it.
fn describe_end(cause: Cause, exit_code: Option<i32>, signal: i32, detail: &str) -> String {
    let what = match cause {
        Cause::ExitCode => format!("exit code {}", exit_code.unwrap_or_default()),
        Cause::Signal => format!("signal {signal}"),
        Cause::Unspecified
        | Cause::OutOfMemory
        | Cause::TimeLimit
        | Cause::QueueTimeLimit
        | Cause::SpotReclaimed
        | Cause::WorkerLost
        | Cause::StageIn
        | Cause::StageOut
        | Cause::CommandNotFound
        | Cause::CommandNotExecutable
        | Cause::Infeasible
        | Cause::Cancelled
        | Cause::Dependency => cause.as_str_name().trim_start_matches("CAUSE_").to_lowercase(),
    };
    if detail.is_empty() { what } else { format!("{what} ({detail})") }
}
