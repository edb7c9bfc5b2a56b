"""What the documentation of `concurrent.futures` says of executors, sentence by sentence.

Every check runs on the grid's executor and on Python's own: a sentence that we have misread fails there.
"""

from __future__ import annotations

import concurrent.futures as cf
import itertools
import operator
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import millgrid
from calls import add, fail, record, wait_for

#: What is said to be immediate takes no longer.
AT_ONCE = 1.0

Make = Callable[[], cf.Executor]


def until(condition: Callable[[], object]) -> None:
    """Waits for a condition."""
    give_up = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < give_up, "it never came to be"
        time.sleep(0.005)


@pytest.fixture(params=["grid", "threads"])
def make(request: pytest.FixtureRequest, client: millgrid.Client) -> Iterator[Make]:
    """Makes executors that run two calls at once."""
    made: list[cf.Executor] = []

    def one() -> cf.Executor:
        made.append(client.executor() if request.param == "grid" else cf.ThreadPoolExecutor(2))
        return made[-1]

    yield one
    for executor in made:
        executor.shutdown()


@pytest.fixture
def ex(make: Make) -> cf.Executor:
    return make()


def busy(ex: cf.Executor, path: Path) -> list[cf.Future[str]]:
    """Two calls that run until there is a file at `path`."""
    running = [ex.submit(wait_for, str(path)) for _ in range(2)]
    until(lambda: all(future.running() for future in running))
    return running


# submit


def test_submit_schedules_fn_with_its_arguments_and_returns_a_future(ex: cf.Executor) -> None:
    future = ex.submit(add, 3, b=4)
    assert isinstance(future, cf.Future) and future.result(60) == 7


def test_fn_is_positional_only(ex: cf.Executor) -> None:
    def named(self: int, fn: int) -> int:
        return self - fn

    assert ex.submit(named, self=5, fn=3).result(60) == 2
    with pytest.raises(TypeError):
        ex.submit(fn=add)  # type: ignore[call-arg]


def test_submit_does_not_wait_for_the_call(ex: cf.Executor, tmp_path: Path) -> None:
    begun = time.monotonic()
    future = ex.submit(wait_for, str(tmp_path / "go"))
    assert time.monotonic() - begun < AT_ONCE and not future.done()
    (tmp_path / "go").touch()
    assert future.result(60)


# map


def test_map_is_like_the_built_in_one(ex: cf.Executor) -> None:
    for iterables in [(range(5),), (range(5), range(3)), ([],), ([1, 2], itertools.repeat(3))]:
        assert list(ex.map(add, *iterables)) == list(map(add, *iterables))


def test_map_collects_the_iterables_at_once(ex: cf.Executor) -> None:
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for n in range(200):
            taken.append(n)
            yield n

    results = ex.map(add, numbers())
    assert taken == list(range(200)), "before any result is asked for"
    assert list(results) == taken


def test_map_raises_what_an_iterable_raises(ex: cf.Executor) -> None:
    def numbers() -> Iterator[int]:
        yield 1
        raise LookupError("no more")

    with pytest.raises(LookupError):
        ex.map(add, numbers())


def test_map_runs_several_calls_at_once(ex: cf.Executor, tmp_path: Path) -> None:
    # Each ends only once the other has begun.
    def meet(own: str, other: str) -> str:
        Path(own).touch()
        return wait_for(other)

    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    assert list(ex.map(meet, [a, b], [b, a], timeout=60)) == [b, a]


def test_map_yields_in_the_order_of_the_arguments_however_the_calls_end(ex: cf.Executor, tmp_path: Path) -> None:
    def first_waits(n: int) -> int:
        if n == 0:
            wait_for(str(tmp_path / "1"))
        (tmp_path / str(n)).touch()
        return n

    assert list(ex.map(first_waits, range(4))) == [0, 1, 2, 3]


