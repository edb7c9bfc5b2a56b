"""What submitit's names mean here, and how what a call prints is told from what it logs."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

from ._calls.payload import CallOptions, function_name
from ._grammar import refuse

#: Names that only say the same in other words, without `slurm_`.
_RENAMED = {
    "job_name": "name", "cpus_per_task": "cpus", "partition": "queue", "array_parallelism": "max_running",
    "gpus_per_node": "gpus", "gpus_per_task": "gpus", "num_gpus": "gpus",
}  # fmt: skip
#: Names that say something about a job to people and accountants.
_LABELS = ("account", "comment", "qos", "wckey")
#: What there is one of.
_ONE = ("nodes", "tasks_per_node", "ntasks_per_node")
_DEPENDENCIES = {"afterok": "after", "afterany": "after_any", "afternotok": "after_failed"}
#: Options of other executors, which submitit passes over as well.
_OTHERS = ("local_", "debug_")


def converted(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """From submitit's and Slurm's parameters to options of calls; options of calls stay as they are.

    Raises:
        InvalidArgument: One is unknown, or can't be meant; `field` names it.
    """
    options: dict[str, Any] = {}
    for given, value in parameters.items():
        if value is None or given.startswith(_OTHERS):
            continue
        name = given.removeprefix("slurm_").removeprefix("millgrid_")
        if name in _ONE:
            if value != 1:
                raise refuse(given, f"a call runs on one machine, in one process, not in {value}", "use a job for each")
        elif name in ("timeout_min", "time"):
            options["time"] = _time(value) if given != "time" else value
        elif name == "mem_gb":
            options["mem"] = f"{value}G"
        elif name == "mem":
            options["mem"] = _mem(value)
        elif name in _LABELS:
            options["labels"] = {**options.get("labels", {}), name: str(value)}
        elif name == "constraint":
            options["constraints"] = [word.strip() for word in str(value).split("&")]
        elif name == "signal_delay_s":
            options["grace"] = f"{value}s"
        elif name == "dependency":
            options.update(_dependencies(given, str(value)))
        elif name == "stderr_to_stdout" and not value:
            continue
        elif name in _RENAMED:
            options[_RENAMED[name]] = value
        elif name in CallOptions.__annotations__:
            options[name] = value
        else:
            known = ["timeout_min", "mem_gb", "gpus_per_node", "slurm_partition", "slurm_array_parallelism",
                     "slurm_time", "slurm_mem", "slurm_constraint", "slurm_dependency", "slurm_signal_delay_s"]  # fmt: skip
            hint = f"there are: {', '.join([*known, *sorted(CallOptions.__annotations__)])}"
            raise refuse(given, "it has no meaning on a Millgrid grid", hint)
    return options


def _time(value: Any) -> str:
    """Minutes, or as Slurm writes it."""
    text = str(value)
    return f"{round(float(text) * 60)}s" if re.fullmatch(r"\d+(\.\d*)?", text) else text


def _mem(value: Any) -> str:
    """Megabytes, or with a unit."""
    text = str(value).upper()
    return f"{text}M" if text.isdigit() else re.sub(r"(?<=[KMGT])B$", "", text)


def _dependencies(field: str, text: str) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for one in text.split(","):
        condition, *numbers = one.split(":")
        if condition not in _DEPENDENCIES or not numbers or not all(number.isdigit() for number in numbers):
            raise refuse(field, f"`{one}` can't be meant", "write `afterok:41:42`, afterany or afternotok")
        found.setdefault(_DEPENDENCIES[condition], []).extend(map(int, numbers))
    return found


#: In front of what a call printed, in the log that it shares with standard error; a line that had no end yet.
PRINTED, UNFINISHED = "\x1e", "\x1f"
_PRINTED = re.compile(f"([{PRINTED}{UNFINISHED}])([^\n]*\n)")


def marked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with what it prints marked. It goes by value, so that workers need no module of ours.

    Standard output itself is for results; what programs write that the function starts can't be told from standard
    error.
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        import contextlib
        import io
        import os

        class Marked(io.TextIOBase):
            rest = ""

            def writable(self) -> bool:
                return True

            def fileno(self) -> int:
                return 1

            def write(self, text: str) -> int:
                *lines, self.rest = (self.rest + text).split("\n")
                for line in lines:
                    self.say("\x1e", line)
                return len(text)

            def flush(self) -> None:
                if self.rest:
                    self.say("\x1f", self.rest)
                    self.rest = ""

            def say(self, mark: str, line: str) -> None:
                data = f"{mark}{line}\n".encode("utf-8", "replace")
                while data:
                    data = data[os.write(2, data) :]

        with contextlib.redirect_stdout(Marked()) as out:
            try:
                return function(*args, **kwargs)
            finally:
                out.flush()

    functools.update_wrapper(call, function, assigned=("__doc__",), updated=())
    call.__name__ = call.__qualname__ = function_name(function)
    return call


def separated(text: str, stream: str) -> str:
    """What was printed (`stdout`), or the rest, of a log in which the former is marked."""
    if stream == "stderr":
        return _PRINTED.sub("", text)
    return "".join(line if mark == PRINTED else line[:-1] for mark, line in _PRINTED.findall(text))
