"""Calls of Python functions beside Ray and Dask, and the memory of large arrays.

    python figures.py [NAME] [-o json]

`cargo xtask bench python` makes the environment and runs it. The figures are told as those of `bench/` are, whose
README says what they mean; ends with 1 if one is not where it must be.
"""

from __future__ import annotations

import argparse
import json
import platform
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
#: Of one program; a grid that hangs is no figure.
LIMIT_SECONDS = 240.0
MEMORY_MIB = 1024


@dataclass(frozen=True)
class Spread:
    """The samples behind a value."""

    low: float
    high: float
    p99: float
    samples: int


@dataclass(frozen=True)
class Figure:
    """One figure; `must` and `aim` are of `ratio` where there is a reference, else of `value`."""

    name: str
    value: float | None
    unit: str
    spread: Spread | None
    reference: float | None
    ratio: float | None
    bound: str
    must: float
    aim: float
    ok: bool


@dataclass(frozen=True)
class Bar:
    """What a figure must be, before it is measured."""

    name: str
    unit: str
    bound: str
    must: float
    aim: float
    #: Its samples, and the reference if it has one.
    measure: Callable[[], tuple[list[float], float | None]]

    def figure(self) -> Figure:
        """Measures it; without a value, and with the reason on stderr, where that fails."""
        samples: list[float] = []
        reference: float | None = None
        try:
            samples, reference = self.measure()
        except (subprocess.SubprocessError, OSError, ValueError, KeyError, IndexError) as error:
            print(f"error: {error}: no value for {self.name}", file=sys.stderr)
        value = median(samples) if samples else None
        ratio = value / reference if value is not None and reference is not None else None
        judged = value if reference is None else ratio
        good = judged is not None and (judged >= self.must if self.bound == "at_least" else judged <= self.must)
        return Figure(self.name, value, self.unit, spread(samples), reference, ratio, self.bound, self.must, self.aim,
                      good)  # fmt: skip


def median(values: list[float]) -> float:
    """The one in the middle; of an even number the lower of the two."""
    return sorted(values)[(len(values) - 1) // 2]


def spread(samples: list[float]) -> Spread | None:
    ordered = sorted(samples)
    if not ordered:
        return None
    return Spread(ordered[0], ordered[-1], ordered[-(-len(ordered) * 99 // 100) - 1], len(ordered))


@cache
def program(name: str, *words: str) -> dict[str, Any]:
    """What a program of this folder prints: a measurement, in a process of its own."""
    print(f"measuring {' '.join((name, *words))}", file=sys.stderr)
    command = [sys.executable, str(HERE / name), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            printed, _ = process.communicate(timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            # So that it stops the processes that it has started.
            process.send_signal(signal.SIGINT)
            raise
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    measured: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return measured


def best(ways: dict[str, list[float]]) -> list[float]:
    """The rounds of the fastest way of calling."""
    return max(ways.values(), key=median)


def against(peer: str) -> tuple[list[float], float | None]:
    theirs = best(program("rates.py", peer)["calls"])
    return best(program("rates.py", "millgrid")["calls"]), median(theirs)


def alone() -> tuple[list[float], float | None]:
    return program("rates.py", "millgrid")["call_ms"], None


def memory() -> tuple[list[float], float | None]:
    measured = program("memory.py", str(MEMORY_MIB))
    return [max(measured.values())], None


BARS = (
    Bar("python_map_ratio_ray", "calls/s", "at_least", 3, 10, lambda: against("ray")),
    Bar("python_map_ratio_dask", "calls/s", "at_least", 3, 10, lambda: against("dask")),
    Bar("python_call_ms", "ms", "at_most", 5, 2, alone),
    Bar("python_gib_memory_ratio", "ratio", "at_most", 1.3, 1.1, memory),
)


def rows_of_ways(systems: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Each way of calling, and the calls that were made alone."""
    rows = [["system", "version", "way", "calls/s", "idle ms", "p99"]]
    for name, measured in systems.items():
        for kind, mark in (("calls", ""), ("pieces", " (in pieces)")):
            for way, rates in measured[kind].items():
                rows.append([name, measured["version"], way + mark, f"{median(rates):.0f}", "", ""])
        times = spread(measured["call_ms"])
        assert times is not None
        rows.append([name, measured["version"], "one call", "", f"{median(measured['call_ms']):.1f}",
                     f"{times.p99:.1f}"])  # fmt: skip
    return rows


def number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}"


def rows_of_figures(figures: list[Figure]) -> list[list[str]]:
    rows = [["figure", "value", "unit", "spread", "reference", "ratio", "must", "aim", ""]]
    for one in figures:
        sign = ">=" if one.bound == "at_least" else "<="
        span = "-" if one.spread is None else f"{number(one.spread.low)}..{number(one.spread.high)}"
        rows.append([one.name, number(one.value), one.unit, span, number(one.reference), number(one.ratio),
                     f"{sign} {number(one.must)}", f"{sign} {number(one.aim)}", "ok" if one.ok else "MISSED"])  # fmt: skip
    return rows


def table(rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="cargo xtask bench", description=__doc__.splitlines()[0] if __doc__ else "")
    names = [bar.name for bar in BARS]
    parser.add_argument("name", nargs="?", default="python", choices=["python", *names], help="all if left out")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    options = parser.parse_args()
    figures = [bar.figure() for bar in BARS if options.name in ("python", bar.name)]
    systems = {name: program("rates.py", name) for name in measured_systems(figures)}
    if options.output == "json":
        versions = {"python": platform.python_version()}
        versions |= {name: measured["version"] for name, measured in systems.items()}
        print(json.dumps({"figures": [asdict(one) for one in figures], "versions": versions, "systems": systems}))
    else:
        if systems:
            print(table(rows_of_ways(systems)), end="\n\n")
        print(table(rows_of_figures(figures)))
    return 0 if all(one.ok for one in figures) else 1


def measured_systems(figures: list[Figure]) -> list[str]:
    """Those that a figure with a value was measured with."""
    have = {one.name for one in figures if one.value is not None}
    with_calls = {"python_map_ratio_ray", "python_map_ratio_dask", "python_call_ms"} & have
    peers = [name for name in ("ray", "dask") if f"python_map_ratio_{name}" in have]
    return ["millgrid", *peers] if with_calls else []


if __name__ == "__main__":
    sys.exit(main())
