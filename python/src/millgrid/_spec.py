"""From options to what is submitted: the same options as on the command line, with the same checks."""

from __future__ import annotations

import datetime
import itertools
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Union

from . import _grammar as grammar
from ._grammar import CHUNK_BYTES, refuse
from ._wire import jobs

if TYPE_CHECKING:
    from ._jobs import Job

#: A local file that travels along is at most so large.
MAX_LOCAL_FILE_BYTES = 1 << 20

Time = Union[str, datetime.timedelta]
JobRef = Union["Job", int]
JobRefs = Union[JobRef, Sequence[JobRef]]
#: Stores bytes of at most 256 KiB, and gives their hash.
Store = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Output:
    """Where outputs go; `optional`: a pattern without a match is fine."""

    prefix: str
    optional: bool = False


class Needs(TypedDict, total=False):
    """What tasks need and how they are treated: options of jobs and of functions alike, but for `env`."""

    #: To show; needs not be unique.
    name: str
    #: Queue to wait in; the context's, else `default`.
    queue: str
    labels: Mapping[str, str]
    #: Higher goes first, -1000 to 1000; 0 by default.
    priority: int
    #: Directory on the worker to start in; the attempt's own by default.
    chdir: str
    #: Cpus of one task, 0.001 and up; 1 by default.
    cpus: float | str
    #: Memory of one task, e.g. `8G`; not reserved by default.
    mem: str
    gpus: int
    #: Scratch space of one task, e.g. `50G`.
    scratch: str
    #: Time limit of one attempt, e.g. `1h30m`.
    time: Time
    #: How long a task may wait for its first start.
    queue_time: Time
    #: How long the job may take in all.
    total_time: Time
    #: Further attempts after a failed one; 0 by default.
    retries: int
    #: Causes that are tried again: `exit_code`, `exit_code=75` or 75, `signal`, `out_of_memory`, `time_limit`.
    retry_on: Iterable[str | int]
    #: Wait before the next attempt, doubling: `1s..5m`.
    backoff: str
    #: After running out of memory, so many times as much: `1.5..32G`.
    mem_growth: str | float
    at_most_once: bool
    #: Tasks that may run at once.
    max_running: int
    #: End the job when so many of its tasks have failed.
    max_failures: int
    #: Start after these have succeeded, ended, failed.
    after: JobRefs
    after_any: JobRefs
    after_failed: JobRefs
    #: Start after a job has ended with one of these exit codes; 0 is its success.
    after_exit: Mapping[JobRef, Sequence[int]]
    #: Task by task, between arrays of one size.
    after_element: JobRefs
    hold: bool
    #: Between SIGTERM and SIGKILL; 30 s by default.
    grace: Time
    #: Other resources instead, e.g. `[{"cpus": 8, "mem": "16G"}]`; the first that fit are taken.
    alternatives: Sequence[Mapping[str, object]]
    #: Labels that a worker must have: `zone=a,b`, `lifecycle!=spot`, `gpu`, `!gpu`.
    constraints: Sequence[str]
    #: The same, but only better.
    prefer: Sequence[str]
    #: How many of each license a task takes.
    licenses: Mapping[str, int]


class Options(Needs, total=False):
    """Options of a job of programs."""

    #: Variables of the tasks; placeholders are replaced.
    env: Mapping[str, str]
    #: Indexes: `0-999%50`, a number of tasks, or a range.
    array: str | int | range
    #: A task for each: strings are `{line}`, mappings are `{column}` and `{row.column}`.
    each: Iterable[str | Mapping[str, Any]]
    #: A task for each combination of the values, `{name}`; the first name varies slowest.
    sweep: Mapping[str, Iterable[Any]]
    #: Pair the values of `sweep` instead of crossing them.
    zip: bool
    #: Path in the task's directory -> `s3://bucket/key`, `job:41/PATH` or a local file up to 1 MiB.
    inputs: Mapping[str, str | os.PathLike[str]]
    #: Pattern -> `s3://bucket/prefix/`.
    outputs: Mapping[str, str | Output]
    #: A script that travels along; its first line says what runs it, else /bin/sh. The command are its arguments.
    script: str | bytes
    #: Name of this request: the same again is the same job.
    request_id: str


