//! Joins options and script to a [`JobSpec`], with everything checked that can be known on this side.

use std::{env, fs, path::Path, time::Duration};

use bytes::Bytes;
use proto::v1::{Dependency, DependencyCondition, JobSpec, LocalFile, Output, Resources, TaskArray};

use super::{
    directives::{self, Script},
    needs,
    options::Options,
    placeholders,
    rows::{self, Chunks},
};
use crate::{
    failure::Failure,
    grammar::{
        needs::DEFAULT_CPU_MILLI,
        pairs::Variable,
        selector::JobRef,
        staging::{self, Staged},
    },
};

/// A local file that travels along is at most so large.
const MAX_LOCAL_FILE_BYTES: u64 = 1 << 20;

/// A job to submit, what it refers to, and the dependencies whose number the grid must tell first.
#[derive(Debug)]
pub struct Built {
    /// Complete but for `after` on the caller's newest job.
    pub spec: JobSpec,
    /// To be stored before.
    pub chunks: Vec<Bytes>,
    /// On the caller's newest job, whose number is missing in them.
    pub after_last: Vec<Dependency>,
}

/// What stands on the command line beside the options.
#[derive(Debug, Clone, Default)]
pub struct Words {
    /// A script and its arguments.
    pub script: Vec<String>,
    /// Behind `--`.
    pub command: Vec<String>,
}

/// Builds the job. `queue` is the configuration's.
pub fn build(mut options: Options, mut words: Words, queue: Option<&str>) -> Result<Built, Failure> {
    split_optional_outputs(&mut options, &mut words)?;
    let script = words.script.first().map(|path| directives::read(path)).transpose()?;
    let mut command = words.script.into_iter().skip(1).collect::<Vec<_>>();
    command.extend(words.command);
    let options = match &script {
        Some(script) => options.over(script.options.clone()),
        None => options,
    };
    if script.is_none() && command.first().is_none_or(String::is_empty) {
        return Err(Failure::usage("", "no command is given")
            .hint("put it behind `--`, e.g. `millgrid submit -- echo hello`, or name a script"));
    }
    let mut chunks = Vec::new();
    let (array, limit) = array(&options, script.as_ref(), &mut chunks)?;
    let mut inputs = Vec::new();
    let mut files = Vec::new();
    for staged in options.input {
        match staged {
            Staged::Fetched(input) => inputs.push(input),
            Staged::Local { file, path } => files.push(local_file(&file, path, &mut chunks)?),
        }
    }
    let conditions = [
        (options.after, DependencyCondition::Success),
        (options.after_any, DependencyCondition::Any),
        (options.after_failed, DependencyCondition::Failure),
        (options.after_element, DependencyCondition::Element),
    ];
    let plain = conditions.into_iter().flat_map(|(jobs, condition)| {
        jobs.into_iter().map(move |job| (job, Dependency { condition: condition.into(), ..Dependency::default() }))
    });
    let by_code = options.after_exit.into_iter().map(|after| {
        let condition = DependencyCondition::ExitCode.into();
        (after.job, Dependency { job_id: 0, condition, exit_codes: after.codes })
    });
    let (mut after, mut after_last) = (Vec::new(), Vec::new());
    for (job, dependency) in plain.chain(by_code) {
        match job {
            JobRef::Id(job_id) => after.push(Dependency { job_id, ..dependency }),
            JobRef::Last => after_last.push(dependency),
        }
    }
    let name = options.name.unwrap_or_else(|| default_name(script.as_ref(), &command));
    let spec = JobSpec {
        name,
        queue: options.queue.or(queue.map(str::to_owned)).unwrap_or_default(),
        labels: options.label.into_iter().collect(),
        priority: options.priority.unwrap_or_default(),
        command,
        script: script.map(|script| Bytes::from(script.body)).unwrap_or_default(),
        env: variables(options.env)?,
        chdir: options.chdir.unwrap_or_default(),
        resources: Some(Resources {
            cpu_milli: options.cpus.unwrap_or(DEFAULT_CPU_MILLI),
            memory_mib: options.mem.unwrap_or_default(),
            gpus: options.gpus.unwrap_or_default(),
            scratch_gib: options.scratch.unwrap_or_default(),
        }),
        time_limit: options.time.map(proto_duration),
        queue_time_limit: options.queue_time.map(proto_duration),
        total_time_limit: options.total_time.map(proto_duration),
        retry: Some(options.retrying.policy(options.retries.unwrap_or_default(), options.mem)?),
        alternatives: options.needs.alt,
        licenses: needs::licenses(options.needs.license)?,
        constraints: needs::constraints(options.needs.constraint, options.needs.prefer)?,
        at_most_once: options.at_most_once,
        array,
        max_running: limit.unwrap_or_default(),
        max_failures: options.max_failures.unwrap_or_default(),
        inputs,
        outputs: options.output,
        files,
        after,
        hold: options.hold,
        grace: None,
        fork_server: None,
        answers: false,
    };
    check(&spec)?;
    Ok(Built { spec, chunks, after_last })
}

