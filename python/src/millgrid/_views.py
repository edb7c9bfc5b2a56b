"""What people see of jobs, tasks, queues and workers: frozen records with the names of the JSON schema."""

from __future__ import annotations

import datetime
import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, overload

from google.protobuf.timestamp_pb2 import Timestamp

from ._wire import Message, jobs, queues, workers

if TYPE_CHECKING:
    import pandas
    import polars


def word(enum: Any, value: int) -> str | None:
    """The lower-case word of an enum's value; none for the unspecified one."""
    if value == 0:
        return None
    name: str = enum.Name(value)
    prefixes = {"JobState": "JOB_STATE_", "TaskState": "TASK_STATE_", "WaitReason": "WAIT_REASON_"}
    prefix = prefixes.get(enum.DESCRIPTOR.name, f"{_upper(enum.DESCRIPTOR.name)}_")
    return name.removeprefix(prefix).lower()


def _upper(name: str) -> str:
    return "".join(f"_{letter}" if letter.isupper() and at else letter for at, letter in enumerate(name)).upper()


def moment(message: Message, name: str) -> datetime.datetime | None:
    """A time in UTC; none when it is absent."""
    if not message.HasField(name):
        return None
    stamp: Timestamp = getattr(message, name)
    return datetime.datetime.fromtimestamp(stamp.seconds, datetime.timezone.utc) + datetime.timedelta(
        microseconds=stamp.nanos // 1000
    )


def _exit_code(message: jobs.Job | jobs.Task | jobs.Attempt | jobs.FailureGroup) -> int | None:
    return message.exit_code if message.HasField("exit_code") else None


class _Html:
    """A small table for notebooks, made of the record's fields."""

    def _repr_html_(self) -> str:
        return table([self], [one.name for one in fields(self)])  # type: ignore[arg-type]


def table(rows: Iterable[object], columns: Sequence[str]) -> str:
    """An HTML table of some attributes."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(_cell(getattr(row, name)))}</td>" for name in columns) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime.datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    return f"{value:.3f}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class TaskCounts(_Html):
    """How many tasks of a job are in each state."""

    waiting: int
    queued: int
    leased: int
    running: int
    succeeded: int
    failed: int
    cancelled: int
    skipped: int

    @property
    def ended(self) -> int:
        """In whatever way."""
        return self.succeeded + self.failed + self.cancelled + self.skipped

    @classmethod
    def of(cls, counts: jobs.TaskCounts) -> TaskCounts:
        """From the wire."""
        return cls(**{one.name: getattr(counts, one.name) for one in fields(cls)})


@dataclass(frozen=True)
class FailureGroup(_Html):
    """Failed tasks of one kind; `indexes` are some of them, lowest first."""

    cause: str | None
    exit_code: int | None
    signal: int
    count: int
    indexes: tuple[int, ...]
    detail: str


@dataclass(frozen=True)
class JobInfo(_Html):
    """A job as it stood when the grid was asked. Times are UTC."""

    id: int
    name: str
    state: str
    held: bool
    queue: str
    owner: str
    labels: Mapping[str, str]
    priority: int
    task_count: int
    tasks: TaskCounts
    exit_code: int | None
    cause: str | None
    reason: str
    create_time: datetime.datetime | None
    start_time: datetime.datetime | None
    end_time: datetime.datetime | None
    failures: tuple[FailureGroup, ...]

    @property
    def ended(self) -> bool:
        """Whether nothing of it will run any more, unless it is retried."""
        return self.state in ("succeeded", "failed", "cancelled", "skipped")

    @classmethod
    def of(cls, job: jobs.Job) -> JobInfo:
        """From the wire."""
        failures = tuple(
            FailureGroup(word(jobs.Cause, one.cause), _exit_code(one), one.signal, one.count, tuple(one.indexes),
                         one.detail)
            for one in job.failures
        )
        return cls(
            job.id, job.name, word(jobs.JobState, job.state) or "", job.held, job.queue, job.owner, dict(job.labels),
            job.priority, job.task_count, TaskCounts.of(job.tasks), _exit_code(job), word(jobs.Cause, job.cause),
            job.reason, moment(job, "create_time"), moment(job, "start_time"), moment(job, "end_time"), failures,
        )  # fmt: skip


@dataclass(frozen=True)
class Attempt(_Html):
    """One execution of a task. `seconds` and `cpu_seconds` by the worker's own clock."""

    number: int
    state: str | None
    exit_code: int | None
    signal: int
    cause: str | None
    detail: str
    worker: str
    start_time: datetime.datetime | None
    end_time: datetime.datetime | None
    seconds: float
    cpu_seconds: float
    max_memory_mib: int

    @classmethod
    def of(cls, one: jobs.Attempt) -> Attempt:
        """From the wire."""
        return cls(
            one.number, word(jobs.TaskState, one.state), _exit_code(one), one.signal, word(jobs.Cause, one.cause),
            one.detail, one.worker, moment(one, "start_time"), moment(one, "end_time"), one.seconds, one.cpu_seconds,
            one.max_memory_mib,
        )  # fmt: skip


