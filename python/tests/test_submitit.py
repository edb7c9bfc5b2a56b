"""What scripts for submitit do, with the real submitit: its own executors and ours give the same."""

from __future__ import annotations

import asyncio
import functools
import pickle
from pathlib import Path
from typing import Any

import numpy
import pytest
import submitit
from submitit.core import core
from submitit.core.utils import FailedJobError, UncompletedJobError

import millgrid
from calls import Resumable, add, double, end_once, fail, fail_peculiarly, job_number, say, wait_for
from millgrid.submitit import AutoExecutor, MillgridJob

KINDS = ("debug", "local", "ours", "plugin")


def make(kind: str, folder: Path, client: millgrid.DevClient) -> Any:
    if kind == "ours":
        return AutoExecutor(folder=folder, client=client)
    return submitit.AutoExecutor(folder=folder, cluster="millgrid" if kind == "plugin" else kind)


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Submitit's own processes find modules by the environment alone."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Submitit's own wait for files that never come is 15 s."""
    monkeypatch.setattr(core.Job, "_results_timeout_s", 0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_calls_and_arrays(kind: str, client: millgrid.DevClient, tmp_path: Path) -> None:
    executor = make(kind, tmp_path, client)
    executor.update_parameters(timeout_min=5, mem_gb=1, cpus_per_task=1, name="sums", slurm_array_parallelism=2)
    job = executor.submit(add, 1, b=2)
    assert isinstance(job, submitit.Job) and isinstance(job.job_id, str)
    assert job.result() == 3 and job.results() == [3] and job.exception() is None and job.done()
    submission = job.submission()
    assert (submission.function, submission.args, submission.kwargs) == (add, (1,), {"b": 2})
    assert asyncio.run(job.awaitable().result(poll_interval=0.1)) == 3
    with executor.batch():
        batch = [executor.submit(add, 10, 1), executor.submit(str.upper, "mixed")]
        with pytest.raises(AttributeError):
            assert batch[0].job_id
        with pytest.raises(RuntimeError):
            executor.update_parameters(timeout_min=1)
    assert [one.result() for one in batch] == [11, "MIXED"]
    mapped = executor.map_array(add, [1, 2], [10, 20])
    assert {one.job_id for one in submitit.helpers.as_completed(mapped, poll_frequency=0.1)} == {
        one.job_id for one in mapped
    }
    assert [one.result() for one in mapped] == [11, 22]
    partials = executor.submit_array([functools.partial(add, 5, 6)])
    assert [one.result() for one in partials] == [11]
    with pytest.warns(UserWarning, match="empty"):
        assert executor.map_array(add, []) == []


@pytest.mark.parametrize("kind", KINDS[1:])
def test_failures_and_logs(kind: str, client: millgrid.DevClient, tmp_path: Path, quick: None) -> None:
    executor = make(kind, tmp_path / "logs", client)
    job = executor.submit(say, "printed", "complained")
    assert job.result() is None
    assert "printed\nunfinished" in job.stdout() and "complained" not in job.stdout()
    assert "complained" in job.stderr() and "printed" not in job.stderr()
    failed = executor.submit(fail, "spoilt")
    with pytest.raises(FailedJobError, match="ValueError: bad spoilt"):
        failed.result()
    error = failed.exception()
    assert isinstance(error, FailedJobError) and "in fail" in str(error) and failed.done()
    ended = executor.submit(end_once, str(tmp_path / "ended"))
    with pytest.raises(UncompletedJobError, match="has not produced any output"):
        ended.result()
    assert not isinstance(ended.exception(), FailedJobError)
    waiting = executor.submit(wait_for, str(tmp_path / "never"))
    assert not waiting.done()
    waiting.cancel()
    with pytest.raises(UncompletedJobError):
        waiting.result()
    assert waiting.done()


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_call_knows_its_job(kind: str, client: millgrid.DevClient, tmp_path: Path) -> None:
    executor = make(kind, tmp_path, client)
    job = executor.submit(job_number)
    assert job.result() == (job.job_id, 1, 0)
    first, second = executor.submit_array([job_number, job_number])
    assert first.result()[0] == first.job_id != second.job_id == second.result()[0]


def test_parameters_mean_what_they_mean_on_slurm(client: millgrid.DevClient, tmp_path: Path) -> None:
    executor: Any = AutoExecutor(folder=tmp_path, cluster="millgrid", client=client, slurm_max_num_timeout=3)
    before = client.submit("true").id
    executor.update_parameters(
        name="fit", timeout_min=90, mem_gb=1.5, cpus_per_task=0.5, gpus_per_node=0, nodes=1, tasks_per_node=1,
        slurm_array_parallelism=3, slurm_partition="default", slurm_comment="for the paper",
        slurm_constraint="zone&architecture", slurm_signal_delay_s=60, slurm_dependency=f"afterok:{before}", local_setup=["x"], slurm_qos=None, hold=True,
    )  # fmt: skip
    jobs = executor.map_array(add, [1, 2])
    spec = client.job(jobs[0].job.id)._get().spec
    resources = spec.resources
    assert (spec.name, resources.cpu_milli, resources.memory_mib, resources.gpus) == ("fit", 500, 1536, 0)
    assert (spec.time_limit.seconds, spec.max_running, spec.queue, spec.grace.seconds) == (5400, 3, "default", 60)
    assert dict(spec.labels) == {"comment": "for the paper"} and len(spec.constraints) == 2
    assert [edge.job_id for edge in spec.after] == [before]
    assert [job.job_id for job in jobs] == [f"{jobs[0].job.id}_0", f"{jobs[0].job.id}_1"]
    assert {job.state for job in jobs} == {"PENDING"} and not jobs[0].done()
    jobs[0].cancel()
    jobs[0].wait()
    assert (jobs[0].state, jobs[1].state) == ("CANCELLED", "PENDING")
    client.job(jobs[0].job.id).cancel()
    table = {"slurm_time": ("2-00:00:00", "time_limit", 2 * 86400), "time": ("90s", "time_limit", 90)}
    for name, (value, field, seconds) in table.items():
        executor = AutoExecutor(folder=tmp_path, client=client)
        executor.update_parameters(**{name: value}, slurm_mem="2GB", hold=True)
        job = executor.submit(add, 1)
        spec = job.job._get().spec
        assert getattr(spec, field).seconds == seconds and spec.resources.memory_mib == 2048
        job.cancel()


def test_what_has_no_meaning_is_refused_by_name(client: millgrid.DevClient, tmp_path: Path) -> None:
    executor = AutoExecutor(folder=tmp_path, client=client)
    executor.update_parameters(cpus_per_task=1)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"slurm_exclude": "node7", "cpus_per_task": 4}, "slurm_exclude"), ({"nodes": 2}, "nodes"),
        ({"slurm_setup": ["module load x"]}, "slurm_setup"), ({"mem_gb": -1}, "mem"), ({"quue": "x"}, "quue"),
        ({"slurm_dependency": "singleton"}, "slurm_dependency"),
    ]  # fmt: skip
    for parameters, field in wrong:
        with pytest.raises(millgrid.InvalidArgument) as refused:
            executor.update_parameters(**parameters)
        assert refused.value.field == field
    assert executor.parameters == {"cpus": 1}
    with pytest.raises(millgrid.InvalidArgument, match="submitit.AutoExecutor"):
        AutoExecutor(folder=tmp_path, cluster="slurm", client=client)
    with pytest.raises(millgrid.InvalidArgument, match="slurm_nice"):
        AutoExecutor(folder=tmp_path, client=client, slurm_nice=3)


def test_a_checkpointing_callable_is_refused_kindly(client: millgrid.DevClient, tmp_path: Path) -> None:
    executor = AutoExecutor(folder=tmp_path, client=client)
    with pytest.raises(millgrid.InvalidArgument, match="`Resumable` wants to be checkpointed") as refused:
        executor.submit(Resumable(), 20)
    assert "__call__" in refused.value.hint
    assert executor.submit(Resumable().__call__, 20).result() == 40


def test_jobs_are_found_again_and_large_things_go_through_s3(client: millgrid.DevClient, tmp_path: Path) -> None:
    executor = AutoExecutor(folder=tmp_path, client=client)
    jobs = executor.map_array(double, [numpy.ones(50_000), numpy.zeros(3)])
    assert [float(job.result().sum()) for job in jobs] == [100_000.0, 0.0]
    again: MillgridJob[Any] = pickle.loads(pickle.dumps(jobs[0]))
    assert again.result()[0] == 2.0 and again.state == "COMPLETED" and again.job_id == jobs[0].job_id
    with pytest.raises(UncompletedJobError, match="another process"):
        again.submission()
    by_number: MillgridJob[Any] = MillgridJob(tmp_path, jobs[1].job_id)
    assert by_number.result().shape == (3,) and by_number.get_info()["NodeList"].startswith("worker-")
    error = executor.submit(fail_peculiarly).exception()
    assert isinstance(error, FailedJobError) and type(error.__cause__).__name__ == "Peculiar"
