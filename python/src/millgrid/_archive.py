"""Python code as a zip that workers can import from."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

#: What is code, or is never read while a program runs. Anything else is data that a package opens beside its code, so
#: that its archive is unpacked on the worker.
IMPORTED = frozenset({".py", ".pyi", ".typed"})
#: Code that is compiled for one kind of machine.
COMPILED = frozenset({".so", ".pyd", ".dylib"})


def below(path: Path) -> dict[str, Path]:
    """The files of a package or a module, by their names in an archive."""
    if path.is_file():
        return {path.name: path}
    found = {}
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path.parent)
        inner = name.parts[1:]
        if file.is_file() and "__pycache__" not in inner and not any(part.startswith(".") for part in inner[:-1]):
            found[name.as_posix()] = file
    return found


def pack(files: Mapping[str, Path]) -> bytes:
    """A zip of files; nothing where there are none. The same content makes the same zip, which is then stored once."""
    if not files:
        return b""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, file in sorted(files.items()):
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, file.read_bytes())
    return packed.getvalue()


def endings(archive: bytes) -> set[str]:
    """Of the names of the files in a zip, but for what describes a distribution."""
    if not archive:
        return set()
    names = map(Path, zipfile.ZipFile(io.BytesIO(archive)).namelist())
    return {name.suffix for name in names if not name.parts[0].endswith(".dist-info")}
