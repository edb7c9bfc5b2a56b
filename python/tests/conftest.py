"""One grid for all tests that only use it; those that break one have their own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

import millgrid

#: The first port to try; grids find others by themselves where these are taken.
PORTS = int(os.environ.get("MILLGRID_TEST_PORTS", "23100"))


@pytest.fixture(scope="session")
def client() -> Iterator[millgrid.DevClient]:
    """Of a grid with two workers of one cpu each."""
    with millgrid.dev(workers=2, worker_cpus=1, port_base=PORTS) as client:
        yield client


@pytest.fixture
def own_grid() -> Iterator[millgrid.DevClient]:
    """Of a grid that may be broken."""
    with millgrid.dev(workers=2, worker_cpus=1, port_base=PORTS + 100) as client:
        yield client
