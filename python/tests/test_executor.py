"""What Python documents for executors and futures, on a real grid."""

from __future__ import annotations

import concurrent.futures as cf
import itertools
import operator
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import millgrid
from calls import Peculiar, add, fail, fail_peculiarly, record, wait_for


@pytest.fixture(scope="module")
def ex(client: millgrid.Client) -> Iterator[cf.Executor]:
    with client.executor() as executor:
        yield executor


# submit, result, exception


def test_what_a_thread_was_to_do_is_done_once_where_none_can_be_started(client: millgrid.DevClient) -> None:
    class AtTheEnd:
        """As in Python 3.12: what was handed over may be done by another thread all the same."""

        def submit(self, work: Callable[[], None]) -> None:
            self.work = work
            raise RuntimeError("can't create new thread at interpreter shutdown")

        def shutdown(self, wait: bool = True) -> None:
            pass

    ex = client.executor()
    ex._readers, done = AtTheEnd(), []  # type: ignore[assignment,var-annotated]
    ex._elsewhere(done.append, 1)
    ex._readers.work()  # type: ignore[attr-defined]
    assert done == [1]


def test_submit_returns_a_future_of_the_result(ex: cf.Executor) -> None:
    future = ex.submit(add, 2, b=3)
    assert isinstance(future, cf.Future)
    assert future.result(60) == 5 and future.done() and not future.running() and not future.cancelled()
    assert future.exception() is None


def test_functions_travel_by_value_with_what_they_close_over(ex: cf.Executor) -> None:
    factor = 3
    assert ex.submit(lambda x: x * factor, 7).result(60) == 21
    assert ex.submit(operator.methodcaller("upper"), "a").result(60) == "A"


def test_an_exception_arrives_as_itself_with_the_remote_traceback(ex: cf.Executor) -> None:
    future = ex.submit(fail, "luck")
    with pytest.raises(ValueError, match="bad luck") as raised:
        future.result(60)
    assert future.exception() is raised.value
    assert isinstance(raised.value.__cause__, millgrid.RemoteTraceback)
    assert "in fail" in str(raised.value.__cause__) and "ValueError: bad luck" in str(raised.value.__cause__)
    frames = [frame.name for frame in traceback.extract_tb(raised.value.__traceback__)]
    assert frames[-1] == "fail", "the traceback goes on where the function ran"


def test_exceptions_of_ones_own_keep_their_class_and_attributes(ex: cf.Executor) -> None:
    error = ex.submit(fail_peculiarly).exception(60)
    assert isinstance(error, Peculiar) and error.code == 7 and str(error) == "7: odd"


def test_a_system_exit_is_the_calls_own(ex: cf.Executor) -> None:
    error = ex.submit(sys.exit, 3).exception(60)
    assert isinstance(error, SystemExit) and error.code == 3


def test_result_and_exception_time_out(ex: cf.Executor, tmp_path: Path) -> None:
    future = ex.submit(wait_for, str(tmp_path / "go"))
    with pytest.raises(cf.TimeoutError):
        future.result(0.01)
    with pytest.raises(cf.TimeoutError):
        future.exception(timeout=0.01)
    (tmp_path / "go").touch()
    assert future.result(60) == str(tmp_path / "go")


def test_callbacks_are_called_once_with_the_future_in_order(ex: cf.Executor) -> None:
    called: list[Any] = []
    all_called = threading.Event()
    future = ex.submit(add, 1)

    def broken(_: Any) -> None:
        raise RuntimeError("ignored")

    future.add_done_callback(lambda one: called.append(("first", one)))
    future.add_done_callback(broken)
    future.add_done_callback(lambda one: (called.append(("second", one)), all_called.set()))  # type: ignore[func-returns-value]
    future.result(60)
    assert all_called.wait(60)
    assert called == [("first", future), ("second", future)]
    future.add_done_callback(lambda one: called.append("at once"))
    assert called[-1] == "at once"


# wait, as_completed


def test_wait_and_as_completed(ex: cf.Executor, tmp_path: Path) -> None:
    slow: cf.Future[Any] = ex.submit(wait_for, str(tmp_path / "go"))
    fast: cf.Future[Any] = ex.submit(add, 1)
    bad: cf.Future[Any] = ex.submit(fail, "x")
    done, not_done = cf.wait([slow, fast], timeout=60, return_when=cf.FIRST_COMPLETED)
    assert (done, not_done) == ({fast}, {slow})
    done, _ = cf.wait([slow, bad], timeout=60, return_when=cf.FIRST_EXCEPTION)
    assert done == {bad}
    with pytest.raises(cf.TimeoutError):
        list(cf.as_completed([slow], timeout=0.01))
    (tmp_path / "go").touch()
    done, not_done = cf.wait([slow, fast, bad], timeout=60)
    assert done == {slow, fast, bad} and not not_done
    futures = [ex.submit(add, n) for n in range(50)]
    assert sorted(future.result() for future in cf.as_completed(futures, timeout=60)) == list(range(50))


