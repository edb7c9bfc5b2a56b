"""What the documentation of `concurrent.futures` says of futures, `wait` and `as_completed`, sentence by sentence.

Every check runs on the grid's executor and on Python's own: a sentence that we have misread fails there.
"""

from __future__ import annotations

import concurrent.futures as cf
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import millgrid
from calls import add, fail, record, wait_for
from test_futures_docs_executor import AT_ONCE, busy, until


@pytest.fixture(params=["grid", "threads"], scope="module")
def ex(request: pytest.FixtureRequest, client: millgrid.Client) -> Iterator[cf.Executor]:
    """Runs two calls at once."""
    with client.executor() if request.param == "grid" else cf.ThreadPoolExecutor(2) as executor:
        yield executor


@pytest.fixture(params=[millgrid.GridFuture, cf.Future])
def bare(request: pytest.FixtureRequest) -> cf.Future[Any]:
    """A future of no executor, as the documentation allows it for tests."""
    future: cf.Future[Any] = request.param()
    return future


@pytest.fixture
def go(tmp_path: Path) -> Iterator[Path]:
    """A file that is there at the end of the test at the latest."""
    yield tmp_path / "go"
    (tmp_path / "go").touch()


class Ending(BaseException):
    """No Exception."""


def end_with(error: BaseException) -> None:
    raise error


# cancel, cancelled, running, done


def test_cancel_of_a_call_that_runs_returns_false(ex: cf.Executor, go: Path) -> None:
    running = busy(ex, go)
    assert not running[0].cancel() and not running[0].cancelled()
    assert running[0].running() and not running[0].done()
    go.touch()
    assert running[0].result(60) == str(go)


def test_cancel_of_a_call_that_has_ended_returns_false(ex: cf.Executor) -> None:
    future = ex.submit(add, 1)
    assert future.result(60) == 1 and not future.cancel() and not future.cancelled() and future.done()


def test_otherwise_the_call_is_cancelled_and_true_is_returned(ex: cf.Executor, go: Path, tmp_path: Path) -> None:
    running = busy(ex, go)
    future = ex.submit(record, str(tmp_path / "log"), "ran")
    assert not future.done() and not future.cancelled() and not future.running()
    assert future.cancel() and future.cancelled() and future.done() and not future.running()
    assert future.cancel(), "as often as one likes"
    go.touch()
    assert all(one.result(60) for one in running) and ex.submit(add, 1).result(60) == 1
    assert not (tmp_path / "log").exists()


def test_one_of_many_calls_that_wait_is_cancelled_and_no_other(ex: cf.Executor, go: Path, tmp_path: Path) -> None:
    # On the grid, calls of a function whose time is known share tasks.
    log = str(tmp_path / "log")
    list(ex.map(record, [log] * 8, ["before"] * 8))
    running = busy(ex, go)
    futures = [ex.submit(record, log, str(n)) for n in range(40)]
    assert futures[7].cancel() and futures[30].cancel()
    go.touch()
    assert all(one.result(60) for one in running)
    assert [n for n, one in enumerate(futures) if n not in (7, 30) and one.result(60) != str(n)] == []
    assert futures[7].cancelled() and futures[30].cancelled()
    ran = sorted(int(line) for line in Path(log).read_text().split() if line != "before")
    assert ran == [n for n in range(40) if n not in (7, 30)], "each once"


def test_done_is_true_of_what_was_cancelled_and_of_what_has_ended(bare: cf.Future[Any]) -> None:
    assert not bare.done()
    assert bare.cancel() and bare.done()
    ended: cf.Future[int] = type(bare)()
    ended.set_result(1)
    assert ended.done() and not ended.running() and not ended.cancelled()


def test_two_threads_may_cancel_at_once(client: millgrid.Client, go: Path) -> None:
    with client.executor() as ex:
        running = busy(ex, go)
        future = ex.submit(add, 1)
        called, second = threading.Event(), threading.Event()
        # While the callbacks of the first cancel run, another thread cancels, too.
        future.add_done_callback(lambda _: (called.set(), second.wait(30)))  # type: ignore[func-returns-value]
        with cf.ThreadPoolExecutor(1) as other:
            first = other.submit(future.cancel)
            assert called.wait(30) and future._cancel_here()
            second.set()
            assert first.result(30) is True
        go.touch()
        assert all(one.result(60) for one in running) and future.cancelled()


# result, exception


