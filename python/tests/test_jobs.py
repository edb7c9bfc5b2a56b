"""Jobs of programs, on a real grid."""

from __future__ import annotations

import datetime
import multiprocessing
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import millgrid


def output(job: millgrid.Job, stream: str = "stdout") -> list[str]:
    return [line.rstrip("\n") for line in job.wait(60).logs(stream=stream)]


def test_a_job_runs_and_its_log_is_read(client: millgrid.Client) -> None:
    job = client.submit(["sh", "-c", "echo hello; echo oh >&2"], name="greet", labels={"team": "ml"})
    assert job.wait(60).raise_for_status() is job
    info = job.info()
    assert (info.state, info.name, info.exit_code, info.labels) == ("succeeded", "greet", 0, {"team": "ml"})
    assert info.ended and info.tasks.succeeded == 1
    lines = {(line.stream, str(line)) for line in job.logs()}
    assert lines == {("stdout", "hello\n"), ("stderr", "oh\n")}


def test_a_failed_job_raises_what_failed_and_its_last_lines(client: millgrid.Client) -> None:
    job = client.submit(["sh", "-c", "echo no such reference >&2; exit 7"]).wait(60)
    with pytest.raises(millgrid.JobFailed) as raised:
        job.raise_for_status()
    error = raised.value
    assert (error.job_id, error.state, error.cause, error.exit_code) == (job.id, "failed", "exit_code", 7)
    assert error.log_tail == "no such reference\n"
    assert f"job {job.id}" in str(error) and "no such reference" in str(error)


def test_a_job_is_found_again_by_its_number(client: millgrid.Client) -> None:
    job = client.submit(["echo", "again"], name="mine")
    again = client.job(job.id)
    assert again == job and output(again) == ["again"]
    assert client.job("last").id >= job.id
    assert job.id in [one.id for one in client.jobs(all=True, limit=None)]
    assert job.id not in [one.id for one in client.jobs(limit=None)]
    assert [one.id for one in client.jobs(all=True, states=["succeeded"], limit=3)][0] >= job.id


def test_arrays_sweeps_and_rows_make_a_task_each(client: millgrid.Client) -> None:
    assert output(client.submit(["echo", "{index}"], array="0-6:3,9%2")) == ["0", "3", "6", "9"]
    assert output(client.submit(["echo", "{index}"], array=range(5, 8))) == ["5", "6", "7"]
    assert output(client.submit(["echo", "{a}-{b}"], sweep={"a": "xy", "b": [1, 2]})) == ["x-1", "x-2", "y-1", "y-2"]
    assert output(client.submit(["echo", "{a}-{b}"], sweep={"a": "xy", "b": [1, 2]}, zip=True)) == ["x-1", "y-2"]
    assert output(client.submit(["echo", "{line}"], each=["one", "", "{line} é"])) == ["one", "", "{line} é"]
    assert output(client.submit(["echo", "{row.n}"], each=({"n": n} for n in range(3)))) == ["0", "1", "2"]


def test_the_same_request_id_is_the_same_job(client: millgrid.Client) -> None:
    first = client.submit("true", request_id="nightly-1")
    assert client.submit("true", request_id="nightly-1").id == first.id
    with pytest.raises(millgrid.AlreadyExists) as raised:
        client.submit("false", request_id="nightly-1")
    assert raised.value.request_id == "nightly-1"


