"""Which grid to talk to: argument, environment, `./.millgrid.toml`, `~/.config/millgrid/config.toml`, in this order."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._errors import ConfigurationError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: The context that `millgrid dev` writes, used when no other is chosen.
DEV_CONTEXT = "dev"
_KEYS = {"endpoints", "ca", "cert", "key", "queue", "output"}


@dataclass(frozen=True)
class Settings:
    """How to reach a grid, and as whom."""

    endpoints: tuple[str, ...]
    ca: bytes
    cert: bytes
    key: bytes
    #: To submit to when a job names none; empty: `default`.
    queue: str = ""
    #: A grid of `millgrid dev`, whose tasks see the caller's files.
    dev: bool = False
    #: `dev`'s state directory, where its S3 endpoint's credentials are; only of the default one.
    dev_state: Path | None = None
    #: That endpoint is meant, whatever the environment says.
    dev_storage: bool = False

    def __repr__(self) -> str:
        # The key stays out of every log.
        return f"Settings(endpoints={self.endpoints!r}, queue={self.queue!r}, dev={self.dev!r})"


def load(
    *,
    context: str | None = None,
    endpoint: str | Sequence[str] | None = None,
    ca: str | os.PathLike[str] | None = None,
    cert: str | os.PathLike[str] | None = None,
    key: str | os.PathLike[str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Joins what was given with the environment and the files.

    Raises:
        ConfigurationError: No grid is chosen, or a file can't be used.
    """
    environ = os.environ if environ is None else environ
    given = {name: environ.get(f"MILLGRID_{name.upper()}") or None for name in ("endpoint", "ca", "cert", "key")}
    chosen_endpoint = endpoint if endpoint is not None else given["endpoint"]
    wanted = context or environ.get("MILLGRID_CONTEXT") or None
    home = environ.get("HOME")
    paths = [Path(".millgrid.toml")] + ([Path(home) / ".config/millgrid/config.toml"] if home else [])
    files = [_read(path) for path in paths]
    wanted = wanted or next((file["current"] for file in files if "current" in file), None)
    name = wanted or DEV_CONTEXT
    found: dict[str, Any] | None = next((file["context"][name] for file in files if name in file["context"]), None)
    if found is None and wanted is not None and chosen_endpoint is None:
        known = sorted({name for file in files for name in file["context"]})
        hint = f"there are: {', '.join(known)}" if known else "no context is configured"
        raise ConfigurationError(f"there is no context `{wanted}`", hint=hint, field="context")
    values = found or {}
    if isinstance(chosen_endpoint, str):
        chosen_endpoint = chosen_endpoint.split(",")
    endpoints = tuple(url.strip() for url in (chosen_endpoint or values.get("endpoints", ())) if url.strip())
    if not endpoints:
        hint = "start one here with `millgrid dev`, or name one with `endpoint=`, `context=` or MILLGRID_ENDPOINT"
        raise ConfigurationError("no grid is chosen", hint=hint, field="endpoint")
    for url in endpoints:
        if not url.startswith("https://"):
            hint = "write e.g. `https://127.0.0.1:7070`"
            raise ConfigurationError(f"`{url}` is not an https URL", hint=hint, field="endpoint")
    default_dev = chosen_endpoint is None and name == DEV_CONTEXT
    pem = {
        option: _pem(option, value or given[option] or values.get(option))
        for option, value in (("ca", ca), ("cert", cert), ("key", key))
    }
    dev = default_dev or environ.get("MILLGRID_DEV") == "1"
    # The authority of `dev` lies in its state directory: STATE/ca/ca.pem.
    state = Path(values["ca"]).parent.parent if default_dev and "ca" in values else None
    if state is not None and _is_stopped(state):
        # Waiting for it would be in vain: it starts at its user's word alone.
        raise ConfigurationError("the grid of `millgrid dev` is stopped", hint="start it with `millgrid dev`")
    return Settings(endpoints, pem["ca"], pem["cert"], pem["key"], values.get("queue") or "", dev, state)


def _is_stopped(state: Path) -> bool:
    try:
        return bool(json.loads((state / "dev.json").read_text()).get("stopped"))
    except (OSError, ValueError):
        return False


def _read(path: Path) -> dict[str, Any]:
    """A file that isn't there says nothing; paths in it are relative to it."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return {"context": {}}
    except OSError as error:
        raise ConfigurationError(f"can't read `{path}`: {error.strerror}") from error
    hint = "a context has endpoints, ca, cert, key, queue and output; `current` names the one to use"
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: {error}", hint=hint) from error
    contexts = table.get("context", {})
    unknown = [key for key in table if key not in ("current", "context")]
    for values in contexts.values():
        unknown += [key for key in values if key not in _KEYS]
        for option in ("ca", "cert", "key"):
            if option in values:
                values[option] = str(path.parent / Path(values[option]).expanduser())
    if unknown:
        line = next((n for n, line in enumerate(text.splitlines(), 1) if line.strip().startswith(unknown[0])), 1)
        raise ConfigurationError(f"{path}:{line}: unknown field `{unknown[0]}`", hint=hint)
    return {**table, "context": contexts}


def _pem(option: str, path: str | os.PathLike[str] | None) -> bytes:
    if not path:
        hint = '`ca`, `cert` and `key` name PEM files; `eval "$(millgrid dev env)"` sets them for a local grid'
        raise ConfigurationError(f"no `{option}` is given", hint=hint, field=option)
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"can't read `{option}` from `{path}`: {error.strerror}", field=option) from error
