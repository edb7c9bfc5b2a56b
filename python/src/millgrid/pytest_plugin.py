"""A fixture for tests that need a grid: `pytest -p millgrid.pytest_plugin`, or `pytest_plugins = ["millgrid.pytest_plugin"]`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ._dev import DevClient, dev


@pytest.fixture(scope="session")
def millgrid_dev() -> Iterator[DevClient]:
    """A client of a grid of `millgrid dev` for the whole session."""
    with dev() as client:
        yield client