# map


def test_map_gives_results_in_order(ex: cf.Executor) -> None:
    assert list(ex.map(pow, range(100), itertools.repeat(2))) == [n * n for n in range(100)]
    assert list(ex.map(add, range(10), range(5))) == [0, 2, 4, 6, 8], "the shortest iterable decides"
    assert list(ex.map(add, [])) == []
    assert list(ex.map(add, range(25), chunksize=10)) == list(range(25))
    with pytest.raises(ValueError, match="chunksize"):
        ex.map(add, range(2), chunksize=0)


def test_map_begins_at_once_and_reads_no_further_ahead_than_asked(ex: Any, tmp_path: Path) -> None:
    ex.map(record, [str(tmp_path / "log")], ["begun"])
    ex.submit(wait_for, str(tmp_path / "log")).result(60)
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for n in itertools.count():
            taken.append(n)
            yield n

    results = ex.map(add, numbers(), buffersize=16)
    assert len(taken) == 16
    assert [next(results) for _ in range(100)] == list(range(100))
    assert len(taken) <= 116
    results.close()


def test_map_raises_what_a_call_raised_where_it_stands(ex: cf.Executor) -> None:
    results = ex.map(operator.truediv, [6, 1, 1], [3, 0, 1])
    assert next(results) == 2
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_map_times_out_from_the_call_to_map_on(ex: cf.Executor, tmp_path: Path) -> None:
    results = ex.map(wait_for, [str(tmp_path / "go")], timeout=0.05)
    with pytest.raises(cf.TimeoutError):
        next(results)
    (tmp_path / "go").touch()


def test_ten_thousand_small_calls_share_tasks(client: millgrid.Client) -> None:
    before = client.job(client.submit("true").id).id
    with client.executor() as executor:
        begun = time.monotonic()
        assert list(executor.map(add, range(10_000))) == list(range(10_000))
        took = time.monotonic() - begun
    made = client.submit("true").id - before - 1
    tasks = sum(client.job(before + 1 + n).task_count for n in range(made))
    assert tasks < 200, f"{tasks} tasks in {made} jobs"
    assert took < 10, f"{took:.1f} s; it takes about half a second on a quiet machine"


# cancel, shutdown


def test_a_call_that_waits_on_the_grid_is_taken_back(client: millgrid.Client, tmp_path: Path) -> None:
    with client.executor() as executor:
        running = [executor.submit(wait_for, str(tmp_path / "go")) for _ in range(2)]
        done, _ = cf.wait(running, timeout=0.01)
        waiting = executor.submit(record, str(tmp_path / "log"), "ran")
        while not all(future.running() for future in running):
            assert not any(future.done() for future in running)
            time.sleep(0.01)
        assert not running[0].cancel() and not running[0].cancelled()
        assert waiting.cancel() and waiting.cancelled() and waiting.done()
        assert waiting.cancel(), "as often as one likes"
        with pytest.raises(cf.CancelledError):
            waiting.result()
        with pytest.raises(cf.CancelledError):
            waiting.exception()
        assert cf.wait([waiting], timeout=1).done == {waiting}
        (tmp_path / "go").touch()
        assert [future.result(60) for future in running] == [str(tmp_path / "go")] * 2
        assert not running[0].cancel(), "what is done can't be cancelled"
    assert not (tmp_path / "log").exists()


def test_shutdown_waits_and_takes_no_more(client: millgrid.Client, tmp_path: Path) -> None:
    executor = client.executor()
    future = executor.submit(add, 1)
    executor.shutdown()
    assert future.done() and future.result() == 1
    with pytest.raises(RuntimeError):
        executor.submit(add, 1)
    with pytest.raises(RuntimeError):
        executor.map(add, [1])
    executor.shutdown()


def test_shutdown_without_waiting_lets_calls_end(client: millgrid.Client, tmp_path: Path) -> None:
    executor = client.executor()
    future = executor.submit(wait_for, str(tmp_path / "go"))
    executor.shutdown(wait=False)
    assert not future.done()
    (tmp_path / "go").touch()
    assert future.result(60) == str(tmp_path / "go")


def test_shutdown_cancels_what_has_not_begun(client: millgrid.Client, tmp_path: Path) -> None:
    executor = client.executor()
    running = [executor.submit(wait_for, str(tmp_path / "go")) for _ in range(2)]
    while not all(future.running() for future in running):
        time.sleep(0.01)
    waiting = [executor.submit(record, str(tmp_path / "log"), "ran") for _ in range(5)]
    executor.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in waiting)
    (tmp_path / "go").touch()
    assert [future.result(60) for future in running] == [str(tmp_path / "go")] * 2
    assert not (tmp_path / "log").exists()


