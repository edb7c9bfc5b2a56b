//! From a grant to a command line: placeholders, environment, script.

use std::{collections::BTreeMap, os::unix::ffi::OsStrExt, path::Path, sync::Arc};

use bytes::Bytes;
use proto::{
    template,
    v1::{GrantedJob, Input, JobSpec, Output, Resources},
};
use worker_core::Task;

use crate::{config::Config, fork_server::ForkServer, machine};

/// Variables of the agent's own that tasks get.
const INHERITED: [&str; 3] = ["PATH", "HOME", "LANG"];
/// Variables that tasks get when the grid's S3 isn't AWS, whose tasks have roles of their own.
const S3_INHERITED: [&str; 3] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
/// Between SIGTERM and SIGKILL, unless the job says otherwise.
const GRACE_MS: u64 = 30_000;
/// Plans of jobs kept; the rest is made anew.
const PLANS: usize = 1_024;

/// A grant that can't be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The submit should have refused it.
    #[error("the placeholder `{{{0}}}` has no value")]
    Placeholder(String),
    /// The row isn't JSON.
    #[error("the task's row is no JSON: {0}")]
    Row(String),
    /// A job without command and without script.
    #[error("the job has no command")]
    NoCommand,
}

/// What the keeper needs to start a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// Program and arguments.
    pub argv: Vec<Bytes>,
    /// `NAME=value`, complete but for what depends on the time of the start.
    pub env: Vec<Bytes>,
    /// Where it starts.
    pub directory: String,
    /// Between SIGTERM and SIGKILL.
    pub grace_ms: u64,
    /// What it may use.
    pub resources: Resources,
    /// What could make its process faster than loading its program.
    pub fork_server: Option<ForkServer>,
}

/// Makes launches; keeps what is the same for all tasks of a job.
#[derive(Debug)]
pub struct Launcher {
    inherited: Vec<Bytes>,
    plans: BTreeMap<u64, Arc<Plan>>,
}

/// What is the same for all tasks of a job.
#[derive(Debug)]
pub struct Plan {
    job: Arc<GrantedJob>,
    argv: Vec<Text>,
    environment: Vec<Text>,
    inherited: Vec<Bytes>,
    grace_ms: u64,
}

/// A text without placeholders is shared by all tasks.
#[derive(Debug)]
enum Text {
    Fixed(Bytes),
    Template(String),
}

impl Text {
    fn new(text: String) -> Self {
        // Doubled braces stand for single ones, so any brace makes a template.
        if text.contains(['{', '}']) { Self::Template(text) } else { Self::Fixed(text.into()) }
    }
}

impl Launcher {
    /// Takes what tasks inherit from the agent's environment and configuration.
    pub fn new(config: &Config) -> Self {
        let own = |name: &str| std::env::var_os(name).map(|value| entry(name, value.as_bytes()));
        let mut inherited: Vec<Bytes> = INHERITED.iter().filter_map(|name| own(name)).collect();
        if let Some(endpoint) = &config.s3_endpoint {
            inherited.push(entry("AWS_ENDPOINT_URL_S3", endpoint.as_bytes()));
            inherited.extend(S3_INHERITED.iter().filter_map(|name| own(name)));
            match &config.s3_region {
                Some(region) => inherited.push(entry("AWS_REGION", region.as_bytes())),
                None => inherited.extend(own("AWS_REGION")),
            }
        }
        Self { inherited, plans: BTreeMap::new() }
    }

    /// The plan of a task's job.
    pub fn plan(&mut self, job: &Arc<GrantedJob>) -> Arc<Plan> {
        if let Some(plan) = self.plans.get(&job.job_id)
            && Arc::ptr_eq(&plan.job, job)
        {
            return Arc::clone(plan);
        }
        if self.plans.len() >= PLANS {
            self.plans.clear();
        }
        let plan = Arc::new(Plan::new(Arc::clone(job), &self.inherited));
        self.plans.insert(job.job_id, Arc::clone(&plan));
        plan
    }
}

impl Plan {
    fn new(job: Arc<GrantedJob>, inherited: &[Bytes]) -> Self {
        let default = JobSpec::default();
        let spec = job.spec.as_ref().unwrap_or(&default);
        let environment = spec.env.iter().map(|(name, value)| Text::new(format!("{name}={value}"))).collect();
        Self {
            argv: spec.command.iter().cloned().map(Text::new).collect(),
            environment,
            inherited: inherited.to_vec(),
            grace_ms: spec.grace.as_ref().map_or(GRACE_MS, milliseconds),
            job,
        }
    }

