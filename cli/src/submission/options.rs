//! What a job may ask for, on the command line, in the environment and in a script's `#MILLGRID` lines.

use std::path::PathBuf;

use clap::builder::FalseyValueParser;

use super::{needs::Needs, retrying::Retrying};
use crate::grammar::{
    array::{self, Array},
    duration,
    numbers::{self, AfterExit},
    pairs::{self, Variable},
    resources,
    selector::JobRef,
    staging::{self, Staged},
};

/// Options of submit and run. Environment: `MILLGRID_SUBMIT_<OPTION>`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Options {
    /// Name to show; needs not be unique
    #[arg(long, env = "MILLGRID_SUBMIT_NAME", hide_env = true)]
    pub name: Option<String>,
    /// Queue to wait in
    #[arg(long, env = "MILLGRID_SUBMIT_QUEUE", hide_env = true)]
    pub queue: Option<String>,
    /// Cpus of one task, 0.001 and up [default: 1]
    #[arg(long, env = "MILLGRID_SUBMIT_CPUS", hide_env = true, value_parser = resources::cpu_milli, value_name = "N", allow_hyphen_values = true)]
    pub cpus: Option<u64>,
    /// Memory of one task, e.g. 8G [default: not reserved]
    #[arg(long, env = "MILLGRID_SUBMIT_MEM", hide_env = true, value_parser = resources::mib, value_name = "SIZE", allow_hyphen_values = true)]
    pub mem: Option<u64>,
    /// Gpus of one task
    #[arg(long, env = "MILLGRID_SUBMIT_GPUS", hide_env = true, value_name = "N", allow_hyphen_values = true)]
    pub gpus: Option<u32>,
    /// Scratch space of one task, e.g. 50G
    #[arg(long, env = "MILLGRID_SUBMIT_SCRATCH", hide_env = true, value_parser = resources::gib, value_name = "SIZE", allow_hyphen_values = true)]
    pub scratch: Option<u64>,
    /// Time limit of one attempt, e.g. 1h30m [default: none]
    #[arg(long, env = "MILLGRID_SUBMIT_TIME", hide_env = true, value_parser = duration::parse, value_name = "TIME", allow_hyphen_values = true)]
    pub time: Option<std::time::Duration>,
    /// How long a task may wait for its first start, e.g. 1h; then it fails [default: for ever]
    #[arg(long, env = "MILLGRID_SUBMIT_QUEUE_TIME", hide_env = true, value_parser = duration::parse, value_name = "TIME", allow_hyphen_values = true)]
    pub queue_time: Option<std::time::Duration>,
    /// How long the job may take in all, waits and retries included [default: for ever]
    #[arg(long, env = "MILLGRID_SUBMIT_TOTAL_TIME", hide_env = true, value_parser = duration::parse, value_name = "TIME", allow_hyphen_values = true)]
    pub total_time: Option<std::time::Duration>,
    /// Further attempts after a failed one [default: 0]
    #[arg(long, env = "MILLGRID_SUBMIT_RETRIES", hide_env = true, value_name = "N", allow_hyphen_values = true, value_parser = clap::value_parser!(u32).range(..=1000))]
    pub retries: Option<u32>,
    /// What is tried again, when, and with how much memory.
    #[command(flatten)]
    pub retrying: Retrying,
    /// Where tasks may run, and what else they take.
    #[command(flatten)]
    pub needs: Needs,
    /// A label, KEY=VALUE; may be repeated
    #[arg(long, env = "MILLGRID_SUBMIT_LABEL", hide_env = true, value_parser = pairs::label, value_name = "KEY=VALUE")]
    pub label: Vec<(String, String)>,
    /// A variable of the tasks' environment, or the name of one of yours; may be repeated
    #[arg(long, env = "MILLGRID_SUBMIT_ENV", hide_env = true, value_parser = pairs::variable, value_name = "NAME[=VALUE]")]
    pub env: Vec<Variable>,
    /// Higher goes first, -1000 to 1000 [default: 0]
    #[arg(long, env = "MILLGRID_SUBMIT_PRIORITY", hide_env = true, value_name = "N", allow_hyphen_values = true, value_parser = clap::value_parser!(i32).range(-1000..=1000))]
    pub priority: Option<i32>,
    /// A task for each index: A-B[:STEP],...[%N], N at most at once
    #[arg(long, env = "MILLGRID_SUBMIT_ARRAY", hide_env = true, value_parser = array::parse, value_name = "RANGES", allow_hyphen_values = true)]
    pub array: Option<Array>,
    /// A task for each line of a file, {line}; - is stdin
    #[arg(long, env = "MILLGRID_SUBMIT_EACH_LINE", hide_env = true, value_name = "FILE")]
    pub each_line: Option<PathBuf>,
    /// Input to stage, SRC[:DST]: s3://bucket/key, job:41/PATH or a file up to 1 MiB; may be repeated
    #[arg(long = "in", env = "MILLGRID_SUBMIT_IN", hide_env = true, value_parser = staging::input, value_name = "SRC[:DST]")]
    pub input: Vec<Staged>,
    /// Output to publish, GLOB=s3://bucket/prefix/; may be repeated
    #[arg(id = "out", long = "out", env = "MILLGRID_SUBMIT_OUT", hide_env = true, value_parser = staging::output, value_name = "GLOB=PREFIX")]
    pub output: Vec<proto::v1::Output>,
    /// Globs may match nothing: all of them, or the one given here as GLOB=PREFIX
    #[arg(long, env = "MILLGRID_SUBMIT_OUT_OPTIONAL", hide_env = true, value_name = "GLOB=PREFIX", num_args = 0..=1, default_missing_value = "")]
    pub out_optional: Vec<String>,
    /// Start after these jobs have succeeded
    #[arg(long, env = "MILLGRID_SUBMIT_AFTER", hide_env = true, value_name = "JOB,...", value_delimiter = ',')]
    pub after: Vec<JobRef>,
    /// Start after these jobs have ended, however
    #[arg(long, env = "MILLGRID_SUBMIT_AFTER_ANY", hide_env = true, value_name = "JOB,...", value_delimiter = ',')]
    pub after_any: Vec<JobRef>,
    /// Start after these jobs have failed
    #[arg(long, env = "MILLGRID_SUBMIT_AFTER_FAILED", hide_env = true, value_name = "JOB,...", value_delimiter = ',')]
    pub after_failed: Vec<JobRef>,
    /// Start after a job has ended with one of these exit codes, 0 for its success; may be repeated
    #[arg(long, env = "MILLGRID_SUBMIT_AFTER_EXIT", hide_env = true, value_parser = numbers::after_exit, value_name = "JOB=CODE,...")]
    pub after_exit: Vec<AfterExit>,
    /// Each task starts after the one at its place in these arrays of the same size has succeeded
    #[arg(long, env = "MILLGRID_SUBMIT_AFTER_ELEMENT", hide_env = true, value_name = "JOB,...", value_delimiter = ',')]
    pub after_element: Vec<JobRef>,
    /// Tasks that may run at once
    #[arg(long, env = "MILLGRID_SUBMIT_MAX_RUNNING", hide_env = true, value_name = "N", allow_hyphen_values = true, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_running: Option<u32>,
    /// End the job when so many of its tasks have failed
    #[arg(long, env = "MILLGRID_SUBMIT_MAX_FAILURES", hide_env = true, value_name = "N", allow_hyphen_values = true, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_failures: Option<u32>,
    /// Never start a task a second time, whatever happens
    #[arg(long, env = "MILLGRID_SUBMIT_AT_MOST_ONCE", hide_env = true, value_parser = FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub at_most_once: bool,
    /// Don't start anything before `millgrid job release`
    #[arg(long, env = "MILLGRID_SUBMIT_HOLD", hide_env = true, value_parser = FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub hold: bool,
    /// Directory on the worker to start in [default: the attempt's own]
    #[arg(long, env = "MILLGRID_SUBMIT_CHDIR", hide_env = true, value_name = "DIR")]
    pub chdir: Option<String>,
}

