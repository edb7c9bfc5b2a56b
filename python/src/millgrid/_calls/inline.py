"""Calls in this process, for users' own tests: as on the grid, pickled on the way there and back."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from typing import Any, TypeVar

from .._errors import MillgridError, RemoteTraceback, Unpicklable
from . import payload, results, runner
from .calls import GridFuture

T = TypeVar("T")


def outcome(function: Callable[..., Any], args: Iterable[Any], kwargs: dict[str, Any]) -> results.Outcome:
    """Calls a copy of the function with copies of the arguments; a copy of what comes of it."""
    name = payload.function_name(function)
    try:
        copy = pickle.loads(payload.pickled_function(function))
        sent = payload.pickled(tuple(args), kwargs, name)
        own_args, own_kwargs = pickle.loads(sent.data, buffers=sent.buffers)
    except MillgridError as error:
        return results.Outcome(error=error)
    try:
        value = copy(*own_args, **own_kwargs)
    except KeyboardInterrupt:
        raise  # It is meant for this process.
    except BaseException as error:
        import traceback

        error.__cause__ = RemoteTraceback(traceback.format_exc())
        return results.Outcome(error=error)
    try:
        return results.Outcome(pickle.loads(runner.dumps(value, None)))
    except Exception as error:
        return results.Outcome(error=Unpicklable(f"the result of `{name}` can't be pickled: {error}"))


def inline_future(function: Callable[..., T], args: Iterable[Any], kwargs: dict[str, Any]) -> GridFuture[T]:
    """A future that is done."""
    future: GridFuture[T] = GridFuture()
    future.set_running_or_notify_cancel()
    made = outcome(function, args, kwargs)
    if made.error is not None:
        future.set_exception(made.error)
    else:
        future.set_result(made.value)
    return future


class InlineExecutor(Executor):
    """An executor without a grid: each call is made when it is submitted."""

    def __init__(self) -> None:
        self._shutdown = False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> GridFuture[T]:
        """Makes the call."""
        if self._shutdown:
            raise RuntimeError("cannot schedule new futures after shutdown")
        return inline_future(fn, args, kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more calls."""
        self._shutdown = True


class InlineCalls:
    """What an array job of calls is on a grid; it has ended when it is made."""

    def __init__(
        self, function: Callable[..., Any], calls: Iterable[tuple[tuple[Any, ...], dict[str, Any]]]
    ) -> None:
        self._outcomes = [outcome(function, args, kwargs) for args, kwargs in calls]
        self.id = 0
        self.task_count = len(self._outcomes)

    @property
    def state(self) -> str:
        """`succeeded`, or `failed` if a call raised."""
        return "failed" if any(one.error is not None for one in self._outcomes) else "succeeded"

    def wait(self, timeout: float | None = None) -> InlineCalls:
        """There is nothing to wait for."""
        return self

    def progress(self, **_: Any) -> InlineCalls:
        """There is nothing to show."""
        return self

    def __iter__(self) -> Iterator[Any]:
        """What the calls returned; raises what a call raised where it stands."""
        return (one.get() for one in self._outcomes)

    def as_completed(
        self, timeout: float | None = None, *, return_exceptions: bool = False
    ) -> Iterator[tuple[int, Any]]:
        """What the calls returned, with their numbers."""
        for number, one in enumerate(self._outcomes):
            yield number, one.error if one.error is not None and return_exceptions else one.get()

    def outcomes(self, timeout: float | None = None) -> list[results.Outcome]:
        """What each call returned or raised."""
        return list(self._outcomes)

    def results(self, timeout: float | None = None) -> list[Any]:
        """What the calls returned; raises what the first that failed raised."""
        return [one.get() for one in self._outcomes]

    def successful(self, timeout: float | None = None) -> list[Any]:
        """What those calls returned that raised nothing."""
        return [one.value for one in self._outcomes if one.error is None]
