"""What Snakemake asks of an executor; everything of the grid is in `_jobs`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.settings import SharedFSUsage

if TYPE_CHECKING:
    from ._jobs import GridJobs

#: What of the workflow's directory jobs must find where they run.
MUST_BE_SHARED = (SharedFSUsage.PERSISTENCE, SharedFSUsage.INPUT_OUTPUT, SharedFSUsage.SOURCES)


class Executor(RemoteExecutor):  # type: ignore[misc,unused-ignore]
    """Made by Snakemake. Each job or group of jobs is a job of Millgrid; their ends are told, and nothing polls."""

    def __init__(self, workflow: Any, logger: Any) -> None:
        # The other constructor starts the thread that waits.
        self._jobs: GridJobs | None = None
        self._threads = 1
        self._told = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()
        super().__init__(workflow, logger)

    def __post_init__(self) -> None:
        from ._jobs import GridJobs

        try:
            missing = [one for one in MUST_BE_SHARED if one not in self.workflow.storage_settings.shared_fs_usage]
            if missing:
                names = ", ".join(one.item_to_choice() for one in missing)
                raise WorkflowError(
                    "millgrid runs jobs in the workflow's own directory, on a file system that all workers share; "
                    f"--shared-fs-usage lacks {names}"
                )
            settings: Any = self.executor_settings
            self._jobs = GridJobs(settings, self.logger, self._wake)
        except BaseException:
            self._stop_waiting()
            raise

    @property
    def cores(self) -> Any:
        """Of the job that is being made: its Snakemake uses what was asked for, not all of the worker's machine."""
        return self._threads

    def run_job(self, job: Any) -> None:
        """Submits a job or a group; what the grid refuses has failed."""
        assert self._jobs is not None, "set by __post_init__"
        self._threads = max(1, job.threads)
        info = SubmittedJobInfo(job)
        # Snakemake 8 leaves out of `envvars()` what the workflow itself declares.
        declared = {name: os.environ[name] for name in getattr(self.workflow, "envvars", ()) if name in os.environ}
        refusal = self._jobs.submit(info, self.format_job_exec(job), {**declared, **self.envvars()})
        if refusal:
            self._failed(info, refusal, [])
            return
        self.report_job_submission(info)
        # Behind the report: an end that is told before it would be nobody's.
        self._jobs.follow(info)

    async def check_active_jobs(  # pyright: ignore[reportIncompatibleMethodOverride] - it says what isn't so
        self, active_jobs: list[SubmittedJobInfo]
    ) -> AsyncGenerator[SubmittedJobInfo, None]:
        """Reports those whose end was told; yields the others."""
        for info in active_jobs:
            assert self._jobs is not None, "nothing is active before it is set"
            ended = self._jobs.take_ended(info)
            if ended is None:
                yield info
            elif ended.state == "succeeded":
                self.report_job_success(info)
            else:
                message, log = await asyncio.to_thread(self._jobs.failure, ended)
                self._failed(info, message, [log] if log else [])
        if self._jobs is not None:
            await asyncio.to_thread(self._jobs.explain)

    def _failed(self, info: SubmittedJobInfo, message: str, logs: list[str]) -> None:
        if info.job.is_group():
            self.logger.error(message)  # Of groups Snakemake shows no message.
        self.report_job_error(info, msg=message, aux_logs=logs)

    async def sleep(self) -> None:
        """Until a job has ended, or it is time to say why one waits."""
        self._loop = asyncio.get_running_loop()
        if not self._told.is_set():
            pause = self._jobs.seconds_to_explain() if self._jobs is not None else 1.0
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._woken.wait(), pause)
        self._woken.clear()
        self._told.clear()

    def _wake(self) -> None:
        self._told.set()
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # The loop has ended.
                self._loop.call_soon_threadsafe(self._woken.set)

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        """Cancels all of this run, also what is being looked at just now and isn't among `active_jobs`."""
        if self._jobs is not None:
            self._jobs.cancel()

    def _stop_waiting(self) -> None:
        with self.lock:
            self.wait = False
        self._wake()

    def shutdown(self) -> None:
        """Nothing is waited for any more."""
        self._stop_waiting()
        super().shutdown()
        if self._jobs is not None:
            self._jobs.close()
