"""The memory that a client needs for arrays is little more than theirs; what it has is measured by `bench/memory.py`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import millgrid

MEASURE = Path(__file__).resolve().parent.parent / "bench/memory.py"
#: Half of what is promised for, since it takes half as long; the parts that are on their way weigh twice as much in it.
MIB = 512


def test_arrays_are_not_copied_on_their_way(client: millgrid.DevClient) -> None:
    command = [sys.executable, str(MEASURE), str(MIB), str(client.grid.state)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=170)
    assert ended.returncode == 0, ended.stderr
    measured = json.loads(ended.stdout)
    assert set(measured) == {"sent", "received", "both"}
    for way, ratio in measured.items():
        # Much below 1 it would not have held the array at all.
        assert 0.9 < ratio <= 1.3, (way, measured)
