"""Every example of the guide is run, and prints what the guide says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import millgrid

HERE = Path(__file__).resolve().parent.parent
PAGES = [*sorted((HERE / "docs").glob("*.md")), HERE / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
def test_the_page_does_what_it_says(page: Path, client: millgrid.DevClient, tmp_path: Path) -> None:
    blocks = re.findall(r"```(python|text)\n(.*?)```", page.read_text(), re.DOTALL)
    script = tmp_path / "page.py"
    script.write_text("\n".join(text for kind, text in blocks if kind == "python"))
    expected = "".join(text for kind, text in blocks if kind == "text")
    assert expected, "a page without a result proves nothing"
    environment = {**os.environ, **client.grid.environment()}
    ended = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=90, cwd=tmp_path, env=environment
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == expected
