//! Options that say what is tried again, how soon, and with how much memory.

use proto::v1::{Cause, RetryPolicy, RetryRule};

use super::build::proto_duration;
use crate::{
    failure::Failure,
    grammar::retrying::{self, Backoff, Growth, RetryOn},
};

/// How failed tasks are tried again; how often is `--retries`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Retrying {
    /// Causes that are tried again: exit_code, exit_code=75,76, signal, out_of_memory, time_limit; lists, may be repeated [default: all four]
    #[arg(long, env = "MILLGRID_SUBMIT_RETRY_ON", hide_env = true, value_parser = retrying::retry_on, value_name = "CAUSE,...")]
    pub retry_on: Vec<RetryOn>,
    /// Wait before the next attempt, doubling: MIN..MAX [default: 1s..5m]
    #[arg(long, env = "MILLGRID_SUBMIT_BACKOFF", hide_env = true, value_parser = retrying::backoff, value_name = "MIN..MAX", allow_hyphen_values = true)]
    pub backoff: Option<Backoff>,
    /// After running out of memory, try again with FACTOR times as much, up to MAX, e.g. 1.5..32G
    #[arg(long, env = "MILLGRID_SUBMIT_MEM_GROWTH", hide_env = true, value_parser = retrying::growth, value_name = "FACTOR[..MAX]", allow_hyphen_values = true)]
    pub mem_growth: Option<Growth>,
}

impl Retrying {
    /// These, with `script`'s where nothing was said here.
    pub fn over(self, script: Self) -> Self {
        Self {
            retry_on: if self.retry_on.is_empty() { script.retry_on } else { self.retry_on },
            backoff: self.backoff.or(script.backoff),
            mem_growth: self.mem_growth.or(script.mem_growth),
        }
    }

    /// The policy of a job that asks for `memory_mib`, if it does.
    pub fn policy(self, retries: u32, memory_mib: Option<u64>) -> Result<RetryPolicy, Failure> {
        let mut rules: Vec<RetryRule> = self.retry_on.into_iter().flat_map(|RetryOn(rules)| rules).collect();
        if let Some(growth) = self.mem_growth {
            check_growth(growth, memory_mib)?;
            if rules.is_empty() {
                rules = retrying::default_rules();
            }
            if !rules.iter().any(|rule| rule.cause() == Cause::OutOfMemory) {
                rules.push(RetryRule { cause: Cause::OutOfMemory.into(), ..RetryRule::default() });
            }
            for rule in rules.iter_mut().filter(|rule| rule.cause() == Cause::OutOfMemory) {
                (rule.memory_factor_milli, rule.max_memory_mib) = (growth.factor_milli, growth.max_mib);
            }
        }
        Ok(RetryPolicy {
            retries,
            min_backoff: self.backoff.map(|backoff| proto_duration(backoff.min)),
            max_backoff: self.backoff.map(|backoff| proto_duration(backoff.max)),
            rules,
        })
    }
}

fn check_growth(growth: Growth, memory_mib: Option<u64>) -> Result<(), Failure> {
    let Some(memory_mib) = memory_mib else {
        return Err(Failure::usage("mem-growth", "memory can't grow that isn't asked for")
            .hint("say with `--mem` how much the first attempt gets"));
    };
    if growth.max_mib > 0 && growth.max_mib < memory_mib {
        return Err(Failure::usage("mem-growth", "its maximum is less than `--mem`")
            .hint("the maximum is what the last attempt may have"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(retry_on: &[&str], growth: Option<&str>, expected: &[(Cause, u32)]) {
        let retry_on = retry_on.iter().map(|text| retrying::retry_on(text).unwrap()).collect();
        let mem_growth = growth.map(|text| retrying::growth(text).unwrap());
        let policy = Retrying { retry_on, backoff: None, mem_growth }.policy(2, Some(100)).unwrap();
        let found: Vec<_> = policy.rules.iter().map(|rule| (rule.cause(), rule.memory_factor_milli)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn growth_of_memory_brings_the_rule_that_it_needs() {
        check(&[], None, &[]);
        check(&["signal"], None, &[(Cause::Signal, 0)]);
        check(&["signal"], Some("2"), &[(Cause::Signal, 0), (Cause::OutOfMemory, 2000)]);
        check(&["out_of_memory,signal"], Some("2"), &[(Cause::OutOfMemory, 2000), (Cause::Signal, 0)]);
        let all = [(Cause::ExitCode, 0), (Cause::Signal, 0), (Cause::OutOfMemory, 1500), (Cause::TimeLimit, 0)];
        check(&[], Some("1.5..1G"), &all);
    }
}
