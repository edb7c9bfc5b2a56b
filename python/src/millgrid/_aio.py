"""The same names, awaitable. Waiting costs no thread; calls run on the loop's own threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from . import _watch
from ._client import Client
from ._errors import WaitTimeout
from ._flow import Flow
from ._jobs import Job
from ._logs import LogLine
from ._plot import Plot
from ._views import Event, Explanation, JobInfo, OutputObject, Plan, Queue, Tasks, Worker

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from ._calls.executor import GridExecutor
    from ._calls.payload import CallOptions
    from ._spec import Options

T = TypeVar("T")


class AsyncJob:
    """A job. `sync` is the same as a `Job`."""

    def __init__(self, job: Job) -> None:
        self.sync = job

    def __repr__(self) -> str:
        return f"<AsyncJob {self.sync.id}>"

    @property
    def id(self) -> int:
        """Its number."""
        return self.sync.id

    @property
    def state(self) -> Awaitable[str]:
        """To be awaited: its state now."""
        return asyncio.to_thread(lambda: self.sync.state)

    @property
    def task_count(self) -> Awaitable[int]:
        """To be awaited: how many tasks it has."""
        return asyncio.to_thread(lambda: self.sync.task_count)

    async def info(self) -> JobInfo:
        """The job as it stands now."""
        return await asyncio.to_thread(self.sync.info)

    async def tasks(self, indexes: str | int | range | None = None, *, attempts: bool = False) -> Tasks:
        """Its tasks, or some of them."""
        return await asyncio.to_thread(self.sync.tasks, indexes, attempts=attempts)

    async def explain(self, index: int | None = None) -> Explanation:
        """Why it, or one of its tasks, waits; why it failed; where it runs."""
        return await asyncio.to_thread(self.sync.explain, index)

    async def plot(self) -> Plot:
        """A picture of it: each attempt by worker and time, and the states of its tasks over time."""
        return await asyncio.to_thread(self.sync.plot)

    async def outputs(self, indexes: str | int | range | None = None) -> list[OutputObject]:
        """The objects that were published."""
        return await asyncio.to_thread(self.sync.outputs, indexes)

    async def wait(self, timeout: float | None = None) -> AsyncJob:
        """Waits until every task has ended, however.

        Raises:
            WaitTimeout: Time ran out; the job goes on.
        """
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()

        def settle(error: BaseException | None) -> None:
            if ended.done():
                return
            if error is None:
                ended.set_result(None)
            else:
                ended.set_exception(error)

        def see(change: _watch.Change) -> None:
            if change.error is not None or (change.job is not None and change.job.state in _watch.ENDED_JOB):
                loop.call_soon_threadsafe(settle, change.error)

        subscription = self.sync._client._hub.follow(self.id, see)
        try:
            await asyncio.wait_for(ended, timeout)
        except asyncio.TimeoutError:
            hint = "it goes on; wait again, or cancel it"
            message = f"job {self.id} has not ended within {timeout:g} s"
            raise WaitTimeout(message, hint=hint, reason="TIMEOUT") from None
        finally:
            subscription.close()
        return self

    async def progress(self, **options: Any) -> AsyncJob:
        """Shows how its tasks go on until it has ended; options are those of `Job.progress`."""
        await asyncio.to_thread(lambda: self.sync.progress(**options))
        return self

    async def raise_for_status(self) -> AsyncJob:
        """Raises `JobFailed` if it ended without success."""
        await asyncio.to_thread(self.sync.raise_for_status)
        return self

    async def results(self, timeout: float | None = None) -> list[Any]:
        """What the calls of a job of functions returned, in their order; waits for them."""
        await self.wait(timeout)
        values: list[Any] = await asyncio.to_thread(self.sync.results)
        return values

    def events(self, *, tasks: bool = True) -> AsyncIterator[Event]:
        """Changes of the job and its tasks as they happen, until it has ended."""
        return _iterate(lambda: self.sync.events(tasks=tasks))

    def logs(self, index: int | None = None, **options: Any) -> AsyncIterator[LogLine]:
        """What its tasks wrote, line by line; options are those of `Job.logs`."""
        return _iterate(lambda: self.sync.logs(index, **options))

    async def cancel(self, indexes: str | int | range | None = None, *, reason: str = "", cascade: bool = False) -> int:
        """Cancels it, or some of its tasks; how many."""
        return await asyncio.to_thread(self.sync.cancel, indexes, reason=reason, cascade=cascade)

    async def retry(self, indexes: str | int | range | None = None, **options: Any) -> AsyncJob:
        """New attempts for ended tasks; options are those of `Job.retry`."""
        await asyncio.to_thread(self.sync.retry, indexes, **options)
        return self

    async def hold(self) -> AsyncJob:
        """Nothing of it is started until `release`."""
        await asyncio.to_thread(self.sync.hold)
        return self

    async def release(self) -> AsyncJob:
        """Undoes `hold`."""
        await asyncio.to_thread(self.sync.release)
        return self

    async def set(self, **options: Any) -> AsyncJob:
        """Changes what can be changed before it has ended; options are those of `Job.set`."""
        await asyncio.to_thread(self.sync.set, **options)
        return self


class AsyncFlow:
    """Several jobs with edges among themselves, submitted at the end of an `async with` block."""

    def __init__(self, flow: Flow) -> None:
        self.sync = flow
        #: Adds a job; nothing is asked of the grid but small files that travel along.
        self.submit = flow.submit

    async def __aenter__(self) -> AsyncFlow:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.sync.__exit__, kind, error, trace)


class AsyncClient:
    """A grid, as your certificate lets you use it. Arguments are those of `Client`; `sync` is the same as a `Client`."""

    def __init__(self, context: str | None = None, *, sync: Client | None = None, **options: Any) -> None:
        self.sync = sync if sync is not None else Client(context, **options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.sync.close)

    async def submit(self, command: Sequence[str] | str, **options: Unpack[Options]) -> AsyncJob:
        """Submits a job of programs; returns when it is on the disks of a majority of coordinators."""
        return AsyncJob(await asyncio.to_thread(lambda: self.sync.submit(command, **options)))

    async def plan(self, command: Sequence[str] | str, **options: Unpack[Options]) -> Plan:
        """Validates a job and says what fits where; submits nothing."""
        return await asyncio.to_thread(lambda: self.sync.plan(command, **options))

    def flow(self, name: str) -> AsyncFlow:
        """Several jobs with edges among themselves, submitted atomically at the end of an `async with` block."""
        return AsyncFlow(self.sync.flow(name))

    async def job(self, job_id: int | str) -> AsyncJob:
        """A job by its number, or `"last"`."""
        return AsyncJob(await asyncio.to_thread(self.sync.job, job_id))

    async def jobs(self, **options: Any) -> list[JobInfo]:
        """Your jobs that have not ended, newest first; options are those of `Client.jobs`."""
        return await asyncio.to_thread(lambda: self.sync.jobs(**options))

    async def wait(self, *waited: AsyncJob, timeout: float | None = None) -> list[AsyncJob]:
        """Waits for all of several jobs.

        Raises:
            WaitTimeout: Time ran out; the jobs go on.
        """
        return list(await asyncio.gather(*(job.wait(timeout) for job in waited)))

    async def workers(self) -> list[Worker]:
        """All workers, by name."""
        return await asyncio.to_thread(self.sync.workers)

    async def queues(self) -> list[Queue]:
        """All queues, by name."""
        return await asyncio.to_thread(self.sync.queues)

    async def leader(self) -> str | None:
        """The name of the coordinator that leads."""
        return await asyncio.to_thread(self.sync.leader)

    def executor(self, **options: Unpack[CallOptions]) -> GridExecutor:
        """An executor; await its calls with `loop.run_in_executor(executor, f, x)` or `asyncio.wrap_future`."""
        return self.sync.executor(**options)


class _End:
    """Nothing follows, or why."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


async def _iterate(make: Callable[[], Iterator[T]]) -> AsyncIterator[T]:
    """An iterator that blocks, on a thread of its own; it is never far ahead of its reader."""
    loop = asyncio.get_running_loop()
    items: asyncio.Queue[T | _End] = asyncio.Queue()
    room = threading.Semaphore(1024)
    stopped = threading.Event()

    def put(item: T | _End) -> None:
        # The loop may be closed by now: then nobody reads.
        if not loop.is_closed():
            loop.call_soon_threadsafe(items.put_nowait, item)

    def run() -> None:
        end = _End()
        try:
            for item in make():
                room.acquire()
                if stopped.is_set():
                    return
                put(item)
        except BaseException as error:
            end = _End(error)
        put(end)

    threading.Thread(target=run, name="millgrid-iterate", daemon=True).start()
    try:
        while True:
            item = await items.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            room.release()
            yield item
    finally:
        stopped.set()
        room.release()
