"""Makes `millgrid/_generated` from the repository's protos, when the package is built or installed."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
#: Inside the package in a source distribution, whatever lies beside that; beside it in the repository.
SOURCES = (HERE / "proto/millgrid/v1", HERE.parent / "proto/proto/millgrid/v1")
PACKAGE = HERE / "src/millgrid/_generated"


def protos() -> list[Path]:
    """The files that the code is made from."""
    for folder in SOURCES:
        if folder.is_dir():
            return [*sorted(folder.glob("*.proto")), HERE / "proto/status.proto"]
    raise FileNotFoundError(f"there are no protos in {SOURCES[-1]}; build from a whole clone of the repository")


def digest() -> str:
    """Of everything that decides what is generated."""
    whole = hashlib.sha256()
    for path in [*protos(), Path(__file__)]:
        whole.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return whole.hexdigest()


def generate(into: Path = PACKAGE) -> None:
    """Writes the modules, under the private package's own name so that they never clash with another copy."""
    with tempfile.TemporaryDirectory() as folder:
        private = Path(folder) / "millgrid/_generated"
        private.mkdir(parents=True)
        for path in protos():
            text = path.read_text().replace('import "millgrid/v1/', 'import "millgrid/_generated/')
            (private / path.name).write_text(text)
        names = [f"millgrid/_generated/{path.name}" for path in protos()]
        out = Path(folder) / "out"
        out.mkdir()
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{folder}", f"--python_out={out}", f"--pyi_out={out}"]
        subprocess.run([*command, *names], check=True)
        shutil.rmtree(into, ignore_errors=True)
        shutil.copytree(out / "millgrid/_generated", into)
    (into / "__init__.py").write_text(f'"""Generated from the protos; private."""\n\nSOURCES = "{digest()}"\n')


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # `python build_protos.py` needs grpcio-tools alone.
    pass
else:

    class Protos(BuildHookInterface[Any]):
        """Runs before the files of a wheel, or of an editable install, are collected."""

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            if self.target_name == "wheel":
                generate()


if __name__ == "__main__":
    generate()
