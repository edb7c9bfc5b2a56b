"""A Dask cluster whose workers are jobs, for those who know dask-jobqueue.

>>> from dask.distributed import Client
>>> from millgrid.dask import MillgridCluster
>>> cluster = MillgridCluster(cores=4, memory="16GB", queue="gpu")
>>> cluster.adapt(minimum=0, maximum=100)
>>> client = Client(cluster)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import sys
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import dask.utils
from distributed import Scheduler, Security
from distributed.core import Status
from distributed.deploy.adaptive import Adaptive
from distributed.deploy.cluster import Cluster
from distributed.deploy.spec import ProcessInterface, SpecCluster

from . import _default, _watch
from ._errors import MillgridError
from ._grammar import refuse
from ._jobs import TAIL_LINES, Job
from ._spec import Needs, add_file, needs
from ._views import JobInfo
from ._wire import jobs

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._client import Client

__all__ = ["MillgridCluster", "MillgridWorker"]

T = TypeVar("T")
logger = logging.getLogger("millgrid.dask")

#: Workers that end one after the other before any of them was known to the scheduler; then no more are started.
FUTILE = 3
#: How long a worker that was asked to end may take before its job is cancelled.
RETIRE_SECONDS = 20.0
#: Between SIGTERM and SIGKILL, unless `grace` is given: what a worker has is handed over when it retires.
GRACE = "5s"
#: A worker finds modules where this process does, as far as these folders are there.
_LAUNCH = (
    "import os, sys; sys.path += [path for path in {paths!r} if path not in sys.path and os.path.exists(path)]; "
    "from distributed.cli.dask_worker import main; main(prog_name='dask worker')"
)


class MillgridWorker(ProcessInterface):
    """One worker of a cluster: a job with one task. Made by the cluster."""

    def __init__(self, scheduler: str, *, name: str, cluster: Callable[[], MillgridCluster | None], **_: Any) -> None:
        super().__init__(scheduler=scheduler, name=name)
        self.name = name
        self.job: Job | None = None
        self._scheduler_address = scheduler
        self._owner = cluster
        self._attempt = 0
        self._ended = asyncio.Event()
        self._subscription: _watch.Subscription | None = None

    async def start(self) -> None:
        """Submits the job; returns when the grid has it."""
        cluster = self._owner()
        assert cluster is not None, "a cluster starts its own workers"
        loop = asyncio.get_running_loop()
        try:
            self.job = await _aside(partial(cluster._submit, self.name, self._scheduler_address))
        except MillgridError as error:
            await super().start()
            cluster._start_task(cluster._replace(self, _watch.Change(index=0, error=error)))
            return

        def see(change: _watch.Change) -> None:
            with contextlib.suppress(RuntimeError):  # The loop has ended.
                loop.call_soon_threadsafe(self._see, change)

        self._subscription = cluster._grid_client._hub.follow(self.job.id, see, tasks=True)
        await super().start()

    def _see(self, change: _watch.Change) -> None:
        cluster = self._owner()
        over = change.error is not None or (change.job is not None and change.job.state in _watch.ENDED_JOB)
        if over:
            self._ended.set()
        if cluster is None or self.status != Status.running:
            return
        attempt = max((task.attempt for task in change.tasks), default=0)
        if attempt > self._attempt:
            if self._attempt:
                # Its machine was lost and the job runs elsewhere, under the same name, which must be free.
                cluster._start_task(cluster._forget(self.name))
            self._attempt = attempt
        if over:
            cluster._start_task(cluster._replace(self, change))

    async def close(self) -> None:
        """Asks the worker to hand over what it has and to end; cancels its job if it doesn't."""
        if self.status in (Status.closing, Status.closed):
            return
        self.status = Status.closing
        cluster = self._owner()
        if cluster is not None and cluster.status == Status.running and await cluster._retire(self.name):
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._ended.wait(), RETIRE_SECONDS)
        if self._subscription is not None:
            self._subscription.close()
        if self.job is not None and not self._ended.is_set():
            try:
                await _aside(partial(self.job.cancel, reason="the Dask cluster does not need it any more"))
            except MillgridError as error:
                logger.warning("job %s of worker %s could not be cancelled: %s", self.job.id, self.name, error)
        await super().close()


