"""Tasks of calls that nobody wants any more are taken back from the grid."""

from __future__ import annotations

from collections.abc import Callable

from .._grid import Grid
from .._watch import pages
from .._wire import CANCEL_JOB, jobs, request_id


def recall(grid: Grid, job_id: int, indexes: list[int], cancelling: Callable[[set[int]], None]) -> set[int]:
    """Cancels those tasks of a job that have not begun; the indexes of those that never will.

    Args:
        indexes: Of the tasks, in their order.
        cancelling: Is told which are about to be cancelled.
    """
    asked = jobs.ListTasksRequest(job_id=job_id, ranges=_ranges(indexes))
    waiting = (jobs.TASK_STATE_QUEUED, jobs.TASK_STATE_WAITING)
    found = list(pages(grid, asked))
    begun = {task.index for task in found if task.attempt or task.state not in waiting}
    if cancel := [index for index in indexes if index not in begun]:
        cancelling(set(cancel))
        request = jobs.CancelJobRequest(
            request_id=request_id(), job_id=job_id, reason="the future was cancelled", ranges=_ranges(cancel)
        )
        grid.call(CANCEL_JOB, request)
        asked.page_token = ""
        found = list(pages(grid, asked))
    return {task.index for task in found if task.state == jobs.TASK_STATE_CANCELLED and not task.attempt}


def _ranges(indexes: list[int]) -> list[jobs.IndexRange]:
    """Of indexes in their order."""
    ranges: list[jobs.IndexRange] = []
    for index in indexes:
        if ranges and ranges[-1].last == index - 1:
            ranges[-1].last = index
        else:
            ranges.append(jobs.IndexRange(first=index, last=index, step=1))
    return ranges