    /// What one task's process is started with. `scratch` is its scratch directory, `script` where its script lies.
    pub fn launch(
        &self,
        values: &Values<'_>,
        work: &Path,
        scratch: &Path,
        script: Option<&Path>,
    ) -> Result<Launch, Malformed> {
        let expand = |text: &Text| match text {
            Text::Fixed(bytes) => Ok(bytes.clone()),
            Text::Template(template) => values.expand(template).map(Bytes::from),
        };
        let mut argv = Vec::with_capacity(self.argv.len() + 2);
        if let Some(path) = script {
            if !self.spec().script.starts_with(b"#!") {
                argv.push(Bytes::from_static(b"/bin/sh"));
            }
            argv.push(Bytes::copy_from_slice(path.as_os_str().as_bytes()));
        }
        for text in &self.argv {
            argv.push(expand(text)?);
        }
        if argv.is_empty() {
            return Err(Malformed::NoCommand);
        }
        let task = values.task;
        let Resources { cpu_milli, memory_mib, gpus, .. } = task.resources;
        let own = self.environment.iter().map(expand).collect::<Result<Vec<Bytes>, Malformed>>()?;
        let fork_server =
            ForkServer::of(self.spec(), &self.job.owner, task.resources, &argv, [&self.inherited[..], &own].concat());
        let mut env = Vec::with_capacity(self.inherited.len() + own.len() + 10);
        env.extend(self.inherited.iter().cloned());
        env.extend([
            entry("MILLGRID_JOB_ID", self.job.job_id.to_string().as_bytes()),
            entry("MILLGRID_CPUS", cpus(cpu_milli).as_bytes()),
            entry("MILLGRID_MEMORY_MIB", memory_mib.to_string().as_bytes()),
            entry("MILLGRID_GPUS", gpus.to_string().as_bytes()),
            entry("OMP_NUM_THREADS", (cpu_milli / 1000).max(1).to_string().as_bytes()),
            entry("MILLGRID_TASK_INDEX", task.index.to_string().as_bytes()),
            entry("MILLGRID_ATTEMPT", task.key.attempt.to_string().as_bytes()),
            entry("MILLGRID_SCRATCH", scratch.as_os_str().as_bytes()),
        ]);
        if !task.row.is_empty() {
            env.push(entry("MILLGRID_ENTRY", task.row.as_bytes()));
        }
        // Last, so that what the user sets wins.
        env.extend(own);
        let chdir = &self.spec().chdir;
        let directory = if chdir.is_empty() { work.to_string_lossy().into_owned() } else { chdir.clone() };
        let (grace_ms, resources) = (self.grace_ms, task.resources);
        Ok(Launch { argv, env: last_of_each(env), directory, grace_ms, resources, fork_server })
    }

    /// The job's outputs with this task's values.
    pub fn outputs(&self, values: &Values<'_>) -> Result<Vec<Output>, Malformed> {
        let expand = |output: &Output| {
            Ok(Output {
                glob: values.expand(&output.glob)?,
                prefix: values.expand(&output.prefix)?,
                optional: output.optional,
            })
        };
        self.spec().outputs.iter().map(expand).collect()
    }

    /// The job's inputs with this task's values.
    pub fn inputs(&self, values: &Values<'_>) -> Result<Vec<Input>, Malformed> {
        let expand =
            |input: &Input| Ok(Input { source: values.expand(&input.source)?, path: values.expand(&input.path)? });
        self.spec().inputs.iter().map(expand).collect()
    }

    /// What the job's submitter asked for.
    pub fn spec(&self) -> &JobSpec {
        static NONE: std::sync::LazyLock<JobSpec> = std::sync::LazyLock::new(JobSpec::default);
        self.job.spec.as_ref().unwrap_or(&NONE)
    }
}

impl Launch {
    /// The environment at the moment of the start: a task with a time limit learns when it is over, in seconds since
    /// the Unix epoch.
    pub fn environment_now(&self, time_limit_ms: u64) -> Vec<Bytes> {
        let mut env = self.env.clone();
        if time_limit_ms > 0 {
            let deadline = (machine::wall_ms().max(0) as u64).saturating_add(time_limit_ms) / 1000;
            env.push(entry("MILLGRID_DEADLINE", deadline.to_string().as_bytes()));
        }
        env
    }
}

/// The values of one task's placeholders.
#[derive(Debug)]
pub struct Values<'a> {
    task: &'a Task,
    row: serde_json::Value,
}

impl<'a> Values<'a> {
    /// Reads the task's row.
    pub fn new(task: &'a Task) -> Result<Self, Malformed> {
        let row = match task.row.as_str() {
            "" => serde_json::Value::Null,
            row => serde_json::from_str(row).map_err(|error| Malformed::Row(error.to_string()))?,
        };
        Ok(Self { task, row })
    }

    /// Replaces the placeholders of a text.
    pub fn expand(&self, text: &str) -> Result<String, Malformed> {
        template::expand(text, |name| self.value(name)).map_err(Malformed::Placeholder)
    }

    fn value(&self, name: &str) -> Option<String> {
        match name {
            "index" => Some(self.task.index.to_string()),
            "job" => Some(self.task.key.job.to_string()),
            "attempt" => Some(self.task.key.attempt.to_string()),
            "line" if self.row.is_string() => Some(plain(&self.row)),
            _ => {
                let columns = self.row.as_object()?;
                let column = name.strip_prefix("row.").and_then(|column| columns.get(column));
                column.or_else(|| columns.get(name)).map(plain)
            }
        }
    }
}

