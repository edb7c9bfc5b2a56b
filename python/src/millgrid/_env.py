"""The Python environment in which calls of functions run on workers."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from . import _archive
from ._grammar import refuse
from ._installed import Installed, installed, normal

#: Without these no call can run.
NEEDED = ("cloudpickle", "tblib")


@dataclass(frozen=True)
class Env:
    """Where calls of functions run: the option `env` of executors and of `@millgrid.remote`.

    Made by `Env.current`, `Env.of` and `Env.venv`. An environment that is to be made is made once on each worker, by
    the first task that needs it, with `uv` where the worker has it and else with pip; that task's time limit runs
    meanwhile. One that no task used for two weeks is removed.
    """

    #: Path of an interpreter that is there on the workers; empty: the environment is made.
    python: str = ""
    #: Lines for an installer, complete with all that they depend on: `name==version`, `name @ url`.
    pinned: tuple[str, ...] = ()
    #: Further lines, installed with what they depend on.
    requirements: tuple[str, ...] = ()
    #: Names of local packages, whose code is sent along.
    local: tuple[str, ...] = ()
    #: That code, a zip of it as it was when this was made.
    code: bytes = field(default=b"", repr=False)
    #: Variables of the tasks: what the option `env` means where it is a mapping.
    variables: Mapping[str, str] = field(default_factory=dict, hash=False)

    @classmethod
    def current(cls, *, exclude: Iterable[str] = (), extra: Iterable[str] = ()) -> Env:
        """What is installed here, now: the same versions are installed on the workers.

        Editable installs, and others from a folder or a file of this machine, are sent along as code; changes of that
        code after this call are not.

        Args:
            exclude: Names of packages that workers don't need, or can't have.
            extra: Further requirements, e.g. `"polars>=1"`, installed with what they depend on.
        Raises:
            InvalidArgument: A package that is excluded isn't there, or is one that every call needs.
        """
        known = installed()
        for name in exclude:
            if normal(name) in NEEDED:
                raise refuse("exclude", f"`{name}` is needed by every call")
            if known.pop(normal(name), None) is None:
                raise refuse("exclude", f"there is no package `{name}` here")
        local = {one.name: one for one in known.values() if not one.requirement}
        return cls(
            pinned=tuple(one.requirement for one in known.values() if one.requirement),
            requirements=tuple(extra),
            local=tuple(local),
            code=_code(local.values()),
        )

    @classmethod
    def of(cls, *requirements: str) -> Env:
        """These packages, with what they depend on, and what calls need.

        Args:
            requirements: As pip takes them: `"polars>=1"`, `"numpy==2.1.0"`.
        """
        known = installed()
        return cls(pinned=tuple(f"{name}=={known[name].version}" for name in NEEDED), requirements=requirements)

    @classmethod
    def venv(cls, path: str | os.PathLike[str]) -> Env:
        """An environment that is there on every worker, at this path.

        Raises:
            InvalidArgument: The path isn't absolute.
        """
        if not os.path.isabs(path):
            raise refuse("env", f"`{os.fspath(path)}` is not absolute", "give the whole path that it has on the workers")
        return cls(python=os.path.join(path, "bin", "python"))

    def with_variables(self, variables: Mapping[str, str]) -> Env:
        """The same with more variables of the tasks."""
        return dataclasses.replace(self, variables={**self.variables, **variables})

    def __repr__(self) -> str:
        if self.python:
            return f"<Env {self.python}>"
        count = len(self.pinned) + len(self.requirements)
        sent = f", and code of {', '.join(self.local)}" if self.local else ""
        return f"<Env Python {_version().split()[1]}, {count} packages{sent}>"

    @property
    def is_made(self) -> bool:
        """Whether it is made on the workers."""
        return bool(self.pinned or self.requirements)

    def lock(self) -> bytes:
        """What workers make it from, JSON."""
        lock = {"python": _version(), "pinned": sorted(self.pinned), "requirements": list(self.requirements)}
        return json.dumps(lock, indent=0).encode()

    def key(self) -> str:
        """Names its lock: environments with the same key are the same one."""
        return hashlib.sha256(self.lock()).hexdigest()[:20]


def _version() -> str:
    return f"{sys.implementation.name} {sys.version_info[0]}.{sys.version_info[1]}"


def _code(local: Iterable[Installed]) -> bytes:
    return _archive.pack({name: path for one in local for name, path in one.files.items()})