def build(command: Sequence[str] | str, options: Options, queue: str, store: Store) -> jobs.JobSpec:
    """A complete spec; what it refers to is stored on the way.

    Raises:
        InvalidArgument: An option can't be meant; `field` names it.
    """
    unknown = set(options) - set(Options.__annotations__) - set(Needs.__annotations__)
    if unknown:
        raise refuse(sorted(unknown)[0], "there is no such option", _near(sorted(unknown)[0]))
    words = command.split() if isinstance(command, str) else [str(word) for word in command]
    script = options.get("script", b"")
    script = script.encode() if isinstance(script, str) else script
    if not script and not (words and words[0]):
        raise refuse("command", "no command is given", 'e.g. `client.submit(["echo", "hello"])`, or `script=`')
    spec = needs(options, queue, options.get("env", {}))
    spec.name = options.get("name") or _default_name(words)
    spec.command.extend(words)
    spec.script = script
    _tasks(spec, options, store)
    for path, source in options.get("inputs", {}).items():
        _input(spec, path, source, store)
    for glob, output in options.get("outputs", {}).items():
        to = output if isinstance(output, Output) else Output(output)
        _below(glob, "outputs")
        if not re.match(r"s3://[^/]+", to.prefix):
            raise refuse("outputs", f"`{to.prefix}` is not `s3://bucket/prefix/`", "e.g. 's3://lab/out/{job}/'")
        spec.outputs.add(glob=glob, prefix=to.prefix, optional=to.optional)
    _check_placeholders(spec)
    return spec


def needs(options: Needs, queue: str, variables: Mapping[str, str]) -> jobs.JobSpec:
    """The part of a spec that functions have, too."""
    spec = jobs.JobSpec(
        name=options.get("name", ""),
        queue=options.get("queue", queue),
        labels=dict(options.get("labels", {})),
        priority=_within("priority", options.get("priority", 0), -1000, 1000),
        chdir=options.get("chdir", ""),
        at_most_once=options.get("at_most_once", False),
        max_running=_within("max_running", options.get("max_running", 0), 0, 2**32 - 1),
        max_failures=_within("max_failures", options.get("max_failures", 0), 0, 2**32 - 1),
        hold=options.get("hold", False),
        licenses=dict(options.get("licenses", {})),
    )
    spec.env.update({str(name): str(value) for name, value in variables.items()})
    for name in spec.env:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise refuse("env", f"`{name}` is no name of a variable")
    if spec.chdir and not spec.chdir.startswith("/"):
        raise refuse("chdir", f"`{spec.chdir}` is not absolute", "it is a directory on the worker; give its whole path")
    asked: dict[str, object] = {"cpus": options.get("cpus", 1)}
    asked.update({"mem": options.get("mem"), "gpus": options.get("gpus"), "scratch": options.get("scratch")})
    for name, value in asked.items():
        if value is None:
            continue
        spec.resources.MergeFrom(_one_resource(name, value))
    spec.alternatives.extend(grammar.resources("alternatives", one) for one in options.get("alternatives", ()))
    spec.constraints.extend(grammar.constraint("constraints", one) for one in options.get("constraints", ()))
    spec.constraints.extend(grammar.constraint("prefer", one, preferred=True) for one in options.get("prefer", ()))
    if len(spec.constraints) > 32:
        raise refuse("constraints", "more than 32, with those of `prefer`", "put values of one label into one: `zone=a,b`")
    for field, value in (
        ("time", options.get("time")),
        ("queue_time", options.get("queue_time")),
        ("total_time", options.get("total_time")),
        ("grace", options.get("grace")),
    ):
        if value is not None:
            target = {"grace": spec.grace, "queue_time": spec.queue_time_limit, "total_time": spec.total_time_limit}
            target.get(field, spec.time_limit).CopyFrom(grammar.duration(field, value))
    _retries(spec, options)
    _after(spec, options)
    return spec


def _one_resource(name: str, value: object) -> jobs.Resources:
    if name == "cpus" and isinstance(value, (int, float, str)):
        return jobs.Resources(cpu_milli=grammar.cpu_milli("cpus", value))
    if name == "gpus" and isinstance(value, int) and value >= 0:
        return jobs.Resources(gpus=value)
    if name == "mem":
        return jobs.Resources(memory_mib=grammar.mib("mem", value))  # type: ignore[arg-type]
    if name == "scratch":
        return jobs.Resources(scratch_gib=grammar.gib("scratch", value))  # type: ignore[arg-type]
    raise refuse(name, f"{value!r} can't be meant")