def test_result_returns_what_the_call_returned(ex: cf.Executor) -> None:
    future = ex.submit(add, 1, 2)
    assert future.result() == 3 and future.result(timeout=0) == 3, "as often as one likes"


@pytest.mark.parametrize("timeout", [0, 0.05, 1])
def test_result_and_exception_wait_so_long_and_raise_timeout_error(ex: cf.Executor, go: Path, timeout: float) -> None:
    future = ex.submit(wait_for, str(go))
    for wait in (future.result, future.exception):
        begun = time.monotonic()
        with pytest.raises(cf.TimeoutError) as raised:
            wait(timeout)
        assert timeout <= time.monotonic() - begun < timeout + AT_ONCE
        if sys.version_info >= (3, 11):
            assert type(raised.value) is TimeoutError, "an alias since 3.11"
    assert not future.done()
    go.touch()
    assert future.result(None) == str(go), "without a timeout there is no limit"


def test_result_and_exception_of_a_cancelled_future_raise_cancelled_error(ex: cf.Executor, go: Path) -> None:
    running = busy(ex, go)
    future = ex.submit(add, 1)
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            future.result(60)
        except BaseException as error:
            raised.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert future.cancel()
    waiting.join(60)
    assert [type(error) for error in raised] == [cf.CancelledError], "who waits already is told"
    for again in (future.result, future.exception):
        with pytest.raises(cf.CancelledError):
            again()
    go.touch()
    assert all(one.result(60) for one in running)


@pytest.mark.parametrize("error", [ValueError("bad"), SystemExit(3), KeyboardInterrupt("k"), GeneratorExit(), Ending(1)])
def test_result_raises_the_exception_that_the_call_raised(ex: cf.Executor, error: BaseException) -> None:
    future: cf.Future[None] = ex.submit(end_with, error)
    found = future.exception(60)
    assert type(found) is type(error) and found.args == error.args
    with pytest.raises(type(error)) as raised:
        future.result()
    assert raised.value is found, "result and exception are about the same one"


def test_exception_is_none_where_nothing_was_raised(ex: cf.Executor) -> None:
    assert ex.submit(add, 1).exception(60) is None


def test_an_exception_that_is_returned_is_a_result(ex: cf.Executor) -> None:
    value = ex.submit(ValueError, "mine").result(60)
    assert isinstance(value, ValueError) and value.args == ("mine",)


# add_done_callback


def test_callbacks_get_the_future_alone_in_the_order_they_were_added(ex: cf.Executor, go: Path) -> None:
    called: list[tuple[int, Any, int]] = []
    future = ex.submit(wait_for, str(go))
    for number in range(5):
        future.add_done_callback(lambda *args, number=number: called.append((number, args, os.getpid())))
    assert called == []
    go.touch()
    future.result(60)
    until(lambda: len(called) == 5)
    assert called == [(number, (future,), os.getpid()) for number in range(5)], "in this process, once each"


def test_callbacks_are_called_when_it_is_cancelled(ex: cf.Executor, go: Path) -> None:
    running = busy(ex, go)
    future = ex.submit(add, 1)
    called: list[bool] = []
    future.add_done_callback(lambda one: called.append(one.cancelled()))
    assert future.cancel() and called == [True]
    assert future.cancel() and called == [True], "once"
    go.touch()
    assert all(one.result(60) for one in running)
    assert called == [True]


def test_an_exception_of_a_callback_is_logged_and_ignored(
    ex: cf.Executor, go: Path, caplog: pytest.LogCaptureFixture
) -> None:
    called: list[str] = []

    def broken(_: Any) -> None:
        raise LookupError("of a callback")

    future = ex.submit(wait_for, str(go))
    future.add_done_callback(broken)
    future.add_done_callback(lambda _: called.append("next"))
    with caplog.at_level(logging.ERROR, "concurrent.futures"):
        go.touch()
        assert future.result(60) == str(go)
        until(lambda: called)
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [LookupError]
    assert ex.submit(add, 1).result(60) == 1, "and the executor goes on"


def test_a_callback_of_a_future_that_is_done_is_called_at_once(ex: cf.Executor, bare: cf.Future[Any]) -> None:
    future = ex.submit(add, 1)
    future.result(60)
    bare.cancel()
    for one in (future, bare):
        called: list[Any] = []
        one.add_done_callback(called.append)
        assert called == [one]


