"""Sizes, times, arrays, constraints: the same words as on the command line, with the same limits."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from fractions import Fraction

from ._errors import InvalidArgument
from ._wire import Duration, jobs

#: Largest piece that the grid stores under one hash.
CHUNK_BYTES = 256 << 10
MAX_ARRAY_TASKS = 100_000_000
MAX_INDEX = (1 << 53) - 1
_SHIFTS = {"k": 10, "ki": 10, "m": 20, "mi": 20, "g": 30, "gi": 30, "t": 40, "ti": 40}
_UNITS = {
    "ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "sec": 10**9, "m": 60 * 10**9, "min": 60 * 10**9,
    "h": 3600 * 10**9, "d": 86_400 * 10**9, "w": 7 * 86_400 * 10**9,
}  # fmt: skip
_PLACEHOLDER = re.compile(r"\{\{|\}\}|(?<!\$)\{([A-Za-z_][A-Za-z0-9_.]*)\}")
_CAUSES = {
    "exit_code": jobs.CAUSE_EXIT_CODE,
    "signal": jobs.CAUSE_SIGNAL,
    "out_of_memory": jobs.CAUSE_OUT_OF_MEMORY,
    "time_limit": jobs.CAUSE_TIME_LIMIT,
}


def refuse(field: str, problem: str, hint: str = "") -> InvalidArgument:
    """An option that can't be meant."""
    return InvalidArgument(f"{field}: {problem}", hint=hint, field=field, reason="USAGE")


def cpu_milli(field: str, value: float | int | str) -> int:
    """Cpus in thousandths: 0.001 and up; a finer fraction is rounded up."""
    number = _decimal(value)
    hint = "give a number of cpus such as 4 or 0.5"
    if number is None:
        raise refuse(field, f"{value!r} is not a number", hint)
    if number < Fraction(1, 1000) or number > 1_000_000:
        raise refuse(field, f"{value} is not between 0.001 and 1000000 cpus", hint)
    return math.ceil(number * 1000)