def test_files_travel_and_outputs_are_published(client: millgrid.DevClient, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("to be or not to be")
    job = client.submit(
        ["sh", "-c", "wc -w < words > res/count.txt; ls"],
        script="#!/bin/sh\nmkdir -p res\nexec \"$@\"\n",
        inputs={"words": tmp_path / "in.txt"},
        outputs={"res/*.txt": "s3://dev/out/{job}/", "*.log": millgrid.Output("s3://dev/out/", optional=True)},
    )
    job.wait(60).raise_for_status()
    (found,) = job.outputs()
    assert (found.path, found.url) == ("res/count.txt", f"s3://dev/out/{job.id}/count.txt")
    assert (client.grid.state / f"s3/dev/out/{job.id}/count.txt").read_text().strip() == "6"
    second = client.submit(["cat", "got"], inputs={"got": f"job:{job.id}/res/count.txt"})
    assert output(second) == ["6"]


def test_dependencies_hold_release_and_cancel(client: millgrid.Client) -> None:
    first = client.submit(["sh", "-c", "exit 3"], hold=True)
    after = client.submit("true", after=first)
    failed = client.submit("true", after_failed=[first], after_exit={first.id: [3, 4]})
    assert first.info().held and after.state == "waiting"
    assert any(one.reason == "held" for one in first.explain().reasons)
    with pytest.raises(millgrid.WaitTimeout):
        first.wait(0.05)
    first.release().wait(60)
    client.wait(after, failed, timeout=60)
    assert (after.state, failed.state) == ("skipped", "succeeded")
    held = client.submit("true", hold=True)
    assert held.cancel(reason="not needed") == 1
    assert held.wait(60).state == "cancelled" and held.info().reason == "not needed"


def test_retries_and_retry(client: millgrid.Client) -> None:
    job = client.submit(
        ["sh", "-c", "test {attempt} = 2 || exit 75"], retries=2, retry_on=[75], backoff="1s", array=2
    ).wait(60)
    job.raise_for_status()
    tasks = job.tasks(attempts=True)
    assert [(task.attempt, task.exit_code) for task in tasks] == [(2, 0), (2, 0)]
    assert [attempt.exit_code for attempt in tasks[0].attempts][0] == 75
    once = client.submit(["sh", "-c", "test {attempt} != 1"], array=2).wait(60)
    assert once.info().tasks.failed == 2
    assert once.retry(1).wait(60).info().tasks.succeeded == 1
    assert once.retry(failed=True, cpus=0.5).wait(60).state == "succeeded"


def test_limits_are_set_while_it_waits(client: millgrid.Client) -> None:
    job = client.submit("true", hold=True, priority=1, time="1h")
    job.set(priority=7, time=datetime.timedelta(minutes=2), max_failures=3)
    assert job.info().priority == 7
    job.cancel()
    with pytest.raises(millgrid.Conflict):
        job.wait(60).hold()


def test_events_end_with_the_job(client: millgrid.Client) -> None:
    job = client.submit(["sh", "-c", "test {index} != 1"], array=3)
    events = list(job.events())
    ends = {event.index: event.state for event in events if event.state in ("succeeded", "failed")}
    assert ends == {0: "succeeded", 1: "failed", 2: "succeeded", None: "failed"}
    assert events[-1].index is None


def test_a_flow_is_submitted_whole_or_not_at_all(client: millgrid.Client) -> None:
    with client.flow("assembly") as flow:
        parts = [flow.submit(["echo", str(n)], name=f"part-{n}") for n in range(2)]
        merge = flow.submit(["echo", "merged"], after=parts, name="merge")
        with pytest.raises(millgrid.MillgridError):
            _ = merge.id
    assert output(merge) == ["merged"] and merge.info().name == "assembly/merge"
    assert all(part.state == "succeeded" for part in parts)
    before = client.job("last").id
    with pytest.raises(millgrid.Infeasible), client.flow("too-large") as flow:
        flow.submit("true")
        flow.submit("true", cpus=100_000)
    with pytest.raises(ZeroDivisionError), client.flow("broken") as flow:
        flow.submit("true")
        _ = 1 / 0
    assert client.job("last").id == before


def test_logs_are_followed_through_retries(client: millgrid.Client) -> None:
    job = client.submit(["sh", "-c", "echo attempt {attempt}; test {attempt} = 2"], retries=1, backoff="1s")
    assert [(line.attempt, str(line)) for line in job.logs(follow=True)] == [(1, "attempt 1\n"), (2, "attempt 2\n")]


def test_logs_of_an_array_are_followed_side_by_side(client: millgrid.Client) -> None:
    job = client.submit(["sh", "-c", "echo {index}"], array=20)
    assert sorted((line.task, int(line)) for line in job.logs(follow=True)) == [(n, n) for n in range(20)]


def test_tasks_become_data_frames(client: millgrid.Client) -> None:
    tasks = client.submit(["sh", "-c", "test {index} != 1"], array=3).wait(60).tasks()
    for frame in (tasks.to_pandas(), tasks.to_polars()):
        assert list(frame["index"]) == [0, 1, 2]
        assert list(frame["state"]) == ["succeeded", "failed", "succeeded"]
        assert [int(code) for code in frame["exit_code"]] == [0, 1, 0]
    assert "<table>" in tasks._repr_html_() and "failed" in tasks._repr_html_()


def test_progress_shows_every_task(client: millgrid.Client, capsys: pytest.CaptureFixture[str]) -> None:
    client.submit("true", array=5, name="five").progress()
    assert "five" in capsys.readouterr().err.replace("\r", "\n").splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"cpus": 0}, "cpus"),
        ({"mem": "8"}, "mem"),
        ({"time": 5}, "time"),
        ({"time": "5"}, "time"),
        ({"gpus": -1}, "gpus"),
        ({"retries": -1}, "retries"),
        ({"retries": 1, "at_most_once": True}, "retries"),
        ({"array": ""}, "array"),
        ({"array": "9-0"}, "array"),
        ({"array": 3, "each": ["x"]}, "array"),
        ({"each": []}, "rows"),
        ({"sweep": {"a": [1], "b": [1, 2]}, "zip": True}, "sweep"),
        ({"env": {"A": "{nosuch}"}}, "env"),
        ({"inputs": {"../x": "s3://b/k"}}, "inputs"),
        ({"inputs": {"x": "/no/such/file"}}, "inputs"),
        ({"outputs": {"x": "/tmp"}}, "outputs"),
        ({"chdir": "rel"}, "chdir"),
        ({"constraints": ["zone="]}, "constraints"),
        ({"retry_on": ["bad_luck"]}, "retry_on"),
        ({"mem_growth": 1.5}, "mem_growth"),
        ({"backoff": "10m..30s"}, "backoff"),
        ({"priority": 1001}, "priority"),
        ({"retry": 1}, "retry"),
        ({"request_id": ""}, "request_id"),
    ],
)
def test_what_cannot_be_meant_names_its_option(client: millgrid.Client, options: Any, field: str) -> None:
    before = client.job(client.submit("true").id).id
    with pytest.raises(millgrid.InvalidArgument) as raised:
        client.submit(["true"], **options)
    assert raised.value.field == field
    assert client.submit("true").id == before + 1