# What is for executors and tests


def test_set_running_or_notify_cancel_puts_a_future_in_the_running_state(bare: cf.Future[Any]) -> None:
    assert bare.set_running_or_notify_cancel() is True
    assert bare.running() and not bare.cancel()


def test_set_running_or_notify_cancel_of_a_cancelled_future_returns_false_and_wakes(bare: cf.Future[Any]) -> None:
    woken: list[Any] = []
    waiting = threading.Thread(target=lambda: woken.append(cf.wait([bare], 60).done))
    waiting.start()
    assert bare.cancel()
    assert bare.set_running_or_notify_cancel() is False
    waiting.join(60)
    assert woken == [{bare}]


def test_set_running_or_notify_cancel_can_be_called_once_and_not_after_a_result(bare: cf.Future[Any]) -> None:
    bare.set_running_or_notify_cancel()
    for _ in range(2):
        with pytest.raises((cf.InvalidStateError, RuntimeError)):
            bare.set_running_or_notify_cancel()
        if not bare.done():
            bare.set_result(1)


def test_set_result_and_set_exception_set_what_comes_of_it(bare: cf.Future[Any]) -> None:
    bare.set_result(5)
    assert bare.result() == 5 and bare.exception() is None
    failed: cf.Future[Any] = type(bare)()
    error = LookupError()
    failed.set_exception(error)
    assert failed.exception() is error


def test_setting_what_is_done_is_an_invalid_state(bare: cf.Future[Any]) -> None:
    bare.set_result(5)
    with pytest.raises(cf.InvalidStateError):
        bare.set_result(6)
    with pytest.raises(cf.InvalidStateError):
        bare.set_exception(ValueError())
    cancelled: cf.Future[Any] = type(bare)()
    cancelled.cancel()
    with pytest.raises(cf.InvalidStateError):
        cancelled.set_result(1)
    assert bare.result() == 5


def test_what_others_set_on_a_future_of_a_call_stays(client: millgrid.Client, go: Path) -> None:
    with client.executor() as ex:
        future = ex.submit(wait_for, str(go))
        future.set_result("mine")
        go.touch()
    assert future.result() == "mine"


# wait


def test_wait_returns_two_sets_by_name(ex: cf.Executor, go: Path) -> None:
    slow: cf.Future[Any] = ex.submit(wait_for, str(go))
    fast: cf.Future[Any] = ex.submit(add, 1)
    fast.result(60)
    found = cf.wait([slow, fast], timeout=0)
    assert found.done == {fast} and found.not_done == {slow} and tuple(found) == ({fast}, {slow})
    go.touch()
    assert cf.wait([slow, fast]).done == {slow, fast}


def test_wait_takes_futures_of_several_executors_and_a_duplicate_once(client: millgrid.Client, ex: cf.Executor) -> None:
    with client.executor() as other:
        futures: list[cf.Future[int]] = [ex.submit(add, 1), other.submit(add, 2), ex.submit(add, 3)]
        done, not_done = cf.wait(futures * 2, timeout=60)
    assert done == set(futures) and not not_done


@pytest.mark.parametrize("timeout", [0, 0.2])
def test_wait_waits_at_most_so_long(ex: cf.Executor, go: Path, timeout: float) -> None:
    future = ex.submit(wait_for, str(go))
    begun = time.monotonic()
    assert cf.wait([future], timeout).not_done == {future}, "it raises nothing"
    assert timeout <= time.monotonic() - begun < timeout + AT_ONCE


def test_first_completed_returns_when_any_ends_or_is_cancelled(ex: cf.Executor, go: Path) -> None:
    slow: cf.Future[Any] = ex.submit(wait_for, str(go))
    fast: cf.Future[Any] = ex.submit(add, 1)
    assert cf.wait([slow, fast], 60, cf.FIRST_COMPLETED).done == {fast}


def test_a_cancelled_future_has_ended_for_those_who_wait(client: millgrid.Client, go: Path) -> None:
    # Python's own executors tell them when a thread comes to the call, ours at once.
    with client.executor() as ex:
        running = busy(ex, go)
        future: cf.Future[Any] = ex.submit(add, 1)
        done = cf.as_completed([future, *running], timeout=60)
        assert future.cancel()
        assert cf.wait([*running, future], 60, cf.FIRST_COMPLETED).done == {future}
        assert next(done) is future
        go.touch()
        assert set(done) == set(running)


