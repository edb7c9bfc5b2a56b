"""Calls in an environment that is made on the worker: what goes along with a job for that."""

from __future__ import annotations

import os
import site
import sys
from functools import lru_cache
from pathlib import Path

from .._env import Env
from .._spec import Store, add_file
from .._wire import jobs
from . import maker

#: Starts the environment's interpreter; makes it before where it is not whole. A home may be shared by machines of
#: different kinds, so that each has environments of its own. What is needed for making lies beside the file that is
#: run, or where the task starts.
LAUNCH = (
    'u=$(uname -nm); export MILLGRID_ENV_DIR="${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/millgrid/envs/'
    '$MILLGRID_ENV-${u%% *}-${u##* }"; e=$MILLGRID_ENV_DIR/bin/python; '
    # Tasks make it, and say so in their logs; an interpreter that is kept waits for that.
    'if test -n "$MILLGRID_FORK_SERVER"; then i=0; while ! test -e "$MILLGRID_ENV_DIR/made"; do '
    'test $i -lt 250 || exit 1; i=$((i + 1)); sleep 0.2; done; fi; '
    'if test -e "$MILLGRID_ENV_DIR/made" && test -x "$e"; then { true >"$MILLGRID_ENV_DIR/used"; } 2>/dev/null; '
    'exec "$e" -u "$MILLGRID_CALL_FILE"; fi; '
    'm=$MILLGRID_ENV_FILE; test -e "$m" || m=$(dirname "$MILLGRID_CALL_FILE")/$m; '
    'for p in "$@"; do "$p" -c "import sys; sys.exit(sys.version_info < (3, 8))" 2>/dev/null && exec "$p" "$m" "$@"; '
    'done; echo "* refused mismatch none of these interpreters works here: $*"; exit 127'
)
_FILE = "millgrid_env.py"


def add(spec: jobs.JobSpec, environment: Env, store: Store) -> None:
    """Adds the environment's lock, and the program that makes it."""
    spec.env["MILLGRID_ENV"] = environment.key()
    spec.env["MILLGRID_ENV_FILE"] = _FILE
    add_file(spec, _FILE, _source(), store)
    add_file(spec, "call.lock", environment.lock(), store)
    # An interpreter that is kept is started as those of tasks are.
    spec.fork_server.files.extend([_FILE, "call.lock"])


def is_own_code(path: str) -> bool:
    """Whether a folder on the path has code of the user's, and nothing that belongs to an environment."""
    folder = os.path.abspath(path or ".")
    homes = [sys.prefix, sys.base_prefix, sys.exec_prefix, site.getusersitepackages()]
    inside = any(folder == home or folder.startswith(home.rstrip("/") + "/") for home in homes if home != "/usr")
    return not inside and not {"site-packages", "dist-packages"} & set(Path(folder).parts) and folder not in _stdlib()


@lru_cache(maxsize=1)
def _stdlib() -> frozenset[str]:
    import sysconfig

    paths = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    names = {*paths, *(os.path.join(path, "lib-dynload") for path in paths)}
    return frozenset({*names, *(path for path in sys.path if path.endswith(".zip"))})


@lru_cache(maxsize=1)
def _source() -> bytes:
    return Path(maker.__file__).read_bytes()
