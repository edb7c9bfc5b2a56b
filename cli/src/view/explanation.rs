//! Why something is where it is.

use proto::v1;
use serde::Serialize;

use super::{
    task::Task,
    text,
    times::{Moment, from_now, local, moment},
};
use crate::grammar::words::Word;

/// An explanation as JSON has it.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// The job's number.
    pub job_id: u64,
    index: Option<u64>,
    state: Option<String>,
    summary: String,
    /// Why it waits.
    pub reasons: Vec<Reason>,
    position: Option<u64>,
    ahead: Option<u64>,
    estimated_start_time: Moment,
    /// Of the task that failed, or of the first of the job's that did.
    attempts: Vec<Task>,
    /// The last lines that the last failed attempt wrote; null when there are none, or they can't be read.
    pub log_tail: Option<String>,
}

/// One reason to wait, and for how many workers it holds.
#[derive(Debug, Serialize)]
pub struct Reason {
    reason: Option<String>,
    workers: u32,
    detail: String,
    advice: Option<String>,
}

impl From<&v1::Reason> for Reason {
    fn from(reason: &v1::Reason) -> Self {
        Self {
            reason: reason.reason().word(),
            workers: reason.workers,
            detail: reason.detail.clone(),
            advice: text(&reason.advice),
        }
    }
}

impl From<&v1::Explanation> for Explanation {
    fn from(explanation: &v1::Explanation) -> Self {
        let task = explanation.state().word().filter(|_| explanation.index.is_some());
        Self {
            job_id: explanation.job_id,
            index: explanation.index,
            state: task.or_else(|| explanation.job_state().word()).or_else(|| explanation.state().word()),
            summary: explanation.summary.clone(),
            reasons: explanation.reasons.iter().map(Reason::from).collect(),
            position: explanation.position,
            ahead: explanation.ahead,
            estimated_start_time: moment(explanation.estimated_start_time),
            attempts: {
                let index = explanation.attempts_index.or(explanation.index).unwrap_or_default();
                explanation.attempts.iter().map(|one| Task::of_attempt(explanation.job_id, index, one)).collect()
            },
            log_tail: None,
        }
    }
}

impl Reason {
    /// `  resources_memory    8 of 12 workers: memory 8 GiB asked, 6 GiB free at most`, and below it what would change it.
    pub fn lines(&self) -> Vec<String> {
        let line = |head: &str, text: &str| format!("  {head:<18} {text}").trim_end().to_owned();
        let advice = self.advice.as_ref().map(|advice| line("", &format!("advice: {advice}")));
        std::iter::once(line(self.reason.as_deref().unwrap_or("-"), &self.detail)).chain(advice).collect()
    }
}

impl Explanation {
    /// `42` or `42.7`.
    pub fn id(&self) -> String {
        self.index.map_or(self.job_id.to_string(), |index| format!("{}.{index}", self.job_id))
    }

    /// The explanation for people.
    pub fn screen(&self) -> String {
        let what = if self.index.is_some() { "task" } else { "job" };
        let mut lines = vec![format!("{what} {}  {}", self.id(), self.state.as_deref().unwrap_or("-"))];
        if !self.summary.is_empty() {
            lines.push(format!("  {}", self.summary));
        }
        lines.extend(self.reasons.iter().flat_map(Reason::lines));
        if let Some(position) = self.position {
            let ahead = self.ahead.map(|job| format!(", behind job {job}")).unwrap_or_default();
            lines.push(format!("  position {position} in its queue{ahead}"));
        }
        if self.estimated_start_time.is_some() {
            let at = self.estimated_start_time;
            lines.push(format!("  may start at {} ({} from now)", local(at), from_now(at)));
        }
        lines.extend(self.attempts.iter().map(Task::attempt_line));
        if let Some(tail) = &self.log_tail {
            lines.push("  its last lines:".to_owned());
            lines.extend(tail.lines().map(|line| format!("    {line}")));
        }
        lines.join("\n")
    }
}
