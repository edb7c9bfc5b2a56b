//! From what a submitter asks for to what the rules read, and back.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message;
use proto::internal::Refusal;
use proto::internal::{Dependency, JobSubmission, dependency::On};
use proto::v1::{IndexRange, Input, JobSpec, LocalFile, Output, Resources, Rows, TaskArray};

use crate::{limits, refusal::invalid};

/// The back-off of retries when the spec doesn't say, milliseconds (interfaces, section 2).
const BACKOFF_MS: (u64, u64) = (1_000, 300_000);

/// What placeholders may name in every job.
const PLACEHOLDERS: [&str; 3] = ["index", "job", "attempt"];

/// Checks what can be checked without the state, and takes the spec apart.
pub(crate) fn read(mut spec: JobSpec) -> Result<JobSubmission, Refusal> {
    if spec.command.is_empty() && spec.script.is_empty() {
        return Err(invalid("command", "there is neither a command nor a script", "give one behind `--`"));
    }
    if spec.command.first().is_some_and(|program| program.is_empty() && spec.script.is_empty()) {
        return Err(invalid("command", "the command is an empty string", "name a program"));
    }
    if spec.queue.is_empty() {
        spec.queue = "default".to_owned();
    }
    let asked = resources(spec.resources.take())?;
    spec.resources = Some(asked);
    check_texts(&spec)?;
    check_placeholders(&spec)?;
    for input in &spec.inputs {
        check_input(input)?;
    }
    for output in &spec.outputs {
        check_output(output)?;
    }
    for file in &spec.files {
        check_path("files", &file.path)?;
    }
    if let Some(missing) = missing_of_server(&spec) {
        let message = format!("it names `{missing}`, which isn't among the job's files");
        return Err(invalid("fork_server.files", message, "name files that travel along, 1 to 16 of them"));
    }
    if let Some(length) = spec.fork_server.as_ref().map(|server| server.group.len()).filter(|length| *length > 64) {
        return Err(invalid("fork_server.group", format!("it has {length} bytes"), "give 64 at most"));
    }
    let time_limit_ms = time_limit(spec.time_limit.as_ref(), "time_limit")?;
    let queue_time_limit_ms = time_limit(spec.queue_time_limit.as_ref(), "queue_time_limit")?;
    let total_time_limit_ms = time_limit(spec.total_time_limit.as_ref(), "total_time_limit")?;
    let alternatives =
        spec.alternatives.iter().map(|one| resources(Some(*one))).collect::<Result<Vec<Resources>, Refusal>>()?;
    spec.alternatives.clone_from(&alternatives);
    duration_ms(spec.grace.as_ref(), "grace")?;
    let retry = spec.retry.clone().unwrap_or_default();
    let min_backoff_ms = duration_ms(retry.min_backoff.as_ref(), "retry.min_backoff")?.unwrap_or(BACKOFF_MS.0);
    let max_backoff_ms =
        duration_ms(retry.max_backoff.as_ref(), "retry.max_backoff")?.unwrap_or(BACKOFF_MS.1.max(min_backoff_ms));
    if max_backoff_ms < min_backoff_ms {
        return Err(invalid("retry.max_backoff", "the longest back-off is below the shortest", "swap the two"));
    }
    let (ranges, is_array) = ranges(&mut spec)?;
    let after = std::mem::take(&mut spec.after);
    let hold = std::mem::take(&mut spec.hold);
    let blobs = blobs(&spec);
    let submission = JobSubmission {
        name: spec.name.clone(),
        queue: spec.queue.clone(),
        labels: spec.labels.clone(),
        priority: spec.priority,
        resources: Some(asked),
        ranges,
        is_array,
        retries: retry.retries,
        min_backoff_ms,
        max_backoff_ms,
        at_most_once: spec.at_most_once,
        max_running: spec.max_running,
        max_failures: spec.max_failures,
        has_outputs: !spec.outputs.is_empty(),
        hold,
        after: after
            .into_iter()
            .map(|edge| Dependency {
                on: Some(On::JobId(edge.job_id)),
                condition: edge.condition,
                exit_codes: edge.exit_codes,
            })
            .collect(),
        blobs,
        alternatives,
        constraints: spec.constraints.clone(),
        licenses: spec.licenses.clone(),
        time_limit_ms,
        queue_time_limit_ms,
        total_time_limit_ms,
        retry_rules: retry.rules,
        spec: Bytes::new(),
    };
    let spec = spec.encode_to_vec();
    if spec.len() > limits::SPEC_BYTES {
        let message = format!("the job takes {} bytes, {} at most", spec.len(), limits::SPEC_BYTES);
        return Err(invalid("spec", message, "put scripts and tables on S3 and stage them in with `--in`"));
    }
    Ok(JobSubmission { spec: spec.into(), ..submission })
}

