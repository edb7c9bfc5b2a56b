"""A Dask cluster of jobs, with the real `distributed`."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import distributed
import pytest

import millgrid
from calls import add, end_once
from millgrid.dask import MillgridCluster

NOWHERE = "127.0.0.1:0"


def until(condition: Callable[[], Any], seconds: float = 30) -> None:
    """Waits for what distributed tells nobody about."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "it did not come about"
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def leftovers(client: millgrid.DevClient) -> Iterator[None]:
    """Whatever a test began has ended when the next one wants the workers."""
    yield
    for info in client.jobs(limit=None):
        if info.name.startswith("dask-worker"):
            client.job(info.id).wait(60)


@pytest.fixture
def cluster(client: millgrid.DevClient) -> Iterator[MillgridCluster]:
    with MillgridCluster(cores=1, memory="400MiB", client=client, dashboard_address=NOWHERE,
                         labels={"team": "dask"}) as cluster:  # fmt: skip
        yield cluster


def test_workers_are_jobs_and_come_and_go(client: millgrid.DevClient, cluster: MillgridCluster) -> None:
    cluster.scale(jobs=2)
    with distributed.Client(cluster) as dask_client:
        dask_client.wait_for_workers(2, timeout=30)
        assert dask_client.gather(dask_client.map(add, range(20), [1] * 20)) == list(range(1, 21))
        workers = cluster.jobs
        assert sorted(workers) == ["dask-worker-0", "dask-worker-1"]
        infos = {name: job.info() for name, job in workers.items()}
        assert all(info.name == name and info.labels == {"team": "dask"} for name, info in infos.items())
        assert workers["dask-worker-0"]._get().spec.resources.memory_mib == 400
        limits = {worker["memory_limit"] for worker in dask_client.scheduler_info()["workers"].values()}
        assert limits == {400 << 20}
        cluster.scale(1)
        until(lambda: len(cluster.jobs) == 1)
        (gone,) = [job for name, job in workers.items() if name not in cluster.jobs]
        assert gone.wait(60).state == "succeeded", "it was asked to end, and did"
        (left,) = cluster.jobs.values()
        assert dask_client.submit(add, 1, 2).result(30) == 3 and not left.info().ended
    cluster.close()
    assert left.wait(60).state in ("cancelled", "succeeded")


def test_a_worker_that_ends_is_replaced(client: millgrid.DevClient, cluster: MillgridCluster, tmp_path: Path) -> None:
    cluster.scale(1)
    with distributed.Client(cluster) as dask_client:
        dask_client.wait_for_workers(1, timeout=30)
        first = cluster.jobs["dask-worker-0"]
        assert dask_client.submit(end_once, str(tmp_path / "ended")).result(60) == "the second time"
        assert first.wait(10).info().exit_code == 9
        assert list(cluster.jobs) == ["dask-worker-1"]


def test_it_adapts_to_the_work(client: millgrid.DevClient, cluster: MillgridCluster) -> None:
    cluster.adapt(minimum_jobs=0, maximum_jobs=2, interval="100ms", wait_count=2)
    with distributed.Client(cluster) as dask_client:
        futures = dask_client.map(add, range(8), [2] * 8)
        assert dask_client.gather(futures) == list(range(2, 10))
        seen = list(cluster.jobs.values())
        assert 1 <= len(seen) <= 2
        del futures
        until(lambda: not cluster.jobs)
        assert all(job.wait(60).info().ended for job in seen)


def test_what_waits_is_explained(client: millgrid.DevClient, cluster: MillgridCluster) -> None:
    cluster.scale(4)
    until(lambda: len(cluster.jobs) == 4)
    until(lambda: sum(job.state == "queued" for job in cluster.jobs.values()) == 2)
    told = cluster.explain()
    assert told.count("is queued") == 2 and "resources_cpu" in told


def test_a_worker_whose_machine_is_lost_goes_on_elsewhere(own_grid: millgrid.DevClient) -> None:
    with MillgridCluster(client=own_grid, n_workers=1, dashboard_address=NOWHERE) as cluster:
        with distributed.Client(cluster) as dask_client:
            dask_client.wait_for_workers(1, timeout=30)
            (job,) = cluster.jobs.values()
            (task,) = job.tasks()
            own_grid.grid.kill(task.worker)
            assert dask_client.submit(add, 1, 2).result(90) == 3
            assert list(cluster.jobs.values()) == [job], "the same worker, by name and job"
            (again,) = job.tasks()
            assert again.attempt == 2 and again.worker != task.worker


SCRIPT = """
import os, sys, time, millgrid
from distributed import Client
from millgrid.dask import MillgridCluster
cluster = MillgridCluster(client=millgrid.Client(), n_workers=3, dashboard_address="127.0.0.1:0", death_timeout=3)
Client(cluster).wait_for_workers(2)
print(*(job.id for job in cluster.jobs.values()), flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("how", ["ends", "is killed"])
def test_no_job_is_left_when_the_client_process(how: str, client: millgrid.DevClient) -> None:
    environment = {**os.environ, **client.grid.environment()}
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                          env=environment) as running:  # fmt: skip
        assert running.stdout is not None and running.stdin is not None
        numbers = [int(word) for word in running.stdout.readline().split()]
        assert len(numbers) == 3
        if how == "is killed":
            running.send_signal(signal.SIGKILL)
        else:
            running.stdin.write("\n")
        running.stdin.close()
        running.wait(60)
    ended = [client.job(number).wait(60) for number in numbers]
    if how == "ends":
        assert [job.state for job in ended] == ["cancelled"] * 3


def test_workers_that_cannot_start_are_not_started_for_ever(
    client: millgrid.DevClient, caplog: pytest.LogCaptureFixture
) -> None:
    wrong: dict[str, dict[str, Any]] = {"command_not_found": {"python": "/nowhere/python"}, "gpu": {"gpus": 64}}
    for why, options in wrong.items():
        caplog.clear()
        with caplog.at_level(logging.WARNING, "millgrid.dask"):
            with MillgridCluster(client=client, dashboard_address=NOWHERE, **options) as cluster:
                cluster.scale(1)
                until(lambda: "no more are started" in caplog.text)
                assert not cluster.jobs and not cluster.worker_spec
        assert caplog.text.count(why) >= 3


def test_traffic_is_encrypted_when_it_is_asked_for(client: millgrid.DevClient) -> None:
    pytest.importorskip("cryptography")
    with MillgridCluster(client=client, n_workers=1, security=True, dashboard_address=NOWHERE) as cluster:
        with distributed.Client(cluster) as dask_client:
            assert cluster.scheduler_address.startswith("tls://")
            assert dask_client.submit(add, 1, 2).result(60) == 3


def test_options_that_cannot_be_meant_are_refused(client: millgrid.DevClient) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [({"quue": "x"}, "quue"), ({"gpus": -1}, "gpus"), ({"cores": 0}, "cores")]
    for options, field in wrong:
        with pytest.raises(millgrid.InvalidArgument) as refused:
            MillgridCluster(client=client, **options)
        assert refused.value.field == field