@pytest.mark.parametrize("timeout", [0.1, 1])
def test_map_times_out_so_long_after_the_call_of_map(ex: cf.Executor, tmp_path: Path, timeout: float) -> None:
    begun = time.monotonic()
    results = ex.map(wait_for, [str(tmp_path / "go")], timeout=timeout)
    until(lambda: time.monotonic() - begun > timeout)
    asked = time.monotonic()
    with pytest.raises(cf.TimeoutError):
        next(results)
    assert time.monotonic() - asked < AT_ONCE / 2, "counted from map, not from next"
    (tmp_path / "go").touch()


def test_map_gives_a_result_that_is_there_though_the_time_is_over(ex: cf.Executor, tmp_path: Path) -> None:
    begun = time.monotonic()
    results = ex.map(record, [str(tmp_path / "log")], ["x"], timeout=5)
    until((tmp_path / "log").exists)
    assert next(results) == "x" and time.monotonic() - begun < 5


def test_map_without_a_timeout_has_no_limit(ex: cf.Executor, tmp_path: Path) -> None:
    results = ex.map(wait_for, [str(tmp_path / "go")], timeout=None)
    threading.Timer(0.3, (tmp_path / "go").touch).start()
    assert next(results) == str(tmp_path / "go")


def test_map_raises_what_a_call_raised_when_its_value_is_retrieved(ex: cf.Executor) -> None:
    results = ex.map(operator.truediv, [6, 1, 1], [3, 0, 1])
    assert next(results) == 2
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == [], "an iterator that raised has ended"


def test_map_takes_a_chunksize(ex: cf.Executor) -> None:
    assert list(ex.map(add, range(25), chunksize=7)) == list(range(25))


def test_chunksize_is_how_many_calls_are_one_task(client: millgrid.Client) -> None:
    # Of processes the documentation says that an iterable is chopped into chunks, submitted as separate tasks.
    before = client.submit("true").id
    with client.executor() as ex:
        assert list(ex.map(add, range(25), chunksize=10)) == list(range(25))
    assert [client.job(before + 1).task_count, client.submit("true").id] == [3, before + 2]


def test_buffersize_bounds_the_calls_whose_results_were_not_yielded(client: millgrid.Client) -> None:
    # Since Python 3.14.
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for n in itertools.count():
            taken.append(n)
            yield n

    with client.executor() as ex:
        results = ex.map(add, numbers(), buffersize=6)
        assert len(taken) == 6, "iteration pauses when the buffer is full"
        for yielded in range(1, 31):
            assert next(results) == yielded - 1
            assert len(taken) <= yielded + 6
        assert len(taken) > 30, "and goes on when results are yielded"
        for wrong in (0, -1):
            with pytest.raises(ValueError, match="buffersize"):
                ex.map(add, [1], buffersize=wrong)
        with pytest.raises(TypeError, match="buffersize"):
            ex.map(add, [1], buffersize=1.5)  # type: ignore[arg-type]
        assert list(ex.map(add, range(3), buffersize=None)) == [0, 1, 2]


# shutdown


def test_calls_of_submit_and_map_after_shutdown_raise_runtime_error(ex: cf.Executor) -> None:
    ex.shutdown()
    with pytest.raises(RuntimeError):
        ex.submit(add, 1)
    with pytest.raises(RuntimeError):
        ex.map(add, [1])
    ex.shutdown()


def test_shutdown_waits_until_all_pending_futures_are_done(ex: cf.Executor, tmp_path: Path) -> None:
    futures = [ex.submit(record, str(tmp_path / str(n)), "x") for n in range(6)]
    ex.shutdown(wait=True)
    assert all(future.done() for future in futures) and len(list(tmp_path.iterdir())) == 6


def _threads() -> set[threading.Thread]:
    ours = ("millgrid-calls", "millgrid-results", "ThreadPoolExecutor")
    return {thread for thread in threading.enumerate() if thread.name.startswith(ours)}


def test_after_shutdown_the_resources_are_freed(make: Make) -> None:
    before = _threads()
    ex = make()
    assert ex.submit(add, 1).result(60) == 1
    assert _threads() > before
    ex.shutdown()
    assert _threads() <= before


