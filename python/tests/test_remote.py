"""Functions that can be called on the grid."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import numpy
import pytest

import millgrid
from calls import Peculiar, double, fail_peculiarly, record, total, wait_for, zeros


@millgrid.remote(cpus=0.5)
def train(lr: float, *, depth: int = 3) -> float:
    """Trains."""
    return lr * depth


@millgrid.remote
def picky(n: int) -> int:
    if n == 2:
        raise ValueError("not two")
    return n


@pytest.fixture
def inline() -> Iterator[None]:
    millgrid.configure(inline=True)
    yield
    millgrid.configure()


def test_it_is_still_a_plain_function(client: millgrid.Client) -> None:
    assert train(2, depth=4) == 8 and train.__name__ == "train" and train.__doc__ == "Trains."


def test_submit_gives_a_future(client: millgrid.Client) -> None:
    future: millgrid.GridFuture[float] = train.submit(2.0, depth=4)
    assert future.result(60) == 8
    assert future.job_id is not None and client.job(future.job_id).info().name == "train"


def test_map_is_one_array_job(client: millgrid.Client) -> None:
    calls = train.map([1, 2], depth=[3, 5], product=True, max_running=1)
    assert calls.results(60) == [3, 5, 6, 10]
    assert calls.task_count == 4 and [task.state for task in calls.tasks()] == ["succeeded"] * 4
    assert list(calls.tasks().to_pandas()["exit_code"]) == [0] * 4
    assert train.map([1, 2], depth=[3, 5, 7]).results(60) == [3, 10]
    assert train.map(lr=range(5), chunksize=2).results(60) == [0, 3, 6, 9, 12]
    assert train.starmap([(1,), (2,)]).progress(leave=False).results(60) == [3, 6]


def test_a_call_that_raises_is_a_task_that_failed(client: millgrid.Client) -> None:
    calls = picky.map(range(4)).wait(60)
    assert calls.state == "failed" and calls.tasks()[2].exit_code == 1
    with pytest.raises(ValueError, match="not two") as raised:
        calls.results()
    assert isinstance(raised.value.__cause__, millgrid.RemoteTraceback)
    again = millgrid.Calls[int](client, calls.id)
    assert again.successful() == [0, 1, 3]
    assert isinstance(again.outcomes()[2].error, ValueError)
    assert "not two" in str(pytest.raises(millgrid.JobFailed, calls.raise_for_status).value)
    assert "ValueError: not two\n" in list(calls.logs(2))


def test_failed_calls_are_tried_again(client: millgrid.Client, tmp_path: Path) -> None:
    marker = tmp_path / "now"

    @millgrid.remote
    def needs_it(n: int) -> int:
        assert n != 1 or marker.exists(), "not yet"
        return n

    calls = needs_it.map(range(3))
    with pytest.raises(AssertionError, match="not yet"):
        calls.results(60)
    marker.touch()
    calls.retry(failed=True)
    assert calls.results(60) == [0, 1, 2]
    assert [task.attempt for task in calls.tasks()] == [1, 2, 1]


def test_an_empty_map_is_refused(client: millgrid.Client) -> None:
    with pytest.raises(millgrid.InvalidArgument, match="no row"):
        train.map([])


def test_options_and_pickles(client: millgrid.Client) -> None:
    labelled = train.with_options(labels={"team": "ml"}, name="other")
    future = labelled.submit(1.0)
    assert future.result(60) == 3 and future.job_id is not None
    info = client.job(future.job_id).info()
    assert (info.name, info.labels["team"]) == ("other", "ml")
    assert pickle.loads(pickle.dumps(train)) is train
    assert pickle.loads(cloudpickle.dumps(labelled))(2) == 6
    assert picky.submit(1).result(60) == 1


def test_inline_calls_here_as_on_a_grid(inline: None, tmp_path: Path) -> None:
    assert train.submit(2.0).result(0) == 6
    assert train.map([1, 2]).results() == [3, 6]
    error = millgrid.remote(fail_peculiarly).submit().exception()
    assert isinstance(error, Peculiar) and isinstance(error.__cause__, millgrid.RemoteTraceback)
    changed: list[int] = []
    assert millgrid.remote(changed.append).submit(1).result() is None
    assert changed == [], "arguments and functions are copies"
    with millgrid.InlineExecutor() as executor:
        assert list(executor.map(record, [str(tmp_path / "x")], ["a"])) == ["a"]
        assert isinstance(executor.submit(threading.Lock).exception(), millgrid.Unpicklable)


def test_a_flow_of_functions_passes_results_on(client: millgrid.Client) -> None:
    with client.flow("assembly") as flow:
        parts = [flow.submit(train, n, depth=2) for n in range(3)]
        whole: millgrid.FlowCall[float] = flow.submit(sum, parts)
        text = flow.submit("total {}".format, whole)
        counted = flow.submit(["echo", "done"], after=text)
    assert whole.result(60) == 6 and text.result(60) == "total 6"
    assert counted.wait(60).state == "succeeded" and parts[1].result(60) == 2
    assert whole.info().name == "assembly/sum"


def test_in_a_flow_what_needs_a_failed_call_is_skipped(client: millgrid.Client) -> None:
    with client.flow("broken") as flow:
        bad = flow.submit(picky, 2)
        after = flow.submit(str, bad)
        with pytest.raises(millgrid.InvalidArgument, match="stands for no result"):
            flow.submit(str, flow.submit(["true"]))
    with pytest.raises(ValueError, match="not two"):
        bad.result(60)
    with pytest.raises(millgrid.JobFailed) as raised:
        after.result(60)
    assert raised.value.state == "skipped"


def test_arrays_go_through_a_flow(client: millgrid.Client) -> None:
    with client.flow("arrays") as flow:
        made = flow.submit(zeros, 100_000)
        small = flow.submit(double, numpy.ones(3))
        total_of_both = flow.submit(lambda a, b, c: float(a.sum() + b.sum() + c.sum()), made, small, numpy.ones(20_000))
    assert total_of_both.result(60) == 20_006
    assert made.result(60).nbytes == 800_000


def test_results_come_in_order_while_others_run(client: millgrid.Client, tmp_path: Path) -> None:
    @millgrid.remote
    def until_told(n: int) -> int:
        if n == 2:
            wait_for(str(tmp_path / "go"))
        return n * n

    calls = until_told.map(range(5), chunksize=2)
    values = iter(calls)
    assert [next(values), next(values)] == [0, 1]
    (tmp_path / "go").touch()
    assert list(values) == [4, 9, 16]
    assert list(calls) == [0, 1, 4, 9, 16], "as often as one likes, also when all have ended"
    assert list(millgrid.Calls[int](client, calls.id)) == [0, 1, 4, 9, 16]


def test_results_come_as_they_end_with_their_numbers(client: millgrid.Client, tmp_path: Path) -> None:
    @millgrid.remote
    def first_waits(n: int) -> int:
        if n == 0:
            wait_for(str(tmp_path / "go"))
        return n * n

    calls = first_waits.map(range(6))
    ended = calls.as_completed(timeout=60)
    assert sorted(next(ended) for _ in range(5)) == [(n, n * n) for n in range(1, 6)]
    with pytest.raises(millgrid.WaitTimeout, match="1 tasks"):
        list(calls.as_completed(timeout=0.5))
    (tmp_path / "go").touch()
    assert list(ended) == [(0, 0)]
    again = millgrid.Calls[int](client, first_waits.map(range(1, 6), chunksize=2).id)
    assert sorted(again.as_completed(60)) == [(n - 1, n * n) for n in range(1, 6)]


def test_a_call_that_raises_is_told_where_it_stands(client: millgrid.Client) -> None:
    calls = picky.map(range(4))
    values = iter(calls)
    assert [next(values), next(values)] == [0, 1]
    with pytest.raises(ValueError, match="not two"):
        next(values)
    with pytest.raises(ValueError, match="not two"):
        list(calls.as_completed())
    found = dict(calls.as_completed(return_exceptions=True))
    error: object = found.pop(2)
    assert found == {0: 0, 1: 1, 3: 3} and isinstance(error, ValueError)
    with pytest.raises(millgrid.InvalidArgument, match="not one of functions"):
        list(millgrid.Calls[int](client, client.submit("true").id))


def test_large_arguments_of_a_map_go_through_s3(client: millgrid.Client) -> None:
    arrays = [numpy.full(size, 2.0) for size in (10, 50_000, 3)]
    calls = millgrid.remote(total).map(arrays)
    assert list(calls) == [20, 100_000, 6]
    assert calls.task_count == 3 and millgrid.remote(len).map([b"x" * 200_000]).results(60) == [200_000]
    with pytest.raises(millgrid.Unpicklable, match="in one task\nhint: use a smaller `chunksize`"):
        millgrid.remote(total).map(arrays, chunksize=2)


def test_inline_calls_come_alike(inline: None) -> None:
    calls = picky.map(range(3))
    assert [next(iter(calls)), dict(calls.as_completed(return_exceptions=True))[1]] == [0, 1]
    with pytest.raises(ValueError, match="not two"):
        list(calls)