fn check(spec: &JobSpec) -> Result<(), Failure> {
    if !spec.chdir.is_empty() && !spec.chdir.starts_with('/') {
        return Err(Failure::usage("chdir", format!("`{}` is not absolute", spec.chdir))
            .hint("it is a directory on the worker; give its whole path"));
    }
    let retries = spec.retry.as_ref().map_or(0, |retry| retry.retries);
    if spec.at_most_once && retries > 0 {
        return Err(
            Failure::usage("retries", "a job with `--at-most-once` is never retried").hint("give one of the two")
        );
    }
    let mut paths: Vec<&str> = spec.inputs.iter().map(|input| input.path.as_str()).collect();
    paths.extend(spec.files.iter().map(|file| file.path.as_str()));
    paths.sort_unstable();
    if let Some(twice) = paths.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Failure::usage("in", format!("two inputs have the destination `{}`", twice[0]))
            .hint("give each its own, `SOURCE:PATH`"));
    }
    placeholders::check(spec)
}

/// `--out-optional` stands alone or with a `GLOB=PREFIX`; a word behind it that is none is the script.
fn split_optional_outputs(options: &mut Options, words: &mut Words) -> Result<(), Failure> {
    let mut all = false;
    for value in std::mem::take(&mut options.out_optional) {
        if value.contains("=s3://") {
            let output = staging::output(&value).map_err(|problem| Failure::usage("out-optional", problem))?;
            options.output.push(Output { optional: true, ..output });
            continue;
        }
        all = true;
        if !matches!(value.as_str(), "" | "1" | "true") {
            words.script.insert(0, value);
        }
    }
    if all {
        options.output.iter_mut().for_each(|output| output.optional = true);
    }
    Ok(())
}

fn array(
    options: &Options,
    script: Option<&Script>,
    chunks: &mut Vec<Bytes>,
) -> Result<(Option<TaskArray>, Option<u32>), Failure> {
    match (&options.array, &options.each_line) {
        (Some(_), Some(_)) => {
            Err(Failure::usage("array", "`--array` and `--each-line` exclude one another").hint("give one of the two"))
        }
        (Some(array), None) => {
            let limit = match (array.max_running, options.max_running) {
                (Some(one), Some(other)) if one != other => {
                    let message = format!("`%{one}` and `--max-running {other}` differ");
                    return Err(Failure::usage("array", message).hint("give one of the two"));
                }
                (one, other) => one.or(other),
            };
            Ok((Some(TaskArray { ranges: array.ranges.clone(), rows: None }), limit))
        }
        (None, Some(file)) => {
            if file == Path::new("-") && script.is_some_and(|script| script.name == "stdin") {
                return Err(Failure::usage("each-line", "stdin can't be both the script and the lines"));
            }
            let (array, rows) = rows::each_line(file)?;
            chunks.extend(rows.chunks);
            Ok((Some(array), options.max_running))
        }
        (None, None) => Ok((None, options.max_running)),
    }
}

fn local_file(file: &Path, path: String, chunks: &mut Vec<Bytes>) -> Result<LocalFile, Failure> {
    use std::os::unix::fs::PermissionsExt;
    let unreadable = |error: &std::io::Error| Failure::file("read --in", file, error);
    let metadata = fs::metadata(file).map_err(|error| unreadable(&error))?;
    if metadata.is_dir() {
        return Err(Failure::usage("in", format!("`{}` is a directory", file.display()))
            .hint("copy it to S3 with `millgrid cp`, and stage the prefix"));
    }
    if metadata.len() > MAX_LOCAL_FILE_BYTES {
        let message =
            format!("`{}` has {} bytes; a local file travels along up to 1 MiB", file.display(), metadata.len());
        return Err(Failure::usage("in", message).hint("copy it to S3 with `millgrid cp`, and stage it from there"));
    }
    let content = Bytes::from(fs::read(file).map_err(|error| unreadable(&error))?);
    let pieces = Chunks::of_bytes(&content);
    let blob = Some(pieces.blob());
    chunks.extend(pieces.chunks);
    Ok(LocalFile { path, blob, executable: metadata.permissions().mode() & 0o100 != 0 })
}