@dataclass(frozen=True)
class Task(_Html):
    """One task of a job. `attempt` is the number of the latest; 0: none yet."""

    job_id: int
    index: int
    state: str
    attempt: int
    exit_code: int | None
    cause: str | None
    detail: str
    worker: str
    create_time: datetime.datetime | None
    start_time: datetime.datetime | None
    end_time: datetime.datetime | None
    seconds: float
    cpu_seconds: float
    max_memory_mib: int
    attempts: tuple[Attempt, ...] = ()

    @classmethod
    def of(cls, task: jobs.Task) -> Task:
        """From the wire."""
        return cls(
            task.job_id, task.index, word(jobs.TaskState, task.state) or "", task.attempt, _exit_code(task),
            word(jobs.Cause, task.cause), task.detail, task.worker, moment(task, "create_time"),
            moment(task, "start_time"), moment(task, "end_time"), task.seconds, task.cpu_seconds, task.max_memory_mib,
            tuple(Attempt.of(one) for one in task.attempts),
        )  # fmt: skip


#: Columns of a table of tasks.
TASK_COLUMNS = (
    "index", "state", "attempt", "exit_code", "cause", "worker", "create_time", "start_time", "end_time", "seconds",
    "cpu_seconds", "max_memory_mib",
)  # fmt: skip