class MillgridCluster(SpecCluster):
    """A Dask cluster: the scheduler is in this process, and each worker is a job, that waits in a queue, is explained,
    and runs elsewhere when its machine is lost.

    Args:
        cores: Threads of a worker, and cpus of its job.
        memory: Of a worker, as Dask writes it: `"16GB"`, `"16GiB"`; not reserved, and the machine's, by default.
        n_workers: To begin with.
        client: The grid; by default that of the innermost `with millgrid.dev()`, else `millgrid.Client()`.
        walltime: Time limit of a worker, as `time`.
        python: The interpreter on the workers; by default this one's path.
        env: Variables of the workers.
        host: Address that the scheduler listens on and workers reach it by; by default all interfaces, on a grid of
            this machine alone the loopback.
        interface: Network interface instead, of scheduler and workers.
        security: `distributed.Security`, or true for a new authority of this cluster; certificates travel along with
            the jobs. Without it whoever reaches the scheduler's port can run code on the workers.
        death_timeout: Seconds after which a worker ends that does not find the scheduler.
        worker_extra_args: More words for `dask worker`.
        scheduler_options: More options of `distributed.Scheduler`.
        dashboard_address: Where the dashboard listens; the loopback alone with a loopback `host`.
        options: What jobs need besides: queue, labels, constraints, priority, gpus, scratch, ...; by `name` jobs
            and workers are called `NAME-0`, `NAME-1`, ...
    Raises:
        InvalidArgument: An option can't be meant; `field` names it.
    """

    def __init__(
        self,
        cores: int = 1,
        memory: str | int | None = None,
        *,
        n_workers: int = 0,
        client: Client | None = None,
        walltime: str | None = None,
        python: str | None = None,
        env: Mapping[str, str] | None = None,
        host: str | None = None,
        interface: str | None = None,
        protocol: str | None = None,
        security: Security | bool | None = None,
        death_timeout: float = 60,
        worker_extra_args: tuple[str, ...] | list[str] = (),
        scheduler_options: dict[str, Any] | None = None,
        dashboard_address: str = ":8787",
        asynchronous: bool = False,
        loop: Any = None,
        silence_logs: Any = "error",
        shutdown_on_close: bool = True,
        **options: Unpack[Needs],
    ) -> None:
        self._grid_client = client or _default.client()
        self._variables = dict(env or {})
        if not isinstance(cores, int) or cores < 1:
            raise refuse("cores", f"{cores!r} is not a whole number from 1 on")
        memory_bytes = int(dask.utils.parse_bytes(memory)) if memory is not None else 0
        self._needs = cast(Needs, {"cpus": cores, "grace": GRACE, **options})
        if memory_bytes:
            self._needs["mem"] = f"{math.ceil(memory_bytes / (1 << 20))}M"
        if walltime is not None:
            self._needs["time"] = walltime
        unknown = sorted(set(options) - set(Needs.__annotations__))
        if unknown:
            known = ", ".join(sorted(Needs.__annotations__))
            raise refuse(unknown[0], "there is no such option", f"there are: {known}")
        needs(self._needs, self._grid_client.settings.queue, self._variables)  # Wrong options are told at once.
        local = all(_is_loopback(endpoint) for endpoint in self._grid_client.settings.endpoints)
        if host is None and interface is None and local:
            host = "127.0.0.1"
        if security is True:
            security = Security.temporary()
        self._tls = _certificates(security) if isinstance(security, Security) else {}
        paths = [os.path.abspath(path or ".") for path in sys.path]
        self._words = [python or sys.executable, "-c", _LAUNCH.format(paths=paths)]
        self._words += ["--nthreads", str(cores), "--no-nanny", "--no-dashboard"]
        self._words += ["--death-timeout", f"{death_timeout:g}"]
        self._words += ["--memory-limit", str(memory_bytes)] if memory_bytes else []
        self._words += [] if "chdir" in options else ["--local-directory", "dask"]
        self._words += ["--interface", interface] if interface else ["--host", host] if host == "127.0.0.1" else []
        self._words += [*worker_extra_args]
        self._worker_name = options.get("name", "dask-worker")
        self._numbers = 0
        self._futile = 0
        self._tasks: set[asyncio.Task[None]] = set()
        if host == "127.0.0.1" and dashboard_address.startswith(":"):
            dashboard_address = host + dashboard_address
        scheduler = {
            "host": host, "interface": interface, "security": security or None, "dashboard_address": dashboard_address,
            "protocol": protocol or ("tls://" if security else "tcp://"), **(scheduler_options or {}),
        }  # fmt: skip
        worker = {"nthreads": cores, "memory_limit": memory_bytes, "cluster": weakref.ref(self)}
        super().__init__(
            scheduler={"cls": Scheduler, "options": scheduler},
            worker={"cls": MillgridWorker, "options": worker},
            security=security or None, asynchronous=asynchronous, loop=loop, silence_logs=silence_logs,
            shutdown_on_close=shutdown_on_close,
        )  # fmt: skip
        if n_workers:
            self.scale(n_workers)

    # What people use

    def scale(self, n: int = 0, memory: str | None = None, cores: int | None = None, jobs: int = 0) -> Any:
        """Sets how many workers there are to be.

        Args:
            n: Workers.
            memory: As many as have so much together.
            cores: As many as have so many together.
            jobs: As `n`, since each is a job.
        """
        self._futile = 0
        return super().scale(max(n, jobs), memory=memory, cores=cores)

    def adapt(
        self, *args: Any, minimum_jobs: int | None = None, maximum_jobs: int | None = None, **options: Any
    ) -> Adaptive:
        """Lets the number of workers follow the work, from `minimum` to `maximum`; see `distributed.Adaptive`."""
        self._futile = 0
        if minimum_jobs is not None:
            options["minimum"] = minimum_jobs
        if maximum_jobs is not None:
            options["maximum"] = maximum_jobs
        return super().adapt(*args, **options)

    @property
    def jobs(self) -> dict[str, Job]:
        """The job of each worker, by the worker's name."""
        return {str(name): worker.job for name, worker in list(self.workers.items()) if worker.job is not None}

    def explain(self) -> str:
        """Why workers that have not begun are waiting: one paragraph for each."""
        texts = []
        for name, job in self.jobs.items():
            if (why := job.explain()).state in ("queued", "waiting"):
                texts.append(f"{name}, job {job.id}: {why}")
        return "\n".join(texts)

    def worker_command(self, name: str = "NAME", scheduler: str = "SCHEDULER") -> list[str]:
        """What a worker's job runs."""
        tls = [word for option in self._tls for word in (f"--tls-{option}", f"tls/{option}.pem")]
        return [*self._words, *tls, "--name", name, scheduler]

    # What distributed asks for

    def new_worker_spec(self) -> dict[str, Any]:
        """The next worker; no name is used twice."""
        number, self._numbers = self._numbers, self._numbers + 1
        return {f"{self._worker_name}-{number}": self.new_spec}

    def _update_worker_status(self, op: str, msg: Any) -> None:
        if op == "add":
            self._futile = 0
        # Not what SpecCluster does: a worker that is out of reach may be on its way to another machine. That it has
        # ended is told by its job.
        Cluster._update_worker_status(self, op, msg)

    # Workers as jobs

    def _submit(self, name: str, scheduler: str) -> Job:
        client = self._grid_client
        spec = needs(self._needs, client.settings.queue, self._variables)
        spec.name = name
        spec.command.extend(word.replace("{", "{{").replace("}", "}}") for word in self.worker_command(name, scheduler))
        for option, pem in self._tls.items():
            add_file(spec, f"tls/{option}.pem", pem, client._blobs.store)
        return client._submit(spec)

    def _start_task(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _forget(self, name: str) -> None:
        """Frees the name of a worker whose machine was lost."""
        scheduler = cast(Scheduler, self.scheduler)
        address = scheduler.aliases.get(name)
        if address is not None:
            await scheduler.remove_worker(address, stimulus_id=f"millgrid-lost-{name}")

    async def _retire(self, name: str) -> bool:
        """Has a worker hand over its data and end; whether there is such a worker."""
        scheduler = cast(Scheduler, self.scheduler)
        known = name in scheduler.aliases
        if known:
            await scheduler.retire_workers(names=[name], close_workers=True)
        return known

    async def _replace(self, worker: MillgridWorker, change: _watch.Change) -> None:
        """A worker's job has ended: another takes its place, if one is wanted."""
        worker.status = Status.closed
        worker._event_finished.set()
        if worker._subscription is not None:
            worker._subscription.close()
        if self.workers.get(worker.name) is worker:
            del self.workers[worker.name]
        if self.worker_spec.pop(worker.name, None) is None or self.status != Status.running:
            return
        await self._forget(worker.name)
        why = str(change.error) if change.error is not None else _ended(change.job)
        if change.job is None or change.job.state != jobs.JOB_STATE_SUCCEEDED:
            self._futile += 1
            tail = await _aside(partial(_tail, worker.job))
            number = f"job {worker.job.id}" if worker.job is not None else "not submitted"
            logger.warning("worker %s, %s, ended: %s%s", worker.name, number, why, tail)
        if self._futile >= FUTILE:
            logger.error("%d workers ended before they reached the scheduler; no more are started until `scale` or "
                         "`adapt` is called", self._futile)  # fmt: skip
            if (adaptive := getattr(self, "_adaptive", None)) is not None:
                adaptive.stop(reason="workers end at once")
            return
        self.worker_spec.update(self.new_worker_spec())
        await self._correct_state()


async def _aside(work: Callable[[], T]) -> T:
    """Does something that blocks. At the end of the process there are no threads for it any more."""
    try:
        result = asyncio.get_running_loop().run_in_executor(None, work)
    except RuntimeError:
        return work()
    return await result


def _ended(job: jobs.Job | None) -> str:
    if job is None:
        return "its job is gone"
    info = JobInfo.of(job)
    code = f" {info.exit_code}" if info.cause == "exit_code" else ""
    return f"{info.state}, {info.cause or info.reason}{code}"


def _tail(job: Job | None) -> str:
    try:
        lines = list(job.logs(index=0, tail_bytes=4096)) if job is not None else []
    except MillgridError:
        return ""
    return "\n" + "".join(lines[-TAIL_LINES:]).rstrip() if lines else ""


def _is_loopback(endpoint: str) -> bool:
    host = endpoint.removeprefix("https://").rsplit(":", 1)[0]
    return host.startswith("127.") or host in ("localhost", "[::1]")


def _certificates(security: Security) -> dict[str, bytes]:
    """What workers need for TLS, by the option of `dask worker`."""
    found: dict[str, bytes] = {}
    config = security.get_tls_config_for_role("worker")
    for key, option in (("ca_file", "ca-file"), ("cert", "cert"), ("key", "key")):
        if value := config.get(key):
            if "-----BEGIN" in value:
                found[option] = value.encode()
            else:
                with open(value, "rb") as file:
                    found[option] = file.read()
    return found
