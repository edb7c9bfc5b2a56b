"""What notebooks show: tables, live counts, pictures; on real jobs, in a real kernel, and of ten thousand tasks."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import millgrid
from millgrid._notebook import job_html
from millgrid._plot import LEFT, RIGHT, WIDTH

ORIGIN = datetime.datetime(2026, 11, 30, 12, tzinfo=datetime.timezone.utc)
SVG = "{http://www.w3.org/2000/svg}"
NASTY = "<script>alert('&\"')</script>"


def at(seconds: float) -> datetime.datetime:
    return ORIGIN + datetime.timedelta(seconds=seconds)


def task(index: int, state: str, begin: float | None, end: float | None, worker: str = "w", attempt: int = 1,
         attempts: tuple[millgrid.Attempt, ...] = ()) -> millgrid.Task:
    times = (None if begin is None else at(begin), None if end is None else at(end))
    return millgrid.Task(1, index, state, attempt, None, None, "", worker, at(0), *times, 0.0, 0.0, 0, attempts)


def attempt(number: int, state: str, begin: float, end: float, worker: str = "w") -> millgrid.Attempt:
    return millgrid.Attempt(number, state, None, 0, None, "", worker, at(begin), at(end), 0.0, 0.0, 0)


def info(tasks: list[millgrid.Task], name: str = "job", end: float | None = 10) -> millgrid.JobInfo:
    counted = collections.Counter(one.state for one in tasks)
    counts = millgrid.TaskCounts(*(counted[field.name] for field in dataclasses.fields(millgrid.TaskCounts)))
    ended = None if end is None else at(end)
    return millgrid.JobInfo(7, name, "succeeded", False, "default", "me", {}, 0, len(tasks), counts, None, None, "",
                            at(0), at(0), ended, ())


def parsed(plot: millgrid.Plot) -> tuple[list[ElementTree.Element], dict[str, ElementTree.Element]]:
    """The bars of attempts, and the areas of states."""
    root = ElementTree.fromstring(plot.svg)
    bars = [one for one in root.iter(f"{SVG}rect") if one.get("class") == "attempt"]
    return bars, {str(one.get("data-state")): one for one in root.iter(f"{SVG}path") if one.get("class") == "state"}


def seconds_of(bar: ElementTree.Element, plot: millgrid.Plot) -> tuple[float, float]:
    """Where it begins and ends, from where it is drawn."""
    scale = plot.seconds / (WIDTH - LEFT - RIGHT)
    x, width = float(bar.get("x", "")), float(bar.get("width", ""))
    return (x - LEFT) * scale, (x + width - LEFT) * scale


def test_a_plot_shows_each_attempt_where_and_when_it_ran(tmp_path: Path) -> None:
    tasks = [
        task(0, "succeeded", 1, 4, "a"),
        task(1, "succeeded", 5, 9, "b", 2, (attempt(1, "failed", 1, 3, "a"), attempt(2, "succeeded", 5, 9, "b"))),
        task(2, "failed", 4, 10, "a"),
        task(3, "cancelled", None, 2, ""),
    ]
    plot = millgrid.Plot(info(tasks, NASTY), tasks)
    bars, states = parsed(plot)
    drawn = {(bar.get("data-task"), bar.get("data-attempt")): bar for bar in bars}
    expected = {("0", "1"): (1, 4, "a", "succeeded"), ("1", "1"): (1, 3, "a", "failed"),
                ("1", "2"): (5, 9, "b", "succeeded"), ("2", "1"): (4, 10, "a", "failed")}
    assert drawn.keys() == expected.keys()
    for key, (begin, end, worker, state) in expected.items():
        assert seconds_of(drawn[key], plot) == pytest.approx((begin, end), abs=0.02)
        assert (drawn[key].get("data-worker"), drawn[key].get("data-state")) == (worker, state)
    assert drawn["0", "1"].get("y") != drawn["1", "1"].get("y"), "what ran at once lies in two lanes"
    assert {name: int(one.get("data-last", "")) for name, one in states.items() if one.get("data-last") != "0"} == {
        "succeeded": 2, "failed": 1, "cancelled": 1}
    assert [plot.counts["running"][plot.moments.index(moment)] for moment in (2.0, 4.5, 9.5)] == [2, 1, 1]
    assert [plot.counts["queued"][plot.moments.index(moment)] for moment in (0.5, 4.5)] == [4, 1]
    assert {sum(column[n] for column in plot.counts.values()) for n in range(len(plot.moments))} == {4}
    assert "<script" not in plot.svg and NASTY in "".join(ElementTree.fromstring(plot.svg).itertext())
    assert plot._repr_svg_() == plot._repr_html_() == plot.svg
    plot.save(tmp_path / "job.svg")
    assert ElementTree.parse(tmp_path / "job.svg").getroot().tag == f"{SVG}svg"


def test_ten_thousand_tasks_are_summed_up_and_nothing_is_lost() -> None:
    tasks = [
        task(n, "failed" if n % 100 == 0 else "succeeded", n // 20 * 0.5, n // 20 * 0.5 + 0.4, f"w{n % 20}")
        for n in range(10_000)
    ]
    plot = millgrid.Plot(info(tasks, end=250), tasks)
    bars, states = parsed(plot)
    busy = [one for one in ElementTree.fromstring(plot.svg).iter(f"{SVG}path") if one.get("class") == "busy"]
    assert not bars and len({one.get("data-worker") for one in busy}) == 20
    assert sum(float(one.get("data-seconds", "")) for one in busy) == pytest.approx(10_000 * 0.4)
    failed = sum(float(one.get("data-seconds", "")) for one in busy if one.get("data-state") == "failed")
    assert failed == pytest.approx(100 * 0.4)
    assert (states["succeeded"].get("data-last"), states["failed"].get("data-last")) == ("9900", "100")
    assert {sum(column[n] for column in plot.counts.values()) for n in range(len(plot.moments))} == {10_000}
    assert len(plot.svg) < 1 << 20


def test_a_plot_of_what_has_not_begun_or_goes_on() -> None:
    waiting = [task(n, "queued", None, None, "", 0) for n in range(3)]
    plot = millgrid.Plot(info(waiting, end=None), waiting, at(5))
    assert parsed(plot)[1]["queued"].get("data-last") == "3" and not parsed(plot)[0]
    running = [task(0, "running", 1, None)]
    plot = millgrid.Plot(info(running, end=None), running, at(5))
    assert seconds_of(parsed(plot)[0][0], plot) == pytest.approx((1, 5), abs=0.02)
    assert millgrid.Plot(info([], end=None), [], at(5)).svg


def test_a_plot_of_a_real_job_agrees_with_its_tasks(client: millgrid.Client, tmp_path: Path) -> None:
    command = f"test {{index}} != 1 || test -e {tmp_path}/tried || {{ touch {tmp_path}/tried; exit 3; }}; sleep 0.6"
    job = client.submit(["sh", "-c", command], array=4, retries=1, backoff="1s", cpus=0.25).wait(60)
    tasks, plot = job.tasks(attempts=True), job.plot()
    bars, states = parsed(plot)
    assert job.state == "succeeded" and states["succeeded"].get("data-last") == "4"
    assert sorted((int(bar.get("data-task", "")), int(bar.get("data-attempt", ""))) for bar in bars) == [
        (0, 1), (1, 1), (1, 2), (2, 1), (3, 1)]
    created = job.info().create_time
    assert created is not None
    for bar in bars:
        one = tasks[int(bar.get("data-task", ""))]
        if int(bar.get("data-attempt", "")) == one.attempt and one.start_time and one.end_time:
            begin, end = ((moment - created).total_seconds() for moment in (one.start_time, one.end_time))
            assert seconds_of(bar, plot) == pytest.approx((begin, end), abs=0.05)
            assert bar.get("data-worker") == one.worker


def test_a_job_is_a_bar_of_its_states() -> None:
    tasks = [task(n, state, None, None) for n, state in enumerate(["failed", "running", "queued", "queued"])]
    html = job_html(info(tasks, NASTY, end=3))
    assert re.findall(r'data-state="(\w+)" data-count="(\d+)"', html) == [
        ("failed", "1"), ("running", "1"), ("queued", "2")]
    assert re.findall(r"width:([\d.]+)%", html) == ["25", "25", "50"]
    assert "<script" not in html and "&lt;script&gt;" in html and "3.0 s" in html


def test_everything_has_html(client: millgrid.Client) -> None:
    job = client.submit(["true"], name="<b>&", labels={"k": "<i>"}).wait(60)
    with client.executor(name="<i>") as ex:
        shown: list[Any] = [client, job, job.info(), job.tasks(), job.tasks()[0], client.workers()[0],
                            client.queues()[0], job.explain(), ex, job.plot()]
        for one in shown:
            html = one._repr_html_()
            assert html.startswith("<") and "<i>" not in html and "<b>&<" not in html, html
    assert "leader c" in client._repr_html_() and "2 workers" in client._repr_html_()
    assert "&lt;b&gt;&amp;" in job._repr_html_() and 'data-state="succeeded" data-count="1"' in job._repr_html_()


CELLS = [
    "import millgrid\nclient = millgrid.Client()",
    "job = client.submit(['sleep', '0.5'], array=4, name='live')\njob.progress()",
    "client",
    "job.plot()",
]


def test_a_real_notebook_shows_progress_without_widgets(client: millgrid.DevClient, tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    import os

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    environment = {**os.environ, **client.grid.environment(), "IPYTHONDIR": str(tmp_path)}
    runner = nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}})
    seen: list[str] = []
    update = runner.process_message

    def watched(msg: Any, cell: Any, cell_index: int) -> Any:
        if msg["msg_type"] in ("display_data", "update_display_data"):
            seen.append(msg["content"]["data"].get("text/html", ""))
        return update(msg, cell, cell_index)

    runner.process_message = watched
    runner.execute(env=environment)
    shown = [cell.outputs for cell in notebook.cells]
    bars = [html for html in seen if "millgrid-job" in html]
    assert len(bars) >= 3, "it was replaced as states changed"
    assert 'data-state="succeeded" data-count="4"' in bars[-1] and "succeeded" not in bars[0]
    displays = [one for one in shown[1] if one.output_type == "display_data"]
    assert len(displays) == 1 and displays[0].data["text/html"] == bars[-1], "one display, which shows the end"
    assert not [one for one in shown[1] if one.output_type == "stream"], "tqdm says nothing"
    assert "<b>millgrid</b>" in shown[2][0].data["text/html"]
    assert "<svg" in shown[3][0].data["text/html"]
