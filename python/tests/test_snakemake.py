"""Real workflows, by the command `snakemake`, on a real grid."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import millgrid
from calls import wait_for

pytest.importorskip("snakemake", reason="Snakemake needs Python 3.11 or newer")


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "snakemake", "--executor", "millgrid", "--jobs", "10", "--nocolor", *words]


def snakemake(
    client: millgrid.DevClient, folder: Path, *words: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs the workflow of a folder; what it says is in `stdout`."""
    environment = {**os.environ, **client.grid.environment(), **(env or {})}
    return subprocess.run(
        command(*words), cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=120,
    )  # fmt: skip


@contextlib.contextmanager
def started(client: millgrid.DevClient, folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """As `snakemake`, while it runs."""
    environment = {**os.environ, **client.grid.environment()}
    with subprocess.Popen(
        command(*words), cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as running:
        try:
            yield running
        finally:
            if running.poll() is None:
                running.terminate()


def jobs_of(client: millgrid.Client, ended: subprocess.CompletedProcess[str]) -> list[millgrid.JobInfo]:
    """The jobs of a run, by name."""
    run = ended.stdout.partition("snakemake_run=")[2].split()[0]
    return sorted(client.jobs(all=True, labels={"snakemake_run": run}), key=lambda job: (job.name, job.id))


def test_a_workflow_with_wildcards_groups_and_resources(client: millgrid.DevClient, tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(
        """
envvars: "SECRET_WORD"
rule all:
    input: "all.txt"
rule part:
    output: "parts/{sample}.txt"
    threads: 1
    resources: mem_mb=200, runtime=5, disk_mb=2000, millgrid_labels="stage=first"
    shell: "echo {wildcards.sample} $SECRET_WORD {threads} > {output}; test {resources.tmpdir} = $MILLGRID_SCRATCH"
rule twice:
    input: "parts/{sample}.txt"
    output: "twice/{sample}.txt"
    group: "second"
    shell: "cat {input} {input} > {output}"
rule count:
    input: "twice/{sample}.txt"
    output: "counts/{sample}.txt"
    group: "second"
    shell: "wc -l < {input} > {output}"
rule merge:
    input: expand("parts/{s}.txt", s=["a", "b"]), expand("counts/{s}.txt", s=["a", "b"])
    output: "all.txt"
    shell: "cat {input} > {output}"
"""
    )
    ended = snakemake(client, tmp_path, "--millgrid-disk-as-scratch", "--millgrid-labels", "team=seq",
                      "--default-resources", "disk_mb=1000", env={"SECRET_WORD": "{odd} word's"})  # fmt: skip
    assert ended.returncode == 0, ended.stdout
    assert (tmp_path / "all.txt").read_text() == "a {odd} word's 1\nb {odd} word's 1\n2\n2\n"
    infos = jobs_of(client, ended)
    assert [(job.name, job.state) for job in infos] == [
        ("merge", "succeeded"), ("part-a", "succeeded"), ("part-b", "succeeded"),
        ("second_count_twice", "succeeded"), ("second_count_twice", "succeeded"),
    ]  # fmt: skip
    part = next(job for job in infos if job.name == "part-a")
    assert dict(part.labels).items() >= {"team": "seq", "stage": "first", "snakemake_rule": "part"}.items()
    spec = client.job(part.id)._get().spec
    wanted = (spec.resources.cpu_milli, spec.resources.memory_mib, spec.resources.scratch_gib, spec.time_limit.seconds)
    assert wanted == (1000, 200, 2, 300)


def test_a_rule_that_fails_ends_the_whole_with_its_name_and_log(client: millgrid.DevClient, tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(
        """
rule all:
    input: expand("{s}.txt", s=["good", "bad"])
rule make:
    output: "{s}.txt"
    shell: "test {wildcards.s} = good || {{ echo the sample is spoilt >&2; exit 7; }}; touch {output}"
"""
    )
    ended = snakemake(client, tmp_path, "--keep-going")
    assert ended.returncode == 1
    assert (tmp_path / "good.txt").exists() and not (tmp_path / "bad.txt").exists()
    good = next(job for job in jobs_of(client, ended) if job.name == "make-good")
    bad = next(job for job in jobs_of(client, ended) if job.name == "make-bad")
    assert (good.state, bad.state) == ("succeeded", "failed")
    assert "Error in rule make" in ended.stdout
    assert f"millgrid job {bad.id} (make-bad) failed, cause exit_code, exit code 1" in ended.stdout
    assert "the sample is spoilt" in ended.stdout
    log = tmp_path / f".snakemake/millgrid_logs/make/{bad.id}.log"
    assert str(log) in ended.stdout and "the sample is spoilt\n" in log.read_text()


def test_a_group_that_fails_says_as_much(client: millgrid.DevClient, tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(
        """
rule second:
    input: "first.txt"
    output: "second.txt"
    group: "both"
    shell: "echo the second is spoilt >&2; exit 4"
rule first:
    output: "first.txt"
    group: "both"
    shell: "touch {output}"
"""
    )
    ended = snakemake(client, tmp_path)
    assert ended.returncode == 1 and "Error in group both" in ended.stdout
    (job,) = jobs_of(client, ended)
    assert f"millgrid job {job.id} (both_first_second) failed, cause exit_code, exit code 1" in ended.stdout
    assert "the second is spoilt" in ended.stdout


def test_a_rule_that_fails_once_works_with_retries(client: millgrid.DevClient, tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(
        """
rule flaky:
    output: "out.txt"
    resources: mem_mb=lambda wildcards, attempt: attempt * 200
    shell: "if test -e tried; then touch {output}; else touch tried; exit 3; fi"
"""
    )
    ended = snakemake(client, tmp_path, "--retries", "1")
    assert ended.returncode == 0, ended.stdout
    assert (tmp_path / "out.txt").exists() and "Trying to restart job" in ended.stdout
    infos = jobs_of(client, ended)
    assert [(job.name, job.state) for job in infos] == [("flaky", "failed"), ("flaky", "succeeded")]
    assert [client.job(job.id)._get().spec.resources.memory_mib for job in infos] == [200, 400]


def test_what_is_stopped_by_ctrl_c_is_cancelled(client: millgrid.DevClient, tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(
        """
rule all:
    input: expand("{s}.txt", s=["a", "b", "c"])
rule long:
    output: "{s}.txt"
    shell: "touch begun; sleep 600; touch {output}"
"""
    )
    with started(client, tmp_path) as running:
        wait_for(str(tmp_path / "begun"))
        running.send_signal(signal.SIGINT)
        said, _ = running.communicate(timeout=60)
    assert running.returncode == 1, said
    run = said.partition("snakemake_run=")[2].split()[0]
    infos = client.jobs(all=True, labels={"snakemake_run": run})
    assert len(infos) == 3, "two of which ran, and one waited"
    for info in infos:
        assert client.job(info.id).wait(60).state == "cancelled"


def test_what_waits_for_long_says_why(client: millgrid.DevClient, tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(
        """
rule late:
    output: "late.txt"
    resources: millgrid_queue="closed"
    shell: "touch {output}"
"""
    )

    def queue(*words: str) -> None:
        environment = {**os.environ, **client.grid.environment()}
        subprocess.run([client.grid.program, "queue", *words], env=environment, check=True, capture_output=True)

    queue("create", "closed")
    queue("pause", "closed")
    said = ""
    with started(client, tmp_path, "--millgrid-explain-after", "1") as running:
        assert running.stdout is not None
        while "queue_paused" not in said:
            line = running.stdout.readline()
            assert line, said
            said += line
        queue("resume", "closed")
        rest, _ = running.communicate(timeout=60)
    assert running.returncode == 0, said + rest
    assert re.search(r"\(late\) waits for \d+ s", said) and (tmp_path / "late.txt").exists()


def test_a_change_of_leader_is_not_noticed(own_grid: millgrid.DevClient, tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(
        """
rule after:
    input: "before.txt"
    output: "after.txt"
    shell: "cp {input} {output}"
rule before:
    output: "before.txt"
    shell: "touch begun; until test -e go; do sleep 0.1; done; touch {output}"
"""
    )
    with started(own_grid, tmp_path) as running:
        wait_for(str(tmp_path / "begun"))
        own_grid.grid.kill("leader")
        (tmp_path / "go").touch()
        said, _ = running.communicate(timeout=90)
    assert running.returncode == 0, said
    assert (tmp_path / "after.txt").exists()
    states = [(job.name, job.state) for job in own_grid.jobs(all=True)]
    assert states == [("after", "succeeded"), ("before", "succeeded")]


def test_what_cannot_work_says_so(client: millgrid.DevClient, tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text("rule big:\n    output: 'x'\n    threads: 1000\n    shell: 'touch x'\n")
    ended = snakemake(client, tmp_path)
    assert ended.returncode == 1 and "millgrid did not take the job" in ended.stdout and "rule big" in ended.stdout
    ended = snakemake(client, tmp_path, "--shared-fs-usage", "input-output", "persistence")
    assert ended.returncode == 1 and "--shared-fs-usage lacks" in ended.stdout
    ended = snakemake(client, tmp_path, "--millgrid-context", "nowhere", env={"MILLGRID_ENDPOINT": ""})
    assert ended.returncode == 1 and "there is no context `nowhere`" in ended.stdout
