"""A `concurrent.futures.Executor` whose calls run on the grid.

Calls wait here only until the next submit is under way: what has gathered meanwhile becomes one array job. How many
calls a task has follows from how long they take: the first few of a function are sent alone, and the others when it is
known. A task's answers are read when the grid has recorded its end, so that what a future returns is what the grid
says, whatever leader or worker was lost on the way.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from .. import _watch
from .._errors import ResultLost
from .._spec import add_rows, needs
from .._wire import CANCEL_JOB, RETRY_JOB, SUBMIT_JOB, jobs, request_id
from . import payload, results
from .payload import CallOptions, Pickled, function_name

if TYPE_CHECKING:
    from .._client import Client

P = ParamSpec("P")
T = TypeVar("T")

#: How long a task of small calls may take: starting an interpreter takes a tenth of it.
TASK_SECONDS = 1.0
#: The first calls of a function tell how long it takes; the others wait for that at most so long.
PROBE_SECONDS = 1.0
#: Calls of one `map` that are on their way at once, unless its caller says otherwise.
WINDOW = 20_000
#: Tasks of one job.
TASKS_IN_A_JOB = 10_000
#: How long what is known about workers holds.
WORKERS_SECONDS = 10.0


class GridFuture(Future[T]):
    """A future of a call on the grid. `cancel` also takes back a call that waits there, if it was sent alone."""

    _call: _Call | None = None

    def cancel(self) -> bool:
        """Takes the call back if it has not begun; whether it is cancelled."""
        call = self._call
        if call is None or call.executor is None:
            return self._cancel_here()
        return call.executor._cancel(call)

    def _cancel_here(self) -> bool:
        done = super().cancel()
        if done and self._state == "CANCELLED":
            # Whoever waits for it need not wait for the grid.
            self.set_running_or_notify_cancel()
        return done

    @property
    def job_id(self) -> int | None:
        """Number of the job that the call is part of; none while it has not been sent."""
        task = self._call.task if self._call is not None else None
        return task.job.job_id if task is not None else None


@dataclass(eq=False)
class _Call:
    """A call and where it is: in its function's line while `task` is none."""

    future: GridFuture[Any]
    arguments: bytes
    #: Of its arguments on S3, if they are too large.
    key: str = ""
    task: _Task | None = None
    executor: GridExecutor | None = None
    lost: int = 0
    #: On its way to the grid: whether it is a task there will be known soon.
    sending: bool = False


@dataclass(eq=False)
class _Task:
    """Calls that are run one after the other by one interpreter."""

    job: _Job
    index: int
    calls: list[_Call]
    #: The attempt whose end was dealt with.
    attempt: int = 0
    ended: bool = False
    running: bool = False


@dataclass(eq=False)
class _Job:
    """A job that was submitted."""

    line: _Line
    tasks: list[_Task]
    job_id: int = 0
    open: int = 0
    subscription: _watch.Subscription | None = None


@dataclass(eq=False)
class _Line:
    """Calls of one function that were not sent yet."""

    function: Callable[..., Any]
    #: Calls in a task; 0: as many as take `TASK_SECONDS`.
    chunk: int
    calls: deque[_Call] = field(default_factory=deque)
    #: Of one call; none: not known yet.
    seconds: float | None = None
    #: When the first calls were sent, to learn how long they take.
    probing_since: float | None = None

    def ready_at(self) -> float | None:
        """When what waits may be sent; none: nothing waits."""
        if not self.calls:
            return None
        if self.chunk or self.seconds is not None or self.probing_since is None:
            return 0.0
        return self.probing_since + PROBE_SECONDS


