//! What a job may ask for: resources and their alternatives, constraints, licenses, retries, time limits.

use std::collections::BTreeMap;

use proto::{
    internal::JobSubmission,
    v1::{Cause, Resources, RetryRule},
};

use super::submit::backoff_of;
use crate::{Code, Rejection, State, limits};

impl State {
    pub(super) fn admit_needs(&self, job: &JobSubmission) -> Result<(), Rejection> {
        let Some(resources) = &job.resources else {
            return Err(Rejection::invalid("resources", "the resources are missing"));
        };
        admit_resources(resources)?;
        if job.alternatives.len() > limits::ALTERNATIVES {
            let message = format!("{} alternatives, {} at most", job.alternatives.len(), limits::ALTERNATIVES);
            return Err(Rejection::invalid("alternatives", message));
        }
        job.alternatives.iter().try_for_each(admit_resources)?;
        admit_constraints(job)?;
        self.admit_licenses(&job.licenses)?;
        admit_retries(job)?;
        let limits = [
            ("time_limit", job.time_limit_ms),
            ("queue_time_limit", job.queue_time_limit_ms),
            ("total_time_limit", job.total_time_limit_ms),
        ];
        limits.into_iter().try_for_each(|(field, limit)| admit_time_limit(field, limit))
    }

    fn admit_licenses(&self, needed: &BTreeMap<String, u32>) -> Result<(), Rejection> {
        if needed.len() > limits::LICENSES_OF_A_JOB {
            let message = format!("{} licenses, {} at most", needed.len(), limits::LICENSES_OF_A_JOB);
            return Err(Rejection::invalid("licenses", message));
        }
        for (name, count) in needed {
            if *count == 0 {
                return Err(Rejection::invalid("licenses", format!("none of the license `{name}` is asked for")));
            }
            let total = self.licenses.by_name.get(name.as_str()).map_or(0, |license| license.total);
            if total == 0 {
                return Err(Rejection::new(
                    Code::NotFound,
                    "LICENSE_NOT_FOUND",
                    "licenses",
                    format!("there is no license `{name}`"),
                )
                .hint("list them with `millgrid license ls`; an operator adds one with `millgrid license set`"));
            }
            if u64::from(*count) > total {
                let message = format!("a task needs {count} of the license `{name}`, and there are {total}");
                return Err(Rejection::conflict("INFEASIBLE", message).field("licenses"));
            }
        }
        Ok(())
    }
}

fn admit_constraints(job: &JobSubmission) -> Result<(), Rejection> {
    if job.constraints.len() > limits::CONSTRAINTS {
        let message = format!("{} constraints, {} at most", job.constraints.len(), limits::CONSTRAINTS);
        return Err(Rejection::invalid("constraints", message));
    }
    let long = |text: &String| text.len() > limits::LABEL_BYTES;
    for one in &job.constraints {
        if one.label.is_empty() || long(&one.label) || one.values.iter().any(long) {
            let message = format!("a constraint has no label, or more than {} bytes", limits::LABEL_BYTES);
            return Err(Rejection::invalid("constraints", message));
        }
        if one.values.len() > limits::CONSTRAINT_VALUES {
            let message =
                format!("a constraint names {} values, {} at most", one.values.len(), limits::CONSTRAINT_VALUES);
            return Err(Rejection::invalid("constraints", message));
        }
    }
    Ok(())
}

pub(super) fn admit_resources(asked: &Resources) -> Result<(), Rejection> {
    if asked.cpu_milli == 0 {
        return Err(Rejection::invalid(
            "resources.cpu_milli",
            "a task needs cpu; 0.001 is the least that can be asked",
        ));
    }
    let bounds = [
        ("resources.cpu_milli", "cpu", asked.cpu_milli, limits::CPU_MILLI),
        ("resources.memory_mib", "memory", asked.memory_mib, limits::MEMORY_MIB),
        ("resources.gpus", "gpus", u64::from(asked.gpus), u64::from(limits::GPUS)),
        ("resources.scratch_gib", "scratch", asked.scratch_gib, limits::SCRATCH_GIB),
    ];
    match bounds.into_iter().find(|(_, _, amount, most)| amount > most) {
        None => Ok(()),
        Some((field, name, amount, most)) => {
            Err(Rejection::invalid(field, format!("{amount} of {name} is asked for, {most} at most")))
        }
    }
}

pub(super) fn admit_time_limit(field: &'static str, limit_ms: u64) -> Result<(), Rejection> {
    if limit_ms <= limits::TIME_LIMIT_MS {
        return Ok(());
    }
    Err(Rejection::invalid(field, format!("{limit_ms} ms is more than a thousand years")))
}

fn admit_retries(job: &JobSubmission) -> Result<(), Rejection> {
    if job.retries > limits::RETRIES {
        let message = format!("{} retries are asked for, {} at most", job.retries, limits::RETRIES);
        return Err(Rejection::invalid("retry.retries", message));
    }
    let (low, high) = backoff_of(job);
    if low > high || high > limits::BACKOFF_MS {
        let message = format!("a back-off from {low} ms to {high} ms isn't a rising span up to one day");
        return Err(Rejection::invalid("retry.max_backoff", message));
    }
    if job.retry_rules.len() > limits::RETRY_RULES {
        let message = format!("{} rules of retry, {} at most", job.retry_rules.len(), limits::RETRY_RULES);
        return Err(Rejection::invalid("retry.rules", message));
    }
    job.retry_rules.iter().try_for_each(|rule| admit_rule(rule, job))
}

fn admit_rule(rule: &RetryRule, job: &JobSubmission) -> Result<(), Rejection> {
    let invalid = |message: String| Err(Rejection::invalid("retry.rules", message));
    let cause = rule.cause();
    let own = [Cause::ExitCode, Cause::Signal, Cause::OutOfMemory, Cause::TimeLimit];
    if !own.contains(&cause) {
        let word = cause.as_str_name().trim_start_matches("CAUSE_").to_lowercase();
        let message = format!("ends by {word} can't be retried by a rule");
        return Err(Rejection::invalid("retry.rules", message)
            .hint("name exit_code, signal, out_of_memory or time_limit; what the grid lost is tried again anyway"));
    }
    if !rule.exit_codes.is_empty() && cause != Cause::ExitCode {
        return invalid("exit codes belong to the cause exit_code".to_owned());
    }
    if rule.exit_codes.len() > limits::EXIT_CODES || rule.exit_codes.iter().any(|code| !(1..=255).contains(code)) {
        return invalid(format!("a rule names 1 to {} exit codes, each from 1 to 255", limits::EXIT_CODES));
    }
    if rule.memory_factor_milli == 0 {
        return Ok(());
    }
    if cause != Cause::OutOfMemory {
        return invalid("memory grows after out_of_memory alone".to_owned());
    }
    if !limits::MEMORY_FACTOR_MILLI.contains(&rule.memory_factor_milli) {
        return invalid("memory grows by a factor above 1, 100 at most".to_owned());
    }
    if job.resources.is_none_or(|resources| resources.memory_mib == 0) {
        return Err(Rejection::invalid("retry.rules", "memory can't grow that isn't asked for")
            .hint("say with `--mem` how much the first attempt gets"));
    }
    Ok(())
}
