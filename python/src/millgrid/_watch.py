"""What becomes of jobs, told by the grid as it happens: nothing here polls.

A few streams carry the changes of all jobs that anybody in this process waits for. Where a stream breaks, the next one
begins behind the last message; what is told twice is harmless, and nothing older is told after something newer.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc

from ._errors import Closed, MillgridError, Unreachable
from ._grid import Grid, Tries, Trouble
from ._wire import LIST_TASKS, WATCH_JOBS, jobs

#: Streams of one kind; beyond it they are joined.
MANY_STREAMS = 8
#: What one stream may watch.
JOBS_IN_A_STREAM = 1000
ENDED_JOB = frozenset(
    (jobs.JOB_STATE_SUCCEEDED, jobs.JOB_STATE_FAILED, jobs.JOB_STATE_CANCELLED, jobs.JOB_STATE_SKIPPED)
)
ENDED_TASK = frozenset(
    (jobs.TASK_STATE_SUCCEEDED, jobs.TASK_STATE_FAILED, jobs.TASK_STATE_CANCELLED, jobs.TASK_STATE_SKIPPED)
)


@dataclass(frozen=True)
class Change:
    """News of one job: tasks as they stand now, then the job itself; or why there won't be any more."""

    index: int
    tasks: list[jobs.Task] = field(default_factory=list)
    job: jobs.Job | None = None
    error: MillgridError | None = None


Listener = Callable[[Change], None]


class Subscription:
    """One listener's interest in one job."""

    def __init__(self, job_id: int, tasks: bool, listener: Listener) -> None:
        self.job_id = job_id
        self.tasks = tasks
        self._listener = listener
        self._lock = threading.Lock()
        self._index = -1
        self.closed = False

        self.stream: Watch | None = None

    def close(self) -> None:
        """Nothing is told from now on, but for what is being told."""
        self.closed = True
        if self.stream is not None:
            self.stream.closed(self)

    def tell(self, change: Change) -> None:
        """Passes news on, unless something newer was told before."""
        with self._lock:
            if self.closed or change.index < self._index:
                return
            self._index = change.index
            self._listener(change)


class Hub:
    """All watches of one client."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._streams: list[_Stream] = []
        self._groups: weakref.WeakSet[Watch] = weakref.WeakSet()

    def follow(self, job_id: int, listener: Listener, *, tasks: bool = False) -> Subscription:
        """Tells `listener`, on another thread, everything from now on, beginning with the present state."""
        if self._pid != os.getpid():
            self._reset()  # The parent's threads don't exist here.
        subscription = Subscription(job_id, tasks, listener)
        with self._lock:
            self._streams = [stream for stream in self._streams if stream.alive()]
            stream = _Stream(self, [subscription], tasks)
            self._streams.append(stream)
            self._join(tasks)
        stream.start()
        return subscription

    def _join(self, tasks: bool) -> None:
        ready = [one for one in self._streams if one.tasks == tasks and one.token]
        if len(ready) <= MANY_STREAMS:
            return
        subscriptions = [one for stream in ready for one in stream.open()]
        if len({one.job_id for one in subscriptions}) > JOBS_IN_A_STREAM:
            return
        oldest = min((stream.token for stream in ready), key=lambda token: int(token.rpartition(":")[2]))
        joined = _Stream(self, subscriptions, tasks, oldest)
        for stream in ready:
            stream.stop()
        self._streams = [one for one in self._streams if one not in ready] + [joined]
        joined.start()

    def add(self, group: Watch) -> None:
        """Has a watch end with all others."""
        with self._lock:
            self._groups.add(group)

    def close(self) -> None:
        """Ends all streams, and tells those who listen."""
        with self._lock:
            streams, self._streams = self._streams, []
            groups = list(self._groups)
        watches: list[Watch] = [*streams, *groups]
        for watch in watches:
            watch.stop()
        for one in [one for watch in watches for one in watch.open()]:
            one.tell(Change(index=1 << 62, error=closed_error()))


class Watch:
    """A stream that goes on where it broke. Subclasses say what it is about."""

    def __init__(self, hub: Hub, token: str = "") -> None:
        self._hub = hub
        self.token = token
        self._stopped = False
        self._call: Any = None

    def _request(self) -> jobs.WatchJobsRequest:
        """What it asks for; its token is added."""
        raise NotImplementedError

    def _open(self, request: jobs.WatchJobsRequest) -> tuple[Any, int, int]:
        return self._hub._grid.stream(WATCH_JOBS, request)

    def _tell(self, message: jobs.WatchJobsResponse) -> None:
        """Passes a message on."""
        raise NotImplementedError

    def _refused(self, error: MillgridError) -> None:
        """There is no way to go on."""
        raise NotImplementedError

    def open(self) -> list[Subscription]:
        """Those who wait for news."""
        raise NotImplementedError

    def closed(self, subscription: Subscription) -> None:
        """One of them doesn't any more."""
        raise NotImplementedError

    def _over(self) -> bool:
        """Whether nobody needs another message."""
        return self._stopped or not self.open()

    def _gives_up(self) -> bool:
        """Asked where there is no stream: whether there need not be another one."""
        return self._over()

    def stop(self) -> None:
        """Nobody wants it any more."""
        self._stopped = True
        if self._call is not None:
            self._call.cancel()

    def _run(self) -> None:
        grid = self._hub._grid
        tries = Tries(grid, None, streaming=True)
        while not self._gives_up():
            request = self._request()
            request.resume_token = self.token
            call, slot, generation = self._open(request)
            self._call = call
            if self._stopped:  # Between the look above and the call.
                self.stop()
            try:
                try:
                    for message in call:
                        tries.came(slot)
                        self._tell(message)
                        if message.resume_token:
                            self.token = message.resume_token
                        if self._over():
                            call.cancel()
                            break
                except grpc.RpcError as error:
                    if not self._gives_up():
                        tries.failed(error, slot, generation)
                else:
                    if not self._gives_up():
                        tries._go_on(Trouble(0, Unreachable("the stream ended")), slot, generation)
            except MillgridError as error:
                self._refused(error)
                return


