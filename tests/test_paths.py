"""paths.py: the same four variables and three flags lead both sides to the same places."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bub_cron.cli import commands
from bub_cron.paths import chat_file, drop_ins, find_paths, make_private_directory

HOME = os.path.expanduser("~")


def found(environ: dict[str, str], **flags: Any) -> tuple[str, str, str, str]:
    paths = find_paths(environ, **flags)
    return paths.file, paths.state, paths.socket, paths.home


@pytest.mark.parametrize(
    ("environ", "flags", "places"),
    [
        ({}, {}, (f"{HOME}/.bub/reminders.yaml", f"{HOME}/.bub/cron", f"{HOME}/.bub/cron/cron.sock", f"{HOME}/.bub")),
        ({"BUB_HOME": "/b"}, {}, ("/b/reminders.yaml", "/b/cron", "/b/cron/cron.sock", "/b")),
        ({"BUB_HOME": ""}, {}, (f"{HOME}/.bub/reminders.yaml", f"{HOME}/.bub/cron", f"{HOME}/.bub/cron/cron.sock", f"{HOME}/.bub")),
        ({"BUB_HOME": "~/b"}, {}, (f"{HOME}/b/reminders.yaml", f"{HOME}/b/cron", f"{HOME}/b/cron/cron.sock", f"{HOME}/b")),
        (
            {"BUB_HOME": "/b", "BUB_CRON_FILE": "/f.yaml", "BUB_CRON_STATE": "/s", "BUB_CRON_SOCKET": "/k.sock"},
            {},
            ("/f.yaml", "/s", "/k.sock", "/b"),
        ),
        (
            {"BUB_HOME": "/b", "BUB_CRON_FILE": "", "BUB_CRON_STATE": "", "BUB_CRON_SOCKET": ""},
            {},
            ("/b/reminders.yaml", "/b/cron", "/b/cron/cron.sock", "/b"),
        ),
        (
            {"BUB_HOME": "/b", "BUB_CRON_FILE": "/f.yaml", "BUB_CRON_STATE": "/s", "BUB_CRON_SOCKET": "/k.sock"},
            {"file": "/F", "state": "/S", "socket": "/K"},
            ("/F", "/S", "/K", "/b"),
        ),
        ({"BUB_HOME": "/b", "BUB_CRON_FILE": "/f.yaml"}, {"file": ""}, ("/f.yaml", "/b/cron", "/b/cron/cron.sock", "/b")),
        ({"BUB_HOME": "/b", "BUB_CRON_STATE": "/s"}, {}, ("/b/reminders.yaml", "/s", "/b/cron/cron.sock", "/b")),
        ({"BUB_HOME": "/b/../c//"}, {"file": "~/x"}, (f"{HOME}/x", "/c/cron", "/c/cron/cron.sock", "/c")),
    ],
)  # fmt: skip
def test_a_flag_wins_over_its_variable_and_that_over_the_default(
    environ: dict[str, str], flags: dict[str, str], places: tuple[str, str, str, str]
) -> None:
    assert found(environ, **flags) == places


def test_relative_paths_start_at_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert found({"BUB_HOME": "b"}, file="f.yaml")[0] == str(tmp_path / "f.yaml")
    assert found({"BUB_HOME": "b"})[1] == str(tmp_path / "b" / "cron")


def test_the_environment_is_asked_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUB_HOME", "/elsewhere")
    assert find_paths().home == "/elsewhere"


def test_the_stores_stand_in_the_state_directory() -> None:
    paths = find_paths({"BUB_CRON_STATE": "/s"})
    assert (paths.ledger, paths.inbox) == ("/s/ledger.db", "/s/inbox.db")


@pytest.fixture(params=[0o000, 0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_the_directory_is_private_whatever_the_umask(tmp_path: Path) -> None:
    make_private_directory(str(tmp_path / "a" / "b"))
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700


def test_a_directory_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    make_private_directory(str(tmp_path))
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o750


def test_a_file_in_the_way_is_an_error_and_stays(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    with pytest.raises(FileExistsError):
        make_private_directory(str(tmp_path / "a"))
    with pytest.raises(OSError, match="a"):
        make_private_directory(str(tmp_path / "a" / "b"))
    assert (tmp_path / "a").read_text() == "mine"


def test_the_gateways_file_is_a_drop_in(tmp_path: Path) -> None:
    file = str(tmp_path / "reminders.yaml")
    path = Path(chat_file(file))
    path.parent.mkdir()
    path.write_text("")
    assert drop_ins(file) == [str(path)]


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077, 0o777])
def test_init_under_any_umask_writes_a_file_that_check_accepts(tmp_path: Path, umask: int) -> None:
    environment = {"BUB_HOME": str(tmp_path / "a" / "bub"), "BUB_CRON_FILE": ""}
    before = os.umask(umask)
    try:
        done = CliRunner().invoke(commands, ["init"], env=environment)
    finally:
        os.umask(before)
    assert done.exit_code == 0, done.output
    for path, owner in ((tmp_path / "a" / "bub" / "reminders.yaml", 0o600), (tmp_path / "a" / "bub", 0o700)):
        mode = path.stat().st_mode
        assert mode & owner == owner, "its owner can use it"
        assert not mode & 0o022, "nobody else can change it"
    done = CliRunner().invoke(commands, ["check"], env=environment)
    assert (done.exit_code, "warning" in done.output) == (0, False), done.output
