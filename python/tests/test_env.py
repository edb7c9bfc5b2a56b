"""Environments: made on the workers, named by their path, and refused where they don't fit."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.metadata
import json
import os
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import millgrid
from calls import add
from millgrid._calls import fit, maker, making
from millgrid._calls.payload import CallOptions
from millgrid._dev import DevClient

#: What nothing that is installed for tests needs.
ABSENT = "humanize==4.12.3"
#: What millgrid itself is made of.
KEPT = {"cloudpickle", "tblib", "millgrid", "grpcio", "protobuf", "tqdm", "typing-extensions", "tomli"}
UV = [sys.executable, "-m", "uv"]


def small(**options: Any) -> millgrid.Env:
    """What is installed here, but for what makes tests slow."""
    known = {one.metadata["Name"] for one in importlib.metadata.distributions()}
    return millgrid.Env.current(exclude=[one for one in known if one.replace("_", "-") not in KEPT], **options)


def call(client: millgrid.Client, function: Any, *args: Any, **options: Any) -> Any:
    with client.executor(**options) as executor:
        return executor.submit(function, *args).result(90)


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables with which environments are made in a folder of this run's own."""
    return {"XDG_CACHE_HOME": str(tmp_path_factory.mktemp("caches"))}


def by_value() -> tuple[Callable[[int], str], Callable[[], tuple[str, ...]]]:
    """Functions that need nothing of this module, which environments of their own can't import."""

    def humanized(number: int) -> str:
        import humanize  # type: ignore[import-not-found]

        return f"{humanize.intcomma(number)} {humanize.__version__}"

    def where_millgrid_is() -> tuple[str, ...]:
        import importlib.metadata
        import sys

        import millgrid

        return sys.prefix, str(millgrid.__file__), importlib.metadata.version("millgrid"), millgrid.__version__

    return humanized, where_millgrid_is


humanized, where_millgrid_is = by_value()


# Environments that are made


def test_packages_that_workers_lack_are_installed_there(client: millgrid.Client, caches: dict[str, str]) -> None:
    with pytest.raises(ModuleNotFoundError, match="humanize"):
        call(client, humanized, 1000)
    environment = millgrid.Env.of(ABSENT).with_variables(caches)
    assert call(client, humanized, 1_000_000, env=environment) == "1,000,000 4.12.3"
    with client.flow("made") as flow:
        result = flow.submit(millgrid.remote(env=environment)(humanized), 2000)
    assert result.result(90) == "2,000 4.12.3"
    assert millgrid.remote(env=environment)(humanized).map([1, 2000]).results(90) == ["1 4.12.3", "2,000 4.12.3"]


def test_what_is_installed_here_is_installed_there_and_local_code_is_sent(
    client: millgrid.Client, caches: dict[str, str]
) -> None:
    environment = small(extra=[ABSENT]).with_variables(caches)
    assert "millgrid" in environment.local and not any(line.startswith("millgrid") for line in environment.pinned)
    prefix, file, version, same_version = call(client, where_millgrid_is, env=environment)
    assert prefix.startswith(caches["XDG_CACHE_HOME"]), "not the interpreter of this test"
    assert file.endswith("env.zip/millgrid/__init__.py"), "nor its code"
    assert version == same_version == millgrid.__version__
    assert call(client, humanized, 1, env=environment) == "1 4.12.3"
    with pytest.raises(ModuleNotFoundError, match="pandas"):
        call(client, lambda: importlib.import_module("pandas"), env=environment)


def test_tasks_that_start_at_once_make_it_once(client: millgrid.Client, tmp_path: Path) -> None:
    environment = millgrid.Env.of(ABSENT).with_variables({"XDG_CACHE_HOME": str(tmp_path)})
    calls = millgrid.remote(env=environment)(humanized).map(range(6)).wait(90)
    assert calls.results() == [f"{n} 4.12.3" for n in range(6)]
    said = [line for n in range(6) for line in calls.logs(n)]
    assert len([line for line in said if "making the Python environment (3 packages) with uv" in line]) == 1, said
    assert len([line for line in said if "made it in" in line]) == 1


