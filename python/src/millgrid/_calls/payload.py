"""What goes along with a job of functions: the function, a description of this Python, and the arguments."""

from __future__ import annotations

import base64
import hashlib
import os
import pickle
import platform
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import cloudpickle

from .. import _archive
from .._env import Env
from .._errors import Unpicklable
from .._grammar import refuse
from .._spec import MAX_LOCAL_FILE_BYTES, Needs, add_file, add_rows, needs
from .._wire import jobs, request_id
from . import making, runner
from .fit import refuse_if_nowhere

if TYPE_CHECKING:
    from .._client import Client

#: Arguments up to this size travel in the row of their task.
INLINE_BYTES = runner.INLINE_BYTES
#: Of the arguments of all calls of one task: a variable of its environment has at most 128 KiB, and base64 takes a
#: third more.
ROW_BYTES = 92 << 10
#: Of the arguments of a job's only task, in base64, that travel in its environment.
ALONE_BYTES = 4 << 10
#: A pickled function up to this size lies in the head of its calls.
SMALL_FUNCTION_BYTES = 16 << 10
#: In a job's environment: that it is one of functions; of a `map` the calls in each task.
MARK = "MILLGRID_CALLS"
#: Finds an interpreter: a path that is there, or a name on the PATH.
_LAUNCH = (
    'for p in "$@"; do case "$p" in /*) test -x "$p" || continue;; *) command -v "$p" >/dev/null 2>&1 || continue;; '
    'esac; exec "$p" -u "$MILLGRID_CALL_FILE"; done; '
    'echo "* refused mismatch none of these interpreters is there: $*"; exit 127'
)
_FILE = "millgrid_call.py"


class CallOptions(Needs, total=False):
    """What calls of functions need; besides what jobs of programs do."""

    #: Variables of the tasks; or the environment that they run in, see `Env`.
    env: Env | Mapping[str, str]
    #: The interpreter on the worker; by default the client's own where it is there, else the same version on the PATH.
    python: str
    #: Each task in a process of its own. Else those of one client that ask for the same follow one another in a process
    #: that has nothing left of the last one: no thread, child or open file, no change but in modules that were imported.
    fresh: bool
    #: Modules, packages or folders of Python code that workers don't have: they travel along.
    ship: Sequence[str | os.PathLike[str] | ModuleType]


@dataclass(frozen=True)
class Pickled:
    """Arguments of one call: as bytes, or with their large buffers beside them."""

    data: bytes
    buffers: tuple[memoryview, ...] = ()
    #: Where on S3 they are already.
    key: str = ""

    @property
    def size(self) -> int:
        """In bytes, of all."""
        return len(self.data) + sum(buffer.nbytes for buffer in self.buffers)


def pickled(args: tuple[Any, ...], kwargs: Mapping[str, Any], name: str) -> Pickled:
    """Pickles the arguments of one call.

    Raises:
        Unpicklable: They can't be.
    """
    buffers: list[memoryview] = []
    try:
        data = runner.dumps((args, dict(kwargs)), buffers)
    except Exception as error:
        culprit = _culprit(args, kwargs)
        hint = "open files, locks and connections can't be sent; make them in the function"
        raise Unpicklable(f"{culprit} of `{name}` can't be pickled: {error}", hint=hint) from error
    if buffers and len(data) + sum(buffer.nbytes for buffer in buffers) <= INLINE_BYTES:
        return Pickled(runner.dumps((args, dict(kwargs)), None))
    return Pickled(data, tuple(buffers))


