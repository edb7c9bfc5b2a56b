"""Runs Snakemake's jobs on a Millgrid grid: `snakemake --executor millgrid --jobs 100`.

Snakemake finds it by its name and imports it at every start, also in each job: `millgrid` itself is imported when a
workflow really runs on a grid.
"""

# Snakemake makes options of the fields' types as they are, so that these must be no strings.
from dataclasses import dataclass, field
from typing import Optional

from snakemake_interface_executor_plugins.settings import CommonSettings, ExecutorSettingsBase

from ._executor import Executor

__all__ = ["Executor", "ExecutorSettings", "common_settings"]

common_settings = CommonSettings(
    non_local_exec=True,
    implies_no_shared_fs=False,
    job_deploy_sources=False,
    pass_default_storage_provider_args=True,
    pass_default_resources_args=True,
    # They go along in the job's environment, where no command line shows them.
    pass_envvar_declarations_to_cmd=False,
    auto_deploy_default_storage_provider=False,
    init_seconds_before_status_checks=0,
)


@dataclass
class ExecutorSettings(ExecutorSettingsBase):  # type: ignore[misc,unused-ignore]
    """Options of the command line, each with `--millgrid-` in front."""

    context: Optional[str] = field(
        default=None, metadata={"help": "Context of ~/.config/millgrid/config.toml; the current one by default."}
    )
    endpoint: Optional[str] = field(
        default=None,
        metadata={"help": "Coordinators, https URLs, comma-separated; instead of the context's."},
    )
    queue: Optional[str] = field(
        default=None,
        metadata={"help": "Queue for jobs whose rule names none with the resource `millgrid_queue`."},
    )
    labels: Optional[str] = field(
        default=None, metadata={"help": "Labels of all jobs, comma-separated: `team=seq,project=x`."}
    )
    env: Optional[str] = field(
        default=None,
        metadata={"help": "Names of variables, comma-separated, that jobs get as they are here; PATH they always get."},
    )
    disk_as_scratch: bool = field(
        default=False,
        metadata={
            "help": "Reserve `disk_mb` as scratch space, and make that the jobs' temporary directory. Snakemake's own "
            "default, 50 GB for a rule without input, counts then, too: set others with --default-resources."
        },
    )
    explain_after: int = field(
        default=60,
        metadata={"help": "Seconds that a job waits before the log says why; then twice as long.", "type": int},
    )

