"""What pip makes of the repository: the package, and the programs as a wheel of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

import pytest

from conftest import PORTS
from millgrid import _dev

PACKAGE = Path(__file__).resolve().parent.parent
PROGRAMS = {"millgrid", "millgrid-coordinator", "millgrid-worker"}


def run(*words: str | Path, env: dict[str, str] | None = None) -> str:
    """What a program prints; fails with all that it said if it does."""
    words = tuple(map(str, words))
    ended = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=240, env=env)
    assert ended.returncode == 0, f"{' '.join(map(str, words))}: {ended.stdout}"
    return ended.stdout


def pip_wheel(into: Path, what: Path, **env: str) -> Path:
    """The wheel that pip builds."""
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--wheel-dir", into, what, env={**os.environ, **env})
    (wheel,) = into.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pip_wheel(tmp_path_factory.mktemp("package"), PACKAGE)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(_dev.find_program()).resolve().parent
    return pip_wheel(tmp_path_factory.mktemp("programs"), PACKAGE / "programs", MILLGRID_BINARIES=str(folder))


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_has_the_package_and_nothing_else(package: Path) -> None:
    assert re.fullmatch(r"millgrid-[\d.]+-py3-none-any\.whl", package.name)
    names = contents(package).keys()
    modules = {path.relative_to(PACKAGE / "src").as_posix() for path in PACKAGE.glob("src/**/*.py")}
    assert len(modules) > 20 and modules <= names
    protos = {path.stem for path in (PACKAGE.parent / "proto/proto/millgrid/v1").glob("*.proto")}
    generated = {f"millgrid/_generated/{name}_pb2{end}" for name in protos for end in (".py", ".pyi")}
    assert len(generated) > 6 and generated <= names
    assert "millgrid/py.typed" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"millgrid", "snakemake_executor_plugin_millgrid"}


def test_a_source_distribution_makes_the_same_wheel(package: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--sdist", "--outdir", tmp_path, PACKAGE)
    (source,) = tmp_path.glob("*.tar.gz")
    assert contents(pip_wheel(tmp_path / "wheel", source)) == contents(package)


def test_the_wheel_of_the_programs_says_which_machines_they_run_on(programs: Path) -> None:
    assert re.fullmatch(r"millgrid_bin-[\d.]+-py3-none-manylinux_2_\d+_(x86_64|aarch64)\.whl", programs.name)
    with zipfile.ZipFile(programs) as archive:
        scripts = [entry for entry in archive.infolist() if ".data/scripts/" in entry.filename]
        assert {Path(entry.filename).name for entry in scripts} == PROGRAMS
        assert all(entry.external_attr >> 16 & 0o111 for entry in scripts)


def test_without_the_programs_their_wheel_says_how_to_build_them(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="cargo xtask wheel"):
        pip_wheel(tmp_path, PACKAGE / "programs", MILLGRID_BINARIES=str(tmp_path))


def test_the_wheels_have_the_version_of_the_programs() -> None:
    files = (PACKAGE / "pyproject.toml", PACKAGE / "programs/pyproject.toml", PACKAGE.parent / "Cargo.toml")
    found = [re.findall(r'^version = "(.+)"$', file.read_text(), re.M) for file in files]
    assert found[0] == found[1] == found[2] and len(found[0]) == 1


def test_both_wheels_alone_give_a_grid(package: Path, programs: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    bin = tmp_path / "venv/bin"
    run(bin / "python", "-m", "pip", "--quiet", "--disable-pip-version-check", "install", package, programs)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MILLGRID_", "PYTHON"))}
    env["PATH"] = f"{bin}:/usr/bin:/bin"
    with tempfile.TemporaryDirectory(prefix="millgrid-wheel-") as state:
        options = ("--state", state)
        try:
            run("env", "millgrid", "dev", "--workers", "1", "--port-base", str(PORTS + 200), "--detach", *options, env=env)
            script = f'eval "$(millgrid dev env --state {state})" && millgrid run -- echo from a wheel'
            assert run("env", "sh", "-c", script, env=env).splitlines()[-1] == "from a wheel"
        finally:
            run("env", "millgrid", "dev", "down", *options, env=env)
    program, *rest = run(bin / "python", PACKAGE / "tests/smoke.py", str(PORTS + 200), env=env).splitlines()
    assert Path(program).parent == bin and rest == ["1024", "hello"]
