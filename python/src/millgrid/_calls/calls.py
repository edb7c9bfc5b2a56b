"""Calls on their way: each has a future, and is part of a task of a job once it was sent."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from .._watch import Subscription
from . import results

if TYPE_CHECKING:
    from .executor import GridExecutor

T = TypeVar("T")

#: The first calls of a function tell how long it takes; the others wait for that at most so long.
PROBE_SECONDS = 1.0


class GridFuture(Future[T]):
    """A future of a call on the grid. `cancel` also takes back a call that waits there, if it was sent alone."""

    _call: Call | None = None

    def cancel(self) -> bool:
        """Takes the call back if it has not begun; whether it is cancelled."""
        call = self._call
        if call is None or call.executor is None:
            return super().cancel()
        return call.executor._cancel(call)

    def _cancel_here(self) -> bool:
        done = super().cancel()
        # Whoever waits for it need not wait for the grid. Two threads may come here.
        with self._condition:
            if self._state == "CANCELLED":
                self.set_running_or_notify_cancel()
        return done

    @property
    def job_id(self) -> int | None:
        """Number of the job that the call is part of; none while it has not been sent."""
        task = self._call.task if self._call is not None else None
        return task.job.job_id if task is not None else None


@dataclass(eq=False)
class Call:
    """A call and where it is: in its function's line while `task` is none."""

    future: GridFuture[Any]
    arguments: bytes
    #: Of its arguments on S3, if they are too large.
    key: str = ""
    task: Task | None = None
    executor: GridExecutor | None = None
    lost: int = 0
    #: On its way to the grid: whether it is a task there will be known soon.
    sending: bool = False
    #: Somebody takes it back: it isn't sent any more, and not again if its task is taken back.
    dropped: bool = False


@dataclass(eq=False)
class Task:
    """Calls that are run one after the other by one interpreter."""

    job: Job
    index: int
    calls: list[Call]
    #: The attempt whose end was dealt with.
    attempt: int = 0
    ended: bool = False
    running: bool = False
    #: It was cancelled here, for the sake of calls that were dropped; the others are sent again.
    recalled: bool = False


@dataclass(eq=False)
class Job:
    """A job that was submitted."""

    line: Line
    tasks: list[Task]
    job_id: int = 0
    open: int = 0
    subscription: Subscription | None = None


@dataclass(eq=False)
class Line:
    """Calls of one function that were not sent yet."""

    function: Callable[..., Any]
    #: Calls in a task; 0: as many as take `TASK_SECONDS`.
    chunk: int
    calls: deque[Call] = field(default_factory=deque)
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


def set_running(future: GridFuture[Any]) -> None:
    with future._condition:
        if future._state == "PENDING":
            future.set_running_or_notify_cancel()


def settle(future: GridFuture[Any], outcome: results.Outcome) -> None:
    """Sets what came of a call, unless it was cancelled or settled before."""
    set_running(future)
    if future.done():
        return
    if outcome.error is not None:
        future.set_exception(outcome.error)
    else:
        future.set_result(outcome.value)


def settle_quietly(future: GridFuture[Any], outcome: results.Outcome) -> bool:
    """The same, if nobody is to be called back; whether that was so."""
    with future._condition:
        if future._done_callbacks:  # type: ignore[attr-defined]
            return False
        settle(future, outcome)
        return True
