//! What is tried again, how soon, and with how much memory: `exit_code=75,76`, `30s..10m`, `1.5..32G`.

use std::time::Duration;

use proto::v1::{Cause, RetryRule};

use super::{Malformed, duration, numbers, resources};

/// Causes that a rule may name, and their words.
const CAUSES: [(&str, Cause); 4] = [
    ("exit_code", Cause::ExitCode),
    ("signal", Cause::Signal),
    ("out_of_memory", Cause::OutOfMemory),
    ("time_limit", Cause::TimeLimit),
];
/// A retry is put off by one day at most.
const LONGEST_BACKOFF: Duration = Duration::from_secs(86_400);

/// Ends that are tried again: the value of one `--retry-on`.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryOn(pub Vec<RetryRule>);

/// How long the next attempt is put off, doubling from the first to the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure.
    pub min: Duration,
    /// After many.
    pub max: Duration,
}

/// How the memory of the next attempt grows after one that ran out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Growth {
    /// In thousandths: 1500 is half as much again.
    pub factor_milli: u32,
    /// Not beyond this; 0: no bound.
    pub max_mib: u64,
}

/// The four causes that are tried again when nothing else is said.
pub fn default_rules() -> Vec<RetryRule> {
    CAUSES.map(|(_, cause)| RetryRule { cause: cause.into(), ..RetryRule::default() }).into()
}

/// A comma list of causes. Behind `exit_code=`, numbers are its codes: `exit_code=75,76,signal` are two rules.
pub fn retry_on(text: &str) -> Result<RetryOn, Malformed> {
    let mut rules: Vec<RetryRule> = Vec::new();
    for word in text.split(',') {
        if let Some(code) = numbers::whole::<u32>(word) {
            let last = rules.last_mut().filter(|rule| !rule.exit_codes.is_empty());
            let rule = last.ok_or_else(|| {
                Malformed::new(format!("`{word}` stands behind no `exit_code=`; write e.g. `exit_code=75,76`"))
            })?;
            rule.exit_codes.push(exit_code(code)?);
            continue;
        }
        let (name, code) = word.split_once('=').map_or((word, None), |(name, code)| (name, Some(code)));
        let found = CAUSES.iter().find(|(known, _)| *known == name);
        let (_, cause) = found.ok_or_else(|| {
            Malformed::new(format!(
                "`{name}` can't be retried by a rule; write exit_code, exit_code=75,76, signal, out_of_memory or \
                 time_limit (what the grid itself lost is tried again anyway)"
            ))
        })?;
        let mut rule = RetryRule { cause: (*cause).into(), ..RetryRule::default() };
        match code {
            None => {}
            Some(_) if *cause != Cause::ExitCode => {
                return Err(Malformed::new(format!("`{name}` takes no values; only `exit_code` does")));
            }
            Some(code) => {
                let code = numbers::whole(code).ok_or_else(|| Malformed::new(format!("`{code}` is no exit code")))?;
                rule.exit_codes.push(exit_code(code)?);
            }
        }
        rules.push(rule);
    }
    if rules.iter().any(|rule| rule.exit_codes.len() > numbers::MAX_EXIT_CODES) {
        return Err(Malformed::new(format!("more than {} exit codes", numbers::MAX_EXIT_CODES)));
    }
    Ok(RetryOn(rules))
}

fn exit_code(code: u32) -> Result<u32, Malformed> {
    match code {
        1..=255 => Ok(code),
        0 => Err(Malformed::new("0 is a success and never tried again; exit codes are 1 to 255")),
        _ => Err(Malformed::new(format!("{code} is no exit code; they are 1 to 255"))),
    }
}

/// `30s..10m`, or one time for both.
pub fn backoff(text: &str) -> Result<Backoff, Malformed> {
    let (min, max) = text.split_once("..").unwrap_or((text, text));
    let (min, max) = (duration::parse(min)?, duration::parse(max)?);
    if min > max {
        return Err(Malformed::new("the first time is the shorter one, e.g. `30s..10m`"));
    }
    if max > LONGEST_BACKOFF {
        return Err(Malformed::new("longer than one day"));
    }
    Ok(Backoff { min, max })
}

/// `1.5..32G`, or the factor alone.
pub fn growth(text: &str) -> Result<Growth, Malformed> {
    // A fraction's point is one, so that two of them end the factor.
    let (factor, max) = text.split_once("..").map_or((text, None), |(factor, max)| (factor, Some(max)));
    let factor_milli = resources::factor_milli(factor)?;
    let max_mib = max.map_or(Ok(0), resources::mib)?;
    Ok(Growth { factor_milli, max_mib })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_a_list_and_codes_stand_behind_theirs() {
        let rule = |cause: Cause, codes: &[u32]| RetryRule {
            cause: cause.into(),
            exit_codes: codes.to_vec(),
            ..RetryRule::default()
        };
        let table = [
            ("exit_code=75,76", Some(vec![rule(Cause::ExitCode, &[75, 76])])),
            ("exit_code", Some(vec![rule(Cause::ExitCode, &[])])),
            (
                "time_limit,exit_code=75,76,signal",
                Some(vec![rule(Cause::TimeLimit, &[]), rule(Cause::ExitCode, &[75, 76]), rule(Cause::Signal, &[])]),
            ),
            ("out_of_memory", Some(vec![rule(Cause::OutOfMemory, &[])])),
            ("exit_code=0", None),
            ("exit_code=256", None),
            ("exit_code=", None),
            ("exit_code=-1", None),
            ("exit_code=x", None),
            ("exit_code,75", None),
            ("75", None),
            ("signal=9", None),
            ("signal,9", None),
            ("worker_lost", None),
            ("time-limit", None),
            ("", None),
            ("signal,", None),
        ];
        for (text, expected) in table {
            assert_eq!(retry_on(text).ok().map(|on| on.0), expected, "{text:?}");
        }
        let many: Vec<String> = (1..=65).map(|code| code.to_string()).collect();
        assert!(retry_on(&format!("exit_code={}", many.join(","))).is_err());
        assert!(retry_on("worker_lost").unwrap_err().to_string().contains("tried again anyway"));
    }

    #[test]
    fn spans_of_back_off_rise() {
        let seconds = |min, max| Some(Backoff { min: Duration::from_secs(min), max: Duration::from_secs(max) });
        for (text, expected) in [
            ("30s..10m", seconds(30, 600)),
            ("5s", seconds(5, 5)),
            ("10m..30s", None),
            ("30..10m", None),
            ("30s..", None),
            ("..10m", None),
            ("1s..2d", None),
            ("", None),
        ] {
            assert_eq!(backoff(text).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn memory_grows_by_a_factor_up_to_a_size() {
        for (text, expected) in [
            ("1.5..32G", Some((1500, 32 << 10))),
            ("2", Some((2000, 0))),
            ("1.25", Some((1250, 0))),
            ("1", None),
            ("0.5", None),
            ("101", None),
            ("1.5..", None),
            ("1.5..32", None),
            ("1.5..2..3", None),
            ("x", None),
            ("-2", None),
        ] {
            let found = growth(text).ok().map(|growth| (growth.factor_milli, growth.max_mib));
            assert_eq!(found, expected, "{text:?}");
        }
    }
}
