//! A job.

use std::collections::BTreeMap;

use proto::v1;
use serde::Serialize;

use super::{
    Row, or_dash, pairs,
    spec::Spec,
    task::Task,
    text,
    times::{Moment, age, local, moment},
};
use crate::grammar::words::Word;

/// A job as JSON has it.
#[derive(Debug, Serialize)]
pub struct Job {
    schema: &'static str,
    /// Its number.
    pub id: u64,
    name: String,
    state: Option<String>,
    held: bool,
    queue: String,
    owner: String,
    labels: BTreeMap<String, String>,
    priority: i32,
    task_count: u64,
    tasks: Counts,
    exit_code: Option<i32>,
    cause: Option<String>,
    create_time: Moment,
    start_time: Moment,
    end_time: Moment,
    /// Null in lists.
    spec: Option<Spec>,
    /// With `--tasks`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_list: Option<Vec<Task>>,
}

#[derive(Debug, Serialize)]
struct Counts {
    waiting: u64,
    queued: u64,
    leased: u64,
    running: u64,
    succeeded: u64,
    failed: u64,
    cancelled: u64,
    skipped: u64,
}

impl From<&v1::Job> for Job {
    fn from(job: &v1::Job) -> Self {
        let counts = job.tasks.unwrap_or_default();
        Self {
            schema: "millgrid/v1",
            id: job.id,
            name: job.name.clone(),
            state: job.state().word(),
            held: job.held,
            queue: job.queue.clone(),
            owner: job.owner.clone(),
            labels: job.labels.clone(),
            priority: job.priority,
            task_count: job.task_count,
            tasks: Counts {
                waiting: counts.waiting,
                queued: counts.queued,
                leased: counts.leased,
                running: counts.running,
                succeeded: counts.succeeded,
                failed: counts.failed,
                cancelled: counts.cancelled,
                skipped: counts.skipped,
            },
            exit_code: job.exit_code,
            cause: job.cause().word(),
            create_time: moment(job.create_time),
            start_time: moment(job.start_time),
            end_time: moment(job.end_time),
            spec: job.spec.as_ref().map(Spec::from),
            task_list: None,
        }
    }
}

impl Row for Job {
    fn headers(wide: bool) -> Vec<&'static str> {
        let mut headers = vec!["ID", "NAME", "STATE", "DONE", "QUEUE", "OWNER", "AGE"];
        if wide {
            headers.extend(["RUNNING", "FAILED", "PRIORITY", "EXIT", "CAUSE", "LABELS", "CREATED", "STARTED", "ENDED"]);
        }
        headers
    }

    fn cells(&self, wide: bool) -> Vec<String> {
        let counts = &self.tasks;
        let done = counts.succeeded + counts.failed + counts.cancelled + counts.skipped;
        let held = if self.held { " (held)" } else { "" };
        let mut cells = vec![
            self.id.to_string(),
            self.name.clone(),
            format!("{}{held}", or_dash(self.state.as_ref())),
            format!("{done}/{}", self.task_count),
            self.queue.clone(),
            self.owner.clone(),
            age(self.create_time),
        ];
        if wide {
            cells.extend([
                (counts.running + counts.leased).to_string(),
                counts.failed.to_string(),
                self.priority.to_string(),
                or_dash(self.exit_code),
                or_dash(self.cause.as_ref()),
                pairs(&self.labels),
                local(self.create_time),
                local(self.start_time),
                local(self.end_time),
            ]);
        }
        cells
    }

    fn columns() -> &'static [&'static str] {
        &[
            "id",
            "name",
            "state",
            "held",
            "queue",
            "owner",
            "labels",
            "priority",
            "task_count",
            "tasks.waiting",
            "tasks.queued",
            "tasks.leased",
            "tasks.running",
            "tasks.succeeded",
            "tasks.failed",
            "tasks.cancelled",
            "tasks.skipped",
            "exit_code",
            "cause",
            "create_time",
            "start_time",
            "end_time",
        ]
    }

    fn id(&self) -> String {
        self.id.to_string()
    }
}

/// A job on one screen.
pub fn screen(job: &v1::Job) -> String {
    let view = Job::from(job);
    let mut lines = vec![format!("job {}  {}  {}", view.id, view.name, or_dash(view.state.as_ref()))];
    let mut line = |name: &str, value: String| lines.push(format!("  {name:<9} {value}"));
    if view.held {
        line("held", format!("yes; let it go with `millgrid job release {}`", view.id));
    }
    let labels = pairs(&view.labels);
    let labels = if labels.is_empty() { labels } else { format!("   labels {labels}") };
    line("queue", format!("{}   owner {}   priority {}{labels}", view.queue, view.owner, view.priority));
    let counts = &view.tasks;
    let named = [
        ("waiting", counts.waiting),
        ("queued", counts.queued),
        ("leased", counts.leased),
        ("running", counts.running),
        ("succeeded", counts.succeeded),
        ("failed", counts.failed),
        ("cancelled", counts.cancelled),
        ("skipped", counts.skipped),
    ];
    let some: Vec<String> =
        named.iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{count} {name}")).collect();
    line("tasks", format!("{}: {}", view.task_count, some.join(", ")));
    if let Some(cause) = view.cause.as_ref().filter(|_| job.state() != v1::JobState::Succeeded) {
        let code = view.exit_code.map(|code| format!(" {code}")).unwrap_or_default();
        let signal = if job.signal == 0 { String::new() } else { format!(" {}", job.signal) };
        line("cause", format!("{cause}{code}{signal}"));
    }
    if let Some(reason) = text(&job.reason) {
        line("reason", reason);
    }
    for (name, moment) in [("created", view.create_time), ("started", view.start_time), ("ended", view.end_time)] {
        if moment.is_some() {
            line(name, format!("{} ago   {}", age(moment), local(moment)));
        }
    }
    for (name, words) in view.spec.iter().flat_map(Spec::lines) {
        line(name, words);
    }
    if let Some(spec) = &job.spec {
        let words = spec.command.iter().map(String::as_str);
        let command = shlex::try_join(words).unwrap_or_else(|_| spec.command.join(" "));
        let script = if spec.script.is_empty() { "" } else { "(script) " };
        line("command", format!("{script}{command}"));
    }
    if !job.failures.is_empty() {
        lines.push("  failures".to_owned());
        lines.extend(job.failures.iter().map(failure));
    }
    lines.join("\n")
}

/// `    12 x exit_code 3: 7, 9, 11 ...  detail`
fn failure(group: &v1::FailureGroup) -> String {
    let code = group.exit_code.map(|code| format!(" {code}")).unwrap_or_default();
    let signal = if group.signal == 0 { String::new() } else { format!(" {}", group.signal) };
    let indexes: Vec<String> = group.indexes.iter().map(u64::to_string).collect();
    let more = if group.count > group.indexes.len() as u64 { ", ..." } else { "" };
    let detail = if group.detail.is_empty() { String::new() } else { format!("  {}", group.detail) };
    let cause = or_dash(group.cause().word());
    format!("    {} x {cause}{code}{signal}: tasks {}{more}{detail}", group.count, indexes.join(", "))
}
