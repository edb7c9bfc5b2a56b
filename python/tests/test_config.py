"""Which grid is chosen, without one."""

from __future__ import annotations

from pathlib import Path

import pytest

from millgrid import ConfigurationError
from millgrid._config import Settings, load

LAB = "current = 'lab'\n[context.lab]\nendpoints = ['https://lab:7070']\nca = 'x.pem'\ncert = 'x.pem'\nkey = 'x.pem'\n"
DEV = "[context.dev]\nendpoints = ['https://127.0.0.1:7070']\nca = 'x.pem'\ncert = 'x.pem'\nkey = 'x.pem'\nqueue = 'q'\n"


def settings(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch, project: str = "", **environ: str) -> Settings:
    home = folder / "home"
    (home / ".config/millgrid").mkdir(parents=True, exist_ok=True)
    (home / ".config/millgrid/config.toml").write_text(text)
    (home / ".config/millgrid/x.pem").write_text("pem")
    work = folder / "work"
    work.mkdir()
    (work / "x.pem").write_text("project")
    if project:
        (work / ".millgrid.toml").write_text(project)
    monkeypatch.chdir(work)
    return load(environ={"HOME": str(home), **environ})


def test_the_context_dev_is_used_when_no_other_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(tmp_path, DEV, monkeypatch)
    assert (found.endpoints, found.queue, found.dev, found.ca) == (("https://127.0.0.1:7070",), "q", True, b"pem")


def test_the_project_wins_over_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(tmp_path, DEV, monkeypatch, LAB)
    assert (found.endpoints, found.dev, found.ca) == (("https://lab:7070",), False, b"project")


def test_the_environment_wins_over_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(tmp_path, LAB, monkeypatch, MILLGRID_ENDPOINT="https://a:1, https://b:2")
    assert (found.endpoints, found.dev) == (("https://a:1", "https://b:2"), False)


@pytest.mark.parametrize(
    ("text", "environ", "message"),
    [
        ("", {}, "no grid is chosen"),
        (LAB, {"MILLGRID_CONTEXT": "x"}, "there is no context `x`"),
        (LAB.replace("endpoints", "endpoint"), {}, "config.toml:3: unknown field `endpoint`"),
        ("current = ", {}, "config.toml"),
        (LAB.replace("https://lab", "http://lab"), {}, "not an https URL"),
        (LAB.replace("ca = 'x.pem'", "ca = 'y.pem'"), {}, "can't read `ca`"),
        ("", {"MILLGRID_ENDPOINT": "https://a:1"}, "no `ca` is given"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, environ: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        settings(tmp_path, text, monkeypatch, "", **environ)
    assert message in str(raised.value)


def test_a_stopped_dev_grid_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As `millgrid dev` writes it: its authority lies in its state directory.
    (tmp_path / "home/.config/ca").mkdir(parents=True)
    (tmp_path / "home/.config/ca/ca.pem").write_text("pem")
    (tmp_path / "home/.config/dev.json").write_text('{"stopped": true}')
    with pytest.raises(ConfigurationError, match="is stopped"):
        settings(tmp_path, DEV.replace("ca = 'x.pem'", "ca = '../ca/ca.pem'"), monkeypatch)
    (tmp_path / "home/.config/dev.json").write_text('{"stopped": false}')
    assert load(environ={"HOME": str(tmp_path / "home")}).dev