def test_first_exception_returns_when_any_raises_and_else_when_all_have_ended(ex: cf.Executor, go: Path) -> None:
    slow: cf.Future[Any] = ex.submit(wait_for, str(go))
    good: cf.Future[Any] = ex.submit(add, 1)
    good.result(60)
    bad: cf.Future[Any] = ex.submit(fail, "x")
    found = cf.wait([slow, good, bad], 60, cf.FIRST_EXCEPTION)
    assert bad in found.done and found.not_done == {slow}
    assert cf.wait([slow, good], 0.1, cf.FIRST_EXCEPTION).not_done == {slow}, "no exception: as ALL_COMPLETED"
    go.touch()
    assert cf.wait([slow, good], 60, cf.FIRST_EXCEPTION).done == {slow, good}


def test_all_completed_returns_when_all_ended_or_are_cancelled(ex: cf.Executor, go: Path) -> None:
    running = busy(ex, go)
    futures: list[cf.Future[Any]] = [*running, ex.submit(add, 1), ex.submit(fail, "x")]
    futures[2].cancel()
    go.touch()
    assert cf.wait(futures, 60).done == set(futures) and futures[2].cancelled()


# as_completed


def test_as_completed_yields_futures_as_they_end(ex: cf.Executor, tmp_path: Path) -> None:
    first, second = (ex.submit(wait_for, str(tmp_path / name)) for name in ("first", "second"))
    done = cf.as_completed([second, first], timeout=60)
    (tmp_path / "first").touch()
    assert next(done) is first
    (tmp_path / "second").touch()
    assert next(done) is second
    assert next(done, None) is None


def test_as_completed_yields_a_duplicate_once_and_takes_several_executors(
    client: millgrid.Client, ex: cf.Executor
) -> None:
    with client.executor() as other:
        futures: list[cf.Future[int]] = [ex.submit(add, 1), other.submit(add, 2)]
        done = list(cf.as_completed([*futures, *futures, futures[0]], timeout=60))
    assert len(done) == 2 and set(done) == set(futures)


def test_as_completed_yields_first_what_ended_before_it_was_called(ex: cf.Executor, go: Path) -> None:
    slow: cf.Future[Any] = ex.submit(wait_for, str(go))
    ended: list[cf.Future[Any]] = [ex.submit(add, n) for n in range(3)]
    cf.wait(ended, 60)
    done = cf.as_completed([slow, *ended], timeout=60)
    assert {next(done) for _ in range(3)} == set(ended)
    go.touch()
    assert next(done) is slow


def test_as_completed_yields_what_was_cancelled(ex: cf.Executor, go: Path) -> None:
    running = busy(ex, go)
    future: cf.Future[Any] = ex.submit(add, 1)
    assert future.cancel()
    go.touch()
    assert set(cf.as_completed([future, *running], timeout=60)) == {future, *running}


def test_as_completed_times_out_so_long_after_it_was_called(ex: cf.Executor, go: Path) -> None:
    fast: cf.Future[Any] = ex.submit(add, 1)
    fast.result(60)
    slow: cf.Future[Any] = ex.submit(wait_for, str(go))
    begun = time.monotonic()
    done = cf.as_completed([slow, fast], timeout=0.3)
    assert next(done) is fast
    with pytest.raises(cf.TimeoutError):
        next(done)
    assert time.monotonic() - begun < 0.3 + AT_ONCE
    go.touch()
    assert slow.result(60)


# Exceptions


def test_the_exceptions_are_pythons_own() -> None:
    assert issubclass(millgrid.TimedOut, TimeoutError) and issubclass(millgrid.WaitTimeout, TimeoutError)
    assert issubclass(cf.BrokenExecutor, RuntimeError) and issubclass(millgrid.Closed, cf.BrokenExecutor)
    assert issubclass(cf.InvalidStateError, cf.Future().result.__globals__["Error"])


def test_a_job_that_is_cancelled_on_the_grid_cancels_its_futures(client: millgrid.Client, go: Path) -> None:
    with client.executor() as ex:
        running = busy(ex, go)
        future = ex.submit(add, 1)
        until(lambda: future.job_id)
        assert future.job_id is not None
        client.job(future.job_id).cancel(reason="by another machine")
        with pytest.raises(cf.CancelledError):
            future.result(60)
        go.touch()
        assert all(one.result(60) for one in running) and future.cancelled()
