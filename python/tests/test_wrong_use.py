"""Wrong use: an exception that names the thing and the way out, at once where no work is needed."""

from __future__ import annotations

import dataclasses
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import millgrid
from calls import add, large

#: Where no work is needed.
AT_ONCE = 1.0
#: Where a task has to run; a tenth of it on a quiet machine.
A_TASK = 10.0


@contextmanager
def within(seconds: float) -> Iterator[None]:
    begun = time.monotonic()
    yield
    took = time.monotonic() - begun
    assert took < seconds, f"{took:.2f} s"


def unanswered(client: millgrid.DevClient, *, ports: list[int], timeout: float = 30.0) -> millgrid.DevClient:
    """A client of other ports."""
    other = millgrid.DevClient(client.grid, timeout=timeout)
    endpoints = tuple(f"https://127.0.0.1:{port}" for port in ports)
    other._setup(dataclasses.replace(other.settings, endpoints=endpoints), timeout, None)
    return other


@contextmanager
def free_ports(count: int) -> Iterator[list[int]]:
    """Ports where nobody listens, and nobody else will."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        yield [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


@pytest.mark.parametrize(
    "use",
    [
        lambda client: client.submit(["true"]),
        lambda client: client.job(1),
        lambda client: client.executor().submit(add, 1).result(),
        lambda client: list(client.executor().map(add, [1])),
        lambda client: millgrid.remote(client=client)(add).map([1]),
        lambda client: list(millgrid.Job(client, 1).events()),
        lambda client: millgrid.Job(client, 1).wait(),
    ],
)
def test_no_grid(client: millgrid.DevClient, use: Callable[[millgrid.Client], Any]) -> None:
    with free_ports(3) as ports, within(AT_ONCE), pytest.raises(millgrid.Unreachable) as raised:
        use(unanswered(client, ports=ports))
    assert raised.value.reason == "NO_GRID"
    text = str(raised.value)
    assert all(f"127.0.0.1:{port}" in text for port in ports) and "millgrid dev" in text and "context=" in text


def test_some_endpoints_that_refuse_are_no_missing_grid(client: millgrid.DevClient) -> None:
    there = [int(url.rsplit(":", 1)[1]) for url in client.settings.endpoints]
    with free_ports(2) as ports:
        assert unanswered(client, ports=[*ports, there[0]]).submit(["true"]).id


def test_a_grid_that_was_there_is_waited_for(client: millgrid.DevClient) -> None:
    there = unanswered(client, ports=[int(client.settings.endpoints[0].rsplit(":", 1)[1])], timeout=2.0)
    assert there.submit(["true"]).id
    with free_ports(1) as ports:
        there._grid.settings = dataclasses.replace(there.settings, endpoints=(f"https://127.0.0.1:{ports[0]}",))
        there._grid.close()
        begun = time.monotonic()
        with pytest.raises(millgrid.Unreachable, match="tried for"):
            there.submit(["true"])
        # Pauses double from 50 to 100 ms on; the one that would end too late, at the earliest the fifth, is not begun.
        assert time.monotonic() - begun > 0.7


def test_what_cannot_be_pickled(client: millgrid.DevClient) -> None:
    lock = threading.Lock()
    with client.executor() as ex, within(AT_ONCE):
        with pytest.raises(millgrid.Unpicklable, match=r"argument 2 \(lock\) of `add`.*\nhint: .*make them in the function"):
            ex.submit(add, 1, lock)  # type: ignore[arg-type]
        error = ex.submit(lambda: lock.locked()).exception()
    assert isinstance(error, millgrid.Unpicklable) and "lambda" in str(error) and "make them in the" in str(error)


def test_a_module_that_the_worker_does_not_have(client: millgrid.DevClient, tmp_path: Path) -> None:
    (tmp_path / "not_there.py").write_text("def f():\n    return 1\n")
    sys.path.insert(0, str(tmp_path))
    try:
        import not_there  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(tmp_path))
    with client.executor() as ex, within(A_TASK):
        error = ex.submit(not_there.f).exception()
    assert isinstance(error, millgrid.MissingModule)
    assert "not_there" in error.message and "ship=" in error.hint and "python=" in error.hint


def test_a_function_that_kills_its_interpreter(client: millgrid.DevClient) -> None:
    with client.executor() as ex, within(A_TASK):
        error = ex.submit(os._exit, 7).exception()
    assert isinstance(error, millgrid.InterpreterDied)
    assert "`_exit` ended its interpreter" in error.message and "exit code 7" in error.message
    assert "millgrid logs" in error.hint


def test_a_result_that_is_too_large(client: millgrid.DevClient) -> None:
    nowhere = millgrid.DevClient(client.grid)
    nowhere._setup(dataclasses.replace(nowhere.settings, dev=False), 30.0, None)
    with nowhere.executor(python=sys.executable) as ex, within(A_TASK):
        error = ex.submit(large, 100_000).exception()
    assert isinstance(error, millgrid.CallFailed)
    assert "`large`" in error.message and "bytes" in error.message and "store=" in error.hint


def test_an_argument_that_is_too_large(client: millgrid.DevClient) -> None:
    nowhere = millgrid.DevClient(client.grid)
    nowhere._setup(dataclasses.replace(nowhere.settings, dev=False), 30.0, None)
    with nowhere.executor() as ex, within(AT_ONCE), pytest.raises(millgrid.StorageError, match="MILLGRID_STORE"):
        ex.submit(len, b"x" * 100_000)


def test_another_python(client: millgrid.DevClient) -> None:
    with client.executor(python="/no/such/python") as ex, within(A_TASK):
        error = ex.submit(add, 1).exception()
    assert isinstance(error, millgrid.EnvMismatch)
    assert "/no/such/python" in error.message and "python=" in error.hint
