"""How much memory a client needs for an array that it sends as argument, and for one that it gets as result.

    python memory.py MIB [STATE]

Starts a grid, or uses the one of `millgrid dev` whose folder is STATE. Prints one line of JSON: `sent`, `received`, and
`both` while it holds the argument when it gets the result; each is the peak of the resident memory above what the
process had before, by the bytes of the arrays that it holds.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy

import millgrid
from millgrid._dev import DevClient, DevGrid, find_program

Array = Any


def check(array: Array) -> bool:
    """Whether the worker has got the right one."""
    return bool((array[::4096] == numpy.arange(0, len(array), 4096)).all() and array.sum() == total(len(array)))


def counted(count: int) -> Array:
    """An array that the worker makes."""
    return numpy.arange(count, dtype="int64")


def negated(array: Array) -> Array:
    """In place: what the worker needs is its own affair."""
    return numpy.negative(array, out=array)


def total(count: int) -> int:
    """Of the numbers below `count`."""
    return count * (count - 1) // 2


class Peak:
    """The most memory that is resident from now on, above what is now."""

    def __init__(self) -> None:
        gc.collect()
        # Linux forgets the peak.
        Path("/proc/self/clear_refs").write_text("5")
        self._before = _status("VmRSS")

    def bytes(self) -> int:
        return _status("VmHWM") - self._before


def _status(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.M)
    assert found is not None
    return int(found[1]) << 10


def measure(client: millgrid.Client, size: int) -> dict[str, float]:
    """Of arrays of `size` bytes."""
    count = size // 8
    with client.executor() as executor:
        # Whatever is imported and opened once, on each way.
        assert executor.submit(check, counted(20_000)).result()
        assert executor.submit(counted, 20_000).result()[-1] == 19_999
        peak = Peak()
        array = counted(count)
        assert executor.submit(check, array).result(), "the worker got another array"
        sent = peak.bytes() / size
        del array
        peak = Peak()
        got = executor.submit(counted, count).result()
        received = peak.bytes() / size
        assert len(got) == count and check(got), "another array came back"
        del got
        peak = Peak()
        array = counted(count)
        got = executor.submit(negated, array).result()
        both = peak.bytes() / (2 * size)
        assert len(got) == count and got[1] == -1 and got[-1] == 1 - count and got.sum() == -total(count)
        assert check(array)
    return {"sent": sent, "received": received, "both": both}


@contextlib.contextmanager
def grid(state: str | None) -> Iterator[millgrid.Client]:
    if state is not None:
        with DevClient(DevGrid(find_program(), Path(state))) as client:
            yield client
        return
    ports = os.environ.get("MILLGRID_TEST_PORTS")
    with millgrid.dev(workers=2, worker_cpus=1, port_base=int(ports) if ports else None) as client:
        yield client


def main() -> None:
    size = int(sys.argv[1]) << 20
    with grid(sys.argv[2] if len(sys.argv) > 2 else None) as client:
        print(json.dumps(measure(client, size)))


if __name__ == "__main__":
    main()
