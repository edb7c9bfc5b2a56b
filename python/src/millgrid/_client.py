"""The client: where everything begins."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from html import escape
from types import TracebackType
from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from . import _config
from ._blobs import Blobs
from ._flow import Flow
from ._grammar import refuse
from ._grid import DEFAULT_TIMEOUT, Grid
from ._jobs import Job, _wait_all
from ._spec import Options, build
from ._storage import Storage
from ._views import JobInfo, Plan, Queue, Worker
from ._watch import Hub
from ._wire import (
    CLUSTER_STATUS,
    GET_JOB,
    LIST_JOBS,
    LIST_QUEUES,
    LIST_WORKERS,
    PLAN_JOBS,
    SUBMIT_JOB,
    cluster,
    jobs,
    queues,
    request_id,
    workers,
)

if TYPE_CHECKING:
    import datetime

    from typing_extensions import Self, Unpack

    from ._calls.executor import GridExecutor
    from ._calls.payload import CallOptions


class Client:
    """A grid, as your certificate lets you use it. Connects when it is first used; safe in threads and after a fork.

    Args:
        context: Of `~/.config/millgrid/config.toml` or `./.millgrid.toml`; the current one by default, else the grid
            of `millgrid dev`.
        endpoint: Coordinators, https URLs, several comma-separated or as a list. Overrides the context's.
        ca, cert, key: PEM files. The environment (`MILLGRID_ENDPOINT`, `MILLGRID_CA`, `MILLGRID_CERT`,
            `MILLGRID_KEY`) comes between arguments and contexts.
        timeout: Seconds that one call is tried, retries included.
        store: `s3://bucket/prefix/` for arguments and results of functions that are too large to travel along;
            `MILLGRID_STORE` by default, and `s3://dev/.calls/` on a grid of `millgrid dev`.
    Raises:
        ConfigurationError: No grid is chosen, or a file can't be used.
    """

    def __init__(
        self,
        context: str | None = None,
        *,
        endpoint: str | Sequence[str] | None = None,
        ca: str | os.PathLike[str] | None = None,
        cert: str | os.PathLike[str] | None = None,
        key: str | os.PathLike[str] | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        store: str | None = None,
    ) -> None:
        settings = _config.load(context=context, endpoint=endpoint, ca=ca, cert=cert, key=key)
        self._setup(settings, timeout, store)

    def _setup(self, settings: _config.Settings, timeout: float, store: str | None) -> None:
        self.settings = settings
        self._grid = Grid(self.settings, timeout)
        self._hub = Hub(self._grid)
        self._blobs = Blobs(self._grid)
        #: Whose calls may follow one another in a process.
        self._group = request_id()[:16]
        self._storage = Storage(self.settings, store)
        self._seen: tuple[float, list[Worker]] = (0.0, [])

    def __repr__(self) -> str:
        return f"Client({', '.join(self.settings.endpoints)})"

    def _repr_html_(self) -> str:
        known = self.workers()
        leader = self._grid.call(CLUSTER_STATUS, cluster.GetClusterStatusRequest()).leader or "none"
        queued = sum(queue.queued for queue in self.queues())
        return (
            f"<b>millgrid</b> {escape(', '.join(self.settings.endpoints))}<br>leader {escape(leader)}, "
            f"{len(known)} workers with "
            f"{sum(one.cpu_milli for one in known) / 1000:g} cpus, {sum(one.running for one in known)} tasks running, "
            f"{queued} queued"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends all connections. Jobs go on."""
        self._hub.close()
        self._grid.close()

    # Jobs

    def submit(self, command: Sequence[str] | str, **options: Unpack[Options]) -> Job:
        """Submits a job of programs; returns when it is on the disks of a majority of coordinators.

        Args:
            command: Program and arguments, with placeholders such as `{index}`. A string is split at blanks.
            options: Those of `millgrid submit`, see `Options`.
        Raises:
            InvalidArgument: An option can't be meant; `field` names it.
            Infeasible: No pool could ever run it.
            Unavailable, Unreachable, TimedOut: No answer within the client's timeout. The error's `request_id` given
                as an option makes it safe to repeat.
        """
        rest: Options = {**options}
        given = rest.pop("request_id", None)
        if given == "":
            raise refuse("request_id", "it is empty", "leave it out, and one is drawn")
        spec = build(command, rest, self.settings.queue, self._blobs.store)
        return self._submit(spec, given)

    def _submit(self, spec: jobs.JobSpec, given: str | None = None) -> Job:
        job = self._grid.call(SUBMIT_JOB, jobs.SubmitJobRequest(request_id=given or request_id(), spec=spec))
        return Job(self, job.id, job)

    def plan(self, command: Sequence[str] | str, **options: Unpack[Options]) -> Plan:
        """Validates a job and says what fits where; submits nothing."""
        rest: Options = {**options}
        rest.pop("request_id", None)
        spec = build(command, rest, self.settings.queue, self._blobs.store)
        return Plan.of(self._grid.call(PLAN_JOBS, jobs.PlanJobsRequest(specs=[spec])).plans[0])

    def flow(self, name: str) -> Flow:
        """Several jobs with edges among themselves, submitted atomically at the end of a `with` block."""
        if not name:
            raise refuse("name", "it is empty", "name the flow")
        return Flow(self, name)

    def job(self, job_id: int | str) -> Job:
        """A job by its number, or `"last"`: your newest.

        Raises:
            NotFound: There is no such job.
        """
        request = jobs.GetJobRequest(last=True) if job_id == "last" else jobs.GetJobRequest(job_id=int(job_id))
        known = self._grid.call(GET_JOB, request)
        return Job(self, known.id, known)

    def jobs(
        self,
        *,
        all: bool = False,
        states: Sequence[str] = (),
        queue: str = "",
        labels: dict[str, str] | None = None,
        since: datetime.datetime | None = None,
        limit: int | None = 50,
    ) -> list[JobInfo]:
        """Your jobs that have not ended, newest first.

        Args:
            all: Everyone's, ended ones too.
            states: Only these.
            labels: All must match.
            since: Created after.
            limit: At most so many; none: no bound.
        """
        request = jobs.ListJobsRequest(all=all, queue=queue, labels=labels or {})
        for state in states:
            try:
                request.states.append(jobs.JobState.Value(f"JOB_STATE_{state.upper()}"))  # type: ignore[arg-type]
            except ValueError:
                raise refuse("states", f"`{state}` is no state of a job") from None
        if since is not None:
            stamp = Timestamp()
            stamp.FromDatetime(since)
            request.created_after.CopyFrom(stamp)
        found: list[JobInfo] = []
        while limit is None or len(found) < limit:
            request.page_size = 1000 if limit is None else min(1000, limit - len(found))
            page = self._grid.call(LIST_JOBS, request)
            found += map(JobInfo.of, page.jobs)
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
        return found[:limit]

    def wait(self, *waited: Job | int, timeout: float | None = None, any: bool = False) -> list[Job]:
        """Waits for all of several jobs, or for any of them; returns those that have ended.

        Raises:
            WaitTimeout: Time ran out; the jobs go on.
        """
        handles = [self.job(one) if isinstance(one, int) else one for one in waited]
        return _wait_all(self, handles, timeout, any_one=any)

    # The grid

    def workers(self) -> list[Worker]:
        """All workers, by name."""
        return list(self._workers())

    def _recent_workers(self, seconds: float = 10.0) -> list[Worker]:
        """All workers as they were at most so long ago."""
        at, known = self._seen
        if time.monotonic() - at > seconds or not known:
            known = list(self._workers())
            self._seen = (time.monotonic(), known)
        return known

    def _workers(self) -> Iterator[Worker]:
        request = workers.ListWorkersRequest()
        while True:
            page = self._grid.call(LIST_WORKERS, request)
            yield from map(Worker.of, page.workers)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def queues(self) -> list[Queue]:
        """All queues, by name."""
        request = queues.ListQueuesRequest()
        found: list[Queue] = []
        while True:
            page = self._grid.call(LIST_QUEUES, request)
            found += map(Queue.of, page.queues)
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    def leader(self) -> str | None:
        """The name of the coordinator that leads; none when there is none at present."""
        return self._grid.call(CLUSTER_STATUS, cluster.GetClusterStatusRequest()).leader or None

    # Functions

    def executor(self, **options: Unpack[CallOptions]) -> GridExecutor:
        """A `concurrent.futures.Executor` whose calls run on the grid. `options`: what each needs, see `CallOptions`.

        Raises:
            InvalidArgument: An option can't be meant.
        """
        from ._calls.executor import GridExecutor

        return GridExecutor(self, options)


def reattach(job_id: int) -> Job:
    """A job handle that was pickled: by its number, at the grid that is chosen here."""
    client = Client()
    return Job(client, job_id)
