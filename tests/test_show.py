"""`bub-cron show`: everything about one reminder, and where each value comes from."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_gateway import Place, firing

from bub_cron.checkers import duration, parse_duration
from bub_cron.reminders import load

FILE = """\
defaults:
  to: telegram:1
  timezone: Europe/Berlin
  until: 2037-12-31
reminders:
  standup:
    cron: "0 9 * * mon-fri"
    grace: 90m
    ping: https://hc-ping.com/a-secret
    gate: {run: /bin/true, timeout: 5s}
    prompt: |
      Summarise what changed.

      Five lines.
  asleep: {every: 1h, enabled: false, text: x}
  over: {at: 2020-01-01 08:00, text: y}
"""
ERROR = "the model said no, at great length: " + "and so on, " * 20 + "and that was all"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path / "bub")
    made.write(FILE, 0)
    return made


def run(place: Place, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bub_cron", *arguments]
    environ = {**place.environ, "PATH": "/usr/bin:/bin", "TZ": "UTC"}
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)


def test_each_value_has_its_origin_and_its_line(place: Place) -> None:
    shown = json.loads(run(place, "show", "standup", "--json").stdout)
    assert (shown["reminder"], shown["file"], shown["line"]) == ("standup", place.paths.file, 6)
    values = shown["values"]
    assert values["cron"] == {"value": "0 9 * * mon-fri", "from": "entry", "line": 7}
    assert values["grace"] == {"value": 5400, "from": "entry", "line": 8}
    assert values["to"] == {"value": "telegram:1", "from": "defaults", "line": 2}
    assert values["until"] == {"value": "2037-12-31", "from": "defaults", "line": 4}
    assert values["session"] == {"value": "telegram:1", "from": "built-in", "line": None}
    assert values["prompt"]["value"] == "Summarise what changed.\n\nFive lines.\n"
    assert values["model"]["value"] is None
    assert not {"every", "at", "rrule", "text", "command"} & values.keys()
    assert len(shown["next"]) == 3
    assert all(one["local"][11:] in ("09:00:00+01:00", "09:00:00+02:00") for one in shown["next"])
    assert shown["usage"] == {"days": 30, "firings": 0, "tokens": 0}


def test_the_address_of_a_ping_is_not_shown(place: Place) -> None:
    for arguments in (["standup"], ["standup", "--json"]):
        shown = run(place, "show", *arguments).stdout
        assert "https://hc-ping.com/..." in shown
        assert "a-secret" not in shown


def test_for_people(place: Place) -> None:
    shown = run(place, "show", "standup").stdout
    assert "schedule  at 09:00, Monday to Friday, Europe/Berlin, until 2037-12-31\n" in shown
    assert "zone      Europe/Berlin, for all times here\n" in shown
    assert "grace      line 8            1h30m\n" in shown
    assert "until      defaults, line 4  2037-12-31\n" in shown
    assert "timeout    built-in          10m\n" in shown
    assert "gate       line 10           run: /bin/true, timeout: 5s, changed: false\n" in shown
    assert "\nprompt (line 11):\n  Summarise what changed.\n\n  Five lines.\n" in shown
    assert "not set: start, times," in shown
    assert "next      never: it is disabled\n" in run(place, "show", "asleep").stdout
    assert "next      never: its times are past\n" in run(place, "show", "over").stdout


def test_outcomes_tokens_and_pauses(place: Place) -> None:
    now = int(time.time()) // 60 * 60
    for days in range(7):
        moment = now - 86400 * (days + 1)
        fire_time = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))
        place.fill_inbox(
            id=firing("standup", fire_time), reminder="standup", fire_time=f"{fire_time}Z", accepted_at=float(moment),
            state="failed", reason="attempts", error=ERROR, tokens=100 + days, finished_at=float(moment),
        )  # fmt: skip
    assert run(place, "pause", "standup", "--why", "holidays").returncode == 0
    shown = json.loads(run(place, "show", "standup", "--json").stdout)
    assert [one["tokens"] for one in shown["latest"]] == [100, 101, 102, 103, 104]
    assert shown["latest"][0]["error"] == ERROR
    assert shown["usage"] == {"days": 30, "firings": 7, "tokens": 721}
    assert shown["paused"] is True
    assert [one["paused"] for one in shown["next"]] == [True] * 3
    lines = on_a_terminal(place, "show", "standup")
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    assert text.count(ERROR) == 5  # never cut
    assert "tokens 721 in the last 30 days, 7 firings" in text
    assert "(paused)" in text
    assert "holidays" in text


def on_a_terminal(place: Place, *arguments: str) -> list[str]:
    main, other = pty.openpty()
    environment = {**place.environ, "PATH": "/usr/bin:/bin", "COLUMNS": "80", "NO_COLOR": "1", "TERM": "xterm"}
    command = [sys.executable, "-m", "bub_cron", *arguments]
    process = subprocess.Popen(command, stdout=other, env=environment)
    os.close(other)
    out = b""
    try:
        while chunk := os.read(main, 65536):
            out += chunk
    except OSError:  # the other end is closed
        pass
    os.close(main)
    assert process.wait(60) == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", out.decode()).splitlines()


def test_a_store_that_cannot_be_read_hides_nothing_else(place: Place) -> None:
    Path(place.paths.state).mkdir(parents=True)
    Path(place.paths.ledger).write_bytes(b"no store" * 100)
    done = run(place, "show", "standup")
    assert done.returncode == 0
    assert "bub-cron: what became of it is not known: the stores in " in done.stderr
    assert "Europe/Berlin" in done.stdout


def test_exits(place: Place) -> None:
    missing = run(place, "show", "stadup")
    assert (missing.returncode, missing.stderr) == (1, "bub-cron: there is no reminder stadup; did you mean standup?\n")
    place.write("reminders: [", 0)
    assert run(place, "show", "standup").returncode == 65
    os.unlink(place.paths.file)
    assert run(place, "show", "standup").returncode == 66


def test_what_the_defaults_give_is_not_the_entrys_own(place: Place) -> None:
    standup = load(place.paths.file)[0]
    assert standup.own == {"cron", "grace", "ping", "gate", "prompt"}
    assert standup.limits == {"until": "2037-12-31"}


def test_a_zone_may_be_the_machines(place: Place) -> None:
    place.write("reminders:\n  a: {cron: '* * * * *', to: 'x:1', text: x}\n  b: {every: 5m, to: 'x:1', text: x}\n", 0)
    found = [json.loads(run(place, "show", name, "--json").stdout)["values"]["timezone"] for name in ("a", "b")]
    assert found == [
        {"value": "UTC", "from": "machine", "line": None},
        {"value": "UTC", "from": "built-in", "line": None},
    ]


@pytest.mark.parametrize("seconds", [1, 90, 3600, 5400, 86400, 90061, 1209600])
def test_a_duration_reads_as_it_was(seconds: int) -> None:
    assert parse_duration(duration(seconds)) == seconds