impl Options {
    /// These, with `script`'s where nothing was said here. Labels and variables are joined by name.
    pub fn over(self, script: Self) -> Self {
        // An array here replaces a sweep there, and the other way round.
        let sweeps = self.array.is_some() || self.each_line.is_some();
        let list = |mine: Vec<JobRef>, theirs: Vec<JobRef>| if mine.is_empty() { theirs } else { mine };
        let mut label = script.label;
        label.extend(self.label);
        let mut env = script.env;
        env.retain(|theirs| !self.env.iter().any(|mine| mine.name() == theirs.name()));
        env.extend(self.env);
        Self {
            name: self.name.or(script.name),
            queue: self.queue.or(script.queue),
            cpus: self.cpus.or(script.cpus),
            mem: self.mem.or(script.mem),
            gpus: self.gpus.or(script.gpus),
            scratch: self.scratch.or(script.scratch),
            time: self.time.or(script.time),
            queue_time: self.queue_time.or(script.queue_time),
            total_time: self.total_time.or(script.total_time),
            retries: self.retries.or(script.retries),
            retrying: self.retrying.over(script.retrying),
            needs: self.needs.over(script.needs),
            label,
            env,
            priority: self.priority.or(script.priority),
            array: if sweeps { self.array } else { script.array },
            each_line: if sweeps { self.each_line } else { script.each_line },
            input: if self.input.is_empty() { script.input } else { self.input },
            output: if self.output.is_empty() { script.output } else { self.output },
            out_optional: if self.out_optional.is_empty() { script.out_optional } else { self.out_optional },
            after: list(self.after, script.after),
            after_any: list(self.after_any, script.after_any),
            after_failed: list(self.after_failed, script.after_failed),
            after_exit: if self.after_exit.is_empty() { script.after_exit } else { self.after_exit },
            after_element: list(self.after_element, script.after_element),
            max_running: self.max_running.or(script.max_running),
            max_failures: self.max_failures.or(script.max_failures),
            at_most_once: self.at_most_once || script.at_most_once,
            hold: self.hold || script.hold,
            chdir: self.chdir.or(script.chdir),
        }
    }
}
