"""What is installed is whole, and was made from the protos as they are."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from importlib import resources
from pathlib import Path

import millgrid
from millgrid import _generated

HERE = Path(__file__).resolve().parent.parent


def test_the_generated_code_is_current() -> None:
    spec = importlib.util.spec_from_file_location("build_protos", HERE / "build_protos.py")
    assert spec is not None and spec.loader is not None
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    assert _generated.SOURCES == build.digest(), "install the package again, or run `python build_protos.py`"


def test_the_package_is_typed_and_says_what_it_offers() -> None:
    assert resources.files(millgrid).joinpath("py.typed").is_file()
    assert sorted(millgrid.__all__) == sorted(set(millgrid.__all__))
    for name in millgrid.__all__:
        assert getattr(millgrid, name).__doc__, name


def test_importing_it_starts_no_thread_and_needs_no_s3() -> None:
    code = "import threading, sys, millgrid; print(threading.active_count(), 'boto3' in sys.modules, 'tqdm' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout.split() == ["1", "False", "False"]


def test_without_boto3_large_things_say_what_is_missing() -> None:
    code = (
        "import sys; sys.modules['boto3'] = None\n"
        "from millgrid._config import Settings; from millgrid._storage import Storage; import millgrid\n"
        "try: Storage(Settings((), b'', b'', b''), 's3://b/p').put('s3://b/k', [b''])\n"
        "except millgrid.StorageError as error: print(error)\n"
        "try: Storage(Settings((), b'', b'', b'')).prefix\n"
        "except millgrid.StorageError as error: print(error)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "millgrid[s3]" in ended.stdout and "MILLGRID_STORE" in ended.stdout


def test_errors_can_be_pickled() -> None:
    import pickle

    error = millgrid.InvalidArgument("no", hint="yes", field="cpus", request_id="r")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is millgrid.InvalidArgument and str(again) == str(error) and again.field == "cpus"
