"""`bub-cron ics`: the fire times to come as an iCalendar file, read back with the library that others read it with."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fake_gateway import Place
from icalendar import Calendar, Event

FILE = """\
defaults: {to: 'telegram:1', timezone: Europe/Berlin}
reminders:
  pills: {cron: "0 21 * * *", text: "Pills, now;\\nall of them."}
  held: {cron: "0 6 * * *", text: x}
  asleep: {cron: "0 7 * * *", text: x, enabled: false}
"""
DAY = 86400


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path / "bub")
    made.write(FILE, 1_700_000_000)
    return made


def run(place: Place, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "bub_cron", *arguments]
    environ = {**place.environ, "PATH": "/usr/bin:/bin", "TZ": "UTC"}
    return subprocess.run(command, env=environ, capture_output=True, timeout=60, check=False)


def events(place: Place, *arguments: str) -> list[Event]:
    done = run(place, "ics", *arguments)
    assert done.returncode == 0, done.stderr
    return list(Calendar.from_ical(done.stdout).events)


def test_each_fire_time_is_an_event(place: Place) -> None:
    before = datetime.now(UTC)
    pills = [event for event in events(place, "--days", "10") if str(event["SUMMARY"]) == "pills"]
    assert len(pills) == 10
    for event in pills:
        start = event.start
        assert isinstance(start, datetime)
        assert before < start < before + timedelta(days=10, minutes=5)
        assert str(event["UID"]) == f"pills@{start:%Y-%m-%dT%H:%M:%SZ}/bub-cron"
        assert str(event["DESCRIPTION"]) == "text: Pills, now;\nall of them.\nto: telegram:1"
        stamp = event.DTSTAMP
        assert stamp == datetime.fromtimestamp(1_700_000_000, UTC)  # when the file was saved
    assert len(events(place)) == 2 * 30


def test_twice_the_same_uids_and_the_same_bytes(place: Place) -> None:
    first, second = events(place), events(place)
    # A fire time may pass between the two, and then another one comes at the end.
    uids = [[str(event["UID"]) for event in found] for found in (first, second)]
    common = set(uids[0]) & set(uids[1])
    assert len(common) >= 58
    assert len(set(uids[0])) == len(uids[0])
    texts = [{str(event["UID"]): event.to_ical() for event in found} for found in (first, second)]
    assert all(texts[0][uid] == texts[1][uid] for uid in common)


def test_what_is_paused_or_disabled_is_left_out(place: Place) -> None:
    until = time.strftime("%Y-%m-%d", time.gmtime(time.time() + 5 * DAY))
    assert run(place, "pause", "held", "--until", until).returncode == 0
    found = [event for event in events(place, "--days", "10") if str(event["SUMMARY"]) == "held"]
    assert 5 <= len(found) <= 6
    assert all(f"{event.start:%Y-%m-%d}" >= until for event in found)
    assert run(place, "pause", "--all").returncode == 0
    assert events(place) == []


def test_a_frequent_one_is_bounded_and_says_so(place: Place) -> None:
    place.write("reminders: {often: {every: 1m, to: 'x:1', text: x}}\n", 0)
    done = run(place, "ics", "--days", "2")
    assert len(list(Calendar.from_ical(done.stdout).events)) == 1000
    assert done.stderr == b"often: the first 1,000 fire times; 1,880 are left out\n"


def test_many_are_bounded_together_and_say_so_in_few_lines(place: Place) -> None:
    often = "\n".join(f"  r{number}: {{every: 1m, to: 'x:1', text: x}}" for number in range(30))
    place.write(f"reminders:\n{often}\n", 0)
    done = run(place, "ics", "--days", "1")
    assert done.stdout.count(b"BEGIN:VEVENT") == 20_000
    lines = done.stderr.decode().splitlines()
    # The earliest 20,000: of each of the thirty about as many.
    assert all(re.fullmatch(r"r\d: the first 66[67] fire times; 77[34] are left out", line) for line in lines[:5])
    assert lines[5:] == ["... and 25 more like that"]


def test_a_long_prompt_is_cut(place: Place) -> None:
    place.write(f"reminders: {{a: {{every: 1d, to: 'x:1', prompt: {'y' * 5000}}}}}\n", 0)
    (event,) = events(place, "--days", "1")
    assert str(event["DESCRIPTION"]) == f"prompt: {'y' * 2000}...\nto: x:1"


def test_exits(place: Place) -> None:
    place.write("reminders: [", 0)
    assert run(place, "ics").returncode == 65
    os.unlink(place.paths.file)
    assert run(place, "ics").returncode == 66
    assert run(place, "ics", "--days", "0").returncode == 2


def test_no_other_command_loads_icalendar(place: Place) -> None:
    script = "import bub_cron.cli, sys; print('icalendar' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"