def mib(field: str, text: str) -> int:
    """Memory in MiB, rounded up."""
    return -(-_bytes(field, text) // (1 << 20))


def gib(field: str, text: str) -> int:
    """Scratch in GiB, rounded up."""
    return -(-_bytes(field, text) // (1 << 30))


def _decimal(value: float | int | str) -> Fraction | None:
    if isinstance(value, bool):
        return None
    text = str(value) if isinstance(value, str) else format(Decimal(repr(value)), "f") if _finite(value) else ""
    return Fraction(text) if re.fullmatch(r"\d{1,18}(\.\d{1,9})?", text) else None


def _finite(value: float | int) -> bool:
    return math.isfinite(value)


def _bytes(field: str, text: str) -> int:
    hint = "write a size such as `8G`, `512M` or `1.5Ti`"
    if not isinstance(text, str):
        raise refuse(field, f"{text!r} needs a unit", hint)
    digits = text.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    number, unit = _decimal(digits), text[len(digits) :].lower()
    if number is None or unit not in _SHIFTS:
        raise refuse(field, f"`{text}` is not a size with one of the units K, M, G, T, Ki, Mi, Gi, Ti", hint)
    size = math.ceil(number * (1 << _SHIFTS[unit]))
    if not 0 < size <= 4096 << 40:
        raise refuse(field, f"`{text}` is not between 1 byte and 4096T", hint)
    return size


def duration(field: str, value: str | datetime.timedelta) -> Duration:
    """A span above zero: `90s`, `1h30m`, `2d`, `[D-]HH:MM:SS`, or a timedelta."""
    hint = "write a time such as `90s`, `1h30m`, `2d` or `1-12:00:00`, or give a timedelta"
    if isinstance(value, datetime.timedelta):
        nanos = (value // datetime.timedelta(microseconds=1)) * 1000
    elif not isinstance(value, str):
        raise refuse(field, f"{value!r} needs a unit", hint)
    elif clock := re.fullmatch(r"(?:(\d{1,6})-)?(\d{1,6}):([0-5]?\d):([0-5]?\d)", value):
        days, hours, minutes, seconds = (int(part or 0) for part in clock.groups())
        nanos = (((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 10**9
    else:
        parts = re.findall(r"(\d+)\s*([a-z]+)", value)
        whole = re.sub(r"(\d+)\s*([a-z]+)", "", value).strip()
        if not parts or whole or any(unit not in _UNITS for _, unit in parts):
            raise refuse(field, f"`{value}` is not a time", hint)
        nanos = sum(int(count) * _UNITS[unit] for count, unit in parts)
    if not 0 < nanos <= 100 * 366 * 86_400 * 10**9:
        raise refuse(field, f"`{value}` is not above zero and below a hundred years", hint)
    return Duration(seconds=nanos // 10**9, nanos=nanos % 10**9)


def array(field: str, value: str | int | range) -> tuple[list[jobs.IndexRange], int]:
    """`A-B[:STEP],...[%N]`, a number of tasks, or a range: the indexes, and N or 0."""
    if isinstance(value, bool):
        raise refuse(field, f"{value!r} is no array", "write e.g. `0-999%50`, 1000 or range(1000)")
    if isinstance(value, int):
        value = range(value)
    if isinstance(value, range):
        if len(value) == 0 or value.step < 0 or value[0] < 0:
            raise refuse(field, f"{value!r} is empty or runs backwards", "give at least one index, e.g. `range(10)`")
        return _checked(field, [jobs.IndexRange(first=value[0], last=value[-1], step=value.step)]), 0
    text, _, limit = value.partition("%")
    if "%" in value and not (re.fullmatch(r"\d+", limit) and int(limit) > 0):
        raise refuse(field, "after `%` stands how many tasks may run at once", "e.g. `0-999%50`")
    ranges = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part)
        if not found or found[3] == "0":
            raise refuse(field, f"`{part}` is not a range", "write `0-9`, `0-100:10` or `7`")
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first:
            raise refuse(field, f"the range {part} runs backwards", f"write `{last}-{first}`")
        ranges.append(jobs.IndexRange(first=first, last=last, step=int(found[3] or 1)))
    return _checked(field, ranges), int(limit or 0)


def _checked(field: str, ranges: list[jobs.IndexRange]) -> list[jobs.IndexRange]:
    # Whether an index occurs twice is the grid's to say: it knows how to without counting them all.
    total = sum((one.last - one.first) // max(1, one.step) + 1 for one in ranges)
    if total > MAX_ARRAY_TASKS:
        raise refuse(field, f"{total} tasks, {MAX_ARRAY_TASKS} at most", "split it into several jobs")
    if any(one.last > MAX_INDEX for one in ranges):
        raise refuse(field, f"an index is above {MAX_INDEX}")
    return ranges


def indexes(ranges: Iterable[jobs.IndexRange]) -> Iterable[int]:
    """All of them, in the order of the array."""
    for one in ranges:
        yield from range(one.first, one.last + 1, max(1, one.step))


def constraint(field: str, text: str, *, preferred: bool = False) -> jobs.Constraint:
    """`LABEL=V1,V2`, `LABEL!=V`, `LABEL` or `!LABEL`."""
    found = re.fullmatch(r"(!?)([^!=, ]+)(?:(!?)=(.+))?", text)
    if not found or (found[1] and found[4]):
        raise refuse(field, f"`{text}` is no constraint", "write `zone=a,b`, `lifecycle!=spot`, `gpu` or `!gpu`")
    values = found[4].split(",") if found[4] else []
    if any(not value for value in values) or len(values) > 64:
        raise refuse(field, f"`{text}` has an empty value, or more than 64")
    return jobs.Constraint(label=found[2], values=values, negated=bool(found[1] or found[3]), preferred=preferred)


def resources(field: str, asked: Mapping[str, object]) -> jobs.Resources:
    """`{"cpus": 8, "mem": "16G", "gpus": 1, "scratch": "10G"}`; what isn't named is as by default: 1 cpu."""
    found = jobs.Resources(cpu_milli=1000)
    for name, value in asked.items():
        if name == "cpus" and isinstance(value, (int, float, str)):
            found.cpu_milli = cpu_milli(field, value)
        elif name == "mem" and isinstance(value, str):
            found.memory_mib = mib(field, value)
        elif name == "scratch" and isinstance(value, str):
            found.scratch_gib = gib(field, value)
        elif name == "gpus" and isinstance(value, int) and value >= 0:
            found.gpus = value
        else:
            raise refuse(field, f"`{name}={value}` is none of cpus, mem, gpus, scratch", "e.g. {'cpus': 8, 'mem': '4G'}")
    return found


def retry_rules(field: str, asked: Iterable[str | int]) -> list[jobs.RetryRule]:
    """Causes, and exit codes as numbers: `["signal", "exit_code=75", 76]`."""
    rules: list[jobs.RetryRule] = []
    codes: list[int] = []
    for one in asked:
        name, _, code = str(one).partition("=")
        if name.isdigit():
            name, code = "exit_code", name
        if name not in _CAUSES or (code and name != "exit_code"):
            known = "exit_code, exit_code=75, signal, out_of_memory, time_limit"
            raise refuse(field, f"`{one}` can't be retried by a rule", f"there are {known}; what the grid itself lost "
                         "is tried again anyway")
        if code:
            if not (code.isdigit() and 1 <= int(code) <= 255):
                raise refuse(field, f"{code} is no exit code of a failure", "they are 1 to 255")
            codes.append(int(code))
        else:
            rules.append(jobs.RetryRule(cause=_CAUSES[name]))
    return ([jobs.RetryRule(cause=jobs.CAUSE_EXIT_CODE, exit_codes=codes)] if codes else []) + rules


def backoff(field: str, text: str) -> tuple[Duration, Duration]:
    """`30s..10m`, or one time for both."""
    first, dots, last = text.partition("..")
    low, high = duration(field, first), duration(field, last if dots else first)
    if (low.seconds, low.nanos) > (high.seconds, high.nanos) or high.seconds > 86_400:
        raise refuse(field, f"`{text}` doesn't rise, or is longer than a day", "e.g. `30s..10m`")
    return low, high


def growth(field: str, text: str | float) -> tuple[int, int]:
    """`1.5..32G`, or the factor alone: thousandths, and MiB or 0."""
    factor, dots, most = str(text).partition("..")
    number = _decimal(factor)
    if number is None or not Fraction(1001, 1000) <= number <= 100 or (dots and not most):
        raise refuse(field, f"`{text}` has no factor above 1, 100 at most", "write e.g. `1.5` or `1.5..32G`")
    return math.ceil(number * 1000), mib(field, most) if dots else 0


def placeholders(text: str) -> list[str]:
    """The names of all placeholders, in order."""
    return [found[1] for found in _PLACEHOLDER.finditer(text) if found[1]]
