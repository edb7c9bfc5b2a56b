//! A task, and its attempts.

use proto::v1;
use serde::Serialize;

use super::{
    Row, or_dash, text,
    times::{Moment, age, between, local, moment},
};
use crate::grammar::{duration, words::Word};

/// A task as JSON has it; an attempt has the same fields.
#[derive(Debug, Clone, Serialize)]
pub struct Task {
    job_id: u64,
    index: u64,
    state: Option<String>,
    attempt: Option<u32>,
    exit_code: Option<i32>,
    cause: Option<String>,
    worker: Option<String>,
    create_time: Moment,
    start_time: Moment,
    end_time: Moment,
    seconds: Option<f64>,
    cpu_seconds: Option<f64>,
    max_memory_mib: Option<u64>,
    /// With `--attempts`.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt_list: Option<Vec<Task>>,
    #[serde(skip)]
    detail: String,
}

impl Task {
    /// With its attempts, when they were asked for.
    pub fn new(task: &v1::Task, attempts: bool) -> Self {
        let measured = task.end_time.is_some() && task.start_time.is_some();
        Self {
            job_id: task.job_id,
            index: task.index,
            state: task.state().word(),
            attempt: (task.attempt > 0).then_some(task.attempt),
            exit_code: task.exit_code,
            cause: task.cause().word(),
            worker: text(&task.worker),
            create_time: moment(task.create_time),
            start_time: moment(task.start_time),
            end_time: moment(task.end_time),
            seconds: measured.then_some(task.seconds),
            cpu_seconds: measured.then_some(task.cpu_seconds),
            max_memory_mib: measured.then_some(task.max_memory_mib),
            attempt_list: attempts
                .then(|| task.attempts.iter().map(|one| Self::of_attempt(task.job_id, task.index, one)).collect()),
            detail: task.detail.clone(),
        }
    }

    /// One attempt of a task.
    pub fn of_attempt(job_id: u64, index: u64, attempt: &v1::Attempt) -> Self {
        let measured = attempt.end_time.is_some() && attempt.start_time.is_some();
        Self {
            job_id,
            index,
            state: attempt.state().word(),
            attempt: Some(attempt.number),
            exit_code: attempt.exit_code,
            cause: attempt.cause().word(),
            worker: text(&attempt.worker),
            create_time: moment(attempt.create_time),
            start_time: moment(attempt.start_time),
            end_time: moment(attempt.end_time),
            seconds: measured.then_some(attempt.seconds),
            cpu_seconds: measured.then_some(attempt.cpu_seconds),
            max_memory_mib: measured.then_some(attempt.max_memory_mib),
            attempt_list: None,
            detail: attempt.detail.clone(),
        }
    }

    /// `  attempt 2 of 42.7   failed   exit_code 3   worker-1   12.5s   detail`
    pub fn attempt_line(&self) -> String {
        let code = self.exit_code.map(|code| format!(" {code}")).unwrap_or_default();
        let words = [
            Some(format!("attempt {} of {}", self.attempt.unwrap_or_default(), self.id())),
            self.state.clone(),
            self.cause.as_ref().map(|cause| format!("{cause}{code}")),
            self.worker.clone(),
            self.seconds.map(|seconds| format!("{seconds:.1}s")),
            text(&self.detail),
        ];
        format!("  {}", words.into_iter().flatten().collect::<Vec<_>>().join("   "))
    }

    /// The attempts, each a row of its own.
    pub fn attempts(&self) -> &[Task] {
        self.attempt_list.as_deref().unwrap_or_default()
    }
}

impl Row for Task {
    fn headers(wide: bool) -> Vec<&'static str> {
        let mut headers = vec!["TASK", "STATE", "ATTEMPT", "EXIT", "CAUSE", "WORKER", "TOOK", "DETAIL"];
        if wide {
            headers.extend(["CPU", "MEMORY", "CREATED", "STARTED", "ENDED"]);
        }
        headers
    }

    fn cells(&self, wide: bool) -> Vec<String> {
        let took = match (self.start_time, self.end_time) {
            (Some(_), Some(_)) => self.seconds.map_or("-".to_owned(), |seconds| format!("{seconds:.1}s")),
            (Some(start), None) => duration::short(between(start, jiff::Timestamp::now())),
            _ => "-".to_owned(),
        };
        let mut cells = vec![
            self.id(),
            or_dash(self.state.as_ref()),
            or_dash(self.attempt),
            or_dash(self.exit_code),
            or_dash(self.cause.as_ref()),
            or_dash(self.worker.as_ref()),
            took,
            self.detail.clone(),
        ];
        if wide {
            cells.extend([
                or_dash(self.cpu_seconds.map(|seconds| format!("{seconds:.1}s"))),
                or_dash(self.max_memory_mib.map(|mib| format!("{mib}M"))),
                local(self.create_time),
                local(self.start_time),
                local(self.end_time),
            ]);
        }
        cells
    }

    fn columns() -> &'static [&'static str] {
        &[
            "job_id",
            "index",
            "state",
            "attempt",
            "exit_code",
            "cause",
            "worker",
            "create_time",
            "start_time",
            "end_time",
            "seconds",
            "cpu_seconds",
            "max_memory_mib",
        ]
    }

    fn id(&self) -> String {
        format!("{}.{}", self.job_id, self.index)
    }
}

/// A task on one screen.
pub fn screen(task: &v1::Task) -> String {
    let view = Task::new(task, false);
    let mut lines = vec![format!("task {}  {}", view.id(), or_dash(view.state.as_ref()))];
    let mut line = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            lines.push(format!("  {name:<9} {value}"));
        }
    };
    let signal = if task.signal == 0 { String::new() } else { format!(" {}", task.signal) };
    line("attempt", view.attempt.map(|attempt| attempt.to_string()));
    line("cause", view.cause.as_ref().map(|cause| format!("{cause}{signal}")));
    line("exit code", view.exit_code.map(|code| code.to_string()));
    line("detail", text(&task.detail));
    line("worker", view.worker.clone());
    line("took", view.seconds.map(|seconds| format!("{seconds:.1}s")));
    line("cpu", view.cpu_seconds.map(|seconds| format!("{seconds:.1}s")));
    line("memory", view.max_memory_mib.map(|mib| format!("{mib}M at most")));
    for (name, moment) in [("created", view.create_time), ("started", view.start_time), ("ended", view.end_time)] {
        line(name, moment.map(|_| format!("{} ago   {}", age(moment), local(moment))));
    }
    lines.join("\n")
}
