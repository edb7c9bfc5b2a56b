"""What types calls have, for type checkers: `test_typing.py` has both look at it; nothing here is run."""

from __future__ import annotations

from collections.abc import Iterator

from typing_extensions import assert_type

import millgrid


class Metrics:
    pass


@millgrid.remote
def plain(n: int) -> str:
    return str(n)


@millgrid.remote(cpus=2, mem="4G", retries=3)
def train(lr: float, *, depth: int = 3) -> Metrics:
    return Metrics()


def check(client: millgrid.Client) -> None:
    assert_type(plain(1), str)
    assert_type(plain.submit(1), millgrid.GridFuture[str])
    assert_type(plain.submit(1).result(), str)
    assert_type(train(0.1, depth=4), Metrics)
    assert_type(train.submit(0.1, depth=4).result(60), Metrics)
    assert_type(train.with_options(cpus=1).submit(0.1).result(), Metrics)
    calls = train.map(lr=[0.1, 0.01], depth=[3, 5], product=True, max_running=50)
    assert_type(calls, millgrid.Calls[Metrics])
    assert_type(calls.results(), list[Metrics])
    assert_type(calls.successful(), list[Metrics])
    assert_type(calls.outcomes(), list[millgrid.Outcome])
    assert_type(iter(calls), Iterator[Metrics])
    assert_type(calls.as_completed(), Iterator[tuple[int, Metrics]])
    assert_type(plain.starmap([(1,), (2,)]), millgrid.Calls[str])
    with client.executor(cpus=1) as ex:
        assert_type(ex, millgrid.GridExecutor)
        assert_type(ex.submit(len, "abc"), millgrid.GridFuture[int])
        assert_type(ex.map(len, ["a", "b"]), Iterator[int])
    assert_type(client.job(1).plot(), millgrid.Plot)
