"""Interpreters that are kept: a call's process is forked from one that has everything loaded."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def who() -> int:
    return os.getpid()


def shared(ex: millgrid.GridExecutor, call: Callable[[], int]) -> bool:
    """Whether calls come twice from one process, sooner or later: others are made while the machine is busy."""
    found = [ex.submit(call).result(60) for _ in range(3)]
    until = time.monotonic() + 60
    while len(set(found)) == len(found) and time.monotonic() < until:
        found.append(ex.submit(call).result(60))
    return len(set(found)) < len(found)


def keep_a_file() -> int:
    sys.__dict__["kept"] = open(os.devnull)
    return os.getpid()


def keep_memory() -> int:
    sys.__dict__["kept"] = b"x" * (8 << 20)
    return os.getpid()


def import_from_elsewhere() -> int:
    import tqdm

    return os.getpid() if tqdm else 0


def import_of_pythons_own() -> int:
    import colorsys

    return os.getpid() if colorsys else 0


def fail() -> None:
    raise ValueError(str(os.getpid()))


def seeded(seed: int | None) -> tuple[int, float]:
    import random

    if seed is not None:
        random.seed(seed)
    return os.getpid(), random.random()


def seeded_numpy(seed: int | None) -> tuple[int, float]:
    import numpy

    if seed is not None:
        numpy.random.seed(seed)
    return os.getpid(), float(numpy.random.random())


@pytest.mark.parametrize("call", [who, import_of_pythons_own, import_from_elsewhere, keep_memory])
def test_a_process_that_has_nothing_left_of_its_call_makes_the_next(
    client: millgrid.DevClient, call: Callable[[], int]
) -> None:
    with client.executor() as ex:
        warm(ex)
        assert shared(ex, call)


@pytest.mark.parametrize(
    ("options", "call"), [({"fresh": True}, who), ({"mem": "96Mi"}, keep_memory)], ids=["fresh", "much of its limit"]
)
def test_a_process_is_its_calls_own_if_that_is_wanted_or_it_keeps_much_of_its_limit(
    client: millgrid.DevClient, options: Any, call: Callable[[], int]
) -> None:
    with client.executor(**options) as ex:
        warm(ex)
        found = [ex.submit(call).result(60) for _ in range(8)]
    assert len(set(found)) == len(found)


def apart(one: millgrid.GridExecutor, two: millgrid.GridExecutor) -> bool:
    """Whether no process makes calls of both."""
    warm(one)
    ours, theirs = set(), set()
    for _ in range(8):
        ours.add(one.submit(who).result(60))
        theirs.add(two.submit(who).result(60))
    return not ours & theirs


def test_other_resources_are_other_processes(client: millgrid.DevClient) -> None:
    with client.executor(mem="600M") as one, client.executor(mem="700M") as two:
        assert apart(one, two)


def test_another_client_has_processes_of_its_own(client: millgrid.DevClient) -> None:
    with millgrid.DevClient(client.grid) as other, client.executor() as one, other.executor() as two:
        assert apart(one, two)


@pytest.mark.parametrize("call", [keep_a_file, fail])
def test_a_process_that_has_something_left_ends_with_its_call(client: millgrid.DevClient, call: object) -> None:
    with client.executor() as ex:
        warm(ex)
        found = []
        for _ in range(6):
            future: millgrid.GridFuture[int] = ex.submit(call)  # type: ignore[arg-type]
            error = future.exception(60)
            found.append(str(error) if error is not None else str(future.result()))
        assert len(set(found)) == len(found)
        assert not {int(pid) for pid in found} & {ex.submit(who).result(60) for _ in range(6)}


@pytest.mark.parametrize("call", [seeded, seeded_numpy])
def test_a_seed_holds_for_its_call_alone(
    client: millgrid.DevClient, call: Callable[[int | None], tuple[int, float]]
) -> None:
    with client.executor() as ex:
        warm(ex)
        found = [ex.submit(call, seed).result(60) for seed in [7, None] * 10]
    assert len({number for _, number in found[::2]}) == 1
    assert len({number for _, number in found[1::2]}) == 10
    assert len({pid for pid, _ in found}) < 20, "not one process made two calls, so that this showed nothing"


def test_changed_modules_are_never_used_again(client: millgrid.DevClient, tmp_path: Path) -> None:
    module = tmp_path / "changing_module.py"

    def version() -> int:
        sys.path.insert(0, str(tmp_path))
        import changing_module  # type: ignore[import-not-found]

        number: int = changing_module.NUMBER
        return number

    with client.executor() as ex:
        warm(ex)
        for number in range(4):
            module.write_text(f"NUMBER = {number}" + "  #" * number)
            assert ex.submit(version).result(60) == number


def test_what_import_means_is_each_executors_own(client: millgrid.DevClient, tmp_path: Path) -> None:
    def value() -> tuple[int, int]:
        import only_here  # type: ignore[import-not-found]

        return only_here.VALUE, os.getpid()

    for number in range(2):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "only_here.py").write_text(f"VALUE = {number}")
    with client.executor(chdir=str(tmp_path / "0")) as one, client.executor(chdir=str(tmp_path / "1")) as two:
        warm(one)
        found = [(ex.submit(value).result(60), number) for _ in range(10) for number, ex in enumerate((one, two))]
    assert all(answer[0] == number for answer, number in found)
    assert len({answer[1] for answer, _ in found}) < len(found), "not one process made two calls"


def test_what_ships_along_is_what_is_imported(client: millgrid.DevClient, tmp_path: Path) -> None:
    def value() -> int:
        sys.path.append(str(tmp_path / "there"))
        import sent_along  # type: ignore[import-not-found]

        number: int = sent_along.VALUE
        return number

    for name, number in (("there", 1), ("here", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sent_along.py").write_text(f"VALUE = {number}")
    with client.executor() as plain, client.executor(ship=[tmp_path / "here" / "sent_along.py"]) as shipping:
        warm(plain)
        for _ in range(6):
            assert plain.submit(value).result(60) == 1
            assert shipping.submit(value).result(60) == 2


def test_the_result_is_in_the_log_too(client: millgrid.DevClient) -> None:
    with client.executor() as ex:
        warm(ex)
        future = ex.submit(pow, 3, 4)
        assert future.result(60) == 81
    assert future.job_id is not None
    assert client.job(future.job_id).results() == [81]
