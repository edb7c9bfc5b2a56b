"""A picture of a job as SVG: which worker ran what when, and how many tasks were in which state."""

from __future__ import annotations

import datetime
import heapq
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate

from ._notebook import COLOURS
from ._views import JobInfo, Task

WIDTH, LEFT, RIGHT = 900, 120, 10
LANE, ROW_GAP, CHART = 12, 6, 110
#: Lanes of one worker that are drawn one by one.
MAX_LANES = 16
#: Attempts that are drawn one by one; more are summed up per worker and moment.
MAX_BARS = 2000
#: Moments of a picture.
BINS = 300
#: Workers with a row of their own; the others share one.
MAX_WORKERS = 40
_STATES = ("succeeded", "failed", "cancelled", "skipped", "running", "queued")


@dataclass(frozen=True)
class Span:
    """One attempt; times in seconds since the job was created."""

    index: int
    attempt: int
    worker: str
    state: str
    cause: str
    begin: float
    end: float


class Plot:
    """A picture of a job, shown by notebooks. `svg` is all of it; it needs nothing else.

    Attributes:
        svg: The picture.
        spans: The attempts that it shows.
        counts: How many tasks were in each state at each of `moments`.
        moments: Seconds since the job was created.
    """

    def __init__(self, info: JobInfo, tasks: Sequence[Task], now: datetime.datetime | None = None) -> None:
        now = now or datetime.datetime.now(datetime.timezone.utc)
        known = [one for task in tasks for one in (task.create_time, task.start_time) if one is not None]
        origin = info.create_time or min(known, default=now)
        self.spans = spans(tasks, origin, now)
        until = (info.end_time or now) - origin
        self.seconds = max([until.total_seconds(), *(span.end for span in self.spans), 0.001])
        self.moments, self.counts = states(tasks, self.spans, origin, self.seconds)
        self.svg = _Drawing(self, info).whole()

    def _repr_svg_(self) -> str:
        return self.svg

    def _repr_html_(self) -> str:
        return self.svg

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it to a file, e.g. `job.svg`."""
        with open(path, "w", encoding="utf-8") as file:
            file.write(f'<?xml version="1.0" encoding="UTF-8"?>\n{self.svg}\n')


def spans(tasks: Iterable[Task], origin: datetime.datetime, now: datetime.datetime) -> list[Span]:
    """All attempts that began, in order of their beginning."""
    found: list[Span] = []
    for task in tasks:
        numbers = {one.number for one in task.attempts}
        for one in task.attempts:
            if one.start_time is not None:
                end = one.end_time or (task.end_time if one.number == task.attempt else None) or now
                latest = one.number == task.attempt and one.end_time is None
                state = (task.state if latest else one.state) or "running"
                found.append(Span(task.index, one.number, one.worker, state, one.cause or "",
                                  (one.start_time - origin).total_seconds(), (end - origin).total_seconds()))
        if task.attempt not in numbers and task.start_time is not None:
            found.append(Span(task.index, task.attempt, task.worker, task.state, task.cause or "",
                              (task.start_time - origin).total_seconds(),
                              ((task.end_time or now) - origin).total_seconds()))
    return sorted(found, key=lambda span: (span.begin, span.index, span.attempt))


def states(
    tasks: Sequence[Task], spans: Sequence[Span], origin: datetime.datetime, seconds: float
) -> tuple[list[float], dict[str, list[int]]]:
    """How many tasks were in each state, at moments that are spread evenly; the last is now, or the end."""
    moments = [seconds * n / BINS for n in range(BINS + 1)]
    changes = {state: [0] * (BINS + 1) for state in _STATES}

    def add(state: str, at: float, count: int) -> None:
        # The first moment that is not before it.
        slot = min(BINS, max(0, -int(-at * BINS // seconds)))
        changes[state][slot] += count

    last = {task.index: task for task in tasks}
    newest: dict[int, int] = {}
    for span in spans:
        newest[span.index] = max(newest.get(span.index, 0), span.attempt)
    for task in tasks:
        created = (task.create_time - origin).total_seconds() if task.create_time else 0.0
        add("queued", created, 1)
        if task.index not in newest and task.state not in ("queued", "waiting"):
            ended = (task.end_time - origin).total_seconds() if task.end_time else created
            state = "running" if task.state in ("leased", "running") else task.state
            add("queued", ended, -1)
            add(state, ended, 1)
    for span in spans:
        add("queued", span.begin, -1)
        add("running", span.begin, 1)
        state = last[span.index].state
        if span.attempt < newest[span.index] or state in ("queued", "waiting"):
            add("running", span.end, -1)
            add("queued", span.end, 1)
        elif state not in ("leased", "running"):
            add("running", span.end, -1)
            add(state, span.end, 1)
    return moments, {state: list(accumulate(column)) for state, column in changes.items()}


class _Drawing:
    def __init__(self, plot: Plot, info: JobInfo) -> None:
        self._plot = plot
        self._info = info
        self._y = 0.0
        self._parts: list[str] = []

    def whole(self) -> str:
        plot, info = self._plot, self._info
        retried = sum(span.attempt > 1 for span in plot.spans)
        again = f", {retried} of them repeats" if retried else ""
        self._text(0, 14, f"job {info.id} {info.name}: {info.state}; {len(plot.spans)} attempts{again} of "
                          f"{info.task_count} tasks, {plot.seconds:.3g} s", "font-weight='bold'")
        self._legend()
        self._y = 48
        self._timeline()
        self._axis()
        self._chart()
        self._axis()
        height = self._y + 4
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="millgrid-plot" viewBox="0 0 {WIDTH} {height:.0f}" '
            f'width="{WIDTH}" height="{height:.0f}" style="max-width:100%;height:auto" font-family="sans-serif" '
            f'font-size="11" fill="#808080">{"".join(self._parts)}</svg>'
        )

    def _x(self, seconds: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * min(1.0, max(0.0, seconds / self._plot.seconds))

    def _text(self, x: float, y: float, text: str, more: str = "") -> None:
        self._parts.append(f'<text x="{x:.1f}" y="{y:.1f}" {more}>{escape(text)}</text>')

    def _legend(self) -> None:
        for at, state in enumerate(_STATES):
            self._parts.append(f'<rect x="{LEFT + at * 90}" y="24" width="10" height="10" fill="{COLOURS[state]}"/>')
            self._text(LEFT + at * 90 + 14, 33, state)

    def _timeline(self) -> None:
        rows: dict[str, list[Span]] = {}
        for span in self._plot.spans:
            rows.setdefault(span.worker, []).append(span)
        names = sorted(rows, key=lambda name: (len(name), name))
        shown = names if len(names) <= MAX_WORKERS else names[: MAX_WORKERS - 1]
        one_by_one = len(self._plot.spans) <= MAX_BARS
        for name in shown:
            self._row(name, rows[name], one_by_one)
        if others := names[len(shown) :]:
            together = sorted((span for name in others for span in rows[name]), key=lambda span: span.begin)
            self._row(f"{len(others)} more", together, False)

    def _row(self, name: str, row: list[Span], one_by_one: bool) -> None:
        lanes = _lanes(row)
        count = max(lanes, default=0) + 1
        height = LANE * min(count, MAX_LANES)
        self._text(0, self._y + 10, name if len(name) <= 18 else name[:17] + "…")
        if one_by_one and count <= MAX_LANES:
            for lane, span in zip(lanes, row):
                self._bar(span, self._y + lane * LANE)
        else:
            self._density(name, row, height)
        self._y += height + ROW_GAP

    def _bar(self, span: Span, y: float) -> None:
        x, width = self._x(span.begin), max(0.5, self._x(span.end) - self._x(span.begin))
        state = "running" if span.state == "leased" else span.state
        why = f", {span.cause}" if span.cause else ""
        title = f"task {span.index}, attempt {span.attempt}: {span.state}{why}, {span.end - span.begin:.3f} s on {span.worker}"
        self._parts.append(
            f'<rect class="attempt" data-task="{span.index}" data-attempt="{span.attempt}" data-state="{escape(state)}" '
            f'data-worker="{escape(span.worker)}" x="{x:.2f}" y="{y:.1f}" width="{width:.2f}" height="{LANE - 2}" '
            f'fill="{COLOURS.get(state, "#999999")}"><title>{escape(title)}</title></rect>'
        )
        if span.attempt > 1:
            # A repeat says its number.
            self._text(x + 1, y + LANE - 3, str(span.attempt), 'font-size="9" fill="#000"')

    def _density(self, name: str, row: list[Span], height: float) -> None:
        """How much ran in each moment, by what came of it."""
        wide = self._plot.seconds / BINS
        busy: dict[str, list[float]] = {}
        for span in row:
            column = busy.setdefault("running" if span.state == "leased" else span.state, [0.0] * BINS)
            first, last = (min(BINS - 1, max(0, int(at / wide))) for at in (span.begin, span.end))
            for at in range(first, last + 1):
                column[at] += max(0.0, min(span.end, (at + 1) * wide) - max(span.begin, at * wide))
        most = max((sum(column[at] for column in busy.values()) for at in range(BINS)), default=0.0) or 1.0
        below = [0.0] * BINS
        for state, column in sorted(busy.items()):
            points = [(at, below[at] / most, (below[at] + column[at]) / most) for at in range(BINS) if column[at]]
            below = [low + more for low, more in zip(below, column)]
            path = "".join(
                f"M{self._x(at * wide):.1f} {self._y + height * (1 - high):.1f}H{self._x((at + 1) * wide):.1f}"
                f"V{self._y + height * (1 - low):.1f}H{self._x(at * wide):.1f}Z"
                for at, low, high in points
            )
            self._parts.append(
                f'<path class="busy" data-worker="{escape(name)}" data-state="{escape(state)}" '
                f'data-seconds="{sum(column):.6f}" fill="{COLOURS.get(state, "#999999")}" d="{path}"><title>'
                f"{escape(name)}: {sum(column):.1f} s of attempts, {escape(state)}</title></path>"
            )

    def _axis(self) -> None:
        for n in range(6):
            seconds = self._plot.seconds * n / 5
            anchor = "end" if n == 5 else "middle"
            self._text(self._x(seconds), self._y + 12, f"{seconds:.3g} s", f'text-anchor="{anchor}"')
        self._y += 24

    def _chart(self) -> None:
        plot = self._plot
        total = max(1, max((sum(column[at] for column in plot.counts.values()) for at in range(BINS + 1)), default=1))
        self._text(0, self._y + 10, "tasks by state")
        self._text(LEFT - 6, self._y + 10, str(total), 'text-anchor="end"')
        below = [0] * (BINS + 1)
        for state in _STATES:
            column = plot.counts[state]
            if not any(column):
                continue
            above = [low + more for low, more in zip(below, column)]
            edge = [(self._x(at), self._y + CHART * (1 - high / total)) for at, high in zip(plot.moments, above)]
            back = [(self._x(at), self._y + CHART * (1 - low / total)) for at, low in zip(plot.moments, below)]
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y in [*edge, *reversed(back)])
            self._parts.append(
                f'<path class="state" data-state="{state}" data-last="{column[-1]}" data-most="{max(column)}" '
                f'fill="{COLOURS[state]}" d="M{path}Z"><title>{state}: {column[-1]} at the end</title></path>'
            )
            below = above
        self._y += CHART


def _lanes(row: list[Span]) -> list[int]:
    """For each attempt of a worker, in order of their beginning, the lowest lane that is free."""
    free: list[int] = []
    busy: list[tuple[float, int]] = []
    lanes: list[int] = []
    used = 0
    for span in row:
        while busy and busy[0][0] <= span.begin:
            heapq.heappush(free, heapq.heappop(busy)[1])
        if free:
            lane = heapq.heappop(free)
        else:
            lane, used = used, used + 1
        heapq.heappush(busy, (span.end, lane))
        lanes.append(lane)
    return lanes
