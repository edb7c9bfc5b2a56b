"""Every example of the guide is run, and prints what the guide says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import millgrid

HERE = Path(__file__).resolve().parent.parent
#: What each kind of block is in the page's script.
CODE: dict[str, Callable[[str], str]] = {
    "python": lambda text: text,
    "snakemake": lambda text: f"__import__('pathlib').Path('Snakefile').write_text({text!r})",
    "console": lambda text: "\n".join(
        f"__import__('subprocess').run({line[2:]!r}, shell=True, check=True)" for line in text.splitlines()
    ),
}
PAGES = [*sorted((HERE / "docs").glob("*.md")), HERE / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
def test_the_page_does_what_it_says(page: Path, client: millgrid.DevClient, tmp_path: Path) -> None:
    blocks = re.findall(r"```(python|console|snakemake|text)\n(.*?)```", page.read_text(), re.DOTALL)
    if any(kind == "snakemake" for kind, _ in blocks):
        pytest.importorskip("snakemake", reason="Snakemake needs Python 3.11 or newer")
    script = tmp_path / "page.py"
    script.write_text("\n".join(CODE[kind](text) for kind, text in blocks if kind in CODE))
    expected = "".join(text for kind, text in blocks if kind == "text")
    assert expected, "a page without a result proves nothing"
    environment = {**os.environ, **client.grid.environment()}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    ended = subprocess.run(
        [sys.executable, "-u", script], capture_output=True, text=True, timeout=90, cwd=tmp_path, env=environment
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == expected
