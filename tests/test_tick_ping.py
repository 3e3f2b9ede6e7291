"""`install --ping`: the line in the unit and in the crontab tells a real HTTP server how each tick ended."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from monitor_kit import Monitor, listening
from test_install import Server, server  # noqa: F401 - a fixture
from test_units import PATHS, PYTHON, systemd_words, values

from bub_cron.paths import find_paths
from bub_cron.trigger import crontabs, units
from bub_cron.trigger.units import SERVICE, SYSTEM, USER, TickPing

ADDRESS = "https://hc-ping.com/secret-uuid"
CURL = "/usr/bin/curl"


@pytest.fixture
def monitor() -> Iterator[str]:
    with listening() as address:
        yield address


PROGRAMS = [pytest.param(CURL, marks=pytest.mark.skipif(not os.path.exists(CURL), reason="no curl")), sys.executable]
ENDS = [("exited", "0", "/secret-uuid/0"), ("exited", "69", "/secret-uuid/69"), ("killed", "TERM", "/secret-uuid/fail")]


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(("code", "status", "path"), ENDS)
def test_the_units_line_posts_the_exit_status(monitor: str, program: str, code: str, status: str, path: str) -> None:
    service = units.unit_files(USER, units.baked(PYTHON, PATHS, ping=TickPing(monitor, program)))[SERVICE]
    [line] = values(service, "ExecStopPost")
    words = [word.replace("$$", "$") for word in systemd_words(line.removeprefix("-"))]
    environment = dict(word.split("=", 1) for value in values(service, "Environment") for word in systemd_words(value))
    done = subprocess.run(
        words,
        env={**environment, "EXIT_CODE": code, "EXIT_STATUS": status},
        capture_output=True,
        check=True,
        timeout=30,
    )
    assert (done.stdout, done.stderr) == (b"", b"")
    assert [post.path for post in Monitor.got] == [path]
    assert "secret-uuid" not in " ".join(words)


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(("ends", "path"), [("exit 0", "/secret-uuid/0"), ("exit 69", "/secret-uuid/69")])
def test_the_crontabs_line_posts_the_exit_status(monitor: str, program: str, ends: str, path: str) -> None:
    entry = crontabs.crontab_entry(PYTHON, PATHS, TickPing(monitor, program))
    _, assignment, line = entry.splitlines()
    name, _, address = assignment.partition("=")
    command = line.removeprefix("* * * * * ")
    assert "secret-uuid" not in command, "cron logs it"
    # In the place of the tick, what ends as it does.
    tick = command[command.index("/usr/bin/env") :]
    command = command.replace(tick, f"/bin/sh -c '{ends}'")
    done = subprocess.run(["sh", "-c", command], env={name: address}, capture_output=True, check=False, timeout=30)
    assert (done.stdout, done.stderr) == (b"", b"")
    assert [post.path for post in Monitor.got] == [path]


def test_a_monitor_that_is_not_there_is_nothing_to_the_tick() -> None:
    entry = crontabs.crontab_entry(sys.executable, PATHS, TickPing("http://127.0.0.1:9/secret-uuid", CURL))
    _, assignment, line = entry.splitlines()
    command = line.removeprefix("* * * * * ").replace("bub_cron tick", "this")
    done = subprocess.run(["sh", "-c", command], env=dict([assignment.split("=")]), capture_output=True, timeout=30)
    assert b"secret-uuid" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "bad", ["hc-ping.com/x", "ftp://x/y", "https://x/y?create=1", "https://x/$(reboot)", "https://x/'"]
)
def test_an_address_that_a_line_could_not_hold_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match=r"may have|must be"):
        units.check_ping(bad)


def test_the_address_is_found_again() -> None:
    ping = TickPing("https://hc-ping.com/a%20b", CURL)
    for text in (
        units.unit_files(SYSTEM, units.baked(PYTHON, PATHS, "bub", ping))[SERVICE],
        crontabs.crontab_entry(PYTHON, PATHS, ping),
    ):
        assert units.ping_of(text) == ping.address
    assert units.ping_of(crontabs.crontab_entry(PYTHON, PATHS)) is None


def test_without_a_ping_nothing_runs_after_the_tick() -> None:
    assert "ExecStopPost" not in units.unit_files(USER, units.baked(PYTHON, PATHS))[SERVICE]


def test_an_entry_with_an_address_is_one_entry() -> None:
    ping = TickPing(ADDRESS, CURL)
    entry = crontabs.crontab_entry(PYTHON, PATHS, ping)
    tab = crontabs.with_entry("MAILTO=me\n", entry)
    [found] = crontabs.entries(tab)
    assert found.text == entry
    assert units.is_as_written(found.text)
    assert crontabs.foreign_ticks(tab) == []
    assert crontabs.with_entry(tab, crontabs.crontab_entry(PYTHON, PATHS)) == "MAILTO=me\n" + crontabs.crontab_entry(
        PYTHON, PATHS
    )
    assert crontabs.without(tab, [found]) == "MAILTO=me\n"
    # Of an entry whose last line somebody took out, the address goes with the mark or stays: no line of others goes.
    assert crontabs.entries("\n".join([*entry.splitlines()[:2], "0 1 * * * other", ""]))[0].text.count("\n") == 1


# --- As commands


def test_install_shows_keeps_and_takes_away_the_address(server: Server) -> None:  # noqa: F811
    shown = server.run("install", "--crontab", "--ping", ADDRESS, "--dry-run").stdout
    assert f"BUB_CRON_TICK_PING={ADDRESS}\n* * * * * /bin/sh -c" in shown
    server.run("install", "--crontab", "--ping", ADDRESS)
    first = server.tab
    assert first is not None
    assert ADDRESS.encode() in first
    assert "already installed" in server.run("install", "--crontab").stderr
    assert server.tab == first
    server.run("install", "--crontab", "--ping", "none")
    assert server.tab == crontabs.crontab_entry(sys.executable, find_paths()).encode()
    server.run("install", "--crontab", "--ping", ADDRESS)
    server.run("uninstall", "--crontab")
    assert server.tab is None


def test_install_puts_it_into_the_unit_and_uninstall_takes_it_away(server: Server) -> None:  # noqa: F811
    server.run("install", "--user", "--ping", ADDRESS)
    service = server.user_units / SERVICE
    assert f"Environment=BUB_CRON_TICK_PING={ADDRESS}\nExecStopPost=-/bin/sh -c" in service.read_text()
    assert "already installed" in server.run("install", "--user").stderr
    server.run("uninstall", "--user")
    assert not service.exists()


def test_a_bad_address_is_wrong_usage(server: Server) -> None:  # noqa: F811
    assert (
        "--ping must be an http or https address" in server.run("install", "--crontab", "--ping", "x", exits=2).stderr
    )
