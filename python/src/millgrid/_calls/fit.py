"""Whether any worker could run calls at all, as far as workers say it: asked before a job is submitted."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from .._env import Env
from .._errors import EnvMismatch

if TYPE_CHECKING:
    from .._client import Client


def refuse_if_nowhere(client: Client, environment: Env) -> None:
    """Refuses calls for which no worker has a Python.

    Workers say which minor versions are on the PATH of their tasks, in their label `python`. Where there is no worker
    yet, or one that doesn't say, or where the interpreter may be there for another reason, nothing is refused.

    Raises:
        EnvMismatch: None of them has it.
    """
    wanted = _wanted(client, environment)
    if not wanted:
        return
    have = _have(client, 10.0)
    if have is None or wanted in have:
        return
    # One that has it may have come a moment ago.
    have = _have(client, 0.0)
    if have is None or wanted in have:
        return
    theirs = ", ".join(sorted(have, key=lambda version: [int(part) for part in version.split(".")])) or "none"
    asked = environment.python or f"Python {wanted}, which the client is"
    hint = (
        "run the client with a version of theirs, let workers that have uv make one with "
        "`env=millgrid.Env.current()`, or name an interpreter that they have by its path: `python='/path/of/python'`"
    )
    raise EnvMismatch(f"no worker has {asked}; they have: {theirs}", hint=hint, reason="ENV_MISMATCH")


def _wanted(client: Client, environment: Env) -> str:
    """The minor version without which calls can't run; empty where that can't be said."""
    if environment.is_made or environment.python.startswith("/"):
        return ""
    if environment.python:
        found = re.fullmatch(r"python(3\.\d+)", environment.python)
        return found[1] if found else ""
    # On this machine there is the client's own interpreter.
    return "" if client.settings.dev else f"{sys.version_info[0]}.{sys.version_info[1]}"


def _have(client: Client, seconds: float) -> set[str] | None:
    """What workers have in all; none where that isn't known."""
    said = [worker.labels.get("python") for worker in client._recent_workers(seconds)]
    if not said or None in said:
        return None
    found = [re.fullmatch(r"3\.\d+", version.strip()) for text in said if text for version in text.split(",")]
    return {one[0] for one in found if one}