def test_one_that_was_left_half_made_is_made_again(client: millgrid.Client, tmp_path: Path) -> None:
    environment = millgrid.Env.of(ABSENT).with_variables({"XDG_CACHE_HOME": str(tmp_path)})
    names = os.uname()
    half = tmp_path / "millgrid" / "envs" / f"{environment.key()}-{names.nodename}-{names.machine}"
    (half / "bin").mkdir(parents=True)
    (half / "bin" / "python").symlink_to("/bin/false")
    assert call(client, humanized, 5, env=environment) == "5 4.12.3"
    assert (half / "made").exists()


def test_what_can_not_be_had_is_named(client: millgrid.Client, tmp_path: Path) -> None:
    environment = millgrid.Env.of(ABSENT, "tblib==0.0.77").with_variables({"XDG_CACHE_HOME": str(tmp_path)})
    with client.executor(env=environment) as executor:
        futures = [executor.submit(add, n) for n in range(4)]
        errors = [future.exception(90) for future in futures]
    for error in errors:
        assert isinstance(error, millgrid.EnvMismatch) and error.reason == "ENV_NOT_MADE"
        assert "`tblib==0.0.77` can't be had" in str(error) and "exclude=" in str(error)
    numbers = {future.job_id for future in futures}
    said = [line for n in numbers for line in client.job(n or 0).logs() if "making the Python environment" in line]
    assert len(said) == 1, "what failed a moment ago is not tried again for each task"


PROJECTS = {
    # Found through a hook of setuptools, and reads a file that lies beside its code.
    "alpha": """[build-system]\nrequires = ["setuptools>=68"]\nbuild-backend = "setuptools.build_meta"\n
[project]\nname = "alpha-of-tests"\nversion = "1.5"\n[tool.setuptools]\npackages = ["alpha"]\n""",
    # Found in a folder that is put on the path.
    "beta": """[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n
[project]\nname = "beta-of-tests"\nversion = "2.5"\n[tool.hatch.build.targets.wheel]\npackages = ["src/beta"]\n""",
}
CLIENT = """
import sys, pathlib, alpha, beta, millgrid
from millgrid._dev import DevClient, DevGrid
client = DevClient(DevGrid(sys.argv[1], pathlib.Path(sys.argv[2])))
keep = {"cloudpickle", "tblib", "alpha-of-tests", "beta-of-tests"}
import importlib.metadata as metadata
other = [d.metadata["Name"] for d in metadata.distributions() if d.metadata["Name"] not in keep]
env = millgrid.Env.current(exclude=set(other)).with_variables({"XDG_CACHE_HOME": sys.argv[3]})
with client.executor(env=env) as ex:
    print(*env.local, ex.submit(alpha.read).result(90), *ex.submit(beta.about).result(90))
"""


def test_editable_installs_are_sent_as_code(client: millgrid.DevClient, caches: dict[str, str], tmp_path: Path) -> None:
    alpha, beta, venv = tmp_path / "alpha", tmp_path / "beta", tmp_path / "venv"
    (alpha / "alpha").mkdir(parents=True)
    (alpha / "alpha" / "words.txt").write_text("data")
    (alpha / "alpha" / "__init__.py").write_text(
        "from pathlib import Path\ndef read():\n    return Path(__file__).with_name('words.txt').read_text()\n"
    )
    (alpha / "tests").mkdir()
    (beta / "src" / "beta").mkdir(parents=True)
    (beta / "src" / "beta" / "__init__.py").write_text(
        "import importlib.metadata\ndef about():\n    return importlib.metadata.version('beta-of-tests'), __file__\n"
    )
    for name, content in PROJECTS.items():
        (tmp_path / name / "pyproject.toml").write_text(content)
    environment = {**os.environ, "UV_SYSTEM_CERTS": "1"}
    subprocess.run([*UV, "venv", "-q", "--python", sys.executable, str(venv)], check=True, env=environment)
    python = str(venv / "bin" / "python")
    install = [*UV, "pip", "install", "-q", "--python", python, "-e", str(alpha), "-e", str(beta)]
    subprocess.run(install, check=True, env=environment)
    (site,) = (venv / "lib").glob("*/site-packages")
    ours = [str(path) for path in map(Path, sys.path) if path.name == "site-packages"]
    lines = [f"import site; site.addsitedir({folder!r})" for folder in ours]
    (site / "of_tests.pth").write_text("\n".join([*lines, str(Path(millgrid.__file__).parent.parent)]))
    arguments = [python, "-c", CLIENT, client.grid.program, str(client.grid.state), caches["XDG_CACHE_HOME"]]
    ended = subprocess.run(arguments, capture_output=True, text=True, timeout=120, env=environment, cwd=tmp_path / "venv")
    assert ended.returncode == 0, ended.stderr
    first, second, read, version, file = ended.stdout.split()
    assert (first, second, read, version) == ("alpha-of-tests", "beta-of-tests", "data", "2.5")
    assert file.endswith("/work/env/beta/__init__.py"), "of the task, and not of this machine"