def test_shutdown_without_waiting_returns_at_once_and_frees_when_all_is_done(make: Make, tmp_path: Path) -> None:
    before = _threads()
    ex = make()
    running = busy(ex, tmp_path / "go")
    pending = [ex.submit(add, n) for n in range(3)]
    begun = time.monotonic()
    ex.shutdown(wait=False)
    assert time.monotonic() - begun < AT_ONCE and not any(future.done() for future in running)
    with pytest.raises(RuntimeError):
        ex.submit(add, 1)
    (tmp_path / "go").touch()
    assert [future.result(60) for future in pending] == [0, 1, 2], "what is pending is done nevertheless"
    until(lambda: _threads() <= before)


AT_EXIT = """
import sys, concurrent.futures, millgrid
from calls import record, wait_for
kind, path, wait = sys.argv[1:]
ex = millgrid.Client().executor() if kind == "grid" else concurrent.futures.ThreadPoolExecutor(2)
future = ex.submit(record, path, "ran")
future.add_done_callback(lambda one: print("done:", one.result(), flush=True))
large = ex.submit(bytes, 100_000)
large.add_done_callback(lambda one: print("done:", len(one.result()), flush=True))
if wait:
    ex.shutdown(wait=False)
print("last line", flush=True)
"""


@pytest.mark.parametrize("shut", ["", "shut"])
@pytest.mark.parametrize("kind", ["grid", "threads"])
def test_the_program_does_not_exit_until_all_pending_futures_are_done(
    client: millgrid.DevClient, tmp_path: Path, kind: str, shut: str
) -> None:
    # Regardless of the value of `wait`, and without any shutdown.
    arguments = [sys.executable, "-c", AT_EXIT, kind, str(tmp_path / "log"), shut]
    here = str(Path(__file__).parent)
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": here, "HOME": str(tmp_path), **client.grid.environment()}
    ended = subprocess.run(arguments, capture_output=True, text=True, timeout=60, env=env)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert sorted(ended.stdout.splitlines()) == ["done: 100000", "done: ran", "last line"]
    assert (tmp_path / "log").read_text() == "ran\n"


def test_cancel_futures_cancels_what_has_not_begun_and_nothing_else(ex: cf.Executor, tmp_path: Path) -> None:
    completed = ex.submit(add, 1)
    assert completed.result(60) == 1
    running = busy(ex, tmp_path / "go")
    pending = [ex.submit(record, str(tmp_path / "log"), "ran") for _ in range(20)]
    ex.shutdown(wait=False, cancel_futures=True)
    until(lambda: all(future.cancelled() for future in pending))
    assert not completed.cancelled() and not any(future.cancelled() for future in running)
    (tmp_path / "go").touch()
    assert [future.result(60) for future in running] == [str(tmp_path / "go")] * 2
    assert not (tmp_path / "log").exists()


def test_with_cancel_futures_and_wait_what_has_begun_is_done_when_it_returns(ex: cf.Executor, tmp_path: Path) -> None:
    running = busy(ex, tmp_path / "go")
    pending = [ex.submit(add, 1) for _ in range(5)]
    closing = threading.Thread(target=lambda: ex.shutdown(wait=True, cancel_futures=True))
    closing.start()
    until(lambda: all(future.cancelled() for future in pending))
    assert closing.is_alive()
    (tmp_path / "go").touch()
    closing.join(60)
    assert not closing.is_alive() and all(future.done() and not future.cancelled() for future in running)


def test_calls_that_share_tasks_are_cancelled_too(client: millgrid.Client, tmp_path: Path) -> None:
    ex = client.executor()
    list(ex.map(record, itertools.repeat(str(tmp_path / "before"), 8), itertools.repeat("x")))
    running = busy(ex, tmp_path / "go")
    pending = [ex.submit(record, str(tmp_path / "log"), "ran") for _ in range(1000)]
    begun = time.monotonic()
    ex.shutdown(wait=False, cancel_futures=True)
    assert time.monotonic() - begun < 5, "not a call of the grid for each"
    assert all(future.cancelled() for future in pending)
    (tmp_path / "go").touch()
    assert [future.result(60) for future in running] == [str(tmp_path / "go")] * 2
    assert not (tmp_path / "log").exists()


# with


