"""A grid of one's own on this machine, for as long as a `with` block: three coordinators, workers, an S3 endpoint."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import _default
from ._client import Client
from ._config import Settings
from ._errors import ConfigurationError, MillgridError

#: Until there is a leader and all workers have joined; a second when the machine is idle.
START_SECONDS = 60.0


def find_program() -> str:
    """The command `millgrid`: `MILLGRID_PROGRAM`, else where pip puts that of the wheel `millgrid-bin`, else on the PATH.

    Raises:
        ConfigurationError: There is none.
    """
    named = os.environ.get("MILLGRID_PROGRAM")
    found = named or shutil.which("millgrid", path=os.pathsep.join(_scripts())) or shutil.which("millgrid")
    if not found or not os.access(found, os.X_OK):
        hint = "install the wheel `millgrid-bin`, or build with `cargo xtask install`, or name it with MILLGRID_PROGRAM"
        raise ConfigurationError(f"the command `{named or 'millgrid'}` is not there", hint=hint)
    return found


def _scripts() -> Iterator[str]:
    """Where pip puts programs: for this Python, or for this user alone."""
    yield str(Path(sys.executable).parent)
    yield sysconfig.get_path("scripts")
    yield sysconfig.get_path("scripts", sysconfig.get_preferred_scheme("user"))


class DevGrid:
    """The processes of a grid of `millgrid dev`, by their names: c1 c2 c3, `leader`, worker-1, s3."""

    def __init__(self, program: str, state: Path) -> None:
        self.program = program
        #: Everything of it; `STATE/s3/dev/` is the bucket `dev`.
        self.state = state

    def command(self, *words: str) -> str:
        """`millgrid dev WORDS --state STATE`: what it prints.

        Raises:
            MillgridError: It failed.
        """
        arguments = [self.program, "dev", *words, "--state", str(self.state)]
        ended = subprocess.run(arguments, capture_output=True, text=True, timeout=START_SECONDS)
        if ended.returncode:
            raise MillgridError(f"`millgrid dev {' '.join(words)}` failed: {ended.stderr.strip() or ended.stdout}")
        return ended.stdout

    def kill(self, name: str) -> None:
        """As the loss of that machine."""
        self.command("kill", name)

    def restart(self, name: str) -> None:
        """Starts it again, on its old disk."""
        self.command("restart", name)

    def pause(self, name: str) -> None:
        """Stops it where it stands, until `resume`."""
        self.command("pause", name)

    def resume(self, name: str) -> None:
        """Lets it go on."""
        self.command("resume", name)

    def status(self) -> dict[str, Any]:
        """What `millgrid dev status -o json` says."""
        status: dict[str, Any] = json.loads(self.command("status", "-o", "json"))
        return status

    def environment(self) -> dict[str, str]:
        """What a program needs to use this grid."""
        lines = self.command("env").splitlines()
        pairs = (line.removeprefix("export ").partition("=") for line in lines if line.startswith("export "))
        return {name: value.strip("'") for name, _, value in pairs}

    def settings(self) -> Settings:
        """How to reach it."""
        env = self.environment()
        pem = {name: Path(env[f"MILLGRID_{name.upper()}"]).read_bytes() for name in ("ca", "cert", "key")}
        endpoints = tuple(env["MILLGRID_ENDPOINT"].split(","))
        return Settings(endpoints, pem["ca"], pem["cert"], pem["key"], dev=True, dev_state=self.state, dev_storage=True)


class DevClient(Client):
    """A client of a grid of its own."""

    def __init__(self, grid: DevGrid, *, timeout: float = 30.0) -> None:
        self.grid = grid
        self._setup(grid.settings(), timeout, None)


@contextlib.contextmanager
def dev(
    *,
    workers: int = 2,
    worker_cpus: int | None = None,
    port_base: int | None = None,
    state: str | os.PathLike[str] | None = None,
) -> Iterator[DevClient]:
    """Starts a grid, gives a client of it, and stops all of it at the end. Functions with `@millgrid.remote` use it.

    Args:
        workers: How many.
        worker_cpus: Of each; the machine's cpus shared out by default.
        port_base: Its first port; others if these are taken.
        state: A folder to keep; by default a new one, that is deleted at the end.
    Raises:
        ConfigurationError: The command `millgrid` is not there.
        MillgridError: The grid did not start.
    """
    program = find_program()
    with contextlib.ExitStack() as cleanup:
        if state is None:
            folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="millgrid-dev-")))
        else:
            folder = Path(state).resolve()
        grid = DevGrid(program, folder)
        options = ["--workers", str(workers), "--detach"]
        options += [] if worker_cpus is None else ["--worker-cpus", str(worker_cpus)]
        options += [] if port_base is None else ["--port-base", str(port_base)]
        # Also when the start fails half way.
        cleanup.callback(_down, grid)
        grid.command(*options)
        with DevClient(grid) as client:
            _default.enter(client)
            cleanup.callback(_default.leave, client)
            yield client


def _down(grid: DevGrid) -> None:
    with contextlib.suppress(MillgridError):
        grid.command("down")
