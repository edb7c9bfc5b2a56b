"""Puts the programs that cargo has built into the wheel, and says which machines they run on."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PROGRAMS = ("millgrid", "millgrid-coordinator", "millgrid-worker")
#: `e_machine` of the ELF header.
MACHINES = {62: "x86_64", 183: "aarch64"}


class Programs(BuildHookInterface[Any]):
    """Runs before the files of the wheel are collected."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Adds them as scripts, which pip makes executable and puts beside Python."""
        if version == "editable":
            raise RuntimeError("programs can't be installed as editable; use `cargo xtask install`")
        found = [self._folder() / name for name in PROGRAMS]
        build_data["shared_scripts"] = {str(path): path.name for path in found}
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform([path.read_bytes() for path in found])}"

    def _folder(self) -> Path:
        target = Path(os.environ.get("CARGO_TARGET_DIR") or Path(self.root).parent.parent / "target")
        folder = Path(os.environ.get("MILLGRID_BINARIES") or target / "release").absolute()
        missing = [name for name in PROGRAMS if not (folder / name).is_file()]
        if missing:
            hint = "build with `cargo xtask wheel`, or name their folder with MILLGRID_BINARIES"
            raise FileNotFoundError(f"{', '.join(missing)}: not in {folder}; {hint}")
        return folder


def platform(programs: list[bytes]) -> str:
    """The tag of the machines on which all of them run.

    Raises:
        ValueError: One is no program for Linux on a machine that there is a tag for, or they are for several.
    """
    machines = {machine(program) for program in programs}
    if len(machines) != 1:
        raise ValueError(f"the programs are for several machines: {', '.join(sorted(machines))}")
    # Names of versions are strings of the dynamic linker's table. One that stands elsewhere in a program could only make
    # the demand higher than it is.
    minors = [int(minor) for program in programs for minor in re.findall(rb"\0GLIBC_2\.(\d+)(?=[.\0])", program)]
    return f"manylinux_2_{max(minors)}_{machines.pop()}" if minors else f"linux_{machines.pop()}"


def machine(program: bytes) -> str:
    number = int.from_bytes(program[18:20], "little")
    if program[:6] != b"\x7fELF\x02\x01" or number not in MACHINES:
        raise ValueError("not a program for 64-bit Linux on x86 or Arm")
    return MACHINES[number]