def test_the_end_of_a_with_block_waits(client: millgrid.Client) -> None:
    with client.executor() as executor:
        futures = [executor.submit(add, n) for n in range(5)]
    assert all(future.done() for future in futures)


def test_wrong_options_are_told_when_the_executor_is_made(client: millgrid.Client) -> None:
    with pytest.raises(millgrid.InvalidArgument) as raised:
        client.executor(mem="8")
    assert raised.value.field == "mem"
    with pytest.raises(millgrid.InvalidArgument) as raised:
        client.executor(array=3)  # type: ignore[call-arg]
    assert raised.value.field == "array"


# What goes wrong


def test_what_cannot_be_pickled_is_named(ex: cf.Executor) -> None:
    begun = time.monotonic()
    with pytest.raises(millgrid.Unpicklable, match=r"argument 2 \(lock\) of `add`"):
        ex.submit(add, 1, threading.Lock())  # type: ignore[arg-type]
    lock = threading.Lock()
    error = ex.submit(lambda: lock.acquire()).exception(60)
    assert isinstance(error, millgrid.Unpicklable) and "lambda" in str(error)
    assert time.monotonic() - begun < 1
    error = ex.submit(threading.Lock).exception(60)
    assert isinstance(error, millgrid.Unpicklable) and "the result of `lock`" in str(error).replace("allocate_", "")


def test_a_call_that_ends_its_interpreter_is_named_and_others_go_on(client: millgrid.Client) -> None:
    def deadly(n: int) -> int:
        if n == 13:
            os.kill(os.getpid(), signal.SIGKILL)
        return n

    with client.executor() as executor:
        list(executor.map(deadly, range(8)))
        futures = [executor.submit(deadly, n) for n in range(40)]
        errors = {n: future.exception(60) for n, future in enumerate(futures)}
        assert [n for n, error in errors.items() if error is not None] == [13]
        assert isinstance(errors[13], millgrid.InterpreterDied)
        assert "deadly` ended its interpreter" in str(errors[13]) and "signal 9" in str(errors[13])
        exited = executor.submit(os._exit, 3).exception(60)
        assert isinstance(exited, millgrid.InterpreterDied) and "exit code 3" in str(exited)
        chunked = executor.map(deadly, range(20), chunksize=20)
        assert [next(chunked) for _ in range(13)] == list(range(13))
        with pytest.raises(millgrid.InterpreterDied):
            next(chunked)


def test_a_module_that_workers_do_not_have_is_named(client: millgrid.Client, tmp_path: Path) -> None:
    (tmp_path / "onlyhere.py").write_text("def f():\n    return 'here'\n")
    sys.path.insert(0, str(tmp_path))
    try:
        import onlyhere  # type: ignore[import-not-found]

        sys.path.remove(str(tmp_path))
        with client.executor() as executor:
            error = executor.submit(onlyhere.f).exception(60)
        assert isinstance(error, millgrid.MissingModule) and "onlyhere" in str(error) and "ship=" in str(error)
        with client.executor(ship=[onlyhere]) as executor:
            assert executor.submit(onlyhere.f).result(60) == "here"
    finally:
        sys.modules.pop("onlyhere", None)


def test_another_python_is_refused_before_anything_is_unpickled(client: millgrid.Client, tmp_path: Path) -> None:
    other = tmp_path / "python"
    other.write_text(
        f"#!/bin/sh\nshift\nexec {sys.executable} -c \"import sys, runpy; sys.version_info = (3, 9, 0, 'final', 0);"
        " sys.argv[0] = '$1'; runpy.run_path('millgrid_call.py', run_name='__main__')\"\n"
    )
    other.chmod(0o755)
    with client.executor(python=str(other)) as executor:
        error = executor.submit(add, 1).exception(60)
    assert isinstance(error, millgrid.EnvMismatch) and "3.9" in str(error) and "python=" in str(error)
    with client.executor(python="/no/such/python") as executor:
        errors = [future.exception(60) for future in [executor.submit(add, n) for n in range(3)]]
    assert all(isinstance(one, millgrid.EnvMismatch) and "/no/such/python" in str(one) for one in errors)


def test_what_functions_print_is_in_the_log(ex: Any, client: millgrid.Client) -> None:
    future = ex.submit(print, "seen by people")
    assert future.result(60) is None
    assert list(client.job(future.job_id).logs()) == ["seen by people\n"]


def test_a_call_is_tried_again_as_asked(client: millgrid.Client, tmp_path: Path) -> None:
    def second_time(path: str) -> int:
        with open(path, "a+") as file:
            file.write("x")
            count = file.tell()
        if count < 2:
            raise OSError("not yet")
        return count

    with client.executor(retries=2, backoff="1s") as executor:
        assert executor.submit(second_time, str(tmp_path / "count")).result(60) == 2