/// A JSON value as a word: strings without their quotes.
fn plain(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Keeps the last of entries with the same name, as the user's own come last.
fn last_of_each(entries: Vec<Bytes>) -> Vec<Bytes> {
    let name = |entry: &Bytes| entry.iter().position(|byte| *byte == b'=').unwrap_or(entry.len());
    let repeated = |position: usize| {
        let entry = &entries[position];
        let name_len = name(entry);
        entries[position + 1..].iter().any(|later| name(later) == name_len && later[..name_len] == entry[..name_len])
    };
    if !(0..entries.len()).any(repeated) {
        return entries;
    }
    (0..entries.len()).filter(|position| !repeated(*position)).map(|position| entries[position].clone()).collect()
}

fn entry(name: &str, value: &[u8]) -> Bytes {
    let mut entry = Vec::with_capacity(name.len() + 1 + value.len());
    entry.extend_from_slice(name.as_bytes());
    entry.push(b'=');
    entry.extend_from_slice(value);
    entry.into()
}

/// Thousandths as a decimal number: `1`, `0.5`.
fn cpus(milli: u64) -> String {
    let text = format!("{}.{:03}", milli / 1000, milli % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn milliseconds(duration: &prost_types::Duration) -> u64 {
    let milliseconds = duration.seconds.saturating_mul(1000).saturating_add(i64::from(duration.nanos) / 1_000_000);
    u64::try_from(milliseconds).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use worker_core::Key;

    fn task(spec: JobSpec, row: &str) -> Task {
        let resources = spec.resources.unwrap_or_default();
        let job = GrantedJob { job_id: 41, spec: Some(spec), owner: "me".into(), ..GrantedJob::default() };
        Task { key: Key { job: 41, ordinal: 3, attempt: 2 }, index: 7, row: row.into(), resources, job: Arc::new(job) }
    }

    fn launch(task: &Task, script: Option<&Path>) -> Result<Launch, Malformed> {
        let mut launcher = Launcher { inherited: vec![entry("PATH", b"/bin")], plans: BTreeMap::new() };
        let values = Values::new(task)?;
        launcher.plan(&task.job).launch(&values, Path::new("/t/work"), Path::new("/t/scratch"), script)
    }

    fn words(bytes: &[Bytes]) -> Vec<&str> {
        bytes.iter().map(|bytes| std::str::from_utf8(bytes).unwrap()).collect()
    }

    #[test]
    fn placeholders_of_rows_are_replaced() {
        for (row, text, expected) in [
            ("", "{index}-{job}-{attempt}", Ok("7-41-2")),
            (r#""a b""#, "<{line}>", Ok("<a b>")),
            (
                r#"{"lr":0.1,"name":"x","index":"own"}"#,
                "{row.lr} {lr} {name} {index} {row.index}",
                Ok("0.1 0.1 x 7 own"),
            ),
            (r#"{"lr":0.1}"#, "{seed}", Err(Malformed::Placeholder("seed".into()))),
            ("", "{line}", Err(Malformed::Placeholder("line".into()))),
            ("", "{{index}} ${index}", Ok("{index} ${index}")),
        ] {
            let task = task(JobSpec { command: vec![text.into()], ..Default::default() }, row);
            let argv = launch(&task, None).map(|launch| words(&launch.argv)[0].to_owned());
            assert_eq!(argv, expected.map(str::to_owned), "{text}");
        }
    }

    #[test]
    fn the_environment_is_complete_and_the_users_words_win() {
        let env = [("LEVEL", "{index}"), ("OMP_NUM_THREADS", "9")];
        let spec = JobSpec {
            command: vec!["true".into()],
            env: env.map(|(name, value)| (name.into(), value.into())).into(),
            resources: Some(Resources { cpu_milli: 2500, memory_mib: 64, ..Default::default() }),
            ..Default::default()
        };
        let launch = launch(&task(spec, r#"{"a":1}"#), None).unwrap();
        let env = words(&launch.env);
        for expected in [
            "PATH=/bin",
            "MILLGRID_JOB_ID=41",
            "MILLGRID_TASK_INDEX=7",
            "MILLGRID_ATTEMPT=2",
            r#"MILLGRID_ENTRY={"a":1}"#,
            "MILLGRID_CPUS=2.5",
            "MILLGRID_MEMORY_MIB=64",
            "MILLGRID_SCRATCH=/t/scratch",
            "LEVEL=7",
            "OMP_NUM_THREADS=9",
        ] {
            assert!(env.contains(&expected), "{expected} in {env:?}");
        }
        assert_eq!(env.iter().filter(|entry| entry.starts_with("OMP_NUM_THREADS=")).count(), 1);
    }

    #[test]
    fn a_script_is_run_by_its_first_line_or_by_the_shell() {
        for (script, expected) in
            [("echo {index}", vec!["/bin/sh", "/t/script", "7"]), ("#!/usr/bin/python3\n", vec!["/t/script", "7"])]
        {
            let spec = JobSpec { command: vec!["{index}".into()], script: script.into(), ..Default::default() };
            let launch = launch(&task(spec, ""), Some(Path::new("/t/script"))).unwrap();
            assert_eq!(words(&launch.argv), expected);
        }
        assert_eq!(launch(&task(JobSpec::default(), ""), None), Err(Malformed::NoCommand));
    }
}
