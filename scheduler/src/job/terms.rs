//! What a job was asked to be, apart from its name and size: shared by all jobs that ask for the same.

use std::{collections::BTreeMap, sync::Arc};

use proto::v1::{self, Cause};

use crate::{ask::Ask, limits, shape::Shape};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Terms {
    pub owner: Arc<str>,
    pub queue: Arc<str>,
    /// Shared by all terms that ask for the same.
    pub ask: Arc<Ask>,
    pub priority: i32,
    pub retries: u32,
    pub max_running: u32,
    pub max_failures: u32,
    pub min_backoff_ms: u64,
    pub max_backoff_ms: u64,
    /// Which ends are tried again; empty: the default ones.
    pub rules: Box<[Rule]>,
    /// How long a task may wait for its first start; 0: for ever.
    pub queue_time_limit_ms: u64,
    /// How long the job may take; 0: for ever.
    pub total_time_limit_ms: u64,
    pub at_most_once: bool,
    pub is_array: bool,
    pub labels: BTreeMap<String, String>,
}

impl Terms {
    /// What a task needs by default.
    pub fn shape(&self) -> &Shape {
        self.ask.shape()
    }
}

/// A kind of end that is tried again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rule {
    /// A number of [`Cause`].
    cause: i32,
    /// Empty: every one.
    exit_codes: Box<[u32]>,
    /// Thousandths; 0: memory doesn't grow.
    memory_factor_milli: u32,
    /// 0: no bound.
    max_memory_mib: u64,
}

impl Rule {
    pub fn holds(&self, cause: Cause, exit_code: i32) -> bool {
        let named = || u32::try_from(exit_code).is_ok_and(|code| self.exit_codes.contains(&code));
        self.cause == cause as i32 && (cause != Cause::ExitCode || self.exit_codes.is_empty() || named())
    }

    /// Memory of the attempt after one that had `memory_mib` and ended so; as before where it doesn't grow.
    pub fn next_memory_after(&self, cause: Cause, memory_mib: u64) -> u64 {
        if self.memory_factor_milli == 0 || self.cause != cause as i32 {
            return memory_mib;
        }
        let grown = memory_mib.saturating_mul(u64::from(self.memory_factor_milli)).div_ceil(1000);
        let bound = if self.max_memory_mib == 0 { limits::MEMORY_MIB } else { self.max_memory_mib };
        grown.min(bound).max(memory_mib)
    }
}

impl From<&v1::RetryRule> for Rule {
    fn from(rule: &v1::RetryRule) -> Self {
        Self {
            cause: rule.cause,
            exit_codes: rule.exit_codes.as_slice().into(),
            memory_factor_milli: rule.memory_factor_milli,
            max_memory_mib: rule.max_memory_mib,
        }
    }
}

impl From<&Rule> for v1::RetryRule {
    fn from(rule: &Rule) -> Self {
        Self {
            cause: rule.cause,
            exit_codes: rule.exit_codes.to_vec(),
            memory_factor_milli: rule.memory_factor_milli,
            max_memory_mib: rule.max_memory_mib,
        }
    }
}
