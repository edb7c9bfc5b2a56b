"""What is too large to travel along goes through S3."""

from __future__ import annotations

import numpy
import pytest

import millgrid
from calls import double, large


def test_large_arguments_and_results_arrive_whole(client: millgrid.Client) -> None:
    array = numpy.arange(1_000_000, dtype="float64")
    with client.executor() as executor:
        doubled = executor.submit(double, array).result(60)
        assert numpy.array_equal(doubled, array * 2)
        doubled[0] = 1  # It is the caller's own, to be written to.
        assert executor.submit(large, 300_000).result(60) == b"x" * 300_000
        results = list(executor.map(large, [10, 100_000, 20], chunksize=3))
        assert [len(result) for result in results] == [10, 100_000, 20]


def test_small_arrays_travel_inline(client: millgrid.DevClient) -> None:
    before = sorted((client.grid.state / "s3/dev").rglob("arguments/*"))
    with client.executor() as executor:
        assert executor.submit(double, numpy.ones(100)).result(60).sum() == 200
    assert sorted((client.grid.state / "s3/dev").rglob("arguments/*")) == before


def test_a_large_result_is_there_for_whoever_comes_later(client: millgrid.Client) -> None:
    calls = millgrid.remote(client=client)(large).map([70_000, 5])
    assert [len(value) for value in client.job(calls.id).results(60)] == [70_000, 5]


