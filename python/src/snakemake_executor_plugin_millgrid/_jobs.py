"""The jobs of one run of a workflow on the grid, whose states the watch tells."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snakemake_interface_common.exceptions import WorkflowError

import millgrid
from millgrid import _watch

if TYPE_CHECKING:
    from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo

    from . import ExecutorSettings

#: A submit is tried so long before the run is given up: a grid that is being repaired is waited for.
SUBMIT_SECONDS = 300.0
#: Cancels on their way at once.
CANCELS = 8
#: Of the log, in the message of a failed job.
TAIL_LINES = 30
#: Of names and labels, which are cut: the grid takes 256.
NAME_BYTES = 200
#: The attempt's own space, where it has some, is where rules' temporary files go.
SCRIPT = '#!/bin/sh\nset -e\nif [ -n "$MILLGRID_SCRATCH" ]; then export TMPDIR="$MILLGRID_SCRATCH"; fi\n'


@dataclass(eq=False)
class Sent:
    """A job that is on the grid; its state as it was told last."""

    info: SubmittedJobInfo
    job: millgrid.Job
    name: str
    since: float
    state: str = "queued"
    error: Exception | None = None
    subscription: _watch.Subscription | None = None

    def ended(self) -> bool:
        """Whether there is nothing to wait for."""
        return self.error is not None or self.state in ("succeeded", "failed", "cancelled", "skipped")


class GridJobs:
    """All jobs of a run. `wake` is called when one has ended."""

    def __init__(self, settings: ExecutorSettings, logger: Any, wake: Callable[[], None]) -> None:
        self._settings = settings
        self._logger = logger
        self._wake = wake
        self._sent: dict[str, Sent] = {}
        self._first_pause = float(settings.explain_after)
        self._pause = self._first_pause
        self._explain_at = time.monotonic() + self._first_pause
        self._run = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
        try:
            self._client = millgrid.Client(settings.context, endpoint=settings.endpoint, timeout=SUBMIT_SECONDS)
        except millgrid.MillgridError as error:
            raise WorkflowError(f"millgrid: {error}") from error
        logger.info(f"Millgrid jobs of this run have the label snakemake_run={self._run}")

    def submit(self, info: SubmittedJobInfo, command: str, env: dict[str, str]) -> str:
        """Submits a job; why it was refused, or nothing.

        Raises:
            WorkflowError: The grid could not be asked.
        """
        try:
            asked = self._options(info.job, env)
            asked["script"] = f"{SCRIPT}{command}\n"
            job = self._client.submit([], **asked)
        except (millgrid.Refused, ValueError) as error:
            return f"millgrid did not take the job: {error}\n"
        except millgrid.MillgridError as error:
            raise WorkflowError(f"millgrid: {error}") from error
        info.external_jobid = str(job.id)
        self._sent[info.external_jobid] = Sent(info, job, name(info.job), time.monotonic())
        return ""

    def follow(self, info: SubmittedJobInfo) -> None:
        """From now on its end is told."""
        sent = self._sent[info.external_jobid or ""]

        def see(change: _watch.Change) -> None:
            if change.error is not None:
                sent.error = change.error
            elif change.job is not None:
                sent.state = millgrid.JobInfo.of(change.job).state
            if sent.ended():
                self._wake()

        sent.subscription = self._client._hub.follow(sent.job.id, see)

    def take_ended(self, info: SubmittedJobInfo) -> Sent | None:
        """The job if it has ended; it is not followed any more then."""
        sent = self._sent[info.external_jobid or ""]
        if not sent.ended() or sent.subscription is None:
            return None
        sent.subscription.close()
        return self._sent.pop(info.external_jobid or "")

    def failure(self, sent: Sent) -> tuple[str, str]:
        """What to say of a job that has failed, and the file that its log was written to."""
        what = f"millgrid job {sent.job.id} ({sent.name})"
        if sent.error is not None:
            return f"{what} can't be followed any more: {sent.error}\n", ""
        try:
            info = sent.job.info()
            what += f" {info.state}, cause {info.cause or info.reason or 'unknown'}"
            if info.cause == "exit_code":
                what += f", exit code {info.exit_code}"
            what += "".join(f": {group.detail}" for group in info.failures[:1] if group.detail)
            lines = list(sent.job.logs(index=0))
        except millgrid.MillgridError as error:
            return f"{what}; its log can't be read: {error}\n", ""
        path = Path(".snakemake/millgrid_logs", rule(sent.info.job), f"{sent.job.id}.log").absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(lines))
        tail = "".join(f"        {line.rstrip()}\n" for line in lines[-TAIL_LINES:])
        return f"{what}\n{tail}", str(path)

    def seconds_to_explain(self) -> float:
        """Until `explain` has something to say, if nothing changes."""
        return max(0.0, self._explain_at - time.monotonic())

    def explain(self) -> None:
        """Says now and then why the job that waits longest does; of one, since others will wait for the same."""
        now = time.monotonic()
        if now < self._explain_at:
            return
        waiting = [sent for sent in list(self._sent.values()) if sent.state in ("queued", "waiting")]
        oldest = min(waiting, key=lambda sent: sent.since, default=None)
        if oldest is None or now - oldest.since < self._first_pause:
            self._pause = self._first_pause
            self._explain_at = (now if oldest is None else oldest.since) + max(0.1, self._first_pause)
            return
        others = f", and {len(waiting) - 1} more" if len(waiting) > 1 else ""
        try:
            why = str(oldest.job.explain())
        except millgrid.MillgridError as error:
            why = f"the grid does not say why: {error}"
        waited = f"{now - oldest.since:.0f} s"
        self._logger.warning(f"millgrid job {oldest.job.id} ({oldest.name}) waits for {waited}{others}: {why}")
        self._pause *= 2
        self._explain_at = now + max(1.0, self._pause)

    def cancel(self) -> None:
        """Cancels what has not ended."""

        def one(sent: Sent) -> None:
            try:
                sent.job.cancel(reason="the workflow was stopped")
            except millgrid.MillgridError as error:
                self._logger.error(f"millgrid job {sent.job.id} ({sent.name}) could not be cancelled: {error}")

        with ThreadPoolExecutor(CANCELS, "millgrid-cancel") as pool:
            list(pool.map(one, list(self._sent.values())))

    def close(self) -> None:
        """Ends the connections; jobs go on."""
        self._client.close()

    def _options(self, job: Any, env: dict[str, str]) -> millgrid.Options:
        settings, resources = self._settings, job.resources
        labels = {"snakemake_run": self._run, "snakemake_rule": _cut(rule(job))}
        labels.update(_pairs(settings.labels) | _pairs(resources.get("millgrid_labels")))
        passed = ["PATH", *(word.strip() for word in (settings.env or "").split(",") if word.strip())]
        own = {key: os.environ[key] for key in passed if key in os.environ}
        asked: millgrid.Options = {
            "name": _literal(name(job)),
            "cpus": max(1, job.threads),
            "labels": labels,
            "env": {key: _literal(value) for key, value in {**own, **env}.items()},
            "chdir": os.getcwd(),
        }
        if queue := resources.get("millgrid_queue") or settings.queue:
            asked["queue"] = str(queue)
        if constraints := resources.get("millgrid_constraints"):
            asked["constraints"] = str(constraints).split()
        if mem := resources.get("mem_mb"):
            asked["mem"] = f"{int(mem)}M"
        if runtime := resources.get("runtime"):
            asked["time"] = f"{max(1, round(float(runtime) * 60))}s"
        if gpus := resources.get("gpu") or resources.get("nvidia_gpu"):
            asked["gpus"] = int(gpus)
        if settings.disk_as_scratch and (disk := resources.get("disk_mb")):
            asked["scratch"] = f"{int(disk)}M"
        return asked


def rule(job: Any) -> str:
    """The rule's name; of a group the group's."""
    return str(job.groupid if job.is_group() else job.rule.name)


def name(job: Any) -> str:
    """Rule and wildcards, as people know the job; of a group its rules."""
    if job.is_group():
        return _cut(str(job.name))
    return _cut("-".join([str(job.rule.name), *(str(value) for value in job.wildcards_dict.values())]))


def _cut(text: str) -> str:
    return text.encode()[:NAME_BYTES].decode("utf-8", "ignore")


def _literal(text: str) -> str:
    """Braces are meant as they stand."""
    return text.replace("{", "{{").replace("}", "}}")


def _pairs(text: str | None) -> dict[str, str]:
    pairs = (word.strip().partition("=") for word in (text or "").split(",") if word.strip())
    return {key: value for key, _, value in pairs}
