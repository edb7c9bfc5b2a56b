"""A backend for joblib, and so for scikit-learn: `n_jobs` run on the grid.

>>> import joblib, millgrid.joblib
>>> millgrid.joblib.register()
>>> with joblib.parallel_config(backend="millgrid", n_jobs=-1, mem="4G"):
...     search.fit(x, y)
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from joblib import register_parallel_backend
from joblib.parallel import ParallelBackendBase

from . import _default
from ._calls.calls import GridFuture
from ._calls.executor import GridExecutor

if TYPE_CHECKING:
    from ._client import Client

__all__ = ["MillgridBackend", "register"]

#: What joblib hands over is called without arguments; named so, workers need no module of ours.
_CALL = operator.methodcaller("__call__")


class MillgridBackend(ParallelBackendBase):  # type: ignore[misc,unused-ignore]
    """Made by joblib; options of `parallel_config` besides its own are those of calls: cpus, mem, queue, ..."""

    supports_retrieve_callback = True
    default_n_jobs = -1

    def __init__(self, client: Client | None = None, nesting_level: int | None = None, **options: Any) -> None:
        super().__init__(nesting_level=nesting_level)
        self._client = client
        self._options = options
        self._executor: GridExecutor | None = None
        self._futures: list[GridFuture[Any]] = []

    def effective_n_jobs(self, n_jobs: int | None) -> Any:
        """How many calls there are at once: as many as the grid can run, unless it is told."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 has no meaning")
        if n_jobs is None or n_jobs > 0:
            return n_jobs or 1
        return max(1, self._begin()._known_slots() + 1 + n_jobs)

    def _begin(self) -> GridExecutor:
        if self._executor is None or not self._executor.usable():
            self._executor = GridExecutor(self._client or _default.client(), self._options)  # type: ignore[arg-type]
        return self._executor

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], Any] | None = None) -> GridFuture[Any]:
        """Sends a batch of calls."""
        future = self._begin().submit(_CALL, func)
        self._futures.append(future)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    apply_async = submit

    def retrieve_result_callback(self, out: GridFuture[Any]) -> Any:
        """What a batch returned; raises what a call raised."""
        return out.result()

    def terminate(self) -> None:
        """All calls have ended, or nobody wants them any more."""
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None
        self._futures.clear()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """A call failed: what has not begun is taken back."""
        self.terminate()


def register(client: Client | None = None, *, make_default: bool = False) -> None:
    """Makes the backend `millgrid` known to joblib.

    Args:
        client: The grid; by default that of the innermost `with millgrid.dev()`, else `millgrid.Client()`.
        make_default: Use it where no other is named.
    """

    def make(**options: Any) -> MillgridBackend:
        return MillgridBackend(client, **options)

    register_parallel_backend("millgrid", make, make_default=make_default)