def test_what_is_excluded_must_be_there_and_not_be_needed() -> None:
    with pytest.raises(millgrid.InvalidArgument, match="no package `nummpy`"):
        millgrid.Env.current(exclude=["nummpy"])
    with pytest.raises(millgrid.InvalidArgument, match="needed by every call"):
        millgrid.Env.current(exclude=["TBLIB"])
    environment = small()
    assert repr(environment) == f"<Env Python {sys.version_info[0]}.{sys.version_info[1]}, " + (
        f"{len(environment.pinned)} packages, and code of millgrid>"
    )


# The program that makes them, alone


def run_maker(folder: Path, lock: dict[str, Any], *bases: str, path: str = "/usr/bin:/bin") -> Any:
    """Runs it as a task does; what it is for is a file that says which Python it is."""
    (folder / "call.lock").write_text(json.dumps(lock))
    (folder / "maker.py").write_bytes(Path(maker.__file__).read_bytes())
    (folder / "call.py").write_text("import sys; print(sys.prefix)\n")
    environment = {**os.environ, "PATH": path, "MILLGRID_ENV_DIR": str(folder / "envs" / "one")}
    environment["MILLGRID_CALL_FILE"] = str(folder / "call.py")
    command = [bases[0] if bases else sys.executable, str(folder / "maker.py"), *bases]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


def lock_of(*pinned: str, python: str = "") -> dict[str, Any]:
    return {"python": python or json.loads(millgrid.Env.of().lock())["python"], "pinned": pinned, "requirements": []}


