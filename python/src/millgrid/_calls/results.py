"""From what a task wrote to what its calls returned."""

from __future__ import annotations

import concurrent.futures
import io
import pickle
import queue
import time
from binascii import a2b_base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import tblib

from .. import _logs, _views
from .._errors import (
    CallFailed,
    EnvMismatch,
    InterpreterDied,
    MissingModule,
    RemoteError,
    RemoteTraceback,
    ResultLost,
    Unpicklable,
    WaitTimeout,
)
from .._grammar import refuse
from .._watch import ENDED_TASK, Change, pages
from .._wire import jobs
from . import runner
from .payload import MARK

if TYPE_CHECKING:
    from .._client import Client
    from .._jobs import Job

#: Logs that are read at once.
READERS = 8
#: Answers up to this size may be read where nothing may take long.
PLAIN_BYTES = 4 << 10
#: How often a task is run again whose result died with its worker.
LOST_RETRIES = 3


@dataclass(frozen=True)
class Outcome:
    """What a call returned, or the exception that it raised."""

    value: Any = None
    error: BaseException | None = None

    def get(self) -> Any:
        """The value; raises the exception."""
        if self.error is not None:
            raise self.error
        return self.value


@dataclass
class Answers:
    """What one attempt answered, by the number of the call in its task."""

    outcomes: dict[int, Outcome] = field(default_factory=dict)
    #: How many calls the task had, once all were answered; else none.
    count: int | None = None
    #: How long all of them took.
    seconds: float = 0.0
    #: Why no call was tried.
    refused: Outcome | None = None


class NotPlain(Exception):
    """Reading it may take long, or run code of others."""


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise NotPlain(name)


def _load_plain(data: bytes) -> Any:
    return _Plain(io.BytesIO(data)).load()


def plain_answers(client: Client, task: jobs.Task, name: str) -> Answers | None:
    """The same where that is all there is to know, takes no time and runs nobody's code; else nothing."""
    if task.state != jobs.TASK_STATE_SUCCEEDED or not task.HasField("answer") or len(task.answer) > PLAIN_BYTES:
        return None
    try:
        found = answers(client, task, name, _load_plain)
    except NotPlain:
        return None
    failed = any(outcome.error is not None for outcome in found.outcomes.values())
    whole = found.count == len(found.outcomes) and found.refused is None
    return found if whole and not failed else None


def answers(client: Client, task: jobs.Task, name: str, load: Callable[[bytes], Any] = pickle.loads) -> Answers:
    """What the last attempt of a task that has ended answered: told with its end, or else in its log."""
    if task.HasField("answer"):
        data, lost = task.answer, 0
    else:
        data, lost = _logs.whole(client._grid, task.job_id, task.index, task.attempt, jobs.LOG_STREAM_STDOUT)
    found = Answers()
    for line in data.split(b"\n")[:-1]:
        words = line.split(b" ", 3)
        if words[0] == b"end" and not lost:
            found.count, found.seconds = int(words[1]), float(words[2])
        elif words[0] == b"*":
            found.refused = _outcome(client, task, words, name, load)
        elif words[0].isdigit():
            found.outcomes[int(words[0])] = _outcome(client, task, words, name, load)
    return found


def _outcome(
    client: Client, task: jobs.Task, words: list[bytes], name: str, load: Callable[[bytes], Any]
) -> Outcome:
    kind = words[1]
    if kind != b"ok" and load is _load_plain:
        raise NotPlain(kind)
    try:
        if kind == b"ok":
            return Outcome(load(a2b_base64(words[2])))
        if kind == b"raised":
            return Outcome(error=_raised(a2b_base64(words[2])))
        if kind == b"stored":
            if task.state != jobs.TASK_STATE_SUCCEEDED:
                return Outcome(error=ResultLost(f"the result of `{name}` was not published: its task failed"))
            return Outcome(_stored(client, task, words[2].decode()))
    except CallFailed as error:
        return Outcome(error=error)
    except NotPlain:
        raise
    except Exception as error:
        hint = "is a module missing here that the worker has?"
        failed = Unpicklable(f"the result of `{name}` can't be unpickled here: {error}", hint=hint)
        failed.__cause__ = error
        return Outcome(error=failed)
    return Outcome(error=_refused(words[2].decode(), words[3].decode() if len(words) > 3 else "", name, task.worker))