/// The spec as it was submitted, with the resources that hold now.
pub(crate) fn write(spec: &Bytes, view: &scheduler::JobSubmissionView) -> Option<JobSpec> {
    let mut spec = JobSpec::decode(spec.clone()).ok()?;
    if view.is_array {
        spec.array.get_or_insert_default().ranges = view.ranges.clone();
    }
    spec.resources = Some(view.resources);
    spec.alternatives.clone_from(&view.alternatives);
    let limit = |limit_ms: u64| (limit_ms > 0).then(|| span(limit_ms));
    spec.time_limit = limit(view.time_limit_ms);
    spec.queue_time_limit = limit(view.queue_time_limit_ms);
    spec.total_time_limit = limit(view.total_time_limit_ms);
    (spec.priority, spec.max_running, spec.max_failures) = (view.priority, view.max_running, view.max_failures);
    spec.after = view.after.clone();
    spec.hold = view.held;
    Some(spec)
}

fn span(milliseconds: u64) -> prost_types::Duration {
    let nanos = (milliseconds % 1_000) as i32 * 1_000_000;
    prost_types::Duration { seconds: (milliseconds / 1_000) as i64, nanos }
}

/// 0: none.
fn time_limit(limit: Option<&prost_types::Duration>, field: &str) -> Result<u64, Refusal> {
    match duration_ms(limit, field)? {
        Some(0) => Err(invalid(field, "the time limit is zero", "leave it out for none, or give e.g. `90s`")),
        limit => Ok(limit.unwrap_or_default()),
    }
}

fn resources(asked: Option<Resources>) -> Result<Resources, Refusal> {
    let mut resources = asked.unwrap_or_default();
    if resources.cpu_milli == 0 {
        resources.cpu_milli = 1_000;
    }
    if resources.cpu_milli > 1_000_000_000 {
        return Err(invalid("resources.cpu_milli", "more than 10^6 cpus", "give cpus from 0.001 to 1000000"));
    }
    // 4096 TiB.
    if resources.memory_mib > 1 << 32 {
        return Err(invalid("resources.memory_mib", "more than 4096T of memory", "give at most 4096T"));
    }
    if resources.scratch_gib > 1 << 22 {
        return Err(invalid("resources.scratch_gib", "more than 4096T of scratch", "give at most 4096T"));
    }
    Ok(resources)
}

fn check_texts(spec: &JobSpec) -> Result<(), Refusal> {
    let printable = |text: &str| !text.chars().any(char::is_control);
    if spec.name.len() > 256 || !printable(&spec.name) {
        return Err(invalid("name", "a name has at most 256 bytes and no control characters", "shorten it"));
    }
    if spec.labels.len() > 64 {
        return Err(invalid("labels", format!("{} labels, 64 at most", spec.labels.len()), "leave some out"));
    }
    let bad_label = |(key, value): &(&String, &String)| {
        key.is_empty() || key.len() > 128 || value.len() > 256 || !printable(key) || !printable(value)
    };
    if let Some((key, _)) = spec.labels.iter().find(bad_label) {
        let message = format!("the label `{key}` is empty, too long or has control characters");
        return Err(invalid("labels", message, "keys have 1 to 128 bytes, values at most 256"));
    }
    let bad_variable = |name: &&String| name.is_empty() || name.contains('=') || name.contains('\0');
    if let Some(name) = spec.env.keys().find(bad_variable) {
        return Err(invalid("env", format!("`{name}` can't be a variable's name"), "write NAME=VALUE"));
    }
    let texts = spec.command.iter().chain(spec.env.values()).chain([&spec.chdir]);
    if texts.into_iter().any(|text| text.contains('\0')) {
        return Err(invalid("command", "a zero byte in the command, its environment or directory", "remove it"));
    }
    if !spec.chdir.is_empty() && !spec.chdir.starts_with('/') {
        let message = format!("`{}` is not an absolute path", spec.chdir);
        return Err(invalid("chdir", message, "give a path on the worker that begins with `/`"));
    }
    Ok(())
}

fn check_placeholders(spec: &JobSpec) -> Result<(), Refusal> {
    let rows = spec.array.as_ref().and_then(|array| array.rows.as_ref());
    let of_rows = rows.iter().flat_map(|rows| rows.placeholders.iter().map(String::as_str));
    let known: BTreeSet<&str> = PLACEHOLDERS.into_iter().chain(of_rows).collect();
    let command = spec.command.iter().map(|text| ("command", text));
    let env = spec.env.values().map(|text| ("env", text));
    let inputs = spec.inputs.iter().flat_map(|input| [("inputs", &input.source), ("inputs", &input.path)]);
    let outputs = spec.outputs.iter().flat_map(|output| [("outputs", &output.glob), ("outputs", &output.prefix)]);
    if let Some(other) = proto::template::placeholders(&spec.name).into_iter().find(|name| *name != "job") {
        let message = format!("the placeholder {{{other}}} has no value in a name; known is {{job}}");
        return Err(invalid("name", message, "write {{ and }} for braces that stand for themselves"));
    }
    for (field, text) in command.chain(env).chain(inputs).chain(outputs) {
        if let Some(name) = proto::template::placeholders(text).into_iter().find(|name| !known.contains(name)) {
            let known: Vec<String> = known.iter().map(|name| format!("{{{name}}}")).collect();
            let message = format!("the placeholder {{{name}}} has no value here; known are {}", known.join(", "));
            return Err(invalid(field, message, "write {{ and }} for braces that stand for themselves"));
        }
    }
    Ok(())
}

