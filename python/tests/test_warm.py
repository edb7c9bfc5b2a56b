"""Interpreters that are kept: a call's process is forked from one that has everything loaded."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import pytest

import millgrid


def where() -> tuple[bool, int, str, str | None]:
    """Whether this process was forked, its parent, its directory, and a variable."""
    return "ctypes" in sys.modules, os.getppid(), os.getcwd(), os.environ.get("MILLGRID_TEST_WARM")


def leave_traces() -> None:
    os.environ["MILLGRID_TEST_WARM"] = "left behind"
    os.chdir("/")
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()


def kill_itself(number: int) -> None:
    os.kill(os.getpid(), number)


def warm(ex: millgrid.GridExecutor) -> tuple[bool, int, str, str | None]:
    """Calls until a call's process comes from a server."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        found = ex.submit(where).result(60)
        if found[0]:
            return found
    raise AssertionError("no call was ever forked")


def test_calls_are_forked_and_know_nothing_of_one_another(client: millgrid.DevClient) -> None:
    with client.executor() as ex:
        _, parent, directory, _ = warm(ex)
        ex.submit(leave_traces).result(60)
        again = [ex.submit(where).result(60) for _ in range(4)]
    assert all(found[0] and found[3] is None for found in again)
    assert len({found[2] for found in again}) == len(again), "each has a directory of its own"
    assert all(found[2].startswith(os.path.dirname(os.path.dirname(os.path.dirname(directory)))) for found in again)
    # Children of the workers' keepers, of which there are two.
    assert len({parent, *(found[1] for found in again)}) <= 2


def test_another_environment_is_another_interpreter(client: millgrid.DevClient) -> None:
    with client.executor(env={"MILLGRID_TEST_WARM": "1", "PYTHONHASHSEED": "7"}) as one:
        found, hashed = warm(one), one.submit(hash, "a string").result(60)
        same = one.submit(hash, "a string").result(60)
    assert found[3] == "1"
    with client.executor(env={"MILLGRID_TEST_WARM": "2", "PYTHONHASHSEED": "8"}) as other:
        assert warm(other)[3] == "2"
        assert other.submit(hash, "a string").result(60) != hashed == same


def test_a_call_that_ends_its_interpreter_ends_nobody_else(client: millgrid.DevClient) -> None:
    with client.executor() as ex:
        warm(ex)
        for number in (signal.SIGKILL, signal.SIGSEGV):
            with pytest.raises(millgrid.InterpreterDied, match=f"signal {int(number)}"):
                ex.submit(kill_itself, number).result(60)
        with pytest.raises(millgrid.InterpreterDied, match="exit code 7"):
            ex.submit(os._exit, 7).result(60)
        assert warm(ex)[0]


def test_calls_go_on_when_the_interpreter_they_come_from_is_killed(client: millgrid.DevClient) -> None:
    with client.executor() as ex:
        _, keeper, _, _ = warm(ex)
        children: set[int] = set()
        for thread in os.listdir(f"/proc/{keeper}/task"):
            with open(f"/proc/{keeper}/task/{thread}/children") as file:
                children.update(map(int, file.read().split()))
        servers = [pid for pid in children if b"millgrid_call.py" in _command(pid)]
        assert servers
        for pid in servers:
            os.kill(pid, signal.SIGKILL)
        assert [ex.submit(pow, 2, n).result(60) for n in range(4)] == [1, 2, 4, 8]


def _command(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


def test_the_result_is_in_the_log_too(client: millgrid.DevClient) -> None:
    with client.executor() as ex:
        warm(ex)
        future = ex.submit(pow, 3, 4)
        assert future.result(60) == 81
    assert future.job_id is not None
    assert client.job(future.job_id).results() == [81]
