"""One grid for all tests that only use it; those that break one have their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import millgrid


@pytest.fixture(scope="session")
def client() -> Iterator[millgrid.DevClient]:
    """Of a grid with two workers of one cpu each."""
    with millgrid.dev(workers=2, worker_cpus=1, port_base=23100) as client:
        yield client


@pytest.fixture
def own_grid() -> Iterator[millgrid.DevClient]:
    """Of a grid that may be broken."""
    with millgrid.dev(workers=2, worker_cpus=1, port_base=23200) as client:
        yield client
