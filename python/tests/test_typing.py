"""Types of calls: what is right passes both type checkers, what is wrong fails both, at its line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent

WRONG = """\
import millgrid

@millgrid.remote(cpus=1)
def train(lr: float, *, depth: int = 3) -> float:
    return lr * depth

def check(client: millgrid.Client) -> None:
    train("fast")  # wrong
    train.submit("fast")  # wrong
    train.submit(0.1, deep=4)  # wrong
    text: str = train.submit(0.1).result()  # wrong
    words: list[str] = train.map([0.1]).results()  # wrong
    client.executor(cpu=1)  # wrong
    client.submit(["true"], memory="4G")  # wrong
    with client.executor() as ex:
        ex.submit(len, 5)  # wrong
    print(train.submit(0.1, depth=4).result() + 1, text, words)
"""


def checked(checker: str, file: Path) -> tuple[int, set[int], str]:
    """Its exit code, the lines with errors, and all it said."""
    words = {
        "mypy": ["-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", str(file.parent / "cache")],
        "pyright": ["-m", "pyright", "--pythonpath", sys.executable],
    }[checker]
    ran = subprocess.run(
        [sys.executable, *words, str(file)], capture_output=True, text=True, timeout=170, cwd=file.parent
    )
    lines = {int(line) for line in re.findall(r"\.py:(\d+):(?:\d+)?[ -:]* error", ran.stdout)}
    return ran.returncode, lines, ran.stdout + ran.stderr


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_calls_are_typed(checker: str, tmp_path: Path) -> None:
    right = tmp_path / "right.py"
    right.write_text((HERE / "typed.py").read_text())
    code, lines, said = checked(checker, right)
    assert (code, lines) == (0, set()), said


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_wrong_calls_are_found(checker: str, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text(WRONG)
    code, lines, said = checked(checker, wrong)
    expected = {number for number, line in enumerate(WRONG.splitlines(), 1) if line.endswith("# wrong")}
    assert (code, lines) == (1, expected), said
