"""A `concurrent.futures.Executor` whose calls run on the grid.

Calls wait here only until the next submit is under way: what has gathered meanwhile becomes one array job. How many
calls a task has follows from how long they take: the first few of a function are sent alone, and the others when it is
known. A task's answers are read when the grid has recorded its end, so that what a future returns is what the grid
says, whatever leader or worker was lost on the way.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Executor, ThreadPoolExecutor
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from .. import _watch
from .._errors import MillgridError, ResultLost
from .._group import Group
from .._spec import add_rows, needs
from .._wire import RETRY_JOB, SUBMIT_JOB, jobs, request_id
from . import payload, results
from .calls import Call, GridFuture, Job, Line, Task, set_running, settle, settle_quietly
from .payload import CallOptions, Pickled, function_name
from .recall import recall
from .specs import Specs

if TYPE_CHECKING:
    from .._client import Client

P = ParamSpec("P")
T = TypeVar("T")

#: How long a task of small calls may take: starting an interpreter takes a tenth of it.
TASK_SECONDS = 1.0
#: Calls of one `map` that are on their way at once, unless its caller says otherwise.
WINDOW = 20_000
#: Tasks of one job.
TASKS_IN_A_JOB = 10_000
#: How long what is known about workers holds.
WORKERS_SECONDS = 10.0
#: A label of all jobs of an executor.
LABEL = "millgrid.executor"

#: Python 3.12 starts no thread any more once a program has reached its end: what its calls need has to be there before,
#: and is waited for so long.
EARLY_SECONDS = 1.0 if sys.version_info[:2] == (3, 12) else 0.0

#: All of this process, which doesn't exit before their calls have ended.
_EXECUTORS: weakref.WeakSet[GridExecutor] = weakref.WeakSet()
#: Of a thread: the executor whose callbacks it runs.
_SETTLING = threading.local()


class GridExecutor(Executor):
    """Made by `Client.executor`. Safe to use from any thread."""

    def __init__(self, client: Client, options: CallOptions) -> None:
        self._client = client
        self._options = options
        self._changed = threading.Condition(threading.RLock())
        self._lines: dict[tuple[int, int], Line] = {}
        self._open_calls: set[Call] = set()
        self._shutdown = False
        self._pid = os.getpid()
        self._dispatcher: threading.Thread | None = None
        self._readers = ThreadPoolExecutor(results.READERS, "millgrid-results")
        self._slots = (0.0, 1)
        #: The label of its jobs.
        self.id = request_id()[:16]
        self._watch = Group(client._hub, (LABEL, self.id))
        # One call a task, where what is asked for is meant for each call.
        self._single = any(options.get(name) for name in ("time", "retries", "at_most_once", "max_failures"))
        self._specs = Specs(client, options)
        _EXECUTORS.add(self)

    def __repr__(self) -> str:
        return f"<GridExecutor of {self._client!r}: {len(self._open_calls)} calls on their way>"

    def _repr_html_(self) -> str:
        with self._changed:
            running = sum(call.task is not None and call.task.running for call in self._open_calls)
            waiting = len(self._open_calls) - running
        shut = ", shut down" if self._shutdown else ""
        options = escape(", ".join(f"{name}={value!r}" for name, value in self._options.items()))
        return f"<b>millgrid executor</b>({options}){shut}: {waiting} calls waiting, {running} running"

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
                longer than memory, or endless; by default 20,000, where Python's own executors read all at once.
        """
        if chunksize is not None and chunksize < 1:
            raise ValueError("chunksize must be >= 1")
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
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

    def _drop(self, calls: list[Call]) -> None:
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
        Raises:
            RuntimeError: It would wait for the callback that it was called from.
        """
        with self._changed:
            self._shutdown = True
            calls = list(self._open_calls)
            self._changed.notify_all()
        if cancel_futures:
            self._take_back(calls)
        if wait:
            if getattr(_SETTLING, "executor", None) is self:
                raise RuntimeError("shutdown(wait=True) in a callback would wait for itself; say wait=False")
            self._drain()
            if self._dispatcher is not None and self._dispatcher is not threading.current_thread():
                self._dispatcher.join()
            self._readers.shutdown()

    def _drain(self) -> None:
        """Waits until every call has ended."""
        with self._changed:
            self._changed.wait_for(lambda: not self._open_calls)

    def usable(self) -> bool:
        """Whether it takes calls in this process."""
        return not self._shutdown and self._pid == os.getpid()

    # Calls on their way to the grid

    def _alive(self) -> None:
        if self._shutdown:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if self._pid != os.getpid():
            raise RuntimeError("this executor was made before a fork; make another one in the child")

    def _call(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        self._alive()
        future: GridFuture[Any] = GridFuture()
        arguments: Pickled = payload.pickled(args, kwargs, function_name(fn))
        if arguments.size > payload.INLINE_BYTES:
            call = Call(future, b"", payload.upload(self._client, arguments), executor=self)
        else:
            call = Call(future, arguments.data, executor=self)
        future._call = call
        return call

    def _enqueue(self, fn: Callable[..., Any], chunk: int, calls: list[Call]) -> None:
        if not calls:
            return
        with self._changed:
            self._alive()
            first = self._dispatcher is None
        if first and EARLY_SECONDS:
            # Whatever is wrong is told to the calls.
            with contextlib.suppress(MillgridError):
                self._watch.begin(EARLY_SECONDS)
        with self._changed:
            self._alive()
            self._open_calls.update(calls)
            self._line(fn, chunk).calls.extend(calls)
            if self._dispatcher is None:
                self._dispatcher = threading.Thread(target=self._dispatch, name="millgrid-calls", daemon=True)
                self._dispatcher.start()
            self._changed.notify_all()

    def _line(self, fn: Callable[..., Any], chunk: int) -> Line:
        chunk = 1 if self._single and not chunk else chunk
        key = (id(fn), chunk)
        line = self._lines.get(key)
        if line is None:
            if len(self._lines) > 256:
                self._lines = {key: line for key, line in self._lines.items() if line.calls}
            line = self._lines[key] = Line(fn, chunk)
        return line

    def _dispatch(self) -> None:
        while True:
            with self._changed:
                ready: Line | None = None
                while ready is None:
                    waits = [(at, line) for line in self._lines.values() if (at := line.ready_at()) is not None]
                    now = time.monotonic()
                    ready = next((line for at, line in waits if at <= now), None)
                    if ready is None:
                        if self._shutdown and not waits and not self._open_calls:
                            self._readers.shutdown(wait=False)
                            self._watch.stop()
                            return
                        soonest = min((at for at, _ in waits), default=None)
                        self._changed.wait(None if soonest is None else soonest - now)
            tasks: list[list[Call]] = []
            try:
                slots = self._known_slots()
                with self._changed:
                    tasks = self._take(ready, slots)
                if tasks:
                    self._send(ready, tasks)
            except BaseException as error:
                calls = [call for chunk in tasks for call in chunk]
                if not calls:
                    # Nothing was taken: the grid can't be asked, and the next try would come to the same.
                    with self._changed:
                        calls = list(ready.calls)
                        ready.calls.clear()
                self._fail(calls, error)

    def _take(self, line: Line, slots: int) -> list[list[Call]]:
        """The next tasks of a line: all alike, either with arguments on S3 or without."""
        waiting = [call for call in line.calls if not call.future.done() and not call.dropped]
        # Somebody else may have set what comes of them.
        self._open_calls.difference_update(call for call in line.calls if call.future.done())
        self._changed.notify_all()
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
        tasks: list[list[Call]] = []
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

    def _send(self, line: Line, chunks: list[list[Call]]) -> None:
        client = self._client
        alone = all(len(chunk) == 1 for chunk in chunks) or bool(self._options.get("retries"))
        spec = self._specs.make(line.function, alone=alone)
        if chunks[0][0].key:
            payload.add_large(client, spec)
            add_rows(spec, ({"key": chunk[0].key} for chunk in chunks), client._blobs.store)
        else:
            payload.add_rows_of_calls(client, spec, [[call.arguments for call in chunk] for chunk in chunks])
        spec.labels[LABEL] = self.id
        begun = self._watch.begin()
        job = Job(line, [])
        known = client._grid.call(SUBMIT_JOB, jobs.SubmitJobRequest(request_id=request_id(), spec=spec))
        with self._changed:
            job.job_id, job.open = known.id, len(chunks)
            for index, chunk in enumerate(chunks):
                task = Task(job, index, chunk)
                job.tasks.append(task)
                for call in chunk:
                    call.task, call.sending = task, False
            self._changed.notify_all()
        job.subscription = self._watch.follow(known.id, lambda change: self._news(job, change), begun)
        if job.open == 0:
            job.subscription.close()

    # Calls on their way back

    def _news(self, job: Job, change: _watch.Change) -> None:
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
                plain = results.plain_answers(self._client, news, function_name(job.line.function))
                if plain is not None:
                    self._read(task, news, plain)
                    continue
                self._elsewhere(self._read, task, news)

    def _began(self, task: Task) -> None:
        with self._changed:
            if task.running:
                return
            task.running = True
            calls = list(task.calls)
        for call in calls:
            set_running(call.future)

    def _read(self, task: Task, news: jobs.Task, plain: results.Answers | None = None) -> None:
        """With `plain`, what it answered, it is quick."""
        try:
            self._answered(task, news, plain)
        except BaseException as error:
            self._fail(task.calls, error)

    def _answered(self, task: Task, news: jobs.Task, plain: results.Answers | None) -> None:
        line = task.job.line
        name = function_name(line.function)
        if news.state in (jobs.TASK_STATE_CANCELLED, jobs.TASK_STATE_SKIPPED) and not news.attempt:
            error = CancelledError(f"{name}: job {news.job_id} was cancelled")
            again = self._left_by_recall(task, task.calls) if task.recalled else []
            ended = [(call, results.Outcome(error=error)) for call in task.calls if call not in again]
            for call, _ in ended:
                call.future._cancel_here()
            return self._finish(task, ended, again, task.job.line.chunk)
        if plain is not None:
            found = plain
        else:
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
        ended, again = [], []
        for number, call in enumerate(task.calls):
            outcome = found.outcomes.get(number)
            if outcome is None and news.cause == jobs.CAUSE_CANCELLED and task.recalled and not self._once():
                # It began between our look and our cancel.
                again += self._left_by_recall(task, task.calls[number:])
                break
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
        self._finish(task, ended, again, quickly=plain is not None)

    def _left_by_recall(self, task: Task, calls: list[Call]) -> list[Call]:
        """Those of a task that was taken back that nobody cancelled."""
        return [call for call in calls if not (call.dropped and call.future._cancel_here())]

    def _once(self) -> bool:
        return bool(self._options.get("at_most_once"))

    def _lost(self, task: Task, news: jobs.Task) -> None:
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

    def _finish(
        self,
        task: Task,
        ended: list[tuple[Call, results.Outcome]],
        again: list[Call],
        chunk: int = 1,
        *,
        quickly: bool = False,
    ) -> None:
        with self._changed:
            for call in again:
                call.task, call.dropped = None, False
            if again:
                self._line(task.job.line.function, chunk).calls.extendleft(reversed(again))
            task.job.open -= 1
            if task.job.open == 0 and task.job.subscription is not None:
                task.job.subscription.close()
        if quickly:
            done = [(call, outcome) for call, outcome in ended if settle_quietly(call.future, outcome)]
            self._forget(call for call, _ in done)
            if len(done) < len(ended):
                self._settle_elsewhere([one for one in ended if one not in done])
        else:
            self._settle(ended)

    def _settle(self, ended: list[tuple[Call, results.Outcome]]) -> None:
        """Sets what came of calls, and so runs their callbacks, on this thread."""
        _SETTLING.executor = self
        try:
            for call, outcome in ended:
                settle(call.future, outcome)
        finally:
            _SETTLING.executor = None
            self._forget(call for call, _ in ended)

    def _forget(self, calls: Iterable[Call]) -> None:
        with self._changed:
            self._open_calls.difference_update(calls)
            self._changed.notify_all()

    def _settle_elsewhere(self, ended: list[tuple[Call, results.Outcome]]) -> None:
        """Callbacks may wait for calls that this thread is to send, or for news that it is to bring."""
        self._elsewhere(self._settle, ended)

    def _elsewhere(self, work: Callable[..., None], *arguments: object) -> None:
        """Does what takes time on a thread for that; here, where the interpreter is going down and starts none."""
        taken = threading.Lock()

        def once() -> None:
            if taken.acquire(blocking=False):
                work(*arguments)

        try:
            self._readers.submit(once)
        except RuntimeError:
            # It may be in their line all the same.
            once()

    def _fail(self, calls: list[Call], error: BaseException) -> None:
        with self._changed:
            for call in calls:
                call.sending = False
            self._changed.notify_all()
        self._settle_elsewhere([(call, results.Outcome(error=error)) for call in calls])

    # Taking calls back

    def _cancel(self, call: Call) -> bool:
        if not call.future.done():
            self._take_back([call])
        return call.future.cancelled()

    def _take_back(self, calls: list[Call]) -> None:
        """Cancels those that have not begun; with others of their tasks, which are sent again."""
        here: list[Call] = []
        there: dict[Job, dict[Task, list[Call]]] = {}
        with self._changed:
            self._changed.wait_for(lambda: not any(call.sending for call in calls))
            for call in calls:
                task = call.task
                if call.future.done() or (task is not None and task.running):
                    continue
                call.dropped = True
                if task is None:
                    here.append(call)
                else:
                    there.setdefault(task.job, {}).setdefault(task, []).append(call)
        # Nothing is locked while callbacks run.
        self._cancelled(here)
        for job, tasks in there.items():
            cancelling = partial(self._recalling, list(tasks))
            try:
                recalled = recall(self._client._grid, job.job_id, sorted(task.index for task in tasks), cancelling)
            except MillgridError:
                recalled = set()  # What the grid can't be asked for can't be cancelled.
            for task, own in tasks.items():
                if task.index in recalled:
                    self._cancelled(own)
                else:
                    with self._changed:
                        for call in own:
                            call.dropped = False

    def _recalling(self, tasks: list[Task], cancelled: set[int]) -> None:
        with self._changed:
            for task in tasks:
                task.recalled = task.recalled or task.index in cancelled

    def _cancelled(self, calls: list[Call]) -> None:
        self._forget([call for call in calls if call.future._cancel_here()])


def _at_exit() -> None:
    """As for Python's own executors: the program exits when all pending calls have ended."""
    for executor in list(_EXECUTORS):
        if executor._pid == os.getpid():
            executor._drain()


# Before those of `concurrent.futures.thread`, which were registered first: results are read on its threads.
threading._register_atexit(_at_exit)  # type: ignore[attr-defined]
