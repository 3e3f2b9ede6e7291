"""health/triggers.py: which timers and crontab lines run the tick, for which places and with which Python."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from health_kit import Programs

from bub_cron.health import triggers
from bub_cron.health.triggers import find_triggers
from bub_cron.paths import Paths, find_paths
from bub_cron.trigger import units

ODD = "/srv/bub/a b%h \"q\" 'r' \\$d"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    return Programs(tmp_path, monkeypatch)


@pytest.fixture
def crond(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process with the name of the only cron daemon that counts."""
    monkeypatch.setattr(triggers, "_CRONS", frozenset({"bub-test-crond"}))
    shutil.copy("/bin/sleep", tmp_path / "bub-test-crond")
    process = subprocess.Popen([tmp_path / "bub-test-crond", "600"])
    while not triggers._cron_runs():  # it has its name once it is started
        time.sleep(0.01)
    yield
    process.kill()
    process.wait()


@pytest.fixture
def no_crond(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triggers, "_CRONS", frozenset[str]())


def places(home: str = "/srv/bub") -> Paths:
    return find_paths({"BUB_HOME": home})


def test_where_nothing_is_set_up_there_is_none(programs: Programs) -> None:
    assert find_triggers() == []


def test_without_systemctl_and_crontab_there_is_none(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert find_triggers() == []


@pytest.mark.parametrize(
    ("manager", "what", "account"),
    [("user", "your bub-cron.timer", ""), ("system", "the system's bub-cron.timer", "root")],
)
def test_a_timer(programs: Programs, manager: str, what: str, account: str) -> None:
    programs.timer(places(), manager)
    [found] = find_triggers()
    assert (found.what, found.manager, found.runs, found.python, found.account) == (
        what, manager, True, sys.executable, account,
    )  # fmt: skip
    assert found.serves(places())
    assert not found.serves(places("/srv/other"))
    assert not found.serves(find_paths({"BUB_HOME": "/srv/bub"}, socket="/run/x.sock"))


def test_a_timer_that_is_off_and_a_tick_that_failed(programs: Programs) -> None:
    programs.timer(places(), active="inactive", StatusText="no gateway")
    [found] = find_triggers()
    assert (found.runs, found.off, found.failure) == (False, "your bub-cron.timer is off (inactive)", "")
    assert found.mend == "systemctl --user enable --now bub-cron.timer"
    programs.timer(places(), **{"ActiveState": "failed", "StatusText": "no gateway = none"})
    [found] = find_triggers()
    assert (found.runs, found.failure) == (True, "no gateway = none")


def test_a_timer_that_systemd_refuses_is_off(programs: Programs) -> None:
    programs.unit("user", "bub-cron.timer", LoadState="bad-setting", ActiveState="inactive")
    [found] = find_triggers()
    assert (found.runs, found.python) == (False, None)


def test_the_paths_are_read_back_however_odd_they_are(programs: Programs) -> None:
    paths = places(ODD)
    programs.timer(paths)
    [found] = find_triggers()
    assert found.serves(paths)


def test_a_system_service_that_names_no_home_has_its_users(programs: Programs) -> None:
    programs.timer(places(), "system", Environment="PATH=/bin", User="daemon")
    [found] = find_triggers()
    assert (found.account, found.places.home) == ("daemon", "/usr/sbin/.bub")
    programs.timer(places(), "system", Environment="", User="nosuchuserhere")
    [found] = find_triggers()
    assert found.places.home == "/.bub"


@pytest.mark.usefixtures("crond")
@pytest.mark.parametrize("home", ["/srv/bub", ODD])
def test_the_crontab_entry_of_install(programs: Programs, home: str) -> None:
    paths = places(home)
    programs.tab("MAILTO=me\n" + units.crontab_entry(sys.executable, paths))
    [found] = find_triggers()
    assert (found.what, found.manager, found.runs, found.python) == ("your crontab", "crontab", True, sys.executable)
    assert found.serves(paths)


@pytest.mark.usefixtures("no_crond")
def test_a_line_by_hand(programs: Programs, tmp_path: Path) -> None:
    script = tmp_path / "bin" / "bub-cron"
    script.parent.mkdir()
    script.write_text("#!/opt/bub/bin/python3.12\n")
    programs.tab(f"# a comment: bub-cron tick\nBUB_HOME = '/srv/bub'\n@daily true\n*/5 * * * * cd /; {script} tick\n")
    [found] = find_triggers()
    assert (found.python, found.runs) == ("/opt/bub/bin/python3.12", False)
    assert found.serves(places())
    assert found.off == "your crontab has the tick, but no cron daemon is seen to run"


@pytest.mark.parametrize(
    "line",
    [
        "* * * * * BUB_HOME='/srv/bub bub-cron tick",  # quotes that don't close
        "* * * * * bub-cron tick",
        "* * * * * /nowhere/bub-cron tick",
        "* * * * * /bin/sh /usr/local/bub-cron.sh bub-cron tick",
    ],
)
def test_what_a_line_does_not_tell_is_left_open(programs: Programs, line: str) -> None:
    programs.tab(f"{line}\n")
    [found] = find_triggers()
    assert found.python is None
    assert found.serves(find_paths())


@pytest.mark.usefixtures("no_crond")
def test_cron_without_a_daemon(programs: Programs) -> None:
    programs.tab(programs.tab_line(places()))
    assert not find_triggers()[0].runs
    programs.active("system", "cron.target")  # systemd-cron makes timers of crontabs
    assert find_triggers()[0].runs


def test_all_that_there_is_is_found(programs: Programs) -> None:
    programs.timer(places())
    programs.timer(places("/srv/other"), "system")
    programs.tab(programs.tab_line(places()) * 2)
    assert [found.manager for found in find_triggers()] == ["user", "system", "crontab", "crontab"]
