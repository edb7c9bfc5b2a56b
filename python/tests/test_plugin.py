"""The fixture for users' own tests, in a session of pytest of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

TESTS = """
    import json, pathlib
    import millgrid

    @millgrid.remote
    def square(n):
        return n * n

    def test_a_call(millgrid_dev):
        assert square.submit(5).result(60) == 25, "it is the default grid"
        status = millgrid_dev.grid.status()
        pathlib.Path("grid.json").write_text(json.dumps([str(millgrid_dev.grid.state), status]))

    class TestMore:
        def test_the_same_grid(self, millgrid_dev):
            assert str(millgrid_dev.grid.state) == json.loads(pathlib.Path("grid.json").read_text())[0]
            assert millgrid_dev.submit(["true"]).wait(60).state == "succeeded"

    def test_a_failure(millgrid_dev):
        assert square.submit(2).result(60) == 5
"""


@pytest.mark.parametrize("asked", ["option", "variable"])
def test_one_grid_serves_a_session_and_is_gone_at_its_end(pytester: pytest.Pytester, asked: str) -> None:
    head = 'pytest_plugins = ["millgrid.pytest_plugin"]' if asked == "variable" else ""
    pytester.makeconftest(head)
    pytester.makepyfile(TESTS)
    options = ["-p", "millgrid.pytest_plugin"] if asked == "option" else []
    ran = pytester.runpytest_subprocess("-p", "no:cacheprovider", *options)
    ran.assert_outcomes(passed=2, failed=1)
    state, status = json.loads((pytester.path / "grid.json").read_text())
    assert not Path(state).exists()
    pids = [process["pid"] for process in status["processes"]]
    assert len(pids) >= 6 and not [pid for pid in pids if _is_of(pid, state)]


def _is_of(pid: int, state: str) -> bool:
    try:
        return state.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_without_the_command_the_fixture_says_so(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLGRID_PROGRAM", "/no/such/millgrid")
    pytester.makepyfile("def test_it(millgrid_dev): pass")
    ran = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "millgrid.pytest_plugin")
    ran.assert_outcomes(errors=1)
    ran.stdout.fnmatch_lines(["*ConfigurationError: the command `/no/such/millgrid` is not there*"])