def _within(field: str, value: int, low: int, high: int) -> int:
    if not isinstance(value, int) or not low <= value <= high:
        raise refuse(field, f"{value!r} is not a whole number from {low} to {high}")
    return value


def _retries(spec: jobs.JobSpec, options: Needs) -> None:
    spec.retry.retries = _within("retries", options.get("retries", 0), 0, 1000)
    if spec.at_most_once and spec.retry.retries:
        raise refuse("retries", "a job with `at_most_once` is never retried", "give one of the two")
    if "backoff" in options:
        low, high = grammar.backoff("backoff", options["backoff"])
        spec.retry.min_backoff.CopyFrom(low)
        spec.retry.max_backoff.CopyFrom(high)
    asked = options.get("retry_on", ())
    rules = grammar.retry_rules("retry_on", [asked] if isinstance(asked, (str, int)) else asked)
    if "mem_growth" in options:
        factor, most = grammar.growth("mem_growth", options["mem_growth"])
        if not spec.resources.memory_mib:
            hint = "say with `mem` how much the first attempt gets"
            raise refuse("mem_growth", "memory can't grow that isn't asked for", hint)
        if most and most < spec.resources.memory_mib:
            raise refuse("mem_growth", "its maximum is less than `mem`", "it is what the last attempt may have")
        rules = rules or grammar.retry_rules("retry_on", ("exit_code", "signal", "out_of_memory", "time_limit"))
        if all(rule.cause != jobs.CAUSE_OUT_OF_MEMORY for rule in rules):
            rules.append(jobs.RetryRule(cause=jobs.CAUSE_OUT_OF_MEMORY))
        for rule in rules:
            if rule.cause == jobs.CAUSE_OUT_OF_MEMORY:
                rule.memory_factor_milli, rule.max_memory_mib = factor, most
    spec.retry.rules.extend(rules)


def _after(spec: jobs.JobSpec, options: Needs) -> None:
    plain = (
        (options.get("after", ()), jobs.DEPENDENCY_CONDITION_SUCCESS),
        (options.get("after_any", ()), jobs.DEPENDENCY_CONDITION_ANY),
        (options.get("after_failed", ()), jobs.DEPENDENCY_CONDITION_FAILURE),
        (options.get("after_element", ()), jobs.DEPENDENCY_CONDITION_ELEMENT),
    )
    for refs, condition in plain:
        for ref in refs if isinstance(refs, Sequence) else (refs,):
            spec.after.add(job_id=job_id(ref), condition=condition)
    for ref, codes in options.get("after_exit", {}).items():
        spec.after.add(job_id=job_id(ref), condition=jobs.DEPENDENCY_CONDITION_EXIT_CODE, exit_codes=codes)


def job_id(ref: JobRef) -> int:
    """The number of a job."""
    number = ref if isinstance(ref, int) else ref.id
    if number < 1:
        raise refuse("after", f"{number} is no job's number")
    return number


def _tasks(spec: jobs.JobSpec, options: Options, store: Store) -> None:
    given = [name for name in ("array", "each", "sweep") if name in options]
    if len(given) > 1:
        raise refuse(given[0], f"`{given[0]}` and `{given[1]}` exclude one another", "give one of the two")
    if "array" in options:
        ranges, limit = grammar.array("array", options["array"])
        if limit and spec.max_running not in (0, limit):
            raise refuse("array", f"`%{limit}` and `max_running={spec.max_running}` differ", "give one of the two")
        spec.max_running = limit or spec.max_running
        spec.array.ranges.extend(ranges)
    elif "each" in options:
        add_rows(spec, options["each"], store)
    elif "sweep" in options:
        add_rows(spec, sweep_rows(options["sweep"], options.get("zip", False)), store)


def sweep_rows(sweep: Mapping[str, Iterable[Any]], paired: bool) -> Iterable[dict[str, Any]]:
    """A row for each combination, or for each pair."""
    values = [list(column) for column in sweep.values()]
    if paired and len({len(column) for column in values}) > 1:
        lengths = ", ".join(f"`{name}` {len(column)}" for name, column in zip(sweep, values))
        raise refuse("sweep", f"values that are paired must be equally many: {lengths}")
    combined = zip(*values) if paired else itertools.product(*values)
    return (dict(zip(sweep, one)) for one in combined)


