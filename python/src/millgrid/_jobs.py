"""A job by its number: the same handle whether it was just submitted or comes from another machine and day."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from . import _grammar as grammar
from . import _logs, _watch
from ._errors import JobFailed, WaitTimeout
from ._notebook import in_notebook, job_html, live
from ._plot import Plot
from ._spec import Time
from ._views import Event, Explanation, JobInfo, OutputObject, Task, TaskCounts, Tasks
from ._wire import (
    CANCEL_JOB,
    EXPLAIN_JOB,
    GET_JOB,
    HOLD_JOB,
    LIST_OUTPUTS,
    RELEASE_JOB,
    RETRY_JOB,
    SET_JOB,
    Duration,
    jobs,
    request_id,
)

if TYPE_CHECKING:
    from ._client import Client

#: Lines of the log that an error shows.
TAIL_LINES = 20
#: Tasks of an array whose logs are followed at once.
FOLLOWED_AT_ONCE = 16


class Job:
    """A job. Nothing is asked of the grid before it is needed; `id` is its number."""

    def __init__(self, client: Client, job_id: int, known: jobs.Job | None = None) -> None:
        self.id = job_id
        self._client = client
        self._known = known

    def __repr__(self) -> str:
        return f"<Job {self.id}>"

    def _repr_html_(self) -> str:
        return job_html(self.info())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __reduce__(self) -> tuple[object, ...]:
        from ._client import reattach

        return (reattach, (self.id,))

    # What it is

    def _get(self) -> jobs.Job:
        self._known = self._client._grid.call(GET_JOB, jobs.GetJobRequest(job_id=self.id))
        return self._known

    def info(self) -> JobInfo:
        """The job as it stands now.

        Raises:
            NotFound: There is no such job.
        """
        return JobInfo.of(self._get())

    @property
    def state(self) -> str:
        """Its state now: waiting, queued, running, succeeded, failed, cancelled or skipped."""
        return self.info().state

    @property
    def task_count(self) -> int:
        """How many tasks it has."""
        return (self._known or self._get()).task_count

    def tasks(self, indexes: str | int | range | None = None, *, attempts: bool = False) -> Tasks:
        """Its tasks, or some of them, in the order of the array.

        Args:
            indexes: `7`, `"0-9,12"` or a range; all by default. Here a number is one index.
            attempts: With everything that is still known of their attempts.
        Raises:
            NotFound: There is no task of such an index.
        """
        request = jobs.ListTasksRequest(job_id=self.id, ranges=_selection(indexes), attempts=attempts)
        return Tasks(Task.of(one) for one in _watch.pages(self._client._grid, request))

    def explain(self, index: int | None = None) -> Explanation:
        """Why it, or one of its tasks, waits; why it failed; where it runs."""
        request = jobs.ExplainJobRequest(job_id=self.id)
        if index is not None:
            request.index = index
        return Explanation.of(self._client._grid.call(EXPLAIN_JOB, request))

    def outputs(self, indexes: str | int | range | None = None) -> list[OutputObject]:
        """The objects that were published. Those of a task with very many are read from S3 (`millgrid[s3]`)."""
        request = jobs.ListOutputsRequest(job_id=self.id, ranges=_selection(indexes))
        found: list[OutputObject] = []
        while True:
            page = self._client._grid.call(LIST_OUTPUTS, request)
            found += [OutputObject(one.index, one.attempt, one.path, one.url, one.size, one.etag) for one in page.objects]
            for stored in page.stored:
                found += self._client._storage.manifest(stored)
            if not page.next_page_token:
                return sorted(found, key=lambda one: one.index)
            request.page_token = page.next_page_token

    # How it goes on

    def wait(self, timeout: float | None = None) -> Job:
        """Waits until every task has ended, however.

        Args:
            timeout: Seconds to wait in all; none: for ever.
        Raises:
            WaitTimeout: Time ran out; the job goes on.
        """
        _wait_all(self._client, [self], timeout)
        return self

    def raise_for_status(self) -> Job:
        """Raises `JobFailed` if it ended without success; returns itself otherwise, also while it has not ended."""
        job = self._get()
        info = JobInfo.of(job)
        if not info.ended or info.state == "succeeded":
            return self
        why = info.cause or info.reason or info.state
        if info.cause == "exit_code":
            why = f"exit code {info.exit_code}"
        elif job.signal:
            why = f"{why} {job.signal}"
        detail = next((one.detail for one in info.failures if one.detail), "")
        count = f", {info.tasks.failed} of {info.task_count} tasks" if info.task_count > 1 and info.tasks.failed else ""
        message = f"job {self.id} ({info.name}) {info.state}: {why}{count}" + (f": {detail}" if detail else "")
        error = JobFailed(message, hint="" if info.state == "skipped" else f"see `millgrid explain {self.id}`",
                          reason="JOB_FAILED")
        error.job_id, error.state, error.cause, error.exit_code = self.id, info.state, info.cause, info.exit_code
        error.log_tail = self._tail(info)
        raise error

    def _tail(self, info: JobInfo) -> str:
        index = next((one.indexes[0] for one in info.failures if one.indexes), None)
        if index is None:
            return ""
        try:
            for stream in ("stderr", "stdout"):
                if lines := list(self.logs(index=index, stream=stream, tail_bytes=4096)):
                    return "".join(lines[-TAIL_LINES:])
        except Exception:  # The failure itself is what counts.
            pass
        return ""

    def events(self, *, tasks: bool = True) -> Iterator[Event]:
        """Changes of the job and its tasks as they happen, until it has ended. What is missed while the reader is busy
        is joined: every end is seen, not every state on the way to it."""
        news: queue.SimpleQueue[_watch.Change] = queue.SimpleQueue()
        subscription = self._client._hub.follow(self.id, news.put, tasks=tasks)
        told: dict[int, tuple[int, int]] = {}
        try:
            while True:
                change = news.get()
                if change.error is not None:
                    raise change.error
                for task in change.tasks:
                    if told.get(task.index) != (task.state, task.attempt):
                        told[task.index] = (task.state, task.attempt)
                        one = Task.of(task)
                        yield Event(self.id, one.index, one.state, one.attempt, one.worker, one.cause, one.exit_code)
                if change.job is not None and told.get(-1) != (change.job.state, 0):
                    told[-1] = (change.job.state, 0)
                    info = JobInfo.of(change.job)
                    yield Event(self.id, None, info.state, None, "", info.cause, info.exit_code)
                    if info.ended:
                        return
        finally:
            subscription.close()

    def progress(self, *, leave: bool = True, **bar: Any) -> Job:
        """Shows how its tasks go on until it has ended: by state in a notebook, as a bar in a terminal.

        Args:
            leave: The bar stays when the job has ended.
            bar: Options of tqdm; with any of them, tqdm's bar is shown in a notebook, too.
        """
        if in_notebook() and not bar:
            live(self, leave=leave)
            return self
        from tqdm.auto import tqdm

        ended = threading.Event()
        failure: list[BaseException] = []
        info = self.info()
        with tqdm(total=info.task_count, desc=f"job {self.id} {info.name}", unit="task", leave=leave, **bar) as shown:

            def see(change: _watch.Change) -> None:
                if change.error is not None:
                    failure.append(change.error)
                    ended.set()
                elif change.job is not None:
                    counts = TaskCounts.of(change.job.tasks)
                    shown.update(counts.ended - shown.n)
                    shown.set_postfix(running=counts.running + counts.leased, failed=counts.failed, refresh=True)
                    if change.job.state in _watch.ENDED_JOB:
                        ended.set()

            subscription = self._client._hub.follow(self.id, see)
            try:
                ended.wait()
            finally:
                subscription.close()
        if failure:
            raise failure[0]
        return self

    def plot(self) -> Plot:
        """A picture of it: each attempt by worker and time, and the states of its tasks over time.

        Notebooks show what is returned; `save("job.svg")` writes it.
        """
        return Plot(self.info(), self.tasks(attempts=True))

    def logs(
        self,
        index: int | None = None,
        *,
        follow: bool = False,
        stream: str | None = None,
        attempt: int = 0,
        tail_bytes: int | None = None,
    ) -> Iterator[_logs.LogLine]:
        """What its tasks wrote, line by line.

        Args:
            index: Of one task; by default all tasks, one after the other, or side by side when they are followed.
            follow: Until the end, through retries and changes of leader.
            stream: `stdout` or `stderr`; by default both, and of functions what they printed.
            attempt: By number; the latest by default.
            tail_bytes: Begin so many bytes before the present end.
        """
        if stream not in _logs.STREAMS:
            raise grammar.refuse("stream", f"`{stream}` is neither `stdout` nor `stderr`")
        at = -tail_bytes if tail_bytes else 0
        spec = (self._known if self._known is not None and self._known.HasField("spec") else self._get()).spec
        if stream is None and "MILLGRID_CALLS" in spec.env:
            stream = "stderr"  # Their standard output is for their results.

        def of(task: int) -> Iterator[_logs.LogLine]:
            request = jobs.ReadLogsRequest(
                job_id=self.id, index=task, attempt=attempt, stream=_logs.STREAMS[stream], follow=follow,
                stdout_offset=at, stderr_offset=at,
            )  # fmt: skip
            return _logs.lines(self._client._grid, request)

        if index is not None:
            return of(index)
        wanted = grammar.indexes(spec.array.ranges) if spec.HasField("array") else (0,)
        if not follow or self.task_count == 1:
            return (line for one in wanted for line in of(one))
        return _side_by_side(of(one) for one in wanted)

    # What can be done to it

    def cancel(self, indexes: str | int | range | None = None, *, reason: str = "", cascade: bool = False) -> int:
        """Cancels it, or some of its tasks; returns how many were cancelled or asked to stop. Ended ones are left."""
        request = jobs.CancelJobRequest(
            request_id=request_id(), job_id=self.id, ranges=_selection(indexes), reason=reason, cascade=cascade
        )
        return self._client._grid.call(CANCEL_JOB, request).cancelled

    def retry(
        self,
        indexes: str | int | range | None = None,
        *,
        failed: bool = False,
        cpus: float | str | None = None,
        mem: str | None = None,
        gpus: int | None = None,
        scratch: str | None = None,
    ) -> Job:
        """New attempts for ended tasks: all, some, or those that failed; with other resources if any are given."""
        request = jobs.RetryJobRequest(
            request_id=request_id(), job_id=self.id, ranges=_selection(indexes), failed_only=failed
        )
        if cpus is not None:
            request.resources.cpu_milli = grammar.cpu_milli("cpus", cpus)
        if mem is not None:
            request.resources.memory_mib = grammar.mib("mem", mem)
        if gpus is not None:
            request.resources.gpus = gpus
        if scratch is not None:
            request.resources.scratch_gib = grammar.gib("scratch", scratch)
        self._client._grid.call(RETRY_JOB, request)
        return self

    def hold(self) -> Job:
        """Nothing of it is started until `release`."""
        self._client._grid.call(HOLD_JOB, jobs.HoldJobRequest(request_id=request_id(), job_id=self.id))
        return self

    def release(self) -> Job:
        """Undoes `hold`."""
        self._client._grid.call(RELEASE_JOB, jobs.ReleaseJobRequest(request_id=request_id(), job_id=self.id))
        return self

    def set(
        self,
        *,
        priority: int | None = None,
        time: Time | None = None,
        queue_time: Time | None = None,
        total_time: Time | None = None,
        max_running: int | None = None,
        max_failures: int | None = None,
    ) -> Job:
        """Changes what can be changed before it has ended. `"none"` lifts a time limit, 0 the others."""
        request = jobs.SetJobRequest(request_id=request_id(), job_id=self.id)
        for name, number in (("priority", priority), ("max_running", max_running), ("max_failures", max_failures)):
            if number is not None:
                setattr(request, name, number)
        for limit, value in (
            (request.time_limit, time),
            (request.queue_time_limit, queue_time),
            (request.total_time_limit, total_time),
        ):
            if value is not None:
                limit.CopyFrom(Duration() if value == "none" else grammar.duration("time", value))
        self._client._grid.call(SET_JOB, request)
        return self

    # Jobs of functions

    def results(self, timeout: float | None = None) -> Any:
        """What the calls of a job of functions returned, a list in the order of the calls; waits for them.

        Raises:
            Whatever the first call that failed raised, as itself, with the remote traceback as its cause.
            InvalidArgument: It isn't a job of functions.
        """
        from ._calls.results import results

        return results(self._client, self, timeout)


def _selection(indexes: str | int | range | None) -> list[jobs.IndexRange]:
    if indexes is None:
        return []
    if isinstance(indexes, int):
        return [jobs.IndexRange(first=indexes, last=indexes, step=1)]
    return grammar.array("indexes", indexes)[0]


def _side_by_side(readers: Iterable[Iterator[_logs.LogLine]]) -> Iterator[_logs.LogLine]:
    """Lines of many logs as they come."""
    lines: queue.Queue[_logs.LogLine | BaseException | None] = queue.Queue(maxsize=1024)
    waiting = iter(readers)
    lock = threading.Lock()

    def copy() -> None:
        try:
            while True:
                with lock:
                    reader = next(waiting, None)
                if reader is None:
                    break
                for line in reader:
                    lines.put(line)
        except BaseException as error:
            lines.put(error)
        lines.put(None)

    for _ in range(FOLLOWED_AT_ONCE):
        threading.Thread(target=copy, name="millgrid-logs", daemon=True).start()
    running = FOLLOWED_AT_ONCE
    while running:
        line = lines.get()
        if line is None:
            running -= 1
        elif isinstance(line, BaseException):
            raise line
        else:
            yield line


def _wait_all(client: Client, waited: Sequence[Job], timeout: float | None, *, any_one: bool = False) -> list[Job]:
    """Waits for all of them, or for any; returns those that have ended."""
    deadline = None if timeout is None else time.monotonic() + timeout
    changed = threading.Condition()
    ended: dict[int, jobs.Job] = {}
    failures: list[BaseException] = []

    def listener(job_id: int) -> _watch.Listener:
        def see(change: _watch.Change) -> None:
            with changed:
                if change.error is not None:
                    failures.append(change.error)
                elif change.job is not None and change.job.state in _watch.ENDED_JOB:
                    ended[job_id] = change.job
                else:
                    ended.pop(job_id, None)
                changed.notify_all()

        return see

    subscriptions = [client._hub.follow(job.id, listener(job.id)) for job in waited]
    try:
        with changed:

            def done() -> bool:
                return bool(failures) or len(ended) == len(waited) or (any_one and bool(ended))

            if not changed.wait_for(done, None if deadline is None else max(0.0, deadline - time.monotonic())):
                left = ", ".join(str(job.id) for job in waited if job.id not in ended)
                hint = "it goes on; wait again, or cancel it"
                raise WaitTimeout(f"job {left} has not ended within {timeout:g} s", hint=hint, reason="TIMEOUT")
            if failures:
                raise failures[0]
            return [job for job in waited if job.id in ended]
    finally:
        for subscription in subscriptions:
            subscription.close()


__all__ = ["Job"]
