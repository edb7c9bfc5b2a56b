"""Submitit's executors and jobs on a grid: a script that was written for Slurm changes an import.

>>> from millgrid.submitit import AutoExecutor
>>> executor = AutoExecutor(folder="logs")
>>> executor.update_parameters(timeout_min=60, mem_gb=4, cpus_per_task=2, slurm_partition="gpu")
>>> jobs = executor.map_array(train, [0.1, 0.01])
>>> [job.result() for job in jobs]

It is a plugin of submitit, too: `submitit.AutoExecutor(folder="logs", cluster="millgrid")`. Nothing is written to the
folder, which need not be shared, and workers need neither this package nor submitit, unless the functions do.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from submitit.core import core, job_environment, utils

from . import _default, _watch
from ._calls import payload, results
from ._calls.payload import CallOptions
from ._calls.results import Outcome
from ._errors import CallFailed, RemoteError, RemoteTraceback, ResultLost
from ._grammar import refuse
from ._jobs import Job
from ._spec import add_rows
from ._submitit import converted, marked, separated
from ._views import Task
from ._wire import jobs

if TYPE_CHECKING:
    from ._client import Client

__all__ = ["AutoExecutor", "MillgridExecutor", "MillgridJob", "MillgridJobEnvironment"]

R = TypeVar("R", covariant=True)

#: Slurm's words for states, and for the causes of an end.
_STATES = {
    "waiting": "PENDING", "queued": "PENDING", "leased": "PENDING", "running": "RUNNING", "succeeded": "COMPLETED",
    "failed": "FAILED", "cancelled": "CANCELLED", "skipped": "CANCELLED",
}  # fmt: skip
_CAUSES = {"time_limit": "TIMEOUT", "out_of_memory": "OUT_OF_MEMORY", "worker_lost": "NODE_FAIL",
           "spot_reclaimed": "PREEMPTED", "queue_time_limit": "DEADLINE"}  # fmt: skip
_RULE = "----------------------"


class _Watcher(core.InfoWatcher):
    """Nothing is asked for again and again."""

    def register_job(self, job_id: str) -> None:
        pass


class _Followed:
    """A job of the grid, and which of its tasks have ended as the watch tells; all calls of an array share it."""

    def __init__(self, client: Client, number: int) -> None:
        self.client = client
        self.job = Job(client, number)
        self._changed = threading.Condition()
        self._ended: dict[int, jobs.Task] = {}
        self._told = False
        self._error: BaseException | None = None
        self._subscription: _watch.Subscription | None = None

    def ended(self, index: int, *, wait: bool) -> jobs.Task | None:
        """A task that has ended; with `wait` never none.

        Raises:
            MillgridError: It can't be followed, e.g. because there is no such job.
        """
        with self._changed:
            if self._subscription is None:
                self._told, self._error = False, None
                self._subscription = self.client._hub.follow(self.job.id, self._see, tasks=True)
            self._changed.wait_for(
                lambda: self._error is not None or index in self._ended or (self._told and not wait)
            )
            if self._error is not None:
                raise self._error
            return self._ended.get(index)

    def again(self, index: int) -> None:
        """Has a task run again."""
        with self._changed:
            self._ended.pop(index, None)
            old, self._subscription = self._subscription, None
        if old is not None:
            old.close()
        self.job.retry(index)

    def _see(self, change: _watch.Change) -> None:
        with self._changed:
            self._told, self._error = True, change.error
            for task in change.tasks:
                if task.state in _watch.ENDED_TASK:
                    self._ended[task.index] = task
                else:
                    self._ended.pop(task.index, None)
            self._changed.notify_all()
            over = change.job is not None and change.job.state in _watch.ENDED_JOB
            if over and self._subscription is not None:
                self._subscription.close()  # Everything is known.


class MillgridJob(core.Job[R]):
    """A call that was submitted: one task of a job of the grid.

    Args:
        folder: Of the executor.
        job_id: Number of the job; of a call of an array with its index, `42_7`.
    """

    watcher = _Watcher()

    def __init__(
        self,
        folder: Path | str,
        job_id: str,
        tasks: Sequence[int] = (0,),
        *,
        followed: _Followed | None = None,
        submission: utils.DelayedSubmission | None = None,
    ) -> None:
        super().__init__(folder, job_id, tasks)
        number, _, index = job_id.partition("_")
        self._number, self._index = int(number), int(index or 0)
        self._grid: _Followed | None = followed
        self._submitted = submission
        self._outcome: Outcome | None = None

    def _followed(self) -> _Followed:
        if self._grid is None:
            self._grid = _Followed(_default.client(), self._number)
        return self._grid

    @property
    def job(self) -> Job:
        """The job of the grid."""
        return self._followed().job

    def submission(self) -> utils.DelayedSubmission:
        """What was submitted; known in the process that did it."""
        if self._submitted is None:
            raise utils.UncompletedJobError(f"{self.job_id} was submitted by another process")
        return self._submitted

    def wait(self) -> None:
        """Until it has ended."""
        self._followed().ended(self._index, wait=True)

    def done(self, force_check: bool = False) -> bool:
        """Whether it has ended; this asks nobody, but looks at what was told."""
        return self._followed().ended(self._index, wait=False) is not None

    def cancel(self, check: bool = True) -> None:
        """Cancels it."""
        self.job.cancel(self._index, reason="cancelled through submitit")

    def _task(self) -> Task:
        ended = self._followed().ended(self._index, wait=False)
        return Task.of(ended) if ended is not None else self.job.tasks(self._index)[0]

    @property
    def state(self) -> str:
        """Now, in Slurm's words: PENDING, RUNNING, COMPLETED, FAILED, CANCELLED, TIMEOUT, OUT_OF_MEMORY, ..."""
        task = self._task()
        return _CAUSES.get(task.cause or "", _STATES[task.state]) if task.state == "failed" else _STATES[task.state]

    def get_info(self, mode: str = "force") -> dict[str, str]:
        """Number, state and worker."""
        return {"JobID": self.job_id, "State": self.state, "NodeList": self._task().worker}

    def results(self) -> list[R]:
        """The result, in a list of its own; waits for it.

        Raises:
            FailedJobError: The function raised; its exception is the cause.
            UncompletedJobError: It brought no result: it was cancelled, ran out of time, ended its interpreter, ...
        """
        error = self.exception()
        if error is not None:
            raise error
        assert self._outcome is not None, "read by `exception`"
        return [cast(R, self._outcome.value)]

    def exception(self) -> utils.UncompletedJobError | utils.FailedJobError | None:
        """What `results` would raise; waits for it."""
        error = self._read().error
        if error is None:
            return None
        found: utils.UncompletedJobError
        if isinstance(error, CallFailed) and not isinstance(error, RemoteError):
            found = utils.UncompletedJobError(f"Job {self.job_id} has not produced any output ({self.state}): {error}")
        else:
            trace = error.__cause__.text if isinstance(error.__cause__, RemoteTraceback) else repr(error)
            found = utils.FailedJobError(
                f"Job {self.job_id} failed during processing with trace:\n{_RULE}\n{trace}\n{_RULE}\n"
                f"You can check full logs with 'job.stderr()', or `millgrid logs {self._number}.{self._index}`"
            )
        found.__cause__ = error
        return found

    def _get_outcome_and_result(self) -> tuple[str, Any]:
        error = self.exception()
        if isinstance(error, utils.FailedJobError):
            return "error", str(error)
        if error is not None:
            raise error
        return "success", self._read().value

    def _read(self) -> Outcome:
        """What came of it. A result that died with its worker is made again."""
        followed, name = self._followed(), self.job._known.name if self.job._known is not None else "function"
        for _ in range(results.LOST_RETRIES + 1):
            if self._outcome is not None:
                break
            task = followed.ended(self._index, wait=True)
            assert task is not None, "it was waited for"
            found = results._of_task(followed.client, task, name)
            if found is None:
                followed.again(self._index)
            else:
                self._outcome = found[0]
        if self._outcome is None:
            hint = "the call was made; only its result is gone"
            self._outcome = Outcome(error=ResultLost(f"the result of `{name}` is lost", hint=hint))
        return self._outcome

    def _get_logs_string(self, name: str) -> str | None:
        if self._task().attempt == 0:
            return None
        return separated("".join(self.job.logs(self._index, stream="stderr")), name)

    def __del__(self) -> None:
        if self.__dict__.get("_cancel_at_deletion") and not self.done():
            self.cancel(check=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_grid": None, "_submitted": None, "_outcome": None}


class MillgridExecutor(core.Executor):
    """Submits calls as jobs of the grid, and many together as one array.

    Args:
        folder: As submitit wants it; nothing is written there.
        client: The grid; by default that of the innermost `with millgrid.dev()`, else `millgrid.Client()`.
        python: The interpreter on the workers.
    """

    job_class = MillgridJob

    def __init__(self, folder: str | Path, *, client: Client | None = None, python: str | None = None) -> None:
        super().__init__(folder)
        self._client = client or _default.client()
        if python is not None:
            self.parameters["python"] = python

    @classmethod
    def affinity(cls) -> int:
        """It is used where it is named."""
        return 0

    @classmethod
    def _valid_parameters(cls) -> set[str]:
        return set(CallOptions.__annotations__)

    def _internal_update_parameters(self, **kwargs: Any) -> None:
        options = converted(kwargs)
        if "labels" in options:
            options["labels"] = {**self.parameters.get("labels", {}), **options["labels"]}
        asked = {**self.parameters, **options}
        payload.check(self._client, cast(CallOptions, asked))  # Wrong ones are told at once, and change nothing.
        self.parameters = asked

    def _internal_process_submissions(
        self, delayed_submissions: Sequence[utils.DelayedSubmission]
    ) -> list[core.Job[Any]]:
        client = self._client
        for one in delayed_submissions:
            _check_no_checkpoint(one.function)
        function = delayed_submissions[0].function
        calls = [(one.args, one.kwargs) for one in delayed_submissions]
        if any(one.function is not function for one in delayed_submissions):
            calls = [((one.function, *one.args), one.kwargs) for one in delayed_submissions]
            function = _apply
        name = payload.function_name(function)
        spec = payload.make_spec(client, marked(function), cast(CallOptions, self.parameters), alone=True)
        spec.env["SUBMITIT_EXECUTOR"] = "millgrid"
        if many := len(calls) > 1:
            spec.env["MILLGRID_SUBMITIT_ARRAY"] = "{job}"
        arguments = [payload.pickled(args, kwargs, name) for args, kwargs in calls]
        if any(one.size > payload.INLINE_BYTES for one in arguments):
            payload.add_large(client, spec)
            add_rows(spec, ({"key": payload.upload(client, one)} for one in arguments), client._blobs.store)
        else:
            add_rows(spec, (payload.row([one.data]) for one in arguments), client._blobs.store)
        submitted = client._submit(spec)
        followed = _Followed(client, submitted.id)
        followed.job = submitted
        return [
            MillgridJob(self.folder, f"{submitted.id}_{at}" if many else str(submitted.id), followed=followed,
                        submission=one)
            for at, one in enumerate(delayed_submissions)
        ]  # fmt: skip


class AutoExecutor(MillgridExecutor):
    """In place of `submitit.AutoExecutor`: it understands what scripts for Slurm say, also with `slurm_` in front.

    Args:
        folder: As submitit wants it; nothing is written there.
        cluster: `millgrid`, or nothing; for the others there is `submitit.AutoExecutor`.
        client: The grid.
        options: Slurm's and submitit's own, as far as they mean something here: `slurm_python`.
    """

    def __init__(
        self, folder: str | Path, cluster: str | None = None, *, client: Client | None = None, **options: Any
    ) -> None:
        if cluster not in (None, "millgrid"):
            raise refuse("cluster", f"`{cluster}` is not this one", f"use submitit.AutoExecutor(cluster={cluster!r})")
        python = options.pop("slurm_python", None)
        # About checkpoints, and about files that aren't written here.
        for name in ("slurm_max_num_timeout", "max_num_timeout", "slurm_max_pickle_size_gb"):
            options.pop(name, None)
        unknown = [name for name in options if not name.startswith(("local_", "debug_"))]
        if unknown:
            raise refuse(unknown[0], "it has no meaning on a Millgrid grid", "give it to `update_parameters`?")
        super().__init__(folder, client=client, python=python)


class MillgridJobEnvironment(job_environment.JobEnvironment):
    """What `submitit.JobEnvironment()` is in a call on the grid, where submitit and this package are installed."""

    _env = {
        "job_id": "MILLGRID_JOB_ID", "array_job_id": "MILLGRID_SUBMITIT_ARRAY", "array_task_id": "MILLGRID_TASK_INDEX",
        "num_tasks": "MILLGRID_SUBMITIT_ONE", "num_nodes": "MILLGRID_SUBMITIT_ONE", "node": "MILLGRID_SUBMITIT_ZERO",
        "global_rank": "MILLGRID_SUBMITIT_ZERO", "local_rank": "MILLGRID_SUBMITIT_ZERO",
    }  # fmt: skip


def _apply(function: Any, *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


def _check_no_checkpoint(function: Any) -> None:
    if hasattr(function, "checkpoint") or hasattr(function, "__submitit_checkpoint__"):
        what = type(function).__name__
        hint = f"submit `{what}.__call__` of the object to start it anew each time, and keep what must last on S3"
        raise refuse("function", f"`{what}` wants to be checkpointed, which a Millgrid grid does not do", hint)
