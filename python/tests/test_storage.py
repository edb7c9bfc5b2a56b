"""What is too large to travel along goes through S3."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


MEMORY = """
import resource, sys, threading
from pathlib import Path
import numpy
from millgrid._dev import DevClient, DevGrid
sys.path.insert(0, sys.argv[3])
import calls
client = DevClient(DevGrid(sys.argv[1], Path(sys.argv[2])))
with client.executor() as executor:
    executor.submit(calls.double, numpy.ones(20_000)).result(60)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    array = numpy.ones(16 << 20)
    assert executor.submit(calls.total, array).result(100) == 16 << 20
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / (array.nbytes >> 10))
    del array
    made = executor.submit(calls.zeros, 16 << 20).result(100)
    assert made.nbytes == 128 << 20 and not made.any()
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / (made.nbytes >> 10))
"""


def test_arrays_are_not_copied_on_their_way(client: millgrid.DevClient) -> None:
    words = [client.grid.program, str(client.grid.state), str(Path(__file__).parent)]
    ended = subprocess.run([sys.executable, "-c", MEMORY, *words], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    sent, received = map(float, ended.stdout.split())
    # Beside the 128 MiB of data there are the parts that are on their way.
    assert sent < 1.7 and received < 1.7, (sent, received)