class Tasks(Sequence[Task]):
    """Tasks of a job, in the order of the array; a data frame by one call."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._tasks = tuple(tasks)

    @overload
    def __getitem__(self, at: int) -> Task: ...
    @overload
    def __getitem__(self, at: slice) -> Tasks: ...
    def __getitem__(self, at: int | slice) -> Task | Tasks:
        return Tasks(self._tasks[at]) if isinstance(at, slice) else self._tasks[at]

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(self._tasks)

    def __repr__(self) -> str:
        return f"<{len(self._tasks)} tasks>"

    def _repr_html_(self) -> str:
        return table(self._tasks[:50], TASK_COLUMNS) + ("" if len(self) <= 50 else f"<p>of {len(self)} tasks</p>")

    def columns(self) -> dict[str, list[Any]]:
        """A list of values for each column."""
        return {name: [getattr(task, name) for task in self._tasks] for name in TASK_COLUMNS}

    def to_pandas(self) -> pandas.DataFrame:
        """A pandas frame, one row a task. Needs pandas."""
        import pandas

        frame = pandas.DataFrame(self.columns())
        for name in ("create_time", "start_time", "end_time"):
            frame[name] = pandas.to_datetime(frame[name], utc=True)
        frame["exit_code"] = frame["exit_code"].astype("Int64")
        return frame

    def to_polars(self) -> polars.DataFrame:
        """A polars frame, one row a task. Needs polars."""
        import polars

        whole = {"index": polars.UInt64, "attempt": polars.UInt32, "exit_code": polars.Int32, "cause": polars.String}
        times = dict.fromkeys(("create_time", "start_time", "end_time"), polars.Datetime("us", "UTC"))
        return polars.DataFrame(self.columns(), schema_overrides={**whole, **times})


@dataclass(frozen=True)
class Reason(_Html):
    """Why a task waits: the word, how many workers it holds for, and what would change it."""

    reason: str
    workers: int
    detail: str
    advice: str


@dataclass(frozen=True)
class Explanation(_Html):
    """Why a job or a task waits, why it failed, or where it runs."""

    job_id: int
    index: int | None
    state: str
    summary: str
    reasons: tuple[Reason, ...]
    position: int | None
    ahead: int | None
    estimated_start_time: datetime.datetime | None
    attempts: tuple[Attempt, ...]

    def __str__(self) -> str:
        lines = [self.summary]
        lines += [f"  {one.reason} ({one.workers} workers): {one.detail}" + (f"; {one.advice}" if one.advice else "")
                  for one in self.reasons]
        return "\n".join(lines)

    @classmethod
    def of(cls, one: jobs.Explanation) -> Explanation:
        """From the wire."""
        state = word(jobs.TaskState, one.state) or word(jobs.JobState, one.job_state) or ""
        optional = {name: getattr(one, name) if one.HasField(name) else None for name in ("index", "position", "ahead")}
        reasons = tuple(
            Reason(word(jobs.WaitReason, why.reason) or "", why.workers, why.detail, why.advice) for why in one.reasons
        )
        return cls(
            one.job_id, optional["index"], state, one.summary, reasons, optional["position"], optional["ahead"],
            moment(one, "estimated_start_time"), tuple(Attempt.of(attempt) for attempt in one.attempts),
        )  # fmt: skip


@dataclass(frozen=True)
class OutputObject(_Html):
    """An object that an accepted attempt published; `size` in bytes."""

    index: int
    attempt: int
    path: str
    url: str
    size: int
    etag: str


@dataclass(frozen=True)
class Event(_Html):
    """A change of a job (`index` is none) or of one of its tasks."""

    job_id: int
    index: int | None
    state: str
    attempt: int | None
    worker: str
    cause: str | None
    exit_code: int | None


@dataclass(frozen=True)
class Plan(_Html):
    """What fits where, without submitting anything."""

    task_count: int
    workers_that_fit: int
    workers_free_now: int
    workers: int
    tasks_startable_now: int
    reasons: tuple[Reason, ...]
    #: Why no pool could ever run it; empty when one could.
    infeasible: str

    @classmethod
    def of(cls, one: jobs.PlanJobsResponse.JobPlan) -> Plan:
        """From the wire."""
        reasons = tuple(
            Reason(word(jobs.WaitReason, why.reason) or "", why.workers, why.detail, why.advice) for why in one.reasons
        )
        return cls(one.task_count, one.workers_that_fit, one.workers_free_now, one.workers, one.tasks_startable_now,
                   reasons, one.infeasible)


@dataclass(frozen=True)
class Worker(_Html):
    """A worker; cpus in thousandths, memory in MiB, scratch in GiB."""

    name: str
    pool: str
    state: str
    labels: Mapping[str, str]
    cpu_milli: int
    memory_mib: int
    gpus: int
    scratch_gib: int
    free_cpu_milli: int
    free_memory_mib: int
    running: int
    join_time: datetime.datetime | None
    reason: str

    @classmethod
    def of(cls, one: workers.Worker) -> Worker:
        """From the wire."""
        capacity, free = one.capacity, one.free
        return cls(
            one.name, one.pool, word(workers.WorkerState, one.state) or "", dict(one.labels), capacity.cpu_milli,
            capacity.memory_mib, capacity.gpus, capacity.scratch_gib, free.cpu_milli, free.memory_mib, one.running,
            moment(one, "join_time"), one.reason,
        )  # fmt: skip


@dataclass(frozen=True)
class Queue(_Html):
    """A queue; limits are 0 where there are none, `share` and `usage` are parts of the grid, 0 to 1."""

    name: str
    weight: int
    paused: bool
    draining: bool
    queued: int
    running: int
    share: float
    usage: float
    max_running: int
    max_cpu_milli: int
    max_memory_mib: int
    max_queued: int

    @classmethod
    def of(cls, one: queues.Queue) -> Queue:
        """From the wire."""
        limits = one.limits
        return cls(
            one.name, one.weight, one.paused, one.draining, one.queued, one.running, one.share, one.usage,
            limits.max_running, limits.max_cpu_milli, limits.max_memory_mib, limits.max_queued,
        )  # fmt: skip