def _culprit(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    named = [(f"argument {at}", value) for at, value in enumerate(args, 1)]
    for what, value in [*named, *((f"argument `{name}`", value) for name, value in kwargs.items())]:
        try:
            runner.dumps(value, None)
        except Exception:
            return f"{what} ({type(value).__name__})"
    return "an argument"


def function_name(function: Callable[..., Any]) -> str:
    """As people know it."""
    return getattr(function, "__qualname__", None) or type(function).__qualname__


def pickled_function(function: Callable[..., Any]) -> bytes:
    """Pickles a function: by its name where workers can import it, else by value.

    Raises:
        Unpicklable: It can't be.
    """
    try:
        data: bytes = cloudpickle.dumps(function, protocol=5)
        return data
    except Exception as error:
        hint = "does it use an open file, a lock or a connection of this process? make them in the function"
        raise Unpicklable(f"the function `{function_name(function)}` can't be pickled: {error}", hint=hint) from error


def check(client: Client, options: CallOptions) -> jobs.JobSpec:
    """The part of a job that its options decide.

    Raises:
        InvalidArgument: One can't be meant.
    """
    unknown = set(options) - set(CallOptions.__annotations__)
    if unknown:
        known = ", ".join(sorted(CallOptions.__annotations__))
        raise refuse(sorted(unknown)[0], "there is no such option", f"there are: {known}")
    return needs(options, client.settings.queue, _environment(options)[1])


def _environment(options: CallOptions) -> tuple[Env, Mapping[str, str]]:
    """What the calls run in, and the variables of their tasks."""
    asked, python = options.get("env", {}), options.get("python", "")
    if not isinstance(asked, Env):
        return Env(python=python), asked
    if python:
        raise refuse("python", "`env` says already what calls run in", "give one of the two")
    return asked, asked.variables


def make_spec(client: Client, function: Callable[..., Any], options: CallOptions, *, alone: bool,
              value: bool = False, code: bytes = b"") -> jobs.JobSpec:
    """A job of functions but for its rows.

    Args:
        alone: Each task has one call, and fails as its function does.
        value: The result is for other jobs, too.
        code: The pickled function, if it was pickled before.
    """
    store = client._blobs.store
    spec = check(client, options)
    environment, _ = _environment(options)
    refuse_if_nowhere(client, environment)
    spec.name = spec.name or function_name(function).replace("{", "").replace("}", "")
    code = code or pickled_function(function)
    # The runner lies in the attempt's directory, so that tasks start there and go elsewhere themselves.
    chdir, spec.chdir = spec.chdir, ""
    archives = {"env.zip": environment.code, "ship.zip": _shipped(tuple(_path(one) for one in options.get("ship", ())))}
    endings = {name: _archive.endings(content) for name, content in archives.items()}
    where = f"{client._storage.prefix}{request_id()}/" if client._storage.configured else ""
    # In an environment of its own nothing comes from the client's.
    plain = not isinstance(options.get("env"), Env)
    head: dict[str, Any] = {
        "python": f"{sys.implementation.name} {sys.version_info[0]}.{sys.version_info[1]}",
        "cloudpickle": cloudpickle.__version__ if b"cloudpickle" in code else "",
        "platform": f"{platform.system()} {platform.machine()}",
        "modules": _versions(),
        "path": [os.path.abspath(path or ".") for path in sys.path if plain or making.is_own_code(path)],
        "archives": [name for name, content in archives.items() if content],
        "unpack": [name for name, those in endings.items() if those - _archive.IMPORTED],
        "compiled": any(those & _archive.COMPILED for those in endings.values()),
        "chdir": chdir,
        "store": bool(where),
        "alone": alone,
        "value": value,
        "file": _file_of(function) if b"cloudpickle" in code else "",
        # One file less for every task.
        "function": code if len(code) <= SMALL_FUNCTION_BYTES else None,
    }
    spec.env[MARK] = "1"
    spec.env["MILLGRID_CALL_FILE"] = _FILE
    wanted = [environment.python] if environment.python else [
        sys.executable, f"python{sys.version_info[0]}.{sys.version_info[1]}", "python3",
    ]  # fmt: skip
    spec.command.extend(["/bin/sh", "-c", _words(making.LAUNCH) if environment.is_made else _LAUNCH, "sh"])
    spec.command.extend(map(_words, wanted))
    if environment.is_made:
        making.add(spec, environment, store)
    add_file(spec, _FILE, _source(), store)
    spec.fork_server.files.append(_FILE)
    if not options.get("fresh"):
        spec.fork_server.group = client._group + _meaning(head, archives)
    spec.answers = True
    add_file(spec, "call.head", pickle.dumps(head, 4), store)
    if head["function"] is None:
        _add_code(client, spec, "call.function", code, where)
    for name in head["archives"]:
        _add_code(client, spec, name, archives[name], where)
    if where and not value:
        spec.outputs.add(glob="results/*", prefix=where + "{job}/{index}/{attempt}/", optional=True)
    return spec


def _meaning(head: Mapping[str, Any], archives: Mapping[str, bytes]) -> str:
    """The same where `import` means the same: a process that has imported something keeps it."""
    digest = hashlib.sha256(pickle.dumps([head["chdir"], head["path"], head["archives"]], 4))
    for name in head["archives"]:
        digest.update(hashlib.sha256(archives[name]).digest())
    return digest.hexdigest()[:32]


def _add_code(client: Client, spec: jobs.JobSpec, path: str, content: bytes, where: str) -> None:
    """A file that travels along while it is small, else through S3."""
    if len(content) <= MAX_LOCAL_FILE_BYTES:
        add_file(spec, path, content, client._blobs.store)
        return
    url = f"{where or client._storage.prefix}{path}"
    client._storage.put(url, [content])
    spec.inputs.add(source=url, path=path)


def row(calls: Iterable[bytes]) -> str:
    """The row of a task: the pickled arguments of its calls."""
    return base64.b64encode(pickle.dumps(list(calls), 4)).decode()


def add_rows_of_calls(client: Client, spec: jobs.JobSpec, tasks: Sequence[Sequence[bytes]]) -> None:
    """Gives each task the pickled arguments of its calls."""
    rows = [row(calls) for calls in tasks]
    if len(rows) == 1 and len(rows[0]) <= ALONE_BYTES:
        # A row of an array is stored before the job is submitted: one round of the grid more than this.
        spec.env["MILLGRID_ENTRY"] = rows[0]
        return
    add_rows(spec, rows, client._blobs.store)


def add_large(client: Client, spec: jobs.JobSpec) -> None:
    """Makes a job of calls whose arguments lie on S3: each row is `{key}`."""
    spec.inputs.add(source=f"{client._storage.prefix}arguments/{{key}}", path="call.arguments")


def upload(client: Client, call: Pickled) -> str:
    """Puts arguments on S3; their key.

    Raises:
        StorageError: There is no S3, or it said no.
    """
    key = request_id()
    lengths = [len(call.data), *(buffer.nbytes for buffer in call.buffers)]
    head = runner.MAGIC + len(lengths).to_bytes(4, "little") + b"".join(n.to_bytes(8, "little") for n in lengths)
    client._storage.put(f"{client._storage.prefix}arguments/{key}", [head, call.data, *call.buffers])
    return key


def _file_of(function: Callable[..., Any]) -> str:
    code = getattr(function, "__code__", None)
    name: str = getattr(code, "co_filename", "")
    return name if os.path.exists(name) else ""


@lru_cache(maxsize=1)
def _source() -> bytes:
    return Path(runner.__file__).read_bytes()


def _path(one: str | os.PathLike[str] | ModuleType) -> str:
    if isinstance(one, ModuleType):
        paths = list(getattr(one, "__path__", ()))
        return paths[0] if paths else str(one.__file__)
    return os.fspath(one)


def _shipped(paths: tuple[str, ...]) -> bytes:
    """A zip of packages and modules, each below its own name."""
    files: dict[str, Path] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise refuse("ship", f"there is no `{path}`", "name a module, a package or a folder of Python code")
        files.update(_archive.below(path))
    return _archive.pack(files)


def _versions() -> dict[str, str]:
    """Of the modules that are loaded here and don't come with Python, as far as they say it."""
    found: dict[str, str] = {}
    tops = {name for name in list(sys.modules) if "." not in name}
    for name in sorted(tops - sys.stdlib_module_names):
        # Asking the module itself may load what it has put off.
        version = getattr(sys.modules.get(name), "__dict__", {}).get("__version__")
        if isinstance(version, str):
            found[name] = version
    return found


def _words(text: str) -> str:
    """A text that means itself where placeholders are replaced."""
    return text.replace("{", "{{").replace("}", "}}")