def add_rows(spec: jobs.JobSpec, rows: Iterable[Any], store: Store) -> None:
    """A task for each row; rows are stored as JSON, one a line, in chunks that no row spans."""
    chunk, in_chunk, total, size = bytearray(), 0, 0, 0
    names: dict[str, None] = {}
    target = spec.array.rows

    def flush() -> None:
        nonlocal chunk, in_chunk
        if in_chunk:
            target.blob.chunk_hashes.append(store(bytes(chunk)))
            target.rows_in_chunk.append(in_chunk)
            chunk, in_chunk = bytearray(), 0

    for row in rows:
        if isinstance(row, Mapping):
            for name in row:
                names.update({str(name): None, f"row.{name}": None})
        else:
            names["line"] = None
        try:
            line = json.dumps(row, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
        except TypeError as error:
            raise refuse("rows", f"row {total} is no JSON: {error}") from error
        if len(line) > CHUNK_BYTES:
            raise refuse("rows", f"row {total} has more than 256 KiB", "stage large inputs, and give their names")
        if len(chunk) + len(line) > CHUNK_BYTES:
            flush()
        chunk += line
        in_chunk, total, size = in_chunk + 1, total + 1, size + len(line)
    flush()
    if total == 0:
        raise refuse("rows", "the array is empty: there is no row", "give at least one")
    target.blob.size = size
    target.placeholders.extend(names)
    spec.array.ranges.add(first=0, last=total - 1, step=1)


def add_file(spec: jobs.JobSpec, path: str, content: bytes, store: Store, *, executable: bool = False) -> None:
    """A small file that travels along."""
    pieces = (content[at : at + CHUNK_BYTES] for at in range(0, len(content), CHUNK_BYTES))
    blob = jobs.Blob(chunk_hashes=[store(piece) for piece in pieces], size=len(content))
    spec.files.add(path=path, blob=blob, executable=executable)


def _input(spec: jobs.JobSpec, path: str, source: str | os.PathLike[str], store: Store) -> None:
    _below(path, "inputs")
    text = os.fspath(source)
    if text.startswith("s3://"):
        if not re.match(r"s3://[^/]+/", text):
            raise refuse("inputs", f"`{text}` is not `s3://bucket/key`", "a trailing `/` means all below it")
    elif text.startswith("job:"):
        if not re.match(r"job:\d+(\.(\d+|\{[A-Za-z_][A-Za-z0-9_.]*\}))?/.", text):
            raise refuse("inputs", f"`{text}` is not `job:41/PATH` or `job:41.7/PATH`")
    elif "://" in text:
        raise refuse("inputs", f"`{text}` can't be staged", "sources are `s3://bucket/key`, `job:41/PATH` or a local file")
    else:
        file = Path(text)
        try:
            if file.stat().st_size > MAX_LOCAL_FILE_BYTES:
                hint = "copy it to S3, and stage it from there"
                raise refuse("inputs", f"`{file}` has more than 1 MiB; only smaller ones travel along", hint)
            add_file(spec, path, file.read_bytes(), store, executable=os.access(file, os.X_OK))
        except OSError as error:
            raise refuse("inputs", f"can't read `{file}`: {error.strerror}") from error
        return
    spec.inputs.add(source=text, path=path)


def _below(path: str, field: str) -> None:
    if not path or path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise refuse(field, f"`{path}` is no path below the task's directory")


def _check_placeholders(spec: jobs.JobSpec) -> None:
    known = {"index", "job", "attempt", *spec.array.rows.placeholders}
    places = [("command", word) for word in spec.command] + [("env", value) for value in spec.env.values()]
    places += [("inputs", text) for one in spec.inputs for text in (one.source, one.path)]
    places += [("outputs", text) for one in spec.outputs for text in (one.glob, one.prefix)] + [("name", spec.name)]
    for field, text in places:
        for name in grammar.placeholders(text):
            if name not in known:
                hint = f"write `{{{{{name}}}}}` if the braces are meant as they stand"
                raise refuse(field, f"the placeholder `{{{name}}}` has no value", hint)


def _default_name(words: Sequence[str]) -> str:
    base = words[0].rstrip("/").rsplit("/", 1)[-1] if words else ""
    return base if base and not grammar.placeholders(base) else "job"


def _near(name: str) -> str:
    import difflib

    known = [*Options.__annotations__, *Needs.__annotations__]
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean `{near[0]}`?" if near else f"there are: {', '.join(sorted(set(known)))}"