class GridExecutor(Executor):
    """Made by `Client.executor`. Safe to use from any thread."""

    def __init__(self, client: Client, options: CallOptions) -> None:
        self._client = client
        self._options = options
        self._changed = threading.Condition(threading.RLock())
        self._lines: dict[tuple[int, int], _Line] = {}
        self._open_calls: set[_Call] = set()
        self._shutdown = False
        self._pid = os.getpid()
        self._dispatcher: threading.Thread | None = None
        self._readers = ThreadPoolExecutor(results.READERS, "millgrid-results")
        self._slots = (0.0, 1)
        # One call a task, where what is asked for is meant for each call.
        self._single = any(options.get(name) for name in ("time", "retries", "at_most_once", "max_failures"))
        # Wrong options are told at once.
        payload.check(client, options)

    # What Python documents for executors

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> GridFuture[T]:
        """Sends a call; its future.

        Raises:
            RuntimeError: The executor was shut down.
            Unpicklable: The arguments can't be sent.
        """
        call = self._call(fn, args, kwargs)
        self._enqueue(fn, 0, [call])
        return call.future

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Calls for each of the arguments; their results in order, as they come.

        Args:
            timeout: Seconds from now on, after which `next` raises `TimeoutError`.
            chunksize: Calls in a task; by default as many as take about a second.
            buffersize: Calls on their way at once. The iterables are read no further ahead, so that they may be
                longer than memory, or endless.
        """
        if chunksize is not None and chunksize < 1:
            raise ValueError("chunksize must be >= 1")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be >= 1")
        self._alive()
        deadline = None if timeout is None else time.monotonic() + timeout
        arguments = zip(*iterables)
        window = buffersize or WINDOW
        begun = [self._call(fn, args, {}) for args in itertools.islice(arguments, window)]
        self._enqueue(fn, chunksize or 0, begun)
        return self._results(fn, chunksize or 0, arguments, deque(call.future for call in begun), window, deadline)

    def _results(
        self,
        fn: Callable[..., T],
        chunk: int,
        arguments: Iterator[tuple[Any, ...]],
        waiting: deque[GridFuture[T]],
        window: int,
        deadline: float | None,
    ) -> Iterator[T]:
        try:
            while waiting:
                future = waiting.popleft()
                yield future.result(None if deadline is None else max(0.0, deadline - time.monotonic()))
                del future
                if len(waiting) <= window - max(1, window // 2):
                    more = [self._call(fn, args, {}) for args in itertools.islice(arguments, window - len(waiting))]
                    if more:
                        self._enqueue(fn, chunk, more)
                        waiting.extend(call.future for call in more)
        finally:
            self._drop([future._call for future in waiting if future._call is not None])

    def _drop(self, calls: list[_Call]) -> None:
        """Nobody waits for these any more: those that were not sent are cancelled."""
        with self._changed:
            for call in calls:
                if call.task is None and not call.sending and call.future._cancel_here():
                    self._open_calls.discard(call)
            self._changed.notify_all()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more calls. With `wait`, returns when all have ended.

        Args:
            cancel_futures: Calls that have not begun are cancelled.
        """
        with self._changed:
            self._shutdown = True
            calls = list(self._open_calls)
            self._changed.notify_all()
        if cancel_futures:
            for call in calls:
                self._cancel(call)
        if wait:
            with self._changed:
                self._changed.wait_for(lambda: not self._open_calls)
            if self._dispatcher is not None and self._dispatcher is not threading.current_thread():
                self._dispatcher.join()
            self._readers.shutdown()

    def usable(self) -> bool:
        """Whether it takes calls in this process."""
        return not self._shutdown and self._pid == os.getpid()

    # Calls on their way to the grid

    def _alive(self) -> None:
        if self._shutdown:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if self._pid != os.getpid():
            raise RuntimeError("this executor was made before a fork; make another one in the child")

    def _call(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Call:
        self._alive()
        future: GridFuture[Any] = GridFuture()
        arguments: Pickled = payload.pickled(args, kwargs, function_name(fn))
        if arguments.size > payload.INLINE_BYTES:
            call = _Call(future, b"", payload.upload(self._client, arguments), executor=self)
        else:
            call = _Call(future, arguments.data, executor=self)
        future._call = call
        return call

    def _enqueue(self, fn: Callable[..., Any], chunk: int, calls: list[_Call]) -> None:
        if not calls:
            return
        with self._changed:
            self._alive()
            self._open_calls.update(calls)
            self._line(fn, chunk).calls.extend(calls)
            if self._dispatcher is None:
                self._dispatcher = threading.Thread(target=self._dispatch, name="millgrid-calls", daemon=True)
                self._dispatcher.start()
            self._changed.notify_all()

    def _line(self, fn: Callable[..., Any], chunk: int) -> _Line:
        chunk = 1 if self._single and not chunk else chunk
        key = (id(fn), chunk)
        line = self._lines.get(key)
        if line is None:
            if len(self._lines) > 256:
                self._lines = {key: line for key, line in self._lines.items() if line.calls}
            line = self._lines[key] = _Line(fn, chunk)
        return line

    def _dispatch(self) -> None:
        while True:
            with self._changed:
                ready: _Line | None = None
                while ready is None:
                    waits = [(at, line) for line in self._lines.values() if (at := line.ready_at()) is not None]
                    now = time.monotonic()
                    ready = next((line for at, line in waits if at <= now), None)
                    if ready is None:
                        if self._shutdown and not waits and not self._open_calls:
                            return
                        soonest = min((at for at, _ in waits), default=None)
                        self._changed.wait(None if soonest is None else soonest - now)
            tasks: list[list[_Call]] = []
            try:
                slots = self._known_slots()
                with self._changed:
                    tasks = self._take(ready, slots)
                if tasks:
                    self._send(ready, tasks)
            except BaseException as error:
                self._fail([call for chunk in tasks for call in chunk], error)

    def _take(self, line: _Line, slots: int) -> list[list[_Call]]:
        """The next tasks of a line: all alike, either with arguments on S3 or without."""
        waiting = [call for call in line.calls if not call.future.done()]
        large = bool(waiting) and bool(waiting[0].key)
        count = next((at for at, call in enumerate(waiting) if bool(call.key) != large), len(waiting))
        if line.chunk:
            chunk = line.chunk
        elif line.seconds is None:
            chunk = 1
            if line.probing_since is None:
                count = min(count, 2 * slots)
                line.probing_since = time.monotonic()
        else:
            fair = -(-count // (2 * slots))
            chunk = max(1, min(fair, int(TASK_SECONDS / max(line.seconds, 1e-6))))
        tasks: list[list[_Call]] = []
        size = 0
        for call in waiting[:count]:
            # An argument on S3 is a task of its own.
            if not tasks or len(tasks[-1]) >= chunk or size + len(call.arguments) > payload.ROW_BYTES or large:
                if len(tasks) >= TASKS_IN_A_JOB:
                    break
                tasks.append([])
                size = 0
            tasks[-1].append(call)
            size += len(call.arguments) + 16
        taken = {id(call) for task in tasks for call in task}
        line.calls = deque(call for call in waiting if id(call) not in taken)
        for task in tasks:
            for call in task:
                call.sending = True
        return tasks

    def _known_slots(self) -> int:
        """How many calls the grid can run at once."""
        at, slots = self._slots
        if at < time.monotonic():
            asked = needs(self._options, "", {}).resources
            slots = 0
            for worker in self._client._recent_workers():
                fits = [worker.cpu_milli // max(1, asked.cpu_milli)]
                fits += [worker.memory_mib // asked.memory_mib] if asked.memory_mib else []
                fits += [worker.gpus // asked.gpus] if asked.gpus else []
                slots += min(fits)
            slots = max(1, slots)
            self._slots = (time.monotonic() + WORKERS_SECONDS, slots)
        return slots

    def _send(self, line: _Line, chunks: list[list[_Call]]) -> None:
        client = self._client
        alone = all(len(chunk) == 1 for chunk in chunks) or bool(self._options.get("retries"))
        spec = payload.make_spec(client, line.function, self._options, alone=alone)
        if chunks[0][0].key:
            payload.add_large(client, spec)
            add_rows(spec, ({"key": chunk[0].key} for chunk in chunks), client._blobs.store)
        else:
            payload.add_rows_of_calls(client, spec, [[call.arguments for call in chunk] for chunk in chunks])
        since = client._hub.token
        job = _Job(line, [])
        known = client._grid.call(SUBMIT_JOB, jobs.SubmitJobRequest(request_id=request_id(), spec=spec))
        with self._changed:
            job.job_id, job.open = known.id, len(chunks)
            for index, chunk in enumerate(chunks):
                task = _Task(job, index, chunk)
                job.tasks.append(task)
                for call in chunk:
                    call.task, call.sending = task, False
            self._changed.notify_all()
        job.subscription = client._hub.follow(
            known.id, lambda change: self._news(job, change), tasks=True, since=since
        )
        if job.open == 0:
            job.subscription.close()

    # Calls on their way back

    def _news(self, job: _Job, change: _watch.Change) -> None:
        """On a thread of the watch: quick."""
        if change.error is not None:
            self._fail([call for task in job.tasks for call in task.calls], change.error)
            return
        for news in change.tasks:
            task = job.tasks[news.index]
            if news.state in (jobs.TASK_STATE_LEASED, jobs.TASK_STATE_RUNNING):
                self._began(task)
            elif news.state in _watch.ENDED_TASK:
                with self._changed:
                    if task.ended or (task.attempt and task.attempt >= news.attempt):
                        continue
                    task.attempt, task.ended = news.attempt, True
                try:
                    self._readers.submit(self._read, task, news)
                except RuntimeError:  # The interpreter is going down.
                    return

    def _began(self, task: _Task) -> None:
        with self._changed:
            if task.running:
                return
            task.running = True
            calls = list(task.calls)
        for call in calls:
            _set_running(call.future)

    def _read(self, task: _Task, news: jobs.Task) -> None:
        try:
            self._answered(task, news)
        except BaseException as error:
            self._fail(task.calls, error)

    def _answered(self, task: _Task, news: jobs.Task) -> None:
        line = task.job.line
        name = function_name(line.function)
        if news.state in (jobs.TASK_STATE_CANCELLED, jobs.TASK_STATE_SKIPPED) and not news.attempt:
            for call in task.calls:
                call.future._cancel_here()
            error = CancelledError(f"{name}: job {news.job_id} was cancelled")
            return self._finish(task, [(call, results.Outcome(error=error)) for call in task.calls], [])
        found = results.answers(self._client, news, name) if news.attempt else results.Answers()
        if found.count is None and news.state == jobs.TASK_STATE_SUCCEEDED:
            return self._lost(task, news)
        if found.count:
            with self._changed:
                each = found.seconds / found.count
                line.seconds = each if line.seconds is None else (line.seconds + each) / 2
        elif line.seconds is None:
            line.probing_since = 0.0  # Whatever it was that ended: nobody waits for its time any more.
        if found.refused is not None:
            return self._finish(task, [(call, found.refused) for call in task.calls], [])
        ended: list[tuple[_Call, results.Outcome]] = []
        again: list[_Call] = []
        for number, call in enumerate(task.calls):
            outcome = found.outcomes.get(number)
            if outcome is None:
                # The first without an answer ended the interpreter; those behind it did not begin.
                outcome = results.Outcome(error=results.died(news, name, number if len(task.calls) > 1 else 0))
                again = task.calls[number + 1 :] if news.cause != jobs.CAUSE_CANCELLED else []
                ended += [(call, outcome)] + [(one, outcome) for one in task.calls[number + 1 :] if one not in again]
                break
            if isinstance(outcome.error, ResultLost) and call.lost < results.LOST_RETRIES and not self._once():
                call.lost += 1
                again.append(call)
                continue
            ended.append((call, outcome))
        self._finish(task, ended, again)

    def _once(self) -> bool:
        return bool(self._options.get("at_most_once"))

    def _lost(self, task: _Task, news: jobs.Task) -> None:
        """The answers died with the worker, though the end was recorded: the task is run again."""
        task.calls[0].lost += 1
        if self._once() or task.calls[0].lost > results.LOST_RETRIES:
            name = function_name(task.job.line.function)
            message = f"the result of `{name}` died with {news.worker} before it was stored"
            error = ResultLost(message, reason="RESULT_LOST", hint="the call was made; only its result is gone")
            return self._finish(task, [(call, results.Outcome(error=error)) for call in task.calls], [])
        request = jobs.RetryJobRequest(request_id=request_id(), job_id=news.job_id)
        request.ranges.add(first=news.index, last=news.index, step=1)
        with self._changed:
            task.ended = False
        self._client._grid.call(RETRY_JOB, request)

    def _finish(self, task: _Task, ended: list[tuple[_Call, results.Outcome]], again: list[_Call]) -> None:
        with self._changed:
            for call in again:
                call.task = None
            if again:
                self._line(task.job.line.function, 1).calls.extendleft(reversed(again))
            task.job.open -= 1
            if task.job.open == 0 and task.job.subscription is not None:
                task.job.subscription.close()
        for call, outcome in ended:
            _settle(call.future, outcome)
        with self._changed:
            self._open_calls.difference_update(call for call, _ in ended)
            self._changed.notify_all()

    def _fail(self, calls: list[_Call], error: BaseException) -> None:
        for call in calls:
            _settle(call.future, results.Outcome(error=error))
        with self._changed:
            for call in calls:
                call.sending = False
            self._open_calls.difference_update(calls)
            self._changed.notify_all()

    # Taking calls back

    def _cancel(self, call: _Call) -> bool:
        future = call.future
        with self._changed:
            self._changed.wait_for(lambda: not call.sending)
            task = call.task
            if task is None:
                cancelled = future._cancel_here()
                if cancelled:
                    self._open_calls.discard(call)
                    self._changed.notify_all()
                return cancelled
            if future.done() or task.running or len(task.calls) > 1:
                return future.cancelled()
            job_id, index = task.job.job_id, task.index
        # The watch may have told of it first.
        return (self._cancel_on_grid(job_id, index) and future._cancel_here()) or future.cancelled()

    def _cancel_on_grid(self, job_id: int, index: int) -> bool:
        """Whether a task that had not begun was taken back."""
        asked = jobs.ListTasksRequest(job_id=job_id)
        asked.ranges.add(first=index, last=index, step=1)
        (task,) = _watch.pages(self._client._grid, asked)
        if task.state not in (jobs.TASK_STATE_QUEUED, jobs.TASK_STATE_WAITING) or task.attempt:
            return task.state == jobs.TASK_STATE_CANCELLED and not task.attempt
        request = jobs.CancelJobRequest(request_id=request_id(), job_id=job_id, reason="the future was cancelled")
        request.ranges.add(first=index, last=index, step=1)
        self._client._grid.call(CANCEL_JOB, request)
        (task,) = _watch.pages(self._client._grid, asked)
        return task.state == jobs.TASK_STATE_CANCELLED and not task.attempt


def _set_running(future: GridFuture[Any]) -> None:
    with future._condition:
        if future._state == "PENDING":
            future.set_running_or_notify_cancel()


def _settle(future: GridFuture[Any], outcome: results.Outcome) -> None:
    """Sets what came of a call, unless it was cancelled or settled before."""
    _set_running(future)
    if future.done():
        return
    if outcome.error is not None:
        future.set_exception(outcome.error)
    else:
        future.set_result(outcome.value)
