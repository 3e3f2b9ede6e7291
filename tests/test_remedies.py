"""trigger/remedies.py: what is to be typed works as it stands, for these places and as the right user."""

from __future__ import annotations

from pathlib import Path

import pytest
from health_kit import Programs

from bub_cron.paths import Paths, find_paths
from bub_cron.trigger import remedies
from bub_cron.trigger.remedies import command_line


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    return Programs(tmp_path, monkeypatch)


def places(home: str) -> Paths:
    return find_paths({"BUB_HOME": home})


def test_a_remedy_says_what_the_environment_does_not(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command_line(find_paths(), "tick") == "bub-cron tick"
    assert command_line(places("/srv/a b"), "log", "x y") == "BUB_HOME='/srv/a b' bub-cron log 'x y'"
    paths = find_paths(file="/srv/r.yaml", state="/srv/state", socket="/run/s")
    assert command_line(paths, "tick") == "bub-cron tick --file /srv/r.yaml --state /srv/state --socket /run/s"
    monkeypatch.setenv("BUB_HOME", "/srv/bub")
    monkeypatch.setenv("BUB_CRON_STATE", "/srv/state")
    assert command_line(find_paths(), "tick") == "bub-cron tick"
    assert remedies.gateway_line(paths := find_paths(file="/x")) == "BUB_CRON_FILE=/x bub gateway"
    assert command_line(paths, "tick") == "bub-cron tick --file /x"


def test_a_remedy_for_another_user_takes_the_paths_through_sudo(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remedies, "_SUDO_PATH", str(tmp_path))
    (tmp_path / "bub-cron").touch(mode=0o755)
    monkeypatch.setenv("BUB_HOME", "/srv/bub")
    daemon = "sudo -u daemon env BUB_HOME=/srv/bub bub-cron status"
    assert command_line(find_paths(), "status", uid=1) == daemon
    assert command_line(places("/usr/sbin/.bub"), "status", uid=1) == "sudo -u daemon bub-cron status"
    assert command_line(find_paths(), "status", uid=7001) == daemon.replace("daemon", "'#7001'")


@pytest.mark.parametrize(
    ("came", "expected"),
    [
        ('{"url": "file:///srv/bub%20cron", "dir_info": {}}', "/srv/bub cron"),
        ('{"url": "https://x.org/b.git", "vcs_info": {"vcs": "git", "commit_id": "a1"}}', "git+https://x.org/b.git@a1"),
        ('{"url": "https://x.org/b.whl", "archive_info": {}}', "https://x.org/b.whl"),
        (None, "bub-cron"),
    ],
)
def test_it_is_installed_from_where_it_came_from(
    monkeypatch: pytest.MonkeyPatch, came: str | None, expected: str
) -> None:
    monkeypatch.setattr("importlib.metadata.Distribution.read_text", lambda *_: came, raising=False)
    monkeypatch.setattr("importlib.metadata.PathDistribution.read_text", lambda *_: came)
    assert remedies.installed_from() == expected
