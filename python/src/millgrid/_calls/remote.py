"""`@millgrid.remote`: a function that stays one, and can be called on the grid."""

from __future__ import annotations

import functools
import itertools
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast, overload

from .. import _default
from .._errors import Unpicklable
from .._grammar import refuse
from .._jobs import Job
from .._spec import add_rows
from . import payload
from . import results as answers
from .calls import GridFuture
from .executor import GridExecutor
from .inline import InlineCalls, inline_future
from .payload import CallOptions, function_name

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .._client import Client
    from .._wire import jobs

P = ParamSpec("P")
T = TypeVar("T")

#: Arguments that are on their way to S3 at once.
_UPLOADS = 8


class Calls(Job, Generic[T]):
    """One array job of calls; task N has the calls from N x `chunksize` on."""

    def results(self, timeout: float | None = None) -> list[T]:
        """What the calls returned, in their order; waits for them.

        Args:
            timeout: Seconds to wait in all; none: for ever.
        Raises:
            Whatever the first call that failed raised, as itself, with the remote traceback as its cause.
            WaitTimeout: Time ran out; the job goes on.
        """
        values: list[T] = super().results(timeout)
        return values

    def __iter__(self) -> Iterator[T]:
        """What the calls returned, in their order, each as soon as it and those before it have ended.

        Raises:
            Whatever a call raised, where it stands.
        """
        early: dict[int, list[answers.Outcome]] = {}
        following = 0
        for task, found in answers.as_they_come(self._client, self):
            early[task] = found
            while following in early:
                for outcome in early.pop(following):
                    yield outcome.get()
                following += 1

    def as_completed(
        self, timeout: float | None = None, *, return_exceptions: bool = False
    ) -> Iterator[tuple[int, T]]:
        """What the calls returned as they end, each with its number, from 0 on in the order of the arguments.

        Args:
            timeout: Seconds from the first one that is asked for on; none: for ever.
            return_exceptions: What a call raised takes the place of its value, and ends nothing.
        Raises:
            Whatever a call raised, as itself, unless exceptions are returned.
            WaitTimeout: Time ran out; the job goes on.
        """
        chunk = int(self._get().spec.env.get(payload.MARK) or 1)
        for task, found in answers.as_they_come(self._client, self, timeout):
            for number, outcome in enumerate(found, task * chunk):
                if outcome.error is not None and return_exceptions:
                    yield number, cast(T, outcome.error)
                else:
                    yield number, outcome.get()

    def outcomes(self, timeout: float | None = None) -> list[answers.Outcome]:
        """What each call returned or raised, in their order; waits for them."""
        return answers.outcomes(self._client, self, timeout)

    def successful(self, timeout: float | None = None) -> list[T]:
        """What those calls returned that raised nothing, in their order; waits for all."""
        return [outcome.value for outcome in self.outcomes(timeout) if outcome.error is None]