class _Stream(Watch):
    """A watch of jobs by their numbers, on a thread of its own."""

    def __init__(self, hub: Hub, subscriptions: list[Subscription], tasks: bool, token: str = "") -> None:
        super().__init__(hub, token)
        self._subscriptions = subscriptions
        for one in subscriptions:
            one.stream = self
        self.tasks = tasks
        self._started = False
        self._thread = threading.Thread(target=self._run, name="millgrid-watch", daemon=True)

    def start(self) -> None:
        # One that was joined to another before it began has nothing to do.
        if not self._stopped and not self._started:
            self._started = True
            self._thread.start()

    def alive(self) -> bool:
        return not self._stopped and (self._thread.is_alive() or not self._started)

    def open(self) -> list[Subscription]:
        return [one for one in self._subscriptions if not one.closed]

    def closed(self, subscription: Subscription) -> None:
        if not self.open():
            self.stop()

    def _request(self) -> jobs.WatchJobsRequest:
        return jobs.WatchJobsRequest(job_ids=sorted({one.job_id for one in self.open()}), tasks=self.tasks)

    def _refused(self, error: MillgridError) -> None:
        """Of several jobs one may be at fault: each is asked for alone."""
        open_ones = self.open()
        if len({one.job_id for one in open_ones}) > 1:
            for one in open_ones:
                _Stream(self._hub, [one], self.tasks, self.token).start()
            return
        for one in open_ones:
            one.tell(Change(index=1 << 62, error=error))

    def _tell(self, message: jobs.WatchJobsResponse) -> None:
        tasks: dict[int, list[jobs.Task]] = {}
        for task in message.tasks:
            tasks.setdefault(task.job_id, []).append(task)
        changed = {job.id: job for job in message.jobs}
        for one in self.open():
            own = tasks.get(one.job_id, [])
            job = changed.get(one.job_id)
            if message.reset and self.tasks and job is not None:
                # Tasks aren't part of a reset.
                own = list(ended_tasks(self._hub._grid, job))
            if own or job is not None:
                one.tell(Change(index=message.index, tasks=own, job=job))


def closed_error() -> Closed:
    return Closed("the client was closed", hint="jobs go on; another client finds them by their numbers")


def ended_tasks(grid: Grid, job: jobs.Job) -> Iterator[jobs.Task]:
    """All tasks of a job that have ended, in the order of the array."""
    counts = job.tasks
    if counts.succeeded + counts.failed + counts.cancelled + counts.skipped == 0:
        return
    yield from pages(grid, jobs.ListTasksRequest(job_id=job.id, states=sorted(ENDED_TASK)))


def pages(grid: Grid, request: jobs.ListTasksRequest) -> Iterator[jobs.Task]:
    """All tasks that were asked for, page by page."""
    while True:
        answer = grid.call(LIST_TASKS, request)
        yield from answer.tasks
        if not answer.next_page_token:
            return
        request.page_token = answer.next_page_token
