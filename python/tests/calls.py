"""Functions that tests call: workers import this module, so that it is a small one."""

from __future__ import annotations

import os
import time
from typing import Any


class Peculiar(Exception):
    """With a constructor that pickle alone can't call again."""

    def __init__(self, code: int, *, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


def add(a: int, b: int = 0) -> int:
    return a + b


def fail(text: str) -> None:
    raise ValueError(f"bad {text}")


def fail_peculiarly() -> None:
    raise Peculiar(7, text="odd")


def wait_for(path: str) -> str:
    give_up = time.monotonic() + 20
    while not os.path.exists(path):
        assert time.monotonic() < give_up, "the test that should have made it has failed"
        time.sleep(0.01)
    return path


def record(path: str, text: str) -> str:
    with open(path, "a") as file:
        file.write(text + "\n")
    return text


def slowly(path: str, n: int) -> int:
    time.sleep(0.002)
    record(path, str(n))
    return n * n


def double(array: Any) -> Any:
    return array * 2


def total(array: Any) -> float:
    return float(array.sum())


def large(size: int) -> bytes:
    return b"x" * size


def zeros(count: int) -> Any:
    import numpy

    return numpy.zeros(count)


def arange(count: int) -> Any:
    import numpy

    return numpy.arange(count, dtype="float64")


def end_once(path: str) -> str:
    if os.path.exists(path):
        return "the second time"
    with open(path, "x"):
        os._exit(9)


def say(printed: str, complained: str) -> None:
    import sys

    print(printed)
    print(complained, file=sys.stderr)
    print("unfin", end="", flush=True)
    print("ished", end="")


def job_number() -> tuple[str, int, int]:
    import submitit

    environment = submitit.JobEnvironment()
    return environment.job_id, environment.num_tasks, environment.global_rank


class Resumable:
    def __call__(self, n: int) -> int:
        return 2 * n

    def checkpoint(self, n: int) -> Any:
        raise AssertionError("nobody asks for it")
