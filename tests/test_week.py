"""`bub-cron week`: seven days, a column each; what is past has its outcome, what is left out its reason."""

from __future__ import annotations

import io
import json
import re
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ledger_kit
import pytest
from fake_gateway import Place, Result, at, firing

from bub_cron.cli import commands
from bub_cron.trigger.ledger import Ledger

ROOT = Path(__file__).parent.parent
NOW = at("2026-11-26T12:00:00")  # a Thursday; 13:00 in Berlin
FILE = """\
defaults: {to: 'telegram:1', timezone: Europe/Berlin}
calendars:
  holidays: {country: DE, subdivision: BE}
  workdays: {weekdays: mon-fri, except: holidays}
reminders:
  pills: {cron: "0 21 * * *", text: x}
  standup: {cron: "0 9 * * *", only: workdays, text: x}
"""
MAIL = "  mail: {every: 30m, text: x}\n"

type Week = Callable[..., Result]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    made = Place(tmp_path / "bub")
    made.write(FILE, NOW)
    for name in ("BUB_CRON_FILE", "BUB_CRON_STATE", "BUB_CRON_SOCKET", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BUB_HOME", str(made.home))
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.setattr("bub_cron.cli.week.time", SimpleNamespace(time=lambda: NOW + 0.5))
    return made


@pytest.fixture
def week(place: Place, capsys: pytest.CaptureFixture[str]) -> Week:
    def run(*arguments: str) -> Result:
        with pytest.raises(SystemExit) as end:
            commands(["week", *arguments], prog_name="bub-cron")
        captured = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return Result(end.value.code, captured.out, captured.err)

    return run


def recorded(place: Place, name: str, fire_time: str, outcome: str) -> None:
    """Record a firing of these days in the inbox."""
    id_ = firing(name, fire_time)
    place.fill_inbox(id=id_, reminder=name, fire_time=f"{fire_time}Z", accepted_at=at(fire_time), state=outcome)


def ticked(place: Place, fire_time: str) -> None:
    with closing(Ledger(place.paths.ledger)) as ledger:
        ledger.set_last_tick(at(fire_time), at(fire_time))


def columns(out: str) -> dict[str, list[str]]:
    """Return each day's column, below its title, without what is empty; the first column is that of ""."""
    _, head, *lines = out.split("left out:")[0].splitlines()
    starts = [0, *(found.start() for found in re.finditer(r"\w{3} \d\d", head))]
    ends = [*starts[1:], 1000]
    cut = [[line[start:end].strip() for line in (head, *lines)] for start, end in zip(starts, ends, strict=True)]
    return {title: [cell for cell in cells if cell] for title, *cells in cut}


def json_lines(result: Result) -> list[dict[str, Any]]:
    assert (result.status, result.err) == (0, "")
    return [json.loads(line) for line in result.out.splitlines()]


# --- The days to come


def test_a_week_is_seven_columns_and_names_its_zone_once(week: Week) -> None:
    result = week("--after", "2026-12-21")
    assert (result.status, result.err) == (0, "")
    assert result.out.startswith("Mon 2026-12-21 to Sun 2026-12-27, Europe/Berlin\n")
    assert result.out.count("Berlin") == 1
    both, one = ["standup", "pills"], ["pills"]
    assert columns(result.out) == {
        "": ["09:00", "21:00"], "Mon 21": both, "Tue 22": both, "Wed 23": both, "Thu 24": both, "Fri 25": one,
        "Sat 26": one, "Sun 27": one,
    }  # fmt: skip


def test_what_a_calendar_left_out_is_told_with_its_name_and_the_holidays(week: Week) -> None:
    _, below = week("--after", "2026-12-21").out.split("left out:\n")
    assert below.splitlines() == [
        "  standup  Fri 25: holidays: Erster Weihnachtstag",
        "  standup  Sat 26, Sun 27: not in workdays",
    ]


def test_it_begins_today_or_then(week: Week) -> None:
    today = columns(week().out)
    assert list(today)[1] == "Thu 26"
    assert list(today)[-1] == "Wed 02"
    assert list(columns(week("--after", "tomorrow").out))[1] == "Fri 27"
    later = columns(week("--after", "2026-12-21T20:00").out)
    assert (later["Mon 21"], len(later)) == (["pills"], 8)
    assert columns(week("--after", "2026-12-21T21:00").out)["Mon 21"] == []
    assert list(columns(week("--after", "2w").out))[1] == "Thu 10"


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Auckland", "America/Los_Angeles"])
def test_days_are_those_of_the_clock_that_is_shown(
    place: Place, week: Week, monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    place.write(FILE.replace("21 * * *", "0 * * *").replace("0 9 *", "59 23 *"), NOW)
    days = columns(week("--after", "2026-12-21").out)
    assert days[""] == ["00:00", "23:59"]
    assert days["Mon 21"] == ["pills", "standup"]
    assert days["Sun 27"] == ["pills"]


def test_reminders_of_two_zones_are_shown_in_the_machines(
    place: Place, week: Week, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    place.write(FILE + '  tea: {cron: "0 17 * * *", timezone: Asia/Tokyo, text: x}\n', NOW)
    result = week("--after", "2026-12-21")
    assert result.out.startswith("Mon 2026-12-21 to Sun 2026-12-27, America/New_York\n")
    assert columns(result.out)[""] == ["03:00", "15:00"]
    local = {line["reminder"]: line["local"] for line in json_lines(week("--after", "2026-12-21", "--json"))}
    assert local["tea"].endswith("T17:00:00+09:00")
    assert local["pills"].endswith("T21:00:00+01:00")


@pytest.mark.parametrize("first", ["2027-03-24", "2027-10-27"])
def test_a_change_of_clocks_takes_nothing_from_the_week(place: Place, week: Week, first: str) -> None:
    place.write(FILE.replace("0 21", "59 23").replace("0 9", "0 0").replace("only: workdays, ", ""), NOW)
    days = columns(week("--after", first).out)
    assert days.pop("") == ["00:00", "23:59"]
    assert list(days.values()) == [["standup", "pills"]] * 7


def test_today_begins_with_the_first_of_two_midnights(
    place: Place, week: Week, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 01:00 of that Sunday, the clocks of Havana go back to 00:00; it is the second 00:30."""
    monkeypatch.setattr("bub_cron.cli.week.time", SimpleNamespace(time=lambda: at("2026-11-01T05:30:00")))
    place.write(FILE.replace("Europe/Berlin", "America/Havana").replace("0 21", "15 0"), NOW)
    ticked(place, "2026-11-01T04:00:00")
    assert columns(week().out)["Sun 01"] == ["pills", "no tick"]


def test_a_reminder_that_fires_often_has_one_line_a_day(place: Place, week: Week) -> None:
    place.write(FILE + MAIL + '  tea: {cron: "0 6,12,18 * * *", text: x}\n', NOW)
    days = columns(week("--after", "2026-12-21").out)
    assert days[""] == ["06:00", "09:00", "12:00", "18:00", "21:00", "often"]
    assert days["Mon 21"] == ["tea", "standup", "tea", "tea", "pills", "48x mail"]


@pytest.mark.parametrize("after", ["tomorrow", "yesterday"])
def test_a_store_that_cannot_be_read_is_told(place: Place, week: Week, after: str) -> None:
    Path(place.paths.state).mkdir(parents=True)
    Path(place.paths.ledger).write_bytes(b"nonsense")
    assert week("--after", after).status == 74


def test_what_is_paused_says_so_and_until_when(place: Place, week: Week) -> None:
    ticked(place, "2026-11-24T12:00:00")
    with closing(sqlite3.connect(place.paths.ledger)) as ledger, ledger:
        columns_of = "reminder, kind, since, until, why, who"
        pause = ("pills", "pause", NOW - 60, at("2026-11-27T00:00:00"), "away", "alice")
        ledger.execute(f"INSERT INTO pauses ({columns_of}) VALUES (?, ?, ?, ?, ?, ?)", pause)  # noqa: S608
    days = columns(week("--after", "2026-11-26").out)
    assert days["Thu 26"][-2:] == ["pills", "paused"]
    assert days["Fri 27"][-1] == "pills"
    found = [json.loads(line) for line in week("--after", "2026-11-26", "--json").out.splitlines()]
    paused = {line["fire_time"]: line["paused"] for line in found if line["reminder"] == "pills"}
    assert list(paused.values())[:2] == ["2026-11-27T00:00:00Z", None]


# --- The past


def test_what_is_past_has_its_outcome_below_it(place: Place, week: Week) -> None:
    ledger_kit.record(place.paths.ledger, at("2026-11-23T08:00:00"), name="standup", content="{}", state="missed")
    recorded(place, "standup", "2026-11-24T08:00:00", "delivered")
    recorded(place, "pills", "2026-11-24T20:00:00", "undelivered")
    recorded(place, "removed", "2026-11-25T11:00:00", "failed")
    place.fill_inbox(id="a-send", fire_time="2026-11-25T11:00:00Z", accepted_at=NOW, state="delivered")
    ticked(place, "2026-11-26T12:00:00")
    days = columns(week("--after", "2026-11-23").out)
    assert days[""] == ["09:00", "12:00", "21:00"]
    assert days["Mon 23"] == ["standup", "missed"]
    assert days["Tue 24"] == ["standup", "delivered", "pills", "undelivered"]
    assert days["Wed 25"] == ["removed", "failed"]
    assert days["Thu 26"] == ["pills"], "what was never recorded before the last tick is no fire time"
    assert days["Fri 27"] == ["standup", "pills"]


def test_what_no_tick_has_recorded_yet_says_so(place: Place, week: Week) -> None:
    recorded(place, "pills", "2026-11-24T20:00:00", "delivered")  # then the tick was killed
    ticked(place, "2026-11-24T12:00:00")
    days = columns(week("--after", "2026-11-24").out)
    assert days["Tue 24"] == ["pills", "delivered"]
    assert days["Wed 25"] == ["standup", "no tick", "pills", "no tick"]
    assert days["Thu 26"] == ["standup", "no tick", "pills"]


def test_what_fires_often_is_counted_by_outcome(place: Place, week: Week) -> None:
    place.write(FILE + MAIL, NOW)
    for hour in range(6):
        recorded(place, "mail", f"2026-11-25T{hour + 1:02}:00:00", "failed" if hour == 2 else "silent")
    ticked(place, "2026-11-26T12:00:00")
    days = columns(week("--after", "2026-11-25").out)
    assert days["Wed 25"] == ["5x mail", "silent", "1x mail", "failed"]
    assert days["Thu 26"][-1] == "21x mail"


def test_fire_times_that_share_a_record_are_counted(place: Place, week: Week) -> None:
    place.write(FILE.replace("pills: {", "pills: {catch_up: all, "), at("2020-01-01T00:00:00"))
    place.tick(at("2020-01-01T00:00:00"))
    place.tick(NOW)
    [shared] = place.select("SELECT fire_time, count FROM firings WHERE count > 1 AND reminder = 'pills'")
    day = time.strftime("%Y-%m-%d", time.gmtime(shared[0]))
    [line] = [one for one in json_lines(week("--after", day, "--json")) if one.get("count")]
    assert (line["count"], line["outcome"]) == (shared[1], "missed")
    assert f"{shared[1]}x pills" in week("--after", day).out


# --- For programs


def test_json_has_a_line_for_each_fire_time(place: Place, week: Week) -> None:
    recorded(place, "pills", "2026-11-25T20:00:00", "delivered")
    ticked(place, "2026-11-26T12:00:00")
    lines = json_lines(week("--after", "2026-11-25T12:00", "--json"))
    assert lines[0] == {
        "reminder": "pills", "fire_time": "2026-11-25T20:00:00Z", "local": "2026-11-25T21:00:00+01:00", "paused": None,
        "outcome": "delivered",
    }  # fmt: skip
    assert lines[1] == {
        "reminder": "pills", "fire_time": "2026-11-26T20:00:00Z", "local": "2026-11-26T21:00:00+01:00", "paused": None,
        "outcome": None,
    }  # fmt: skip
    [saturday, sunday] = [line for line in lines if "left_out" in line]
    assert saturday == {
        "reminder": "standup", "fire_time": "2026-11-28T08:00:00Z", "local": "2026-11-28T09:00:00+01:00",
        "paused": None, "outcome": None, "left_out": "not in workdays",
    }  # fmt: skip
    assert [line["fire_time"] for line in lines] == sorted(line["fire_time"] for line in lines)
    assert sunday["fire_time"] == "2026-11-29T08:00:00Z"


# --- On a terminal


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """Return what it prints on a terminal of 80 columns."""
    shown = Terminal()
    with monkeypatch.context() as patch:
        patch.setenv("COLUMNS", "80")
        patch.setenv("TERM", "xterm")
        patch.setattr(sys, "stdout", shown)
        with pytest.raises(SystemExit) as end:
            commands(["week", *arguments], prog_name="bub-cron")
    assert end.value.code == 0
    return shown.getvalue()


LONG = "a-reminder-with-a-long-name"


@pytest.mark.parametrize("names", [("pills", "standup"), (LONG, "standup"), (LONG, LONG + "2")])
def test_it_fits_80_columns(place: Place, monkeypatch: pytest.MonkeyPatch, names: tuple[str, str]) -> None:
    place.write(FILE.replace("pills", names[0]).replace("standup", names[1]) + MAIL, NOW)
    for day in ("23", "24", "25"):
        recorded(place, names[0], f"2026-11-{day}T20:00:00", "undelivered")
    ticked(place, "2026-11-26T12:00:00")
    monkeypatch.setenv("NO_COLOR", "1")
    shown = re.sub(r"\x1b\[[0-9;]*m", "", on_a_terminal(monkeypatch, "--after", "2026-11-23"))
    lines = shown.splitlines()
    assert max(map(len, lines)) <= 80
    assert [len(re.findall(r"\w{3} \d\d\b", line)) for line in lines[1:2]] == [7]
    grid = shown.split("left out:")[0]
    assert ("…" in grid) == (LONG in names), "a name is cut only where it must be"
    assert "48x mail" in grid
    assert "undelive" in grid


def test_colour_is_for_terminals(place: Place, week: Week, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded(place, "pills", "2026-11-24T20:00:00", "failed")
    ticked(place, "2026-11-26T12:00:00")
    assert "\x1b[1;31mfailed" in on_a_terminal(monkeypatch, "--after", "2026-11-23")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[1;31m" not in on_a_terminal(monkeypatch, "--after", "2026-11-23")
    assert "\x1b" not in week("--after", "2026-11-23").out


def test_what_is_piped_on_is_whole(place: Place, week: Week) -> None:
    place.write(FILE.replace("pills", LONG), NOW)
    assert week("--after", "2026-12-21").out.count(LONG) == 7


def test_what_came_over_the_socket_steers_no_terminal(place: Place, week: Week) -> None:
    recorded(place, "\x1b[31mred", "2026-11-24T20:00:00", "failed")
    assert "\\u001b[31mred" in week("--after", "2026-11-23").out


# --- Nothing to show


def test_an_empty_week_says_so(place: Place, week: Week) -> None:
    place.write(FILE.replace("text: x", "text: x, enabled: false"), NOW)
    said = "no fire times, Mon 2026-12-21 to Sun 2026-12-27, Europe/Berlin; disabled: pills, standup\n"
    assert week("--after", "2026-12-21") == (0, "", said)
    assert week("--after", "2026-12-21", "--json") == (0, "", "")


def test_a_week_of_which_all_is_left_out_says_why(place: Place, week: Week) -> None:
    feast = "calendars: {feast: {dates: 2026-12-26..2026-12-27}}\nreminders:\n"
    place.write(
        feast + "  tea: {cron: '0 9 * * sat,sun', except: feast, to: 'x:1', timezone: Europe/Berlin, text: x}\n", NOW
    )
    shown = "left out:\n  tea  Sat 26, Sun 27: feast\n"
    assert week("--after", "2026-12-21") == (
        0,
        shown,
        "no fire times, Mon 2026-12-21 to Sun 2026-12-27, Europe/Berlin\n",
    )


@pytest.mark.parametrize(("text", "status"), [("reminders: [", 65), (None, 66)])
def test_a_file_that_is_not_good_has_its_status(place: Place, week: Week, text: str | None, status: int) -> None:
    if text is None:
        Path(place.paths.file).unlink()
    else:
        place.write(text, NOW)
    result = week()
    assert (result.status, result.out) == (status, "")
    assert place.paths.file in result.err


@pytest.mark.parametrize("when", ["soon", "9999-12-30", "0001-01-01", "2026-13-01"])
def test_what_is_no_time_is_a_usage_error(week: Week, when: str) -> None:
    result = week("--after", when)
    assert (result.status, result.out) == (2, "")
    assert f"Error: {when!r}" in result.err


# --- The documentation


def test_docs_show_the_week_of_the_example(week: Week) -> None:
    docs = (ROOT / "docs" / "schedules.md").read_text()
    [(arguments, shown)] = re.findall(r"\$ bub-cron week (.*)\n((?:.*\n)*?)```", docs)
    example = str(ROOT / "examples" / "days.yaml")
    assert week("--file", example, *arguments.split()) == (0, shown, "")
    assert max(map(len, shown.splitlines())) <= 80