class RemoteFunction(Generic[P, T]):
    """A function, and its twin on the grid. Made by `remote`."""

    def __init__(self, function: Callable[P, T], client: Client | None, options: CallOptions) -> None:
        functools.update_wrapper(self, function)
        self.__name__ = function_name(function)
        self.function = function
        self.options = options
        self._client = client
        self._lock = threading.Lock()
        self._executors: dict[int, GridExecutor] = {}

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls it here."""
        return self.function(*args, **kwargs)

    def __reduce__(self) -> str | tuple[object, ...]:
        name = self.function.__qualname__
        module = sys.modules.get(self.function.__module__)
        if self.function.__module__ != "__main__" and getattr(module, name, None) is self:
            return name  # A name that can be imported.
        return (RemoteFunction, (self.function, None, self.options))

    def __repr__(self) -> str:
        return f"<remote {function_name(self.function)}>"

    def with_options(self, **options: Unpack[CallOptions]) -> RemoteFunction[P, T]:
        """The same function with other options besides its own."""
        return RemoteFunction(self.function, self._client, cast(CallOptions, {**self.options, **options}))

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> GridFuture[T]:
        """Calls it on the grid; a `concurrent.futures.Future` of its result.

        Raises:
            Unpicklable: The arguments can't be sent.
        """
        if _default.is_inline():
            return inline_future(self.function, args, kwargs)
        return self._executor().submit(self.function, *args, **kwargs)

    def map(
        self,
        *iterables: Iterable[Any],
        product: bool = False,
        max_running: int | None = None,
        chunksize: int = 1,
        **named: Iterable[Any],
    ) -> Calls[T]:
        """Calls it for each of the arguments, as one array job: one task for each call.

        Args:
            iterables: Of positional arguments.
            named: Of keyword arguments.
            product: Every combination, the first varying slowest; otherwise one of each, as long as all have some.
            max_running: Tasks that may run at once.
            chunksize: Calls in one task.
        Raises:
            InvalidArgument: There is no call.
        """
        combine = itertools.product if product else zip
        names = list(named)
        positional = len(iterables)
        rows = combine(*iterables, *named.values())
        return self._array(
            ((row[:positional], dict(zip(names, row[positional:]))) for row in rows), max_running, chunksize
        )

    def starmap(
        self, arguments: Iterable[Iterable[Any]], *, max_running: int | None = None, chunksize: int = 1
    ) -> Calls[T]:
        """As `map`, with all positional arguments of a call in one."""
        return self._array(((tuple(args), {}) for args in arguments), max_running, chunksize)

    def _array(
        self, calls: Iterator[tuple[tuple[Any, ...], dict[str, Any]]], max_running: int | None, chunksize: int
    ) -> Calls[T]:
        if chunksize < 1:
            raise refuse("chunksize", f"{chunksize} is below 1")
        if _default.is_inline():
            return cast("Calls[T]", InlineCalls(self.function, calls))
        client = self._client or _default.client()
        options: CallOptions = {**self.options}
        if max_running is not None:
            options["max_running"] = max_running
        name = function_name(self.function)
        spec = payload.make_spec(client, self.function, options, alone=True)
        # What it takes to number the calls of a task.
        spec.env[payload.MARK] = str(chunksize)
        self._add_calls(client, spec, calls, chunksize, name)
        job = client._submit(spec)
        return Calls(client, job.id, job._known)

    def _add_calls(
        self,
        client: Client,
        spec: jobs.JobSpec,
        calls: Iterator[tuple[tuple[Any, ...], dict[str, Any]]],
        chunksize: int,
        name: str,
    ) -> None:
        """Rows of small arguments; if any are large, all of them go through S3."""
        tasks: list[list[payload.Pickled]] = []
        large = False
        while chunk := list(itertools.islice(calls, chunksize)):
            arguments = [payload.pickled(args, kwargs, name) for args, kwargs in chunk]
            size = sum(one.size for one in arguments)
            tasks.append(arguments)
            if size <= payload.ROW_BYTES and not any(one.buffers for one in arguments):
                continue
            if chunksize > 1:
                hint = "use a smaller `chunksize`; with 1, what is larger goes through S3"
                raise Unpicklable(f"arguments of `{name}` have {size} bytes, 92 KiB at most in one task", hint=hint)
            if not large:
                # Told before anything is sent, if there is no place for them.
                payload.add_large(client, spec)
                large = True
            # What is large doesn't stay in memory.
            tasks[-1] = [payload.Pickled(b"", key=payload.upload(client, arguments[0]))]
        if not large:
            return add_rows(spec, (payload.row(one.data for one in task) for task in tasks), client._blobs.store)
        with ThreadPoolExecutor(_UPLOADS, "millgrid-uploads") as uploads:
            keys = list(uploads.map(lambda task: task[0].key or payload.upload(client, task[0]), tasks))
        add_rows(spec, ({"key": key} for key in keys), client._blobs.store)

    def _executor(self) -> GridExecutor:
        client = self._client or _default.client()
        with self._lock:
            executor = self._executors.get(id(client))
            if executor is None or not executor.usable():
                executor = self._executors[id(client)] = GridExecutor(client, self.options)
            return executor


@overload
def remote(function: Callable[P, T], /) -> RemoteFunction[P, T]: ...
@overload
def remote(
    *, client: Client | None = None, **options: Unpack[CallOptions]
) -> Callable[[Callable[P, T]], RemoteFunction[P, T]]: ...
def remote(
    function: Callable[..., Any] | None = None, /, *, client: Client | None = None, **options: Unpack[CallOptions]
) -> Any:
    """Makes a function callable on the grid; it stays a plain function.

    Args:
        client: The grid; by default that of the innermost `with millgrid.dev()`, else `millgrid.Client()`.
        options: What each call needs, see `CallOptions`.

    >>> @millgrid.remote(cpus=2, mem="4G")
    ... def train(lr: float, *, depth: int = 3) -> float: ...
    >>> train.submit(0.1, depth=4).result()
    """
    if function is not None:
        return RemoteFunction(function, client, options)
    return lambda decorated: RemoteFunction(decorated, client, options)
