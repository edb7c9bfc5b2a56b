"""What notebooks show: states as coloured bars, live, by plain HTML that is replaced; no widgets are needed."""

from __future__ import annotations

import datetime
import queue
import sys
import time
from html import escape
from typing import TYPE_CHECKING, Any

from . import _watch
from ._views import JobInfo

if TYPE_CHECKING:
    from ._jobs import Job

#: A colour for each state of a task, told apart by colour-blind people too (Okabe and Ito, 2008), on light and on dark.
COLOURS = {
    "succeeded": "#009e73",
    "failed": "#d55e00",
    "cancelled": "#cc79a7",
    "skipped": "#e6d800",
    "running": "#56b4e9",
    "leased": "#0072b2",
    "queued": "#999999",
    "waiting": "#c4c4c4",
}
#: A notebook is told no more often.
UPDATE_SECONDS = 0.1


def in_notebook() -> bool:
    """Whether this runs in the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell: Any = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


def job_html(info: JobInfo, now: datetime.datetime | None = None) -> str:
    """A job: a bar of its tasks by state, and their counts."""
    counts = {state: getattr(info.tasks, state) for state in COLOURS if getattr(info.tasks, state)}
    total = max(1, sum(counts.values()))
    bar = "".join(
        f'<div style="width:{100 * count / total:.4g}%;background:{COLOURS[state]}"></div>'
        for state, count in counts.items()
    )
    legend = " ".join(
        f'<span data-state="{state}" data-count="{count}" style="white-space:nowrap;margin-right:1em">'
        f'<span style="display:inline-block;width:.7em;height:.7em;background:{COLOURS[state]}"></span> {count} {state}</span>'
        for state, count in counts.items()
    )
    held = ", held" if info.held else ""
    why = f", {escape(info.cause)}" if info.cause else ""
    return (
        f'<div class="millgrid-job"><b>job {info.id}</b> {escape(info.name)}: {escape(info.state)}{held}{why}'
        f"{_age(info, now)}"
        f'<div style="display:flex;height:.8em;max-width:40em;margin:.2em 0;background:#8883">{bar}</div>{legend}</div>'
    )


def _age(info: JobInfo, now: datetime.datetime | None) -> str:
    end = info.end_time or now
    if info.create_time is None or end is None:
        return ""
    return f", {max(0.0, (end - info.create_time).total_seconds()):.1f} s"


def live(job: Job, *, leave: bool = True) -> None:
    """Shows a job in the notebook until it has ended, as the watch tells of it; afterwards too, if it is left."""
    from IPython.display import HTML, display

    def shown(info: JobInfo) -> Any:
        html = "" if info.ended and not leave else job_html(info, datetime.datetime.now(datetime.timezone.utc))
        return HTML(html)  # type: ignore[no-untyped-call,unused-ignore]

    news: queue.SimpleQueue[_watch.Change] = queue.SimpleQueue()
    subscription = job._client._hub.follow(job.id, news.put)
    handle: Any = None
    try:
        while True:
            change = news.get()
            # Only the newest is shown.
            while not news.empty() and change.error is None:
                change = news.get()
            if change.error is not None:
                raise change.error
            if change.job is None:
                continue
            info = JobInfo.of(change.job)
            if handle is None:
                # Shown from this thread: what other threads show may land below another cell.
                handle = display(shown(info), display_id=True)  # type: ignore[no-untyped-call,unused-ignore]
            else:
                handle.update(shown(info))
            if info.ended:
                return
            time.sleep(UPDATE_SECONDS)
    finally:
        subscription.close()
