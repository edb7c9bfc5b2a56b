"""The grid that is meant where none is named."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._client import Client

_lock = threading.Lock()
_named: list[Client] = []
_own: Client | None = None
_inline = False


def configure(*, client: Client | None = None, inline: bool = False) -> None:
    """Sets what functions with `@millgrid.remote` use when they name no client.

    Args:
        client: A grid; by default `millgrid.Client()`, made when it is first needed.
        inline: No grid: calls are made in this process when they are submitted, and pickled as if there were one.
    """
    global _own, _inline
    with _lock:
        _own, _inline = client, inline


def is_inline() -> bool:
    """Whether calls are made in this process."""
    return _inline


def client() -> Client:
    """The innermost that was entered, else the one that was configured, else a new one that is kept."""
    global _own
    from ._client import Client

    with _lock:
        if _named:
            return _named[-1]
        if _own is None:
            _own = Client()
        return _own


def enter(entered: Client) -> None:
    """It is the default from now on."""
    with _lock:
        _named.append(entered)


def leave(left: Client) -> None:
    """It isn't any more."""
    with _lock:
        _named.remove(left)