def test_refusals_say_the_way_out(client: millgrid.Client) -> None:
    with pytest.raises(millgrid.NotFound) as raised:
        client.job(10**9)
    assert raised.value.hint and raised.value.reason
    with pytest.raises(millgrid.Infeasible):
        client.submit("true", cpus=100_000)
    assert client.plan("true", cpus=100_000).infeasible
    assert client.plan("true").workers_that_fit == 2


def test_workers_and_queues_are_listed(client: millgrid.Client) -> None:
    assert [(one.name, one.cpu_milli, one.state) for one in client.workers()] == [
        ("worker-1", 1000, "ready"),
        ("worker-2", 1000, "ready"),
    ]
    assert "default" in [one.name for one in client.queues()]
    assert client.leader() in ("c1", "c2", "c3")
    assert "workers" in client._repr_html_()


def _child(job_id: int, client: millgrid.Client, answer: Any) -> None:
    answer.put(client.job(job_id).wait(30).state)


def test_a_client_works_in_a_fork_and_in_threads(client: millgrid.Client) -> None:
    job = client.submit("true").wait(60)
    context = multiprocessing.get_context("fork")
    answer = context.Queue()
    child = context.Process(target=_child, args=(job.id, client, answer))
    child.start()
    assert answer.get(timeout=60) == "succeeded"
    child.join(60)
    assert child.exitcode == 0
    states: list[str] = []
    threads = [threading.Thread(target=lambda: states.append(client.submit("true").wait(60).state)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert states == ["succeeded"] * 8


def test_many_jobs_are_watched_over_a_few_streams(client: millgrid.Client) -> None:
    jobs = [client.submit("true", hold=True) for _ in range(30)]
    waiters = [threading.Thread(target=job.wait, args=(60,)) for job in jobs]
    for waiter in waiters:
        waiter.start()
    for job in jobs:
        job.release()
    for waiter in waiters:
        waiter.join(60)
    assert not any(waiter.is_alive() for waiter in waiters)


def test_the_leader_dies_and_logs_and_waits_go_on(own_grid: millgrid.DevClient) -> None:
    job = own_grid.submit(["sh", "-c", "for n in $(seq 400); do echo $n; sleep 0.01; done"])
    lines: list[str] = []
    for line in job.logs(follow=True):
        lines.append(line.strip())
        if len(lines) == 20:
            own_grid.grid.kill("leader")
    assert lines == [str(n) for n in range(1, 401)]
    assert job.wait(30).state == "succeeded"


def test_no_grid_is_said_soon_and_clearly(monkeypatch: pytest.MonkeyPatch, client: millgrid.DevClient) -> None:
    environment = client.grid.environment()
    for name in ("CA", "CERT", "KEY"):
        monkeypatch.setenv(f"MILLGRID_{name}", environment[f"MILLGRID_{name}"])
    begun = time.monotonic()
    with pytest.raises(millgrid.Unreachable) as raised:
        millgrid.Client(endpoint="https://127.0.0.1:1", timeout=0.5).submit("true")
    assert time.monotonic() - begun < 5
    assert "127.0.0.1:1" in str(raised.value) and raised.value.request_id and raised.value.hint
