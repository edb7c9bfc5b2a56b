"""The same names, awaitable."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Coroutine
from typing import Any

import pytest

import millgrid
from calls import add
from millgrid._aio import AsyncJob


def run(client: millgrid.Client, body: Any) -> None:
    async def main() -> None:
        coroutine: Coroutine[Any, Any, None] = body(millgrid.AsyncClient(sync=client))
        await asyncio.wait_for(coroutine, 60)

    asyncio.run(main())


def test_jobs_are_submitted_waited_for_and_read(client: millgrid.Client) -> None:
    async def body(c: millgrid.AsyncClient) -> None:
        job = await c.submit(["sh", "-c", "echo {index}; test {index} != 1"], array=3)
        lines = [line async for line in job.logs(follow=True)]
        assert sorted(lines) == ["0\n", "1\n", "2\n"]
        assert await (await job.wait()).state == "failed"
        with pytest.raises(millgrid.JobFailed):
            await job.raise_for_status()
        assert [task.exit_code for task in await job.tasks()] == [0, 1, 0]
        assert [event.state async for event in job.events()][-1] == "failed"
        assert (await (await job.retry(1)).wait()) is job
        again = await c.job(job.id)
        assert (await again.info()).id == job.id and (await again.explain()).summary

    run(client, body)


def test_many_wait_at_once_without_a_thread_each(client: millgrid.Client) -> None:
    async def body(c: millgrid.AsyncClient) -> None:
        jobs = await asyncio.gather(*(c.submit("true", hold=True) for _ in range(60)))
        waiting = asyncio.gather(*(job.wait() for job in jobs))
        with pytest.raises(millgrid.WaitTimeout):
            await jobs[0].wait(0.01)
        for job in jobs:
            await job.release()
        await waiting
        assert await c.wait(*jobs) == jobs

    run(client, body)


def test_flows_and_calls(client: millgrid.Client) -> None:
    async def body(c: millgrid.AsyncClient) -> None:
        async with c.flow("async") as flow:
            first = flow.submit("true")
            second = flow.submit(["echo", "x"], after=first)
        assert second.id == first.id + 1
        with c.executor() as executor:
            loop = asyncio.get_running_loop()
            values = await asyncio.gather(*(loop.run_in_executor(executor, add, n, 1) for n in range(10)))
            assert values == list(range(1, 11))
            assert await asyncio.wrap_future(executor.submit(add, 1)) == 1
        calls = millgrid.remote(client=client)(add).map([1, 2])
        assert await (await c.job(calls.id)).results() == [1, 2]
        assert len(await c.workers()) == 2 and await c.queues() and await c.leader()

    run(client, body)


def test_every_name_is_there() -> None:
    def names(one: type) -> set[str]:
        return {name for name in dir(one) if not name.startswith("_")}

    assert names(millgrid.Job) <= names(AsyncJob)
    # `async with` is what closes it.
    assert names(millgrid.Client) - {"close"} <= names(millgrid.AsyncClient)


def test_progress_is_shown_until_the_end(client: millgrid.Client) -> None:
    async def body(c: millgrid.AsyncClient) -> None:
        job = await c.submit("true", array=3)
        shown = io.StringIO()
        assert await job.progress(file=shown) is job
        assert "3/3" in shown.getvalue() and await job.task_count == 3

    run(client, body)