def test_a_with_block_shuts_down_and_waits(make: Make) -> None:
    with make() as ex:
        futures = [ex.submit(add, n) for n in range(4)]
    assert all(future.done() for future in futures)
    with pytest.raises(RuntimeError):
        ex.submit(add, 1)


def test_a_with_block_that_raises_waits_too_and_hides_nothing(make: Make) -> None:
    with pytest.raises(LookupError, match="mine"), make() as ex:
        future = ex.submit(add, 1)
        raise LookupError("mine")
    assert future.done() and future.result() == 1
    with pytest.raises(RuntimeError):
        ex.submit(add, 1)


# Broken executors


def test_an_executor_that_is_broken_for_another_reason_says_so(client: millgrid.DevClient, tmp_path: Path) -> None:
    # BrokenExecutor, a RuntimeError: the executor can't be used to submit or execute tasks. Ours breaks when its client
    # is closed; the call itself goes on.
    with millgrid.DevClient(client.grid) as closed:
        ex = closed.executor()
        future = ex.submit(wait_for, str(tmp_path / "go"))
        until(lambda: future.running())
    with pytest.raises(cf.BrokenExecutor, match="closed"):
        future.result(10)
    assert issubclass(cf.BrokenExecutor, RuntimeError)
    (tmp_path / "go").touch()
    ex.shutdown()
    assert future.job_id is not None and client.job(future.job_id).results(60) == [str(tmp_path / "go")]


def test_a_call_that_ends_its_interpreter_breaks_no_executor(client: millgrid.Client) -> None:
    with client.executor() as ex:
        import os

        assert not isinstance(ex.submit(os._exit, 1).exception(60), cf.BrokenExecutor)
        assert ex.submit(add, 1).result(60) == 1


# Calls from calls' callbacks


def test_callbacks_may_submit(ex: cf.Executor) -> None:
    values: list[int] = []
    all_done = threading.Event()

    def again(future: cf.Future[int]) -> None:
        values.append(future.result())
        if len(values) < 5:
            ex.submit(add, future.result(), 1).add_done_callback(again)
        else:
            all_done.set()

    ex.submit(add, 0).add_done_callback(again)
    assert all_done.wait(60) and values == [0, 1, 2, 3, 4]


def test_submitting_in_a_callback_after_shutdown_is_refused_there(ex: cf.Executor, tmp_path: Path) -> None:
    refused: list[BaseException] = []

    def again(_: cf.Future[str]) -> None:
        try:
            ex.submit(add, 1)
        except RuntimeError as error:
            refused.append(error)

    future = ex.submit(wait_for, str(tmp_path / "go"))
    future.add_done_callback(again)
    ex.shutdown(wait=False)
    (tmp_path / "go").touch()
    future.result(60)
    until(lambda: refused)


def test_a_cancel_in_a_callback_of_a_cancelled_future_does_not_hang(ex: cf.Executor, tmp_path: Path) -> None:
    running = busy(ex, tmp_path / "go")
    first, second = (ex.submit(add, n) for n in range(2))
    cancelled: list[bool] = []

    def from_another_thread(_: cf.Future[int]) -> None:
        with cf.ThreadPoolExecutor(1) as other:
            cancelled.append(other.submit(second.cancel).result(10))

    first.add_done_callback(from_another_thread)
    assert first.cancel() and cancelled == [True]
    (tmp_path / "go").touch()
    assert all(future.result(60) for future in running)


def test_a_callback_of_a_call_that_could_not_be_sent_may_wait_for_others(client: millgrid.Client) -> None:
    lock = threading.Lock()
    values: list[int] = []
    with client.executor() as ex:
        future = ex.submit(lambda: lock.locked())
        waited = threading.Event()
        future.add_done_callback(lambda _: (values.append(ex.submit(add, 7).result(30)), waited.set()))  # type: ignore[func-returns-value]
        assert isinstance(future.exception(60), millgrid.Unpicklable)
        assert waited.wait(60) and values == [7]


def test_exceptions_of_calls_do_not_stop_others(ex: cf.Executor) -> None:
    bad, good = ex.submit(fail, "x"), ex.submit(add, 1)
    assert isinstance(bad.exception(60), ValueError) and good.result(60) == 1
