"""Jobs of one executor's functions: one that was made is used again while nothing has changed that it depends on."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._env import Env
from .._wire import jobs
from . import payload
from .payload import CallOptions, function_name

if TYPE_CHECKING:
    from .._client import Client

#: What the grid and its workers said, and stored, holds for so long.
KEPT_SECONDS = 60.0
#: Jobs that are kept.
KEPT = 16


class Specs:
    """What jobs of functions are, but for their rows. Not safe to use from several threads."""

    def __init__(self, client: Client, options: CallOptions) -> None:
        # Wrong options are told at once.
        payload.check(client, options)
        self._client = client
        self._options = options
        # Files that travel along may change at any time.
        self._keeps = not options.get("ship") and not isinstance(options.get("env"), Env)
        self._kept: dict[tuple[object, ...], tuple[float, jobs.JobSpec]] = {}

    def make(self, function: Callable[..., Any], *, alone: bool) -> jobs.JobSpec:
        """A job of this function as it is now; the caller's own.

        Args:
            alone: Each task has one call, and fails as its function does.
        """
        code = payload.pickled_function(function)
        key = (code, function_name(function), alone, len(sys.modules), tuple(sys.path), os.getcwd())
        until, kept = self._kept.get(key, (0.0, jobs.JobSpec()))
        now = time.monotonic()
        if now >= until:
            kept = payload.make_spec(self._client, function, self._options, alone=alone, code=code)
            if self._keeps:
                if len(self._kept) >= KEPT:
                    self._kept.clear()
                self._kept[key] = (now + KEPT_SECONDS, kept)
        spec = jobs.JobSpec()
        spec.CopyFrom(kept)
        return spec
