"""What is lost on the way costs no result, and changes none."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import millgrid
from calls import slowly
from millgrid._notice import Incidents


def _go_to_the_leader(client: millgrid.DevClient) -> None:
    """What is asked from now on goes to the coordinator that leads: c1, c2 or c3, in the order of the endpoints."""
    leader = client.leader()
    assert leader is not None
    client._grid._good = int(leader[1:]) - 1


def _one_line(caplog: pytest.LogCaptureFixture, lost: str) -> None:
    lines = [record.getMessage() for record in caplog.records if record.name == "millgrid"]
    assert len(lines) == 1, lines
    assert re.fullmatch(rf"millgrid: the connection to {lost} was lost; going on with 127\.0\.0\.1:\d+", lines[0]), lines
    assert f"with {lost}" not in lines[0]


def test_the_leader_dies_during_a_map(
    own_grid: millgrid.DevClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = str(tmp_path / "log")
    results = []
    lost = ""
    with own_grid.executor() as executor:
        _go_to_the_leader(own_grid)
        for result in executor.map(slowly, [log] * 2000, range(2000), chunksize=20):
            results.append(result)
            if len(results) == 500:
                lost = own_grid._grid.address(own_grid._grid._good)
                own_grid.grid.kill("leader")
    assert results == [n * n for n in range(2000)]
    ran = [int(line) for line in Path(log).read_text().split()]
    assert sorted(ran) == list(range(2000)), "no call was made twice: no worker was lost"
    _one_line(caplog, lost)


def test_the_leader_dies_while_a_log_is_followed(
    own_grid: millgrid.DevClient, caplog: pytest.LogCaptureFixture
) -> None:
    job = own_grid.submit(["sh", "-c", "for n in $(seq 600); do echo $n; sleep 0.01; done"])
    _go_to_the_leader(own_grid)
    lost = own_grid._grid.address(own_grid._grid._good)
    lines = []
    for line in job.logs(follow=True):
        lines.append(int(line))
        if len(lines) == 100:
            own_grid.grid.kill("leader")
    assert lines == list(range(1, 601)), "none is lost, repeated or out of order"
    _one_line(caplog, lost)


def test_what_breaks_together_is_one_incident(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    incidents = Incidents()
    for endpoint in ("a:1", "b:2"):
        incidents.broke(f"the connection to {endpoint} was lost")
    for _ in range(3):
        incidents.resumed("c:3")
    incidents.broke("the connection to c:3 was lost")
    incidents.resumed("a:1")
    assert caplog.messages == ["millgrid: the connection to a:1 was lost; going on with c:3"]
    monkeypatch.setattr("millgrid._notice.JOINED_SECONDS", -1.0)
    incidents.broke("a:1 had no leader")
    incidents.resumed("c:3")
    assert caplog.messages[1:] == ["millgrid: a:1 had no leader; going on with c:3"]
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2


def test_the_leader_dies_twice_and_comes_back(own_grid: millgrid.DevClient, tmp_path: Path) -> None:
    results = []
    with own_grid.executor() as executor:
        for result in executor.map(slowly, [str(tmp_path / "log")] * 2000, range(2000), chunksize=20):
            results.append(result)
            if len(results) in (100, 1000):
                own_grid.grid.kill("leader")
                own_grid.grid.restart(_dead(own_grid))
    assert results == [n * n for n in range(2000)]


def _dead(client: millgrid.DevClient) -> str:
    names = [one["name"] for one in client.grid.status()["processes"] if one["pid"] is None]
    assert len(names) == 1
    return str(names[0])


def test_a_paused_leader_delays_and_loses_nothing(own_grid: millgrid.DevClient) -> None:
    with own_grid.executor() as executor:
        assert executor.submit(pow, 2, 3).result(60) == 8
        leader = own_grid.leader()
        assert leader is not None
        own_grid.grid.pause(leader)
        assert executor.submit(pow, 2, 4).result(60) == 16
        own_grid.grid.resume(leader)
        assert executor.submit(pow, 2, 5).result(60) == 32


def test_a_silent_leader_holds_up_nobody_who_waits(own_grid: millgrid.DevClient) -> None:
    _go_to_the_leader(own_grid)
    job = own_grid.submit(["sleep", "2"])
    leader = own_grid.leader()
    assert leader is not None
    threading.Timer(0.5, own_grid.grid.pause, [leader]).start()
    # A sign of life is asked for after five seconds, and waited for four.
    assert job.wait(30).state == "succeeded"


CLIENT = """
import sys, os, millgrid
from millgrid._dev import DevClient, DevGrid
from pathlib import Path
client = DevClient(DevGrid(sys.argv[1], Path(sys.argv[2])))

@millgrid.remote(client=client)
def square(n):
    return n * n

print(square.map(range(50)).id, flush=True)
os.kill(os.getpid(), 9)
"""


def test_a_client_that_died_is_followed_by_another(client: millgrid.DevClient) -> None:
    arguments = [sys.executable, "-c", CLIENT, client.grid.program, str(client.grid.state)]
    died = subprocess.run(arguments, capture_output=True, text=True, timeout=60, env={**os.environ})
    assert died.returncode == -9, died.stderr
    job = client.job(int(died.stdout))
    assert job.results(60) == [n * n for n in range(50)]
    assert job.results(60)[7] == 49, "as often as one likes"


def test_a_job_of_programs_has_no_results(client: millgrid.Client) -> None:
    with pytest.raises(millgrid.InvalidArgument, match="not one of functions"):
        client.submit("true").results()