/// The environment: what is copied is taken as it is, braces and all.
fn variables(variables: Vec<Variable>) -> Result<std::collections::BTreeMap<String, String>, Failure> {
    let value = |variable: Variable| match variable {
        Variable::Given(name, value) => Ok((name, value)),
        Variable::Copied(name) => match env::var(&name) {
            Ok(value) => Ok((name, value.replace('{', "{{").replace('}', "}}"))),
            Err(env::VarError::NotPresent) => Err(Failure::usage("env", format!("`{name}` is not set here"))
                .hint(format!("give its value, `--env {name}=VALUE`"))),
            Err(env::VarError::NotUnicode(_)) => Err(Failure::usage("env", format!("`{name}` is not UTF-8 text"))),
        },
    };
    variables.into_iter().map(value).collect()
}

/// The program's or the script's own name.
fn default_name(script: Option<&Script>, command: &[String]) -> String {
    let program = command.first().map(String::as_str).unwrap_or_default();
    let name = script.map_or(program, |script| script.name.as_str());
    let base = name.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    // A name belongs to the job, for which a task's placeholder has no value.
    if base.is_empty() || !proto::template::placeholders(base).is_empty() { "job".to_owned() } else { base.to_owned() }
}

/// A span in the API's words.
pub fn proto_duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration { seconds: duration.as_secs() as i64, nanos: duration.subsec_nanos() as i32 }
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};
    use proto::v1::Cause;

    use super::*;

    fn try_build(arguments: &[&str]) -> Result<Built, Failure> {
        let (before, command) = match arguments.iter().position(|word| *word == "--") {
            Some(at) => (&arguments[..at], &arguments[at + 1..]),
            None => (arguments, &[][..]),
        };
        let parser = Options::augment_args(clap::Command::new("x").no_binary_name(true));
        let matches = parser.try_get_matches_from(before).map_err(|error| Failure::usage("", error))?;
        let options = Options::from_arg_matches(&matches).map_err(|error| Failure::usage("", error))?;
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        build(options, Words { script: Vec::new(), command }, Some("night"))
    }

    #[test]
    fn options_become_a_spec() {
        let built = try_build(&[
            "--cpus",
            "0.5",
            "--mem",
            "1.5G",
            "--time",
            "1h30m",
            "--retries",
            "3",
            "--array",
            "0-9:3%2",
            "--env",
            "K={index}",
            "--out",
            "a=s3://b/",
            "--out-optional",
            "--after",
            "41,42",
            "--after-any",
            "last",
            "--",
            "/bin/sim",
            "{index}",
        ])
        .unwrap();
        let spec = built.spec;
        assert_eq!(spec.name, "sim");
        assert_eq!(spec.queue, "night");
        assert_eq!(spec.resources.unwrap(), Resources { cpu_milli: 500, memory_mib: 1536, gpus: 0, scratch_gib: 0 });
        assert_eq!(spec.time_limit.unwrap().seconds, 5400);
        assert_eq!((spec.max_running, spec.retry.unwrap().retries), (2, 3));
        assert!(spec.outputs[0].optional);
        assert_eq!(spec.after.iter().map(|after| after.job_id).collect::<Vec<_>>(), [41, 42]);
        let any = DependencyCondition::Any.into();
        assert_eq!(built.after_last, [Dependency { condition: any, ..Dependency::default() }]);
    }

    #[test]
    fn needs_retries_and_limits_become_parts_of_the_spec() {
        let words = "--mem 2G --retries 3 --retry-on exit_code=75,76 --retry-on time_limit --mem-growth 1.5..8G \
                     --backoff 30s..10m --queue-time 1h --total-time 4h --constraint zone=a,b --constraint !slow \
                     --prefer lifecycle=spot --alt cpus=8,mem=16G --alt gpus=1 --license matlab --license ansys=2 \
                     --after-exit 41=3,4 --after-element 42,last --after-exit last=0 -- x";
        let built = try_build(&words.split_whitespace().collect::<Vec<_>>()).unwrap();
        let spec = built.spec;
        let retry = spec.retry.unwrap();
        let causes: Vec<Cause> = retry.rules.iter().map(|rule| rule.cause()).collect();
        assert_eq!(causes, [Cause::ExitCode, Cause::TimeLimit, Cause::OutOfMemory]);
        assert_eq!(retry.rules[0].exit_codes, [75, 76]);
        assert_eq!((retry.rules[2].memory_factor_milli, retry.rules[2].max_memory_mib), (1500, 8192));
        assert_eq!((retry.min_backoff.unwrap().seconds, retry.max_backoff.unwrap().seconds), (30, 600));
        let limits = (spec.queue_time_limit.unwrap().seconds, spec.total_time_limit.unwrap().seconds);
        assert_eq!(limits, (3600, 14_400));
        let constraints: Vec<_> =
            spec.constraints.iter().map(|one| (one.label.as_str(), one.negated, one.preferred)).collect();
        assert_eq!(constraints, [("zone", false, false), ("slow", true, false), ("lifecycle", false, true)]);
        let shapes: Vec<_> = spec.alternatives.iter().map(|one| (one.cpu_milli, one.memory_mib, one.gpus)).collect();
        assert_eq!(shapes, [(8000, 16 << 10, 0), (1000, 0, 1)]);
        assert_eq!(spec.licenses, [("ansys".to_owned(), 2), ("matlab".to_owned(), 1)].into());
        let after: Vec<_> = spec.after.iter().map(|one| (one.job_id, one.condition(), one.exit_codes.len())).collect();
        assert_eq!(after, [(42, DependencyCondition::Element, 0), (41, DependencyCondition::ExitCode, 2)]);
        let last: Vec<_> = built.after_last.iter().map(|one| (one.condition(), one.exit_codes.clone())).collect();
        assert_eq!(last, [(DependencyCondition::Element, vec![]), (DependencyCondition::ExitCode, vec![0])]);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_here() {
        let table: [(&[&str], &str); 26] = [
            (&[], "no command"),
            (&["--"], "no command"),
            (&["--cpus", "0", "--", "x"], "--cpus"),
            (&["--cpus", "-1", "--", "x"], "--cpus"),
            (&["--mem", "8", "--", "x"], "--mem"),
            (&["--time", "-1h", "--", "x"], "--time"),
            (&["--gpus", "-1", "--", "x"], "--gpus"),
            (&["--retries", "-1", "--", "x"], "--retries"),
            (&["--array", "", "--", "x"], "--array"),
            (&["--array", "0-9,3", "--", "x"], "--array"),
            (&["--array", "0-9%2", "--max-running", "3", "--", "x"], "--max-running"),
            (&["--", "x", "{line}"], "`{line}`"),
            (&["--in", "/no/such/file", "--", "x"], "--in"),
            (&["--in", "s3://b/k:x", "--in", "s3://b/l:x", "--", "x"], "--in"),
            (&["--chdir", "rel", "--", "x"], "--chdir"),
            (&["--at-most-once", "--retries", "1", "--", "x"], "--at-most-once"),
            (&["--mem-growth", "1.5", "--", "x"], "--mem-growth"),
            (&["--mem", "8G", "--mem-growth", "1.5..4G", "--", "x"], "--mem-growth"),
            (&["--retry-on", "bad_luck", "--", "x"], "--retry-on"),
            (&["--backoff", "10m..30s", "--", "x"], "--backoff"),
            (&["--constraint", "zone=", "--", "x"], "--constraint"),
            (&["--prefer", "", "--", "x"], "--prefer"),
            (&["--alt", "memory=8G", "--", "x"], "--alt"),
            (&["--license", "a", "--license", "a=2", "--", "x"], "--license"),
            (&["--after-exit", "41", "--", "x"], "--after-exit"),
            (&["--queue-time", "5", "--", "x"], "--queue-time"),
        ];
        for (arguments, named) in table {
            let failure = try_build(arguments).map(|built| built.spec).unwrap_err();
            assert!(failure.to_string().contains(named), "{arguments:?}: {failure}");
            assert_eq!(failure.exit_code(), 2, "{arguments:?}");
        }
    }

    #[test]
    fn a_large_local_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (small, large) = (folder.path().join("small"), folder.path().join("large"));
        fs::write(&small, "hello").unwrap();
        fs::write(&large, vec![0; (1 << 20) + 1]).unwrap();
        let built = try_build(&["--in", small.to_str().unwrap(), "--", "x"]).unwrap();
        assert_eq!((built.spec.files[0].path.as_str(), built.chunks.len()), ("small", 1));
        let failure = try_build(&["--in", large.to_str().unwrap(), "--", "x"]).unwrap_err();
        assert!(failure.to_string().contains("1 MiB"), "{failure}");
    }
}
