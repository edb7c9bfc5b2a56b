"""The memory that a client needs for arrays is little more than theirs; what it has is measured by `bench/memory.py`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import millgrid

MEASURE = Path(__file__).resolve().parent.parent / "bench/memory.py"
#: A quarter of what is promised for, since it takes a quarter of the time.
MIB = 256
#: Beside the data there are the parts that are on their way, which are as many however large it is: of 1 GiB this is
#: half of what they may be. One more copy would be `MIB`.
BESIDE_MIB = 150


def test_arrays_are_not_copied_on_their_way(client: millgrid.DevClient) -> None:
    command = [sys.executable, str(MEASURE), str(MIB), str(client.grid.state)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=170)
    assert ended.returncode == 0, ended.stderr
    measured = json.loads(ended.stdout)
    assert set(measured) == {"sent", "received", "both"}
    for way, ratio in measured.items():
        # Much below 0 it would not have held the array at all.
        beside = (ratio - 1) * MIB * (2 if way == "both" else 1)
        assert -10 < beside < BESIDE_MIB, (way, measured)
