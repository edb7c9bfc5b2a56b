//! What a job asks for.

use std::{collections::BTreeMap, time::Duration};

use proto::v1;
use serde::Serialize;

use super::{
    times::seconds,
    worker::{cpus, memory},
};
use crate::grammar::{duration, words::Word};

/// What a job asks for, as JSON has it. Spans are in seconds; null: no limit.
#[derive(Debug, Serialize)]
pub struct Spec {
    command: Vec<String>,
    resources: Resources,
    alternatives: Vec<Resources>,
    constraints: Vec<Constraint>,
    licenses: BTreeMap<String, u32>,
    time_limit: Option<f64>,
    queue_time_limit: Option<f64>,
    total_time_limit: Option<f64>,
    max_running: Option<u32>,
    max_failures: Option<u32>,
    retries: u32,
    retry_on: Vec<RetryRule>,
    min_backoff: Option<f64>,
    max_backoff: Option<f64>,
    at_most_once: bool,
    after: Vec<Dependency>,
}

#[derive(Debug, Serialize)]
struct Resources {
    cpu_milli: u64,
    memory_mib: u64,
    gpus: u32,
    scratch_gib: u64,
}

#[derive(Debug, Serialize)]
struct Constraint {
    label: String,
    values: Vec<String>,
    negated: bool,
    preferred: bool,
}

#[derive(Debug, Serialize)]
struct RetryRule {
    cause: Option<String>,
    exit_codes: Vec<u32>,
    memory_factor: Option<f64>,
    max_memory_mib: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Dependency {
    job_id: u64,
    condition: Option<String>,
    exit_codes: Vec<u32>,
}

impl From<v1::Resources> for Resources {
    fn from(resources: v1::Resources) -> Self {
        let v1::Resources { cpu_milli, memory_mib, gpus, scratch_gib } = resources;
        Self { cpu_milli, memory_mib, gpus, scratch_gib }
    }
}

impl From<&v1::JobSpec> for Spec {
    fn from(spec: &v1::JobSpec) -> Self {
        let retry = spec.retry.clone().unwrap_or_default();
        let constraint = |one: &v1::Constraint| Constraint {
            label: one.label.clone(),
            values: one.values.clone(),
            negated: one.negated,
            preferred: one.preferred,
        };
        let rule = |one: &v1::RetryRule| RetryRule {
            cause: one.cause().word(),
            exit_codes: one.exit_codes.clone(),
            memory_factor: some(one.memory_factor_milli).map(|milli| f64::from(milli) / 1000.0),
            max_memory_mib: some(one.max_memory_mib),
        };
        let after = |one: &v1::Dependency| Dependency {
            job_id: one.job_id,
            condition: one.condition().word(),
            exit_codes: one.exit_codes.clone(),
        };
        let span = |span: &Option<prost_types::Duration>| seconds(span.as_ref()).filter(|seconds| *seconds > 0.0);
        Self {
            command: spec.command.clone(),
            resources: spec.resources.unwrap_or_default().into(),
            alternatives: spec.alternatives.iter().map(|one| (*one).into()).collect(),
            constraints: spec.constraints.iter().map(constraint).collect(),
            licenses: spec.licenses.clone(),
            time_limit: span(&spec.time_limit),
            queue_time_limit: span(&spec.queue_time_limit),
            total_time_limit: span(&spec.total_time_limit),
            max_running: some(spec.max_running),
            max_failures: some(spec.max_failures),
            retries: retry.retries,
            retry_on: retry.rules.iter().map(rule).collect(),
            min_backoff: span(&retry.min_backoff),
            max_backoff: span(&retry.max_backoff),
            at_most_once: spec.at_most_once,
            after: spec.after.iter().map(after).collect(),
        }
    }
}

/// None for zero, which means that there is no limit.
fn some<T: PartialEq + Default>(value: T) -> Option<T> {
    (value != T::default()).then_some(value)
}

impl Spec {
    /// Names and values for people: what was asked for beyond the least.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = vec![("needs", self.resources.words())];
        lines.extend(self.alternatives.iter().map(|one| ("or", one.words())));
        let mut line = |name, words: Vec<String>| {
            if !words.is_empty() {
                lines.push((name, words.join(", ")));
            }
        };
        line("licenses", self.licenses.iter().map(|(name, count)| format!("{count} x {name}")).collect());
        let (preferred, required): (Vec<_>, Vec<_>) = self.constraints.iter().partition(|one| one.preferred);
        line("where", required.into_iter().map(Constraint::words).collect());
        line("prefers", preferred.into_iter().map(Constraint::words).collect());
        line("limits", self.limits());
        if self.retries > 0 {
            line("retries", vec![self.retries_in_words()]);
        }
        line("after", self.after.iter().map(Dependency::words).collect());
        lines
    }

    fn limits(&self) -> Vec<String> {
        let span = |name, seconds: Option<f64>| {
            seconds.map(|seconds| format!("{name} {}", duration::exact(Duration::from_secs_f64(seconds))))
        };
        let count = |name, most: Option<u32>| most.map(|most| format!("{name} {most}"));
        let all = [
            span("attempt", self.time_limit),
            span("queue", self.queue_time_limit),
            span("total", self.total_time_limit),
            count("running", self.max_running),
            count("failures", self.max_failures),
        ];
        all.into_iter().flatten().collect()
    }

    fn retries_in_words(&self) -> String {
        let rules: Vec<String> = self.retry_on.iter().map(RetryRule::words).collect();
        if rules.is_empty() { self.retries.to_string() } else { format!("{} after {}", self.retries, rules.join(", ")) }
    }
}

impl Resources {
    fn words(&self) -> String {
        let plural = |count: &str, name: &str| format!("{count} {name}{}", if count == "1" { "" } else { "s" });
        let mut words = vec![plural(&cpus(self.cpu_milli), "cpu")];
        words.extend(some(self.memory_mib).map(|mib| format!("{} memory", memory(mib))));
        words.extend(some(self.gpus).map(|gpus| plural(&gpus.to_string(), "gpu")));
        words.extend(some(self.scratch_gib).map(|gib| format!("{gib}G scratch")));
        words.join(", ")
    }
}

impl Constraint {
    /// As on the command line.
    fn words(&self) -> String {
        let sign = if self.negated { "!" } else { "" };
        match self.values.as_slice() {
            [] => format!("{sign}{}", self.label),
            values => format!("{}{sign}={}", self.label, values.join(",")),
        }
    }
}

impl RetryRule {
    fn words(&self) -> String {
        let codes: Vec<String> = self.exit_codes.iter().map(u32::to_string).collect();
        let mut words = self.cause.clone().unwrap_or_else(|| "-".to_owned());
        if !codes.is_empty() {
            words = format!("{words} {}", codes.join(" "));
        }
        if let Some(factor) = self.memory_factor {
            let most = self.max_memory_mib.map(|mib| format!(" up to {}", memory(mib))).unwrap_or_default();
            words = format!("{words} (memory x {factor}{most})");
        }
        words
    }
}

impl Dependency {
    fn words(&self) -> String {
        let codes: Vec<String> = self.exit_codes.iter().map(u32::to_string).collect();
        let condition = self.condition.as_deref().unwrap_or("-");
        format!("{} {condition} {}", self.job_id, codes.join(" ")).trim_end().to_owned()
    }
}