def test_without_uv_it_is_made_with_pip(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    ended = run_maker(tmp_path, lock_of("tblib==3.0.0"), str(bare / "bin" / "python"))
    assert ended.stdout == f"{tmp_path}/envs/one\n", ended.stderr
    assert "with pip" in ended.stderr
    refused = run_maker(tmp_path, lock_of(python="cpython 3.99"), str(bare / "bin" / "python"))
    assert refused.returncode == 0, "it is there"
    (tmp_path / "envs" / "one" / "made").unlink()
    refused = run_maker(tmp_path, lock_of(python="cpython 3.99"), str(bare / "bin" / "python"))
    assert refused.returncode == 127
    expected = "cpython 3.99 is not on this worker, nor is uv, which could get it"
    assert refused.stdout == f"* refused environment {expected}\n"


def test_a_python_that_uv_can_not_get_is_named(tmp_path: Path) -> None:
    uv = tmp_path / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text("#!/bin/sh\ntest $1 = --version || { echo no $4 for you; exit 2; }\n")
    uv.chmod(0o755)
    refused = run_maker(tmp_path, lock_of(python="cpython 3.99"), sys.executable, path=f"{uv.parent}:/usr/bin:/bin")
    expected = "cpython 3.99 is not on this worker, and uv can't get it: no cpython@3.99 for you"
    assert refused.stdout == f"* refused environment the Python environment can't be made: {expected}\n"


def test_what_was_not_used_for_two_weeks_is_removed(tmp_path: Path) -> None:
    envs = tmp_path / "envs"
    long_ago = time.time() - 15 * 86_400
    for name, used in (("old", long_ago), ("recent", time.time()), ("half", None)):
        (envs / name).mkdir(parents=True)
        if used is not None:
            (envs / name / "used").touch()
            os.utime(envs / name / "used", (used, used))
        os.utime(envs / name, (long_ago, long_ago))
    ended = run_maker(tmp_path, lock_of(), sys.executable)
    assert ended.returncode == 0, ended.stderr
    assert {path.name for path in envs.iterdir() if path.is_dir()} == {"one", "recent"}


def test_the_requirement_at_fault_is_found_in_what_installers_say() -> None:
    wanted = ["packaging==24.0", "six==1.0", "nosuch-thing==9.9", "local @ git+https://127.0.0.1/x@1"]
    for said, expected in (
        ("Because there is no version of six==1.0 and you require six==1.0", "six==1.0"),
        ("building packaging; because nosuch-thing was not found; nosuch-thing==9.9", "nosuch-thing==9.9"),
        ("ERROR: No matching distribution found for nosuch-thing", "nosuch-thing==9.9"),
        ("Failed to clone `local` (fetch)", "local @ git+https://127.0.0.1/x@1"),
        ("no route to host; sixty tries", None),
    ):
        assert maker.named(said, wanted) == expected


def test_code_of_an_environment_is_not_the_users_own() -> None:
    assert making.is_own_code(str(Path(__file__).parent)) and making.is_own_code("")
    for module in (pytest, json, importlib):
        assert not making.is_own_code(str(Path(str(module.__file__)).parent.parent)), module


# Environments that are there


def test_an_environment_is_named_by_its_path(client: millgrid.Client, tmp_path: Path) -> None:
    venv = tmp_path / "its venv"
    environment = {**os.environ, "UV_SYSTEM_CERTS": "1"}
    subprocess.run([*UV, "venv", "-q", "--python", sys.executable, str(venv)], check=True, env=environment)
    needed = [f"{name}=={importlib.metadata.version(name)}" for name in ("cloudpickle", "tblib")]
    install = [*UV, "pip", "install", "-q", "--python", str(venv / "bin" / "python"), *needed]
    subprocess.run(install, check=True, env=environment)
    there = millgrid.Env.venv(venv)
    assert call(client, lambda: __import__("sys").prefix, env=there) == str(venv)
    with pytest.raises(ModuleNotFoundError):
        call(client, lambda: importlib.import_module("numpy"), env=there)
    with pytest.raises(millgrid.EnvMismatch, match="/no/venv/bin/python"):
        call(client, add, 1, env=millgrid.Env.venv("/no/venv"))
    with pytest.raises(millgrid.InvalidArgument, match="not absolute"):
        millgrid.Env.venv("venv")
    with pytest.raises(millgrid.InvalidArgument, match="one of the two"):
        client.executor(env=there, python="/usr/bin/python3")


def test_variables_are_still_an_option(client: millgrid.Client) -> None:
    assert call(client, os.getenv, "A_NAME", env={"A_NAME": "its value"}) == "its value"
    assert call(client, os.getenv, "A_NAME", env=millgrid.Env().with_variables({"A_NAME": "more"})) == "more"


# What is refused before it is submitted


@pytest.fixture
def far(client: millgrid.DevClient) -> Iterator[millgrid.Client]:
    """A client that can't expect that its own files are on the workers."""
    settings = dataclasses.replace(client.grid.settings(), dev=False)
    other = millgrid.Client.__new__(millgrid.Client)
    other._setup(settings, 30.0, None)
    with contextlib.closing(other):
        yield other


def jobs_of(client: millgrid.Client) -> int:
    return client.jobs(all=True, limit=1)[0].id


def test_workers_say_which_pythons_they_have(far: millgrid.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    have = sorted({worker.labels["python"] for worker in far.workers()})
    assert len(have) == 1
    before = jobs_of(far)
    found = subprocess.run(["python3", "-c", "import sys; print(*sys.version_info[:2], sep='.')"], capture_output=True)
    assert found.stdout.decode().strip() in have[0].split(","), "what a task would find"
    monkeypatch.setattr(fit, "sys", types.SimpleNamespace(version_info=tuple(map(int, found.stdout.split(b".")))))
    fit.refuse_if_nowhere(far, millgrid.Env())
    monkeypatch.setattr(fit, "sys", types.SimpleNamespace(version_info=(3, 99)))
    asked: list[tuple[str, CallOptions]] = [
        ("Python 3.99, which the client is", {}),
        ("python3.98", {"python": "python3.98"}),
    ]
    for what, options in asked:
        with pytest.raises(millgrid.EnvMismatch) as raised:
            call(far, add, 1, **options)
        assert raised.value.message == f"no worker has {what}; they have: {have[0].replace(',', ', ')}"
        assert "Env.current()" in raised.value.hint and "python=" in raised.value.hint
        with pytest.raises(millgrid.EnvMismatch):
            millgrid.remote(client=far, **options)(add).map([1])
    assert jobs_of(far) == before, "nothing was submitted"
    assert call(far, add, 1, python=sys.executable) == 1, "a path may be there"


def test_where_it_can_not_be_known_nothing_is_refused(
    far: millgrid.Client, client: millgrid.DevClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "sys", types.SimpleNamespace(version_info=(3, 99)))
    assert isinstance(client, DevClient) and call(client, add, 1) == 1, "its own interpreter is there"
    (first, second) = far.workers()
    unlabelled = dataclasses.replace(second, labels={})
    for known in ([], [first, unlabelled]):
        monkeypatch.setattr(far, "_recent_workers", lambda seconds=0.0, known=known: known)
        fit.refuse_if_nowhere(far, millgrid.Env())
    newer = dataclasses.replace(second, labels={"python": "3.8,3.99"})
    seen = iter([[first], [first, newer]])
    monkeypatch.setattr(far, "_recent_workers", lambda seconds: next(seen))
    fit.refuse_if_nowhere(far, millgrid.Env())
    assert list(seen) == [], "one that came a moment ago was asked for"


# The fingerprint


@pytest.fixture
def versioned(tmp_path: Path) -> Iterator[Any]:
    """A module with a version, that travels along."""
    (tmp_path / "versioned.py").write_text("__version__ = '1.2.0'\ndef f(x=0):\n    return x\nclass C: pass\n")
    sys.path.insert(0, str(tmp_path))
    try:
        module = importlib.import_module("versioned")
        sys.path.remove(str(tmp_path))
        yield module
    finally:
        sys.modules.pop("versioned", None)


def test_another_major_version_of_a_module_is_refused(client: millgrid.Client, versioned: Any) -> None:
    versioned.__version__ = "2.0.1"
    expected = "the client's versioned is 2.0.1, this worker's is 1.2.0"
    with pytest.raises(millgrid.EnvMismatch, match=expected):
        call(client, versioned.f, ship=[versioned])
    with pytest.raises(millgrid.EnvMismatch, match=expected):
        call(client, str, versioned.C(), ship=[versioned])
    versioned.C.__qualname__ = "Gone"
    versioned.Gone = versioned.C
    with pytest.raises(millgrid.EnvMismatch, match=expected):
        call(client, str, versioned.Gone(), ship=[versioned])
    assert call(client, add, 1, ship=[versioned]) == 1, "it isn't used"


def test_another_minor_version_is_told(client: millgrid.Client, versioned: Any) -> None:
    versioned.__version__ = "1.3"
    with client.executor(ship=[versioned]) as executor:
        future = executor.submit(versioned.f, 7)
        assert future.result(60) == 7
        assert future.job_id is not None
    said = list(client.job(future.job_id).logs())
    assert said == ["millgrid: the client's versioned is 1.3, this worker's is 1.2.0\n"]


def test_versions_that_are_years_mean_nothing(client: millgrid.Client, versioned: Any) -> None:
    versioned.__version__ = "2026.1"
    assert call(client, versioned.f, 7, ship=[versioned]) == 7


def test_compiled_code_is_refused_on_another_kind_of_machine(
    client: millgrid.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "compiled"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "fast.so").write_bytes(b"\x7fELF")
    assert call(client, lambda: __import__("compiled").__file__, ship=[package]).endswith("/ship/compiled/__init__.py")
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(millgrid.EnvMismatch, match="compiled for Linux riscv64"):
        call(client, add, 1, ship=[package])
    assert call(client, add, 1) == 1
