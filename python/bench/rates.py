"""How fast one system calls a function that does nothing; run as a process of its own for each of them.

    python rates.py millgrid|ray|dask

Prints one line of JSON: `version`; `calls`, the calls a second in each round by the way of calling, where each call is
one by itself; `pieces`, the same where the caller gives up that and has the function called in a loop; `call_ms`, each
of the calls that were made one after the other on an idle system. Results are compared with what they must be.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

CALLS = 10_000
ROUNDS = 3
#: Calls before the first round, so that every process is there and has the function.
WARM_UP = 1_000
ALONE = 200
WORKERS = 2
#: Calls in a piece, where there are pieces: four for each worker, as `multiprocessing` cuts them.
PIECE = CALLS // (4 * WORKERS)

#: Calls `echo` for each of the numbers below its argument, and gives the results in order.
Way = Callable[[int], list[int]]


@dataclass(frozen=True)
class System:
    """A system that runs, and the ways to call a function on it."""

    calls: dict[str, Way]
    #: One call and its result.
    one: Callable[[int], int]
    pieces: dict[str, Way] = field(default_factory=dict)


def echo(value: int) -> int:
    """Nothing, but for a result that tells whether it was called with the right argument."""
    return value


@contextlib.contextmanager
def millgrid() -> Iterator[System]:
    """`millgrid dev`: three coordinators that fsync, and two workers of one cpu."""
    import millgrid

    ports = os.environ.get("MILLGRID_TEST_PORTS")
    with millgrid.dev(workers=WORKERS, worker_cpus=1, port_base=int(ports) if ports else None) as client:
        with client.executor(cpus=1) as executor:
            yield System(
                {"executor.map": lambda count: list(executor.map(echo, range(count)))},
                lambda value: executor.submit(echo, value).result(),
                {"executor.map, chunksize": lambda n: list(executor.map(echo, range(n), chunksize=PIECE))},
            )


@contextlib.contextmanager
def ray() -> Iterator[System]:
    """Ray with two cpus: tasks, and two actors that hold no cpu while they wait."""
    import ray
    from ray.util import ActorPool
    from ray.util.multiprocessing import Pool

    ray.init(num_cpus=WORKERS, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)

    class Echo:
        def call(self, value: int) -> int:
            return echo(value)

    try:
        task: Any = ray.remote(echo)
        actor: Any = ray.remote(num_cpus=0)(Echo)
        actors = [actor.remote() for _ in range(WORKERS)]
        pool = ActorPool(actors)
        yield System(
            {
                "[f.remote(i) ...], ray.get": lambda n: ray.get([task.remote(value) for value in range(n)]),
                "ActorPool.map": lambda n: list(pool.map(lambda one, value: one.call.remote(value), range(n))),
                "actors in turn, ray.get": lambda n: ray.get(
                    [actors[value % WORKERS].call.remote(value) for value in range(n)]
                ),
            },
            lambda value: ray.get(task.remote(value)),
            {"ray.util.multiprocessing.Pool.map": _pooled(Pool)},
        )
    finally:
        ray.shutdown()


def _pooled(make: Callable[..., Any]) -> Way:
    made: list[Any] = []

    def way(count: int) -> list[int]:
        if not made:
            made.append(make(WORKERS))
        called: list[int] = made[0].map(echo, range(count))
        return called

    return way


@contextlib.contextmanager
def dask() -> Iterator[System]:
    """Dask with two worker processes of one thread each."""
    import dask.bag
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=WORKERS, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield System(
            {
                "client.map, gather": lambda n: client.gather(client.map(echo, range(n), pure=False)),
                "client.map in batches of 1000": lambda n: client.gather(
                    client.map(echo, range(n), pure=False, batch_size=1000)
                ),
            },
            lambda value: client.submit(echo, value, pure=False).result(),
            {"dask.bag": lambda n: dask.bag.from_sequence(range(n), npartitions=4 * WORKERS).map(echo).compute()},
        )


def rate(way: Way) -> list[float]:
    """Calls a second in each round."""
    rates = []
    way(WARM_UP)
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        called = way(CALLS)
        rates.append(CALLS / (time.perf_counter() - begun))
        assert called == list(range(CALLS)), "a wrong result"
    return rates


def alone(one: Callable[[int], int]) -> list[float]:
    """Milliseconds of each call, from before it to its result."""
    times = []
    for value in range(-10, ALONE):
        begun = time.perf_counter()
        assert one(value) == value, "a wrong result"
        times.append((time.perf_counter() - begun) * 1000)
    # The first ones may find what came before still at its end.
    return times[10:]


SYSTEMS: dict[str, tuple[str, Callable[[], AbstractContextManager[System]]]] = {
    "millgrid": ("millgrid", millgrid),
    "ray": ("ray", ray),
    "dask": ("distributed", dask),
}


def main() -> None:
    package, start = SYSTEMS[sys.argv[1]]
    with start() as system:
        measured = {
            "version": version(package),
            "calls": {name: rate(way) for name, way in system.calls.items()},
            "call_ms": alone(system.one),
            "pieces": {name: rate(way) for name, way in system.pieces.items()},
        }
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
