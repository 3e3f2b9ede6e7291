"""trigger/machine.py: which timers and crontab lines run the tick, for which places and with which Python."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from health_kit import Programs

from bub_cron.paths import Paths, find_paths
from bub_cron.trigger import crontabs, machine
from bub_cron.trigger.machine import find_triggers

ODD = "/srv/bub/a b%h \"q\" 'r' \\$d"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    return Programs(tmp_path, monkeypatch)


@pytest.fixture
def crond(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process with the name of the only cron daemon that counts."""
    monkeypatch.setattr(machine, "_CRONS", frozenset({"bub-test-crond"}))
    shutil.copy("/bin/sleep", tmp_path / "bub-test-crond")
    process = subprocess.Popen([tmp_path / "bub-test-crond", "600"])
    while not machine.cron_runs():  # it has its name once it is started
        time.sleep(0.01)
    yield
    process.kill()
    process.wait()


@pytest.fixture
def no_crond(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_CRONS", frozenset[str]())


def tab_of(line: str) -> str:
    return f"* * * * * {line}\n"


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
    assert (found.what, found.manager, found.is_active, found.python, found.account) == (
        what, manager, True, sys.executable, account,
    )  # fmt: skip
    assert found.serves(places())
    assert not found.serves(places("/srv/other"))
    assert not found.serves(find_paths({"BUB_HOME": "/srv/bub"}, socket="/run/x.sock"))


def test_a_timer_that_is_off_and_a_tick_that_failed(programs: Programs) -> None:
    programs.timer(places(), active="inactive", StatusText="no gateway")
    [found] = find_triggers()
    assert (found.is_active, found.why_inactive, found.failure) == (False, "your bub-cron.timer is off (inactive)", "")
    assert found.remedy == "systemctl --user enable --now bub-cron.timer"
    programs.timer(places(), **{"ActiveState": "failed", "StatusText": "no gateway = none"})
    [found] = find_triggers()
    assert (found.is_active, found.failure) == (True, "no gateway = none")


def test_a_timer_that_systemd_refuses_is_off(programs: Programs) -> None:
    programs.unit("user", "bub-cron.timer", LoadState="bad-setting", ActiveState="inactive")
    [found] = find_triggers()
    assert (found.is_active, found.python) == (False, None)


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
    programs.tab("MAILTO=me\n" + crontabs.crontab_entry(sys.executable, paths))
    [found] = find_triggers()
    assert (found.what, found.manager, found.is_active, found.python) == (
        "your crontab",
        "crontab",
        True,
        sys.executable,
    )
    assert found.serves(paths)


@pytest.mark.usefixtures("no_crond")
def test_a_line_by_hand(programs: Programs, tmp_path: Path) -> None:
    script = tmp_path / "bin" / "bub-cron"
    script.parent.mkdir()
    script.write_text("#!/opt/bub/bin/python3.12\n")
    programs.tab(f"# a comment: bub-cron tick\nBUB_HOME = '/srv/bub'\n@daily true\n*/5 * * * * cd /; {script} tick\n")
    [found] = find_triggers()
    assert (found.python, found.is_active) == ("/opt/bub/bin/python3.12", False)
    assert found.serves(places())
    assert found.why_inactive == "your crontab has the tick, but no cron daemon is seen to run"


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
    assert not find_triggers()[0].is_active
    programs.active("system", "cron.target")  # systemd-cron makes timers of crontabs
    assert find_triggers()[0].is_active


def test_all_that_there_is_is_found(programs: Programs) -> None:
    programs.timer(places())
    programs.timer(places("/srv/other"), "system")
    programs.tab(programs.tab_line(places()) * 2)
    assert [found.manager for found in find_triggers()] == ["user", "system", "crontab", "crontab"]


# --- Whose places, by which words


def test_a_home_behind_a_link_is_the_same_home(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    programs.timer(places(f"{tmp_path}/link"))
    [found] = find_triggers()
    assert found.serves(places(f"{tmp_path}/real"))


@pytest.mark.parametrize("flag", ["--state /srv/state", "--state=/srv/state"])
def test_the_flags_of_a_crontab_line_and_of_a_unit_count(programs: Programs, flag: str) -> None:
    wanted = find_paths({"BUB_HOME": "/srv/bub"}, state="/srv/state")
    programs.tab(tab_of(f"BUB_HOME=/srv/bub /opt/bin/bub-cron {flag} tick"))
    started = f"{{ path=/opt/python ; argv[]=/opt/python -m bub_cron tick {flag} ; ignore_errors=no }}"
    programs.timer(places(), ExecStart=started)
    for found in find_triggers():
        assert found.serves(wanted)
        assert not found.serves(places())


@pytest.mark.parametrize(
    "line",
    ["BUB_HOME=$HOME/here bub-cron tick", 'BUB_HOME="${HOME}/here" bub-cron tick', "BUB_HOME=~/here bub-cron tick"],
)
def test_a_home_that_the_shell_puts_in_is_put_in(programs: Programs, tmp_path: Path, line: str) -> None:
    programs.tab(tab_of(line))
    [found] = find_triggers()
    assert found.serves(places(f"{tmp_path}/here"))


def test_what_stands_in_single_quotes_or_in_a_line_of_its_own_no_shell_sees(programs: Programs, tmp_path: Path) -> None:
    programs.tab(tab_of("BUB_HOME='/srv/$HOME' bub-cron tick") + f"BUB_HOME=$HOME/x\n{tab_of('bub-cron tick')}")
    quoted, own_line = find_triggers()
    assert quoted.places.home == "/srv/$HOME"
    assert own_line.places.home == f"{tmp_path}/$HOME/x", "cron starts it in the home"


def test_an_assignment_of_a_crontab_counts_for_the_lines_below_it(programs: Programs) -> None:
    programs.tab(f"{tab_of('bub-cron tick')}BUB_HOME=/srv/bub\nTZ=Asia/Tokyo\n{tab_of('bub-cron tick')}")
    above, below = find_triggers()
    assert not above.serves(places())
    assert below.serves(places())
    assert (above.environment.get("TZ"), below.environment["TZ"]) == (None, "Asia/Tokyo")


@pytest.mark.usefixtures("crond")
def test_our_entry_that_was_commented_out_is_there_and_not_active(programs: Programs) -> None:
    entry = crontabs.crontab_entry(sys.executable, places())
    programs.tab(entry.replace("\n* *", "\n# * *"))
    [found] = find_triggers()
    assert (found.is_active, found.serves(places())) == (False, True)
    assert found.why_inactive == "the entry that `install` made in your crontab is commented out"
    assert found.remedy.startswith("crontab -e ")


@pytest.mark.usefixtures("crond")
def test_the_lines_of_etc_cron_d(programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "cron.d"
    directory.mkdir()
    (directory / "bub").write_text("* * * * * daemon /opt/bub-cron tick\n")
    (directory / "bub.dpkg-old").write_text("* * * * * daemon /opt/bub-cron tick\n")
    monkeypatch.setattr(machine, "SYSTEM_TABS", (f"{directory}/*",))
    [found] = find_triggers()
    assert (found.what, found.manager, found.account) == (f"{directory}/bub", "cron.d", "daemon")
    assert found.places.home == "/usr/sbin/.bub"


def test_a_timer_with_a_name_is_found(programs: Programs, tmp_path: Path) -> None:
    directory = tmp_path / ".config" / "systemd" / "user"
    directory.mkdir(parents=True)
    (directory / "bub-cron-second.timer").touch()
    (directory / "bub-cron-metrics.timer").touch()
    started = "{ path=/usr/bin/env ; argv[]=/usr/bin/env bub-cron tick ; ignore_errors=no }"
    programs.unit("user", "bub-cron-metrics.timer", ActiveState="active")
    programs.unit("user", "bub-cron-metrics.service", ExecStart=started.replace("tick", "metrics"))
    programs.unit("user", "bub-cron-second.timer", ActiveState="active")
    programs.unit("user", "bub-cron-second.service", Environment="BUB_HOME=/srv/bub", ExecStart=started)
    [found] = find_triggers()
    assert (found.what, found.is_active) == ("your bub-cron-second.timer", True)
    assert found.serves(places())