def _stored(client: Client, task: jobs.Task, file: str) -> Any:
    request = jobs.ListOutputsRequest(job_id=task.job_id)
    request.ranges.add(first=task.index, last=task.index, step=1)
    from .._wire import LIST_OUTPUTS

    page = client._grid.call(LIST_OUTPUTS, request)
    urls = {one.path: one.url for one in page.objects}
    for stored in page.stored:
        urls.update({one.path: one.url for one in client._storage.manifest(stored)})
    path = f"values/{file}" if file == "value" else f"results/{file}"
    _, body = client._storage.get(urls[path])
    return runner.load(_Body(body))


class _Body:
    """A body of S3 as a file with `readinto`."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def readinto(self, view: memoryview) -> int:
        data = self._body.read(min(len(view), 1 << 20))
        view[: len(data)] = data
        return len(data)


def _raised(data: bytes) -> BaseException:
    """The exception as itself, caused by its traceback where it ran."""
    pickled, trace, text = pickle.loads(data)
    remote = RemoteTraceback(text)
    if pickled is not None:
        try:
            error = pickle.loads(pickled)
            if isinstance(error, BaseException):
                # Its own cause stays in the text.
                error.__cause__ = remote
                return error.with_traceback(tblib.Traceback.from_dict(trace).as_traceback() if trace else None)
        except Exception:
            pass
    last = text.strip().splitlines()[-1] if text.strip() else "an exception"
    failed = RemoteError(last, hint="its class can't be unpickled here")
    failed.__cause__ = remote
    return failed


def _refused(word: str, text: str, name: str, worker: str) -> CallFailed:
    if word == "mismatch":
        hint = (
            "run the client with the workers' version, have yours made there with `env=millgrid.Env.current()`, or name "
            "one of theirs: `python='/path/of/python'`"
        )
        return EnvMismatch(f"{worker}: {text}", hint=hint, reason="ENV_MISMATCH")
    if word == "environment":
        hint = "leave out what workers can't have with `Env.current(exclude=[...])`, or see that they can have it"
        return EnvMismatch(f"{worker}: {text}", hint=hint, reason="ENV_NOT_MADE")
    if word == "module":
        hint = (
            "have it installed on the workers with `env=millgrid.Env.current()`, name their interpreter with `python=`, "
            "or send your own code with `ship=`"
        )
        return MissingModule(f"`{name}` can't run on {worker}: {text}", hint=hint, reason="MISSING_MODULE")
    if word == "large":
        hint = "give `Client(store='s3://bucket/prefix/')` or MILLGRID_STORE; what is above 64 KiB goes through S3"
        return CallFailed(f"`{name}` on {worker}: {text}", hint=hint, reason="RESULT_TOO_LARGE")
    if word == "result":
        hint = "return plain data; open files, locks and connections stay where they are"
        return Unpicklable(f"the result of `{name}` can't be pickled: {text}", hint=hint, reason="UNPICKLABLE")
    return Unpicklable(f"`{name}` can't be unpickled on {worker}: {text}", reason="UNPICKLABLE")


def died(task: jobs.Task, name: str, number: int) -> CallFailed:
    """Why a call has no answer although its task has ended."""
    call = f"call {number} of `{name}`" if number else f"`{name}`"
    cause = _views.word(jobs.Cause, task.cause) or ""
    where = f"on {task.worker} (task {task.job_id}.{task.index}, attempt {task.attempt})"
    see = f"see `millgrid logs {task.job_id}.{task.index}`"
    detail = f": {task.detail}" if task.detail else ""
    if cause == "signal":
        return InterpreterDied(f"{call} ended its interpreter {where}: signal {task.signal}", hint=see, reason="SIGNAL")
    if cause == "exit_code":
        code = task.exit_code
        return InterpreterDied(f"{call} ended its interpreter {where}: exit code {code}", hint=see, reason="EXIT_CODE")
    if cause == "out_of_memory":
        hint = "ask for more with `mem=`"
        return InterpreterDied(f"{call} ran out of memory {where}{detail}", hint=hint, reason="OUT_OF_MEMORY")
    if cause in ("command_not_found", "command_not_executable"):
        return EnvMismatch(f"there is no Python {where}{detail}", hint="name one with `python=`", reason="NO_PYTHON")
    state = _views.word(jobs.TaskState, task.state)
    return CallFailed(f"{call} was not answered: its task {state}, {cause}{detail}", hint=see, reason=cause.upper())


def outcomes(client: Client, job: Job, timeout: float | None = None) -> list[Outcome]:
    """Of all calls of a job of functions, in their order; waits for them."""
    known = job._get()
    if MARK not in known.spec.env:
        hint = "its output is in `logs()` and `outputs()`"
        raise refuse("job", f"job {job.id} is not one of functions", hint)
    read: list[list[Outcome] | None] = []
    for _ in range(LOST_RETRIES + 1):
        job.wait(timeout)
        tasks = list(pages(client._grid, jobs.ListTasksRequest(job_id=job.id)))
        with concurrent.futures.ThreadPoolExecutor(READERS, "millgrid-results") as readers:
            read = list(readers.map(lambda task: _of_task(client, task, known.name), tasks))
        lost = [task.index for task, one in zip(tasks, read) if one is None]
        if not lost or known.spec.at_most_once:
            break
        # A result that died with its worker is made again.
        for index in lost:
            job.retry(index)
    gone = Outcome(error=ResultLost(f"a result of `{known.name}` died with its worker", reason="RESULT_LOST"))
    return [outcome for one in read for outcome in ([gone] if one is None else one)]


def as_they_come(client: Client, job: Job, timeout: float | None = None) -> Iterator[tuple[int, list[Outcome]]]:
    """The outcomes of each task of a job of functions, with its index, in the order in which they end.

    Raises:
        WaitTimeout: Time ran out; the job goes on.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    known = job._get()
    if MARK not in known.spec.env:
        raise refuse("job", f"job {job.id} is not one of functions", "its output is in `logs()` and `outputs()`")
    read: queue.SimpleQueue[tuple[int, list[Outcome] | BaseException]] = queue.SimpleQueue()
    dealt_with: dict[int, int] = {}
    lost: dict[int, int] = {}
    readers = concurrent.futures.ThreadPoolExecutor(READERS, "millgrid-results")

    def answered(task: jobs.Task) -> None:
        try:
            found = _of_task(client, task, known.name)
            if found is None:
                lost[task.index] = lost.get(task.index, 0) + 1
                if lost[task.index] <= LOST_RETRIES and not known.spec.at_most_once:
                    job.retry(task.index)  # What comes of it is news again.
                    return
                text = f"a result of `{known.name}` died with its worker"
                found = [Outcome(error=ResultLost(text, reason="RESULT_LOST"))]
            read.put((task.index, found))
        except BaseException as error:
            read.put((task.index, error))

    def see(change: Change) -> None:
        if change.error is not None:
            read.put((-1, change.error))
        for task in change.tasks:
            if task.state in ENDED_TASK and dealt_with.get(task.index, -1) < task.attempt:
                dealt_with[task.index] = task.attempt
                readers.submit(answered, task)

    subscription = client._hub.follow(job.id, see, tasks=True)
    told: set[int] = set()
    try:
        while len(told) < known.task_count:
            try:
                index, found = read.get(timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                hint = "it goes on; what was not read yet can be read again"
                text = f"{known.task_count - len(told)} tasks of job {job.id} have not ended within {timeout:g} s"
                raise WaitTimeout(text, hint=hint, reason="TIMEOUT") from None
            if isinstance(found, BaseException):
                raise found
            if index not in told:
                told.add(index)
                yield index, found
    finally:
        subscription.close()
        readers.shutdown(wait=False, cancel_futures=True)


def _of_task(client: Client, task: jobs.Task, name: str) -> list[Outcome] | None:
    """In order; none when the task succeeded and its answers are lost."""
    found = answers(client, task, name) if task.attempt else Answers()
    if found.count is None and task.state == jobs.TASK_STATE_SUCCEEDED:
        return None
    answered = [found.refused] if found.refused is not None else list(_in_order(found.outcomes))
    if found.refused is not None:
        return answered
    return answered if found.count is not None else [*answered, Outcome(error=died(task, name, len(answered)))]


def _in_order(found: dict[int, Outcome]) -> Iterator[Outcome]:
    number = 0
    while number in found:
        yield found[number]
        number += 1


def results(client: Client, job: Job, timeout: float | None = None) -> list[Any]:
    """The values; raises what the first call that failed raised."""
    return [outcome.get() for outcome in outcomes(client, job, timeout)]