fn check_input(input: &Input) -> Result<(), Refusal> {
    let source = &input.source;
    let known =
        source.strip_prefix("s3://").map(|rest| rest.split_once('/').is_some_and(|(bucket, _)| !bucket.is_empty()));
    let known = known.or_else(|| source.strip_prefix("job:").map(|rest| rest.contains('/')));
    if known != Some(true) {
        let message = format!("the input `{source}` is no source");
        return Err(invalid("inputs", message, "write s3://bucket/key, s3://bucket/prefix/ or job:41/PATH"));
    }
    check_path("inputs", &input.path)
}

fn check_output(output: &Output) -> Result<(), Refusal> {
    let bucket = output.prefix.strip_prefix("s3://").map(|rest| rest.split('/').next().unwrap_or_default());
    if bucket.is_none_or(str::is_empty) {
        let message = format!("the output prefix `{}` is no place on S3", output.prefix);
        return Err(invalid("outputs", message, "write GLOB=s3://bucket/prefix/"));
    }
    check_path("outputs", &output.glob)
}

/// Paths stay below the task's directory.
fn check_path(field: &str, path: &str) -> Result<(), Refusal> {
    let hint = "give a path below the task's directory";
    if path.is_empty() {
        return Err(invalid(field, "an empty path", hint));
    }
    if path.starts_with('/') {
        return Err(invalid(field, format!("the path `{path}` is absolute"), hint));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(invalid(field, format!("the path `{path}` contains `..`"), hint));
    }
    Ok(())
}

pub(crate) fn duration_ms(duration: Option<&prost_types::Duration>, field: &str) -> Result<Option<u64>, Refusal> {
    let Some(duration) = duration else { return Ok(None) };
    let negative = duration.seconds < 0 || duration.nanos < 0;
    // A thousand years: below what any sum of milliseconds overflows at.
    if negative || duration.seconds > 31_556_952_000 {
        return Err(invalid(field, "a duration that is negative or above a thousand years", "give e.g. `1h30m`"));
    }
    Ok(Some(duration.seconds as u64 * 1_000 + duration.nanos as u64 / 1_000_000))
}

/// The ranges, taken out of the spec, and whether the job is an array.
fn ranges(spec: &mut JobSpec) -> Result<(Vec<IndexRange>, bool), Refusal> {
    let Some(TaskArray { ranges, rows }) = spec.array.as_mut() else {
        return Ok((vec![IndexRange { first: 0, last: 0, step: 1 }], false));
    };
    let mut ranges = std::mem::take(ranges);
    if let Some(rows) = rows {
        let count = row_count(rows)?;
        if ranges.is_empty() && count > 0 {
            ranges = vec![IndexRange { first: 0, last: count - 1, step: 1 }];
        }
        let tasks: u64 = ranges.iter().map(IndexRange::count).sum();
        if tasks != count && count > 0 {
            let message = format!("{tasks} tasks, but {count} rows");
            return Err(invalid("array.rows", message, "give one row for each task"));
        }
    }
    proto::ranges::validate(&ranges)
        .map_err(|malformed| invalid("array", malformed.to_string(), "write e.g. `--array 0-99` or `0-9,20-30:2`"))?;
    Ok((ranges, true))
}

fn row_count(rows: &Rows) -> Result<u64, Refusal> {
    let chunks = rows.blob.as_ref().map_or(0, |blob| blob.chunk_hashes.len());
    if chunks != rows.rows_in_chunk.len() {
        let message = format!("{chunks} chunks, but {} row counts", rows.rows_in_chunk.len());
        return Err(invalid("array.rows", message, "give the number of rows of each chunk"));
    }
    Ok(rows.rows_in_chunk.iter().map(|rows| u64::from(*rows)).sum())
}

/// A path that the job's fork server names and the job hasn't.
fn missing_of_server(spec: &JobSpec) -> Option<&str> {
    let wanted = &spec.fork_server.as_ref()?.files;
    let has = |path: &String| spec.files.iter().any(|file| file.path == *path);
    match wanted.len() {
        1..=16 => wanted.iter().find(|path| !has(path)).map(String::as_str),
        _ => Some(""),
    }
}

/// Hashes of everything that must live as long as the job.
fn blobs(spec: &JobSpec) -> Vec<Bytes> {
    let rows = spec.array.iter().filter_map(|array| array.rows.as_ref()).filter_map(|rows| rows.blob.as_ref());
    let files = spec.files.iter().filter_map(|file: &LocalFile| file.blob.as_ref());
    let hashes: BTreeSet<Bytes> = rows.chain(files).flat_map(|blob| blob.chunk_hashes.iter().cloned()).collect();
    hashes.into_iter().collect()
}
