"""What is installed in this interpreter: packages that an index has, and code that is here alone."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path

from . import _archive

#: Of what describes a distribution: what programs read about themselves.
_DESCRIPTION = ("METADATA", "entry_points.txt", "top_level.txt")


@dataclass(frozen=True)
class Installed:
    """A distribution: a line for an installer, or else files by the names under which they are imported."""

    name: str
    version: str
    requirement: str
    files: dict[str, Path]


def normal(name: str) -> str:
    """The name of a distribution as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed() -> dict[str, Installed]:
    """Every distribution, by its normal name. Of two with the same name the one that is imported counts."""
    found: dict[str, Installed] = {}
    for one in distributions():
        # A folder that was left behind has none.
        name = one.metadata["Name"] if one.metadata else ""
        if name and normal(name) not in found:
            found[normal(name)] = _of(one, name)
    return dict(sorted(found.items()))


def _of(one: Distribution, name: str) -> Installed:
    origin = json.loads(one.read_text("direct_url.json") or "{}")
    url: str = origin.get("url", "")
    # conda names the folders in which it built its packages.
    if not url or (one.read_text("INSTALLER") or "").strip() == "conda":
        return Installed(name, one.version, f"{name}=={one.version}", {})
    if "vcs_info" in origin:
        vcs = origin["vcs_info"]
        below = f"#subdirectory={origin['subdirectory']}" if origin.get("subdirectory") else ""
        return Installed(name, one.version, f"{name} @ {vcs['vcs']}+{url}@{vcs['commit_id']}{below}", {})
    if not url.startswith("file:"):
        return Installed(name, one.version, f"{name} @ {url}", {})
    files = dict(_own_files(one))
    if origin.get("dir_info", {}).get("editable"):
        project = Path(urllib.request.url2pathname(urllib.parse.urlsplit(url).path))
        files.update(_editable(one, project))
    return Installed(name, one.version, "", files)


def _own_files(one: Distribution) -> Iterator[tuple[str, Path]]:
    """What was installed of it, but for programs, caches and what only makes an editable install work."""
    for file in one.files or ():
        top = file.parts[0]
        described = top.endswith(".dist-info") and file.name in _DESCRIPTION
        machinery = top.startswith(("__editable__", "_editable_impl")) or file.suffix == ".pth"
        code = top not in ("..", "/") and not top.endswith(".dist-info") and "__pycache__" not in file.parts
        path = Path(str(one.locate_file(file)))
        if (described or (code and not machinery)) and path.is_file():
            yield file.as_posix(), path


def _editable(one: Distribution, project: Path) -> dict[str, Path]:
    """The packages of a project that are imported from where they are written."""
    found: dict[str, Path] = {}
    for name in _top_levels(one):
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            continue
        if spec is None:
            continue
        folders = list(spec.submodule_search_locations or ())
        for path in map(Path, folders or [spec.origin or ""]):
            # The other parts of a namespace belong to others.
            if path.exists() and path.resolve().is_relative_to(project.resolve()):
                found.update(_archive.below(path))
    return found


def _top_levels(one: Distribution) -> set[str]:
    """The names that it offers to be imported: as it says, else those in the folders that it puts on the path."""
    said = (one.read_text("top_level.txt") or "").split()
    if said:
        return set(said)
    names = set()
    for file in one.files or ():
        if file.suffix != ".pth":
            continue
        for line in Path(str(one.locate_file(file))).read_text().splitlines():
            folder = Path(line.strip())
            if line.strip() in sys.path and folder.is_dir():
                names |= {path.parent.name for path in folder.glob("*/__init__.py")}
                names |= {path.stem for path in folder.glob("*.py") if path.stem not in ("setup", "conftest")}
    return {name for name in names if name.isidentifier()}
