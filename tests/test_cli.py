"""cli.py and __main__.py: what each command prints where, and how it exits."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import ledger_kit
import pytest
from fake_gateway import LEAVE, Message, Place, Result, Run, at, busy, ending, firing, insert, rejecting

from bub_cron import __main__ as entry
from bub_cron import __version__
from bub_cron.__main__ import _path_options, main
from bub_cron.cli import commands
from bub_cron.cli.contents import ENTRIES, GROUPS, STATUSES
from bub_cron.schedule import machine_zone
from bub_cron.states import OUTCOMES, REASONS
from bub_cron.wire import MAX_LINE

DAY = "2026-11-23T"
NOON = at(DAY + "12:00:00")
NOON_ID = firing("pills", DAY + "12:00:00")
FILE = """\
defaults: {to: 'telegram:1', timezone: Europe/Berlin}
reminders:
  pills:
    cron: "0 21 * * *"
    text: Time for your pills.
  standup:
    cron: "0 9 * * *"
    timezone: UTC
    prompt: What changed?
    model: openai:x
  old:
    at: 2020-01-01 08:00
    text: Long ago.
  spare:
    every: 30m
    text: Nothing.
    enabled: false
"""
EVIL = "\x1b[31mred\x07\x9b1m\u202e\x00"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    made = Place(tmp_path / "bub")
    for name in ("BUB_CRON_FILE", "BUB_CRON_STATE", "BUB_CRON_SOCKET", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BUB_HOME", str(made.home))
    made.write(FILE, NOON)
    return made


@pytest.fixture
def run(place: Place, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> Result:
        with pytest.raises(SystemExit) as end:
            commands(list(arguments), prog_name="bub-cron")
        captured = capsys.readouterr()
        for stream in (captured.out, captured.err):
            assert not any(character < " " and character != "\n" for character in stream)
        code = end.value.code
        return Result(code if isinstance(code, int) else int(code is not None), captured.out, captured.err)

    return run


def json_lines(result: Result) -> list[dict[str, Any]]:
    assert (result.status, result.err) == (0, "")
    return [json.loads(line) for line in result.out.split("\n")[:-1]]


def parsed(result: Result) -> list[dict[str, Any]]:
    """Return the objects on standard output, whatever the status."""
    return [json.loads(line) for line in result.out.split("\n")[:-1]]


def record(
    place: Place, *fire_times: int, name: str = "pills", state: str | None = None, error: str | None = "why"
) -> None:
    ledger_kit.record(
        place.paths.ledger,
        *fire_times,
        name=name,
        content='{"text": "Time for your pills."}',
        state=state,
        error=error,
    )


# --- init, check, schema


def test_init_writes_a_file_that_is_good(place: Place, run: Run) -> None:
    os.unlink(place.paths.file)
    assert run("init") == (0, f"{place.paths.file}\n", "Edit it, then try `bub-cron check` and `bub-cron next`.\n")
    assert run("check").status == 0


def test_init_makes_the_directories(place: Place, run: Run) -> None:
    path = str(place.home / "a" / "b" / "my.yaml")
    assert run("init", "--file", path).out == f"{path}\n"
    assert Path(path).is_file()


@pytest.mark.parametrize("there", ["file", "directory", "dangling link"])
def test_init_never_writes_over_anything(place: Place, run: Run, there: str) -> None:
    path = place.home / "my.yaml"
    if there == "file":
        path.write_text("mine")
    elif there == "directory":
        path.mkdir()
    else:
        path.symlink_to(place.home / "nowhere")
    assert run("init", "--file", str(path)) == (
        73, "", f"bub-cron: {path} is there already; it was left as it is\n",
    )  # fmt: skip
    assert there != "file" or path.read_text() == "mine"
    assert not (place.home / "nowhere").exists()


def test_init_where_nothing_can_be_written(run: Run) -> None:
    result = run("init", "--file", "/proc/my.yaml")
    assert (result.status, result.out) == (73, "")
    assert result.err.startswith("bub-cron: /proc/my.yaml can't be written: ")


def test_check_sums_a_good_file_up_in_one_line(place: Place, run: Run) -> None:
    result = run("check")
    assert result.status == 0
    assert result.out.startswith(f"{place.paths.file}: 4 reminders (1 disabled); the next is ")
    assert result.out.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "summary"),
    [
        ("reminders: {}\n", "0 reminders; no upcoming fire times"),
        (
            "reminders:\n  a: {at: 2020-01-01 08:00, to: 't:1', text: x}\n",
            "1 reminder; no upcoming fire times",
        ),
    ],
)
def test_check_says_when_nothing_fires_any_more(place: Place, run: Run, text: str, summary: str) -> None:
    place.write(text, NOON)
    result = run("check")
    assert (result.status, result.out) == (0, f"{place.paths.file}: {summary}\n")


def test_check_prints_every_fault_as_data(place: Place, run: Run) -> None:
    place.write("reminders:\n  a:\n    evry: 1m\n    to: telegram:1\n    text: yes\n", NOON)
    result = run("check")
    assert (result.status, result.err) == (65, "")
    lines = result.out.splitlines()
    assert len(lines) == 3
    assert all(line.startswith(f"{place.paths.file}:") for line in lines)


def test_check_as_json(place: Place, run: Run) -> None:
    place.write("reminders:\n  a: {every: 1h, to: 't:1', text: yes}\n  b: {evry: 1h, to: 't:1', text: x}\n", NOON)
    result = run("check", "--json")
    lines = parsed(result)
    assert (result.status, result.err) == (65, "")
    assert {tuple(line) for line in lines} == {("file", "line", "column", "kind", "text")}
    assert {**lines[0], "text": ""} == {
        "file": place.paths.file, "line": 2, "column": 35, "kind": "fault", "text": "",
    }  # fmt: skip
    assert any("evry" in line["text"] for line in lines)
    place.write("reminders:\n  a: {every: 2d, to: 't:1', text: x}\n", NOON)
    result = run("check", "--json")
    assert (result.status, result.err, [line["kind"] for line in parsed(result)]) == (0, "", ["warning"])
    os.unlink(place.paths.file)
    result = run("check", "--json")
    assert (result.status, parsed(result)[0]["file"]) == (66, place.paths.file)
    os.mkdir(place.paths.file)
    result = run("check", "--json")
    assert (result.status, parsed(result)[0]["file"]) == (65, place.paths.file)


@pytest.mark.parametrize(
    ("extra", "text"),
    [("", "1 reminder (disabled)"), ("  b: {every: 1h, to: 'x:1', text: x}\n", "2 reminders (1 disabled)")],
)
def test_check_counts_the_disabled(place: Place, run: Run, extra: str, text: str) -> None:
    place.write(f"reminders:\n  a: {{every: 1h, to: 'x:1', text: x, enabled: false}}\n{extra}", NOON)
    assert f": {text}; " in run("check").out


def test_check_warns_beside_the_data(place: Place, run: Run) -> None:
    result = run("check")
    assert result.err.startswith(f"{place.paths.file}:12:9: warning: ")


@pytest.mark.parametrize("arguments", [["check"], ["list"], ["next"], ["fire", "pills"]])
@pytest.mark.parametrize(("trouble", "status"), [("missing", 66), ("directory", 65), ("broken", 65)])
def test_a_file_that_is_not_good_has_its_status(
    place: Place, run: Run, arguments: list[str], trouble: str, status: int
) -> None:
    os.unlink(place.paths.file)
    if trouble == "directory":
        os.mkdir(place.paths.file)
    elif trouble == "broken":
        place.write("reminders: [", NOON)
    result = run(*arguments)
    assert result.status == status
    words = result.out if (arguments, trouble) == (["check"], "broken") else result.err
    assert place.paths.file in words
    assert place.paths.file not in (result.err if words is result.out else result.out)


def test_the_schema_is_json(run: Run) -> None:
    result = run("schema")
    assert (result.status, result.err) == (0, "")
    assert json.loads(result.out)["type"] == "object"


# --- next, list


def test_next_gives_the_fire_times_after_and_up_to(run: Run) -> None:
    within = ("next", "pills", "--json", "--after", "2026-11-23T20:00:00Z", "--until")
    assert json_lines(run(*within, "2026-11-24T20:00:00Z")) == [
        {"reminder": "pills", "fire_time": "2026-11-24T20:00:00Z", "local": "2026-11-24T21:00:00+01:00", "paused": None}
    ]
    assert json_lines(run(*within, "2026-11-24T19:59:59Z")) == []


def test_next_merges_all_reminders_that_are_enabled(run: Run) -> None:
    lines = json_lines(run("next", "--json", "-n", "3", "--after", "2026-11-23T12:00:00+00:00"))
    assert [(line["reminder"], line["fire_time"]) for line in lines] == [
        ("pills", "2026-11-23T20:00:00Z"), ("standup", "2026-11-24T09:00:00Z"), ("pills", "2026-11-24T20:00:00Z"),
    ]  # fmt: skip


def test_next_shows_ten_unless_told_otherwise(run: Run) -> None:
    after = ("--after", "2026-11-23T12:00:00Z", "--json")
    assert len(json_lines(run("next", *after))) == 10
    assert len(json_lines(run("next", *after, "--until", "2026-12-23T12:00:00Z"))) == 60
    assert len(json_lines(run("next", *after, "--until", "2026-12-23T12:00:00Z", "-n", "7"))) == 7
    assert json_lines(run("next", "old", *after)) == []


def test_next_of_a_disabled_reminder_is_nothing_at_once(place: Place) -> None:
    command = [sys.executable, "-m", "bub_cron", "next", "spare", "--json"]
    assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=15).stdout == ""


def test_next_as_a_table_names_time_zone_reminder_and_target(run: Run) -> None:
    result = run("next", "pills", "-n", "1", "--after", "2026-11-23T12:00:00Z")
    assert (result.status, result.err) == (0, "")
    assert result.out.startswith("when (Europe/Berlin)  in")
    assert result.out.splitlines()[1].startswith("Mon 2026-11-23 21:00  ")
    assert result.out.splitlines()[1].split()[-2:] == ["pills", "telegram:1"]


CALENDARS = """\
defaults: {to: 'telegram:1', timezone: Europe/Berlin}
calendars:
  off: {dates: 2026-12-24}
  old: {dates: 2020-12-24}
reminders:
  mail: {every: 30m, text: x}
  tea: {cron: "0 17 * * *", except: "off", text: x}
  over: {cron: "0 17 * * *", until: 2020-01-01, text: x}
"""


def test_next_takes_a_line_for_each_reminder_that_fires_often(place: Place, run: Run) -> None:
    Path(place.paths.file).write_text(CALENDARS)
    lines = run("next", "--after", "2026-11-26T12:00:00Z").out.splitlines()
    assert [line.split()[-5:] for line in lines if "mail" in line] == [["telegram:1", "48x", "in", "24", "h"]]
    assert sum("tea" in line for line in lines) == 9
    assert sum("mail" in line for line in run("next", "-n", "10").out.splitlines()) >= 9
    assert len(run("next", "mail").out.splitlines()) == 11


def test_next_tells_which_days_a_calendar_left_out(place: Place, run: Run) -> None:
    Path(place.paths.file).write_text(CALENDARS)
    within = ("next", "tea", "--after", "2026-12-23", "--until", "2026-12-25")
    shown = [line.split("  ")[0] + line[-15:] for line in run(*within, "--all").out.splitlines()[1:]]
    assert [line[:14] for line in shown] == ["Wed 2026-12-23", "Thu 2026-12-24", "Fri 2026-12-25"]
    assert shown[1].endswith("left out: off")
    assert len(run(*within).out.splitlines()) == 3
    assert json_lines(run(*within, "--all", "--json"))[1] == {
        "reminder": "tea", "fire_time": "2026-12-24T16:00:00Z", "local": "2026-12-24T17:00:00+01:00", "paused": None, "left_out": "off",
    }  # fmt: skip


def test_a_schedule_that_has_ended_is_shown_as_ended(place: Place, run: Run) -> None:
    Path(place.paths.file).write_text(CALENDARS)
    (line,) = [line for line in run("list").out.splitlines() if line.startswith("over")]
    assert "  ended  " in line


def test_next_tries_an_expression_without_a_file(run: Run) -> None:
    zone = ("--timezone", "Europe/Berlin", "--after", "2026-11-26T12:00:00Z")
    result = run("next", "--cron", "0 9 * * mon", *zone, "-n", "1", "--file", "/nowhere")
    assert (result.status, result.err) == (0, "")
    assert result.out.splitlines()[0] == "at 09:00, on Monday, Europe/Berlin"
    assert result.out.splitlines()[2].startswith("Mon 2026-11-30 09:00")
    rule = ("--rrule", "FREQ=MONTHLY;BYDAY=-1FR", "--start", "2026-12-01 16:00")
    assert json_lines(run("next", *rule, *zone, "-n", "1", "--json")) == [
        {"reminder": None, "fire_time": "2026-12-25T15:00:00Z", "local": "2026-12-25T16:00:00+01:00", "paused": None}
    ]
    assert "starts over each hour" in run("next", "--cron", "*/90 * * * *", *zone).err
    later = run("next", "--cron", "0 9 * * *", "--start", "2027-01-01 10:00", *zone)
    assert later.out.splitlines()[2].startswith("Sat 2027-01-02 09:00")


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--cron", "61 * * * *"], 65, "cron, minute"),
        (["--rrule", "FREQ=HOURLY", "--start", "2026-12-01 16:00"], 65, "write every: 2h"),
        (["--cron", "0 9 * * *", "--timezone", "Berln"], 65, "not a time zone"),
        (["--rrule", "FREQ=DAILY"], 2, "a rule counts from a start"),
        (["--rrule", "FREQ=DAILY", "--cron", "0 9 * * *"], 2, "can't be tried at once"),
        (["--cron", "0 9 * * *", "pills"], 2, "a name can't be given"),
        (["--timezone", "UTC"], 2, "go with --cron or --rrule"),
    ],
)
def test_an_expression_that_can_t_be_tried(run: Run, arguments: list[str], status: int, words: str) -> None:
    result = run("next", *arguments)
    assert (result.status, result.out) == (status, "")
    assert words in result.err


@pytest.mark.parametrize(
    ("after", "until", "days"),
    [
        ("2026-12-23", "2026-12-24", ["2026-12-23", "2026-12-24"]),
        ("2026-12-23T17:00+01:00", "2026-12-24 16:00Z", ["2026-12-24"]),
        ("2026-12-23T16:59+01:00", "2026-12-24 15:59Z", ["2026-12-23"]),
    ],
)
def test_a_date_stands_for_its_whole_day(place: Place, run: Run, after: str, until: str, days: list[str]) -> None:
    Path(place.paths.file).write_text(CALENDARS.replace('except: "off", ', ""))
    lines = json_lines(run("next", "tea", "--json", "--after", after, "--until", until))
    assert [line["local"][:10] for line in lines] == days


@pytest.mark.parametrize(("until", "least"), [("2d", 2), ("tomorrow", 1), ("today", 0)])
def test_a_duration_or_a_word_is_counted_from_now(place: Place, run: Run, until: str, least: int) -> None:
    Path(place.paths.file).write_text(CALENDARS.replace('except: "off", ', ""))
    assert least <= len(json_lines(run("next", "tea", "--json", "--until", until))) <= least + 1


def test_an_unknown_reminder_gets_the_nearest_name(run: Run) -> None:
    assert run("next", "pils") == (1, "", "bub-cron: there is no reminder pils; did you mean pills?\n")
    assert run("fire", "zzz") == (1, "", "bub-cron: there is no reminder zzz; `bub-cron list` shows those there are\n")
    assert "\\u001b[31m" in run("fire", EVIL.replace("\0", "")).err


@pytest.mark.parametrize("option", ["--after", "--until"])
@pytest.mark.parametrize("text", ["soon", "2026-13-01", "", EVIL.replace("\0", "")])
def test_what_is_no_instant_is_a_usage_error(run: Run, option: str, text: str) -> None:
    result = run("next", option, text)
    assert (result.status, result.out) == (2, "")
    assert "is not an instant; write it like 2026-12-01T07:30:00Z, 2026-12-01, 2h or tomorrow" in result.err


def test_the_end_of_the_calendar_is_an_end(run: Run) -> None:
    assert (
        run("next", "pills", "--json", "--after", "9999-12-31T12:00:00Z", "--until", "9999-12-31T23:59:59Z").status == 0
    )


def test_list_shows_the_next_and_the_last(place: Place, run: Run) -> None:
    record(place, NOON, state="missed", error="too late")
    lines = {line["reminder"]: line for line in json_lines(run("list", "--json"))}
    assert list(lines) == ["pills", "standup", "old", "spare"]
    assert lines["pills"]["last"] == {"fire_time": f"{DAY}12:00:00Z", "outcome": "missed", "error": "too late"}
    assert lines["pills"]["next"].endswith((":00:00Z",))
    assert {key: lines["standup"][key] for key in ("enabled", "schedule", "timezone", "kind", "to", "last")} == {
        "enabled": True, "schedule": "0 9 * * *", "timezone": "UTC", "kind": "prompt", "to": "telegram:1", "last": None,
    }  # fmt: skip
    assert (lines["old"]["next"], lines["spare"]["next"], lines["spare"]["enabled"]) == (None, None, False)


def test_list_as_a_table(place: Place, run: Run) -> None:
    record(place, NOON, state="missed")
    result = run("list")
    assert (result.status, result.err) == (0, "")
    rows = {line.split()[0]: line.split() for line in result.out.splitlines()}
    assert list(rows) == ["reminder", "pills", "standup", "old", "spare"]
    assert ["missed" in rows["pills"], "-" in rows["old"]] == [True, True]
    assert "disabled" in rows["spare"]


ZONES = """\
reminders:
  here: {cron: "0 9 * * mon-fri", timezone: Europe/Berlin, to: "telegram:123456789", text: x}
  there: {cron: "0 9 * * *", timezone: Asia/Tokyo, to: "telegram:123456789", text: x}
"""


def test_list_names_one_clock_and_each_schedules_own_zone_where_it_is_another(place: Place, run: Run) -> None:
    Path(place.paths.file).write_text(ZONES)
    head, here, there = run("list").out.splitlines()
    assert f"next ({machine_zone()})" in head
    assert here.endswith("at 09:00, Monday to Friday, Europe/Berlin")
    assert there.endswith("at 09:00, every day, Asia/Tokyo")
    Path(place.paths.file).write_text(ZONES.replace("Asia/Tokyo", "Europe/Berlin"))
    head, here, there = run("list").out.splitlines()
    assert "next (Europe/Berlin)" in head
    assert here.endswith("at 09:00, Monday to Friday")
    assert " 09:00  " in here


# --- log


def test_log_merges_both_stores_and_the_inboxs_word_counts(place: Place, run: Run) -> None:
    record(place, NOON, state="accepted")
    record(place, NOON + 60, state="missed", error="too late")
    place.fill_inbox(
        id=NOON_ID, reminder="pills", fire_time=f"{DAY}12:00:00Z", state="unknown", reply="Grüße", attempts=1,
        reason="not_seen", error="it broke", accepted_at=NOON + 1.5, started_at=NOON + 2.0, finished_at=NOON + 4.0, tokens=7,
        request='{"to": "telegram:1"}',
        messages=[{}, {"kind": "copy", "to": "slack:2", "state": "unknown", "error": "it broke"}, {"kind": "alert"}],
    )  # fmt: skip
    missed, unknown = json_lines(run("log", "--json"))
    assert unknown == {
        "id": NOON_ID, "reminder": "pills", "fire_time": f"{DAY}12:00:00Z", "outcome": "unknown", "reason": "not_seen",
        "attempts": 1, "sends": 2, "tokens": 7, "error": "it broke", "reply": "Grüße",
        "messages": [
            {"kind": "reply", "to": "telegram:1", "state": "delivered", "sends": 1, "error": None},
            {"kind": "copy", "to": "slack:2", "state": "unknown", "sends": 1, "error": "it broke"},
            {"kind": "alert", "to": "telegram:1", "state": "delivered", "sends": 1, "error": None},
        ],
        "accepted_at": f"{DAY}12:00:01Z", "finished_at": f"{DAY}12:00:04Z", "seconds": 2.0, "count": 1, "to": "telegram:1",
    }  # fmt: skip
    assert missed == {
        "id": firing("pills", DAY + "12:01:00"), "reminder": "pills", "fire_time": f"{DAY}12:01:00Z",
        "outcome": "missed", "reason": "late", "attempts": 0, "sends": 0, "tokens": None, "error": "too late",
        "reply": None, "messages": [], "accepted_at": None, "finished_at": f"{DAY}12:02:00Z", "seconds": None, "count": 1,
        "to": missed["to"],
    }  # fmt: skip


def test_log_chooses(place: Place, run: Run) -> None:
    record(place, *range(NOON, NOON + 30 * 60, 60))
    record(place, NOON, name="standup", state="accepted")
    assert len(json_lines(run("log", "--json"))) == 20
    assert len(json_lines(run("log", "--json", "-n", "100"))) == 31
    assert {line["reminder"] for line in json_lines(run("log", "standup", "--json"))} == {"standup"}
    assert len(json_lines(run("log", "--json", "--outcome", "accepted", "-n", "100"))) == 31
    assert [line["id"] for line in json_lines(run("log", "--json", "--id", NOON_ID))] == [NOON_ID]
    assert json_lines(run("log", "--json", "--id", "nothing")) == []
    assert run("log", "--id", "nothing\x1b").err == "no firing nothing\\u001b is recorded\n"


def test_log_of_a_name_that_no_reminder_has_or_had_exits_with_1(place: Place, run: Run) -> None:
    record(place, NOON, name="gone", state="missed")
    assert (run("log", "gone").status, run("log", "gone", "--outcome", "failed").status) == (0, 0)
    for arguments in (["nobody"], ["nobody", "--json"]):
        assert run("log", *arguments).status == 1
    os.unlink(place.paths.file)
    assert run("log", "nobody").status == 0, "without a file nobody can tell"


@pytest.mark.parametrize("word", OUTCOMES)
def test_log_knows_every_outcome(run: Run, word: str) -> None:
    assert run("log", "--outcome", word).status == 0


@pytest.mark.parametrize("arguments", [["--outcome", "busy"], ["-n", "0"], ["--nonsense"], ["a", "b"]])
def test_what_log_does_not_take_is_a_usage_error(run: Run, arguments: list[str]) -> None:
    result = run("log", *arguments)
    assert (result.status, result.out) == (2, "")


def test_log_as_a_table_shows_the_first_line_of_what_matters(place: Place, run: Run) -> None:
    record(place, NOON)
    place.fill_inbox(id="poke-1", state="failed", error=f"boom {EVIL}\nmore", accepted_at=NOON + 60, reply="r")
    place.fill_inbox(id="poke-2", state="delivered", reply=f"\n\n {EVIL} hello\nmore", accepted_at=NOON + 120)
    result = run("log")
    assert (result.status, result.err) == (0, "")
    assert "\x9b" not in result.out
    assert "\u202e" not in result.out
    head, first, second, third = result.out.splitlines()
    assert head.split() == ["time", f"({machine_zone()})", "reminder", "outcome", "reply", "or", "reason"]
    assert first.endswith("\\u001b[31mred\\u0007\\u009b1m\\u202e\\u0000 hello")
    assert second.endswith("boom \\u001b[31mred\\u0007\\u009b1m\\u202e\\u0000 more"), "a reason is never cut"
    assert third.endswith("Time for your pills.")


# Why did nothing happen at nine? A row's store, its columns, and the words that `log` has for it.
WHY: dict[str, tuple[str, dict[str, Any], str]] = {
    "no gateway yet": ("ledger", {}, "due  waits for a gateway to take it: Time for your pills."),
    "downtime": (
        "ledger", {"state": "missed", "error": "its grace was over before a tick ran"},
        "missed  its grace was over before a tick ran",
    ),
    "still ran": ("inbox", {"state": "skipped", "error": "pills@x still ran"}, "skipped  pills@x still ran"),
    "a reason without a sentence": ("inbox", {"state": "skipped", "reason": "gate"}, "skipped  its gate said no"),
    "waits": ("inbox", {"state": "accepted", "reply": "hi"}, "accepted  waits for its turn in the gateway: hi"),
    "a text": (
        "inbox", {"state": "delivered", "request": '{"kind": "text", "body": "Pills!\\nNow."}'}, "delivered",
    ),
    "a request that is damaged": ("inbox", {"state": "delivered", "request": "[1"}, "delivered"),
    "runs": ("inbox", {"state": "running", "attempts": 1}, "running  is under way"),
    "elsewhere": (
        "ledger", {"state": "accepted", "error": None},
        "accepted  a gateway has it, whose own record can't be seen here: Time for your pills.",
    ),
    "again": (
        "inbox", {"state": "retrying", "error": "boom\nmore", "attempts": 1},
        "retrying  waits to be tried again: boom more",
    ),
    "rejected": ("ledger", {"state": "rejected", "error": "commands are not allowed"}, "rejected  commands are not allowed"),
    "failed": ("inbox", {"state": "failed", "error": "boom", "attempts": 3}, "failed  boom"),
    "silent": ("inbox", {"state": "silent", "attempts": 1}, "silent  nothing was sent: the model had nothing to say"),
    "ran": ("inbox", {"state": "ran", "attempts": 1}, "ran  it ran, and nothing was sent for it"),
    "undelivered": (
        "inbox", {"state": "undelivered", "error": "this gateway has no channel x"},
        "undelivered  this gateway has no channel x",
    ),
    "unknown": (
        "inbox", {"state": "unknown", "error": "the gateway ended in the middle of the send", "reply": "r"},
        "unknown  the gateway ended in the middle of the send",
    ),
}  # fmt: skip

# What stands below the row besides.
DETAILS = {
    "a reason without a sentence": ["    reason: gate"],
    "rejected": ["    reason: rejected"],
    "failed": ["    took: 3 attempts"],
    "downtime": ["    reason: late"],
    "a text": ["    | Pills!", "    | Now."],
    "unknown": ["    | r"],
}


@pytest.mark.parametrize("case", WHY)
def test_log_names_the_reason_in_plain_words(place: Place, run: Run, case: str) -> None:
    store, columns, words = WHY[case]
    if store == "ledger":
        record(place, NOON, **columns)
    else:
        place.fill_inbox(id=NOON_ID, reminder="pills", fire_time=f"{DAY}12:00:00Z", accepted_at=NOON, **columns)
    result = run("log", "pills")
    assert result.status == 0
    row, *details = result.out.splitlines()[1:]
    assert " ".join(row.split()[3:]) == " ".join(words.split())
    assert details == DETAILS.get(case, [])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["pills"],
            r"no firing of pills is recorded; pills fires next at \d{4}-\d\d-\d\d 21:00 Europe/Berlin, in .+",
        ),
        (["pills", "--outcome", "failed"], r"no firing of pills is failed; pills fires next at .+"),
        (["spare"], r"no firing of spare is recorded; spare is disabled"),
        (["old"], r"no firing of old is recorded; old will not fire again: its times are past"),
        (["pils"], r"no firing of pils is recorded; there is no reminder pils; did you mean pills\?"),
        (
            ["\x1b[31m"],
            r"no firing of \\u001b\[31m is recorded; there is no reminder \\u001b\[31m; `bub-cron list` shows .+",
        ),
    ],
)
def test_log_of_a_reminder_without_firings_says_why(run: Run, arguments: list[str], words: str) -> None:
    result = run("log", *arguments)
    assert (result.status, result.out) == (int("there is no reminder" in words), "")
    assert re.fullmatch(words, result.err.removesuffix("\n"))


def test_log_of_one_reminder_says_below_its_firings_why_there_will_be_none_now(place: Place, run: Run) -> None:
    record(place, NOON, name="spare", state="accepted")
    record(place, NOON, name="gone", state="accepted")
    record(place, NOON, state="accepted")
    assert run("log", "spare").err == "spare is disabled\n"
    assert run("log", "gone").err.startswith("there is no reminder gone; ")
    assert run("log", "pills").err.startswith("pills fires next at ")
    assert (run("log").err, run("log", "spare", "--json").err) == ("", "")


@pytest.mark.parametrize(
    ("text", "words"), [(None, "{} does not exist; `bub-cron init` writes one"), ("reminders: [", "{}:1:13: ")]
)
def test_log_needs_no_good_file(place: Place, run: Run, text: str | None, words: str) -> None:
    record(place, NOON)
    os.unlink(place.paths.file)
    if text is not None:
        place.write(text, NOON)
    result = run("log", "pills")
    assert (result.status, len(result.out.splitlines())) == (0, 2)
    assert result.err.startswith("when pills fires next isn't known: " + words.format(place.paths.file))
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize("text", [None, "reminders: ["], ids=["missing", "faulty"])
@pytest.mark.parametrize("command", [("list",), ("next",), ("show", "pills"), ("fire", "pills")])
def test_a_command_that_needs_a_good_file_says_what_fires_meanwhile(
    place: Place, run: Run, text: str | None, command: tuple[str, ...]
) -> None:
    os.unlink(place.paths.file)
    if text is not None:
        place.write(text, NOON)
    note = "\nbub-cron: until that is fixed, the last good version stays in force\n"
    assert note not in run(*command).err
    place.write(FILE, NOON)
    place.tick(NOON)
    os.unlink(place.paths.file)
    if text is not None:
        place.write(text, NOON)
    assert run(*command).err.endswith(note)


def test_what_fires_meanwhile_may_stand_in_a_drop_in(place: Place, run: Run) -> None:
    note = "\nbub-cron: until that is fixed, the last good version stays in force\n"
    drop_ins = Path(place.paths.file).parent / "reminders.d"
    drop_ins.mkdir(mode=0o755)
    drop_in = drop_ins / "chat.yaml"
    drop_in.write_text(FILE)
    drop_in.chmod(0o644)
    os.unlink(place.paths.file)
    place.tick(NOON)
    drop_in.chmod(0o666)
    assert run("list").err.endswith(note)
    assert run("remove", "pills").err.endswith(note)
    drop_in.unlink()
    assert run("list").err.endswith(note)
    drop_ins.rmdir()
    drop_ins.touch()
    assert run("list").err.endswith(note)


@pytest.mark.parametrize(
    "label",
    ["lunch", "0001-01-01", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-12:00", "-1", "now", "2026-99-99T99:99:99Z"],
)
def test_log_takes_any_label_for_a_fire_time(place: Place, run: Run, label: str) -> None:
    place.fill_inbox(id="poke-1", fire_time=label, accepted_at=NOON)
    assert run("log").status == 0
    assert [line["fire_time"] for line in json_lines(run("log", "--json"))] == [label]


def test_json_holds_nothing_that_a_terminal_would_obey(place: Place, run: Run) -> None:
    place.fill_inbox(id="poke-1", state="delivered", reply=f"{EVIL}\u2028\x85\x7f", accepted_at=NOON)
    result = run("log", "--json")
    assert json.loads(result.out)["reply"] == f"{EVIL}\u2028\x85\x7f"
    assert result.out.rstrip("\n").isprintable()
    assert len(result.out.splitlines()) == 1


def test_a_store_that_cannot_be_read_is_told(place: Place, run: Run) -> None:
    os.makedirs(place.paths.state)
    Path(place.paths.ledger).write_text("Dear diary,\n" * 100)
    for arguments in (["log"], ["list"], ["log", "--json"]):
        result = run(*arguments)
        assert (result.status, result.out) == (74, "")
        assert result.err.startswith(f"bub-cron: the stores in {place.paths.state} can't be read: ")


# --- Looking changes nothing

LOOKING: Sequence[Sequence[str]] = [
    ["log"],
    ["log", "--json"],
    ["log", "pills"],
    ["log", "old"],
    ["log", "--id", "nothing"],
    ["log", "--since", "2h", "--until", "2031-01-01"],
    ["status"],
    ["status", "--json"],
    ["doctor"],
    ["completion", "bash"],
    ["completion", "fish"],
    ["list"],
    ["list", "--json"],
    ["next"],
    ["next", "pills", "--json"],
    ["check"],
    ["schema"],
    ["fire", "--help"],
]


def snapshot(root: Path) -> dict[str, bytes]:
    """Every file below a directory; of the shared memory of a WAL, which is no content, the name alone."""
    return {
        str(path.relative_to(root)): b"" if path.name.endswith("-shm") else path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


HOLDER = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from fake_gateway import Place, insert
store = Place(Path(sys.argv[1])).open_inbox()
insert(store, id="in-the-wal", state="delivered")
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("inbox", ["none", "stopped", "in use", "killed"])
def test_commands_that_look_change_no_byte_and_leave_no_file(place: Place, run: Run, inbox: str) -> None:
    record(place, NOON)
    if inbox == "stopped":
        place.fill_inbox(id="poke-1")
    process = None
    if inbox in ("in use", "killed"):
        command = [sys.executable, "-c", HOLDER, str(place.home), str(Path(__file__).parent)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        if inbox == "killed":
            process.send_signal(signal.SIGKILL)
            process.communicate()
    before = snapshot(place.home)
    for arguments in LOOKING:
        assert run(*arguments).status == (1 if arguments[0] in ("status", "doctor") else 0)  # there is no gateway
    assert snapshot(place.home) == before
    assert ("cron/inbox.db-wal" in before) is (process is not None)
    if process is not None:
        process.communicate()


def test_commands_that_look_make_no_directory(place: Place, run: Run) -> None:
    before = snapshot(place.home)
    for arguments in LOOKING:
        assert run(*arguments).status == (1 if arguments[0] in ("status", "doctor") else 0)
    assert snapshot(place.home) == before
    assert not Path(place.paths.state).exists()


def test_the_reminders_file_is_never_written(place: Place, run: Run) -> None:
    before = os.stat(place.paths.file)
    with place.gateway(ending(status="delivered")):
        for arguments in (*LOOKING, ["fire", "pills"], ["tick"]):
            run(*arguments)
    after = os.stat(place.paths.file)
    assert (after.st_mtime_ns, after.st_ctime_ns, after.st_ino) == (
        before.st_mtime_ns,
        before.st_ctime_ns,
        before.st_ino,
    )


# --- fire, send


def test_fire_submits_what_the_reminder_is_under_an_id_of_its_own(place: Place, run: Run) -> None:
    with place.gateway(ending(status="delivered", reply="All well.\nReally.", seconds=1.25)) as gateway:
        results = [run("fire", "standup"), run("fire", "standup")]
    ids = gateway.submitted
    assert [request.pop("id") for request in gateway.requests] == ids
    assert ids[0] != ids[1]
    expires = gateway.requests[0].pop("expires")
    assert expires == pytest.approx(time.time() + 3600, abs=60), "its own grace"
    assert gateway.requests[0] == {
        "reminder": "standup", "to": "telegram:1", "prompt": "What changed?", "attempts": 3, "timeout": 600,
        "overlap": "queue", "reply": "chat", "quiet": False, "model": "openai:x", "timezone": "UTC", "wait": True,
    }  # fmt: skip
    assert results[0] == (0, "All well.\nReally.\n", f"delivered to telegram:1 in 1.2 s ({ids[0]})\n")


def test_fire_ignores_enabled(place: Place, run: Run) -> None:
    with place.gateway(ending(status="delivered")) as gateway:
        assert run("fire", "spare").status == 0
    assert len(gateway.requests) == 1


@pytest.mark.parametrize(
    ("status", "code"),
    [("delivered", 0), ("silent", 0), ("ran", 0), ("undelivered", 1), ("failed", 1), ("unknown", 1), ("missed", 1)],
)
def test_fire_and_send_exit_as_the_final_outcome_says(place: Place, run: Run, status: str, code: int) -> None:
    with place.gateway(ending(status=status, error="why not")) as gateway:
        for arguments in (["fire", "pills"], ["send", "--to", "telegram:9", "--text", "hello"]):
            result = run(*arguments)
            line, *rest = result.err.splitlines()
            assert (result.status, result.out) == (code, "")
            assert line.startswith(f"{status} {'to' if status.endswith('delivered') else 'for'} telegram:")
            assert rest == ["error: why not", *["`bub-cron doctor` examines the whole chain"] * code]
    assert gateway.requests[1]["to"] == "telegram:9"


def test_without_waiting_accepted_is_enough(place: Place, run: Run) -> None:
    with place.gateway() as gateway:
        result = run("fire", "pills", "--no-wait")
        assert (result.status, result.out) == (0, "")
        assert result.err.startswith("accepted for telegram:1 (fire-pills-")
        assert run("send", "--to", "telegram:1", "--text", "x", "--no-wait").status == 0
    assert [request["wait"] for request in gateway.requests] == [False, False]


def test_without_waiting_another_first_answer_is_not_enough(place: Place, run: Run) -> None:
    with place.gateway(lambda request: [{"id": request["id"], "status": "missed", "error": "too late"}]):
        assert run("fire", "pills", "--no-wait").status == 1


def test_a_rejection_is_told(place: Place, run: Run) -> None:
    with place.gateway(rejecting):
        assert run("fire", "pills") == (1, "", "rejected: commands are not allowed\n")


@pytest.mark.parametrize(("reason", "status"), [("gate", 0), ("unchanged", 0), ("budget", 1), ("paused", 1)])
def test_what_its_gate_skips_is_a_success_and_says_so(place: Place, run: Run, reason: str, status: int) -> None:
    with place.gateway(ending(status="skipped", reason=reason)):
        result = run("fire", "pills")
    assert result.status == status
    assert result.err.startswith("skipped for telegram:1 (")
    assert result.err.splitlines()[1:] == [f"error: {REASONS[reason]}"]


def test_busy_is_told_and_no_success(place: Place, run: Run) -> None:
    with place.gateway(busy):
        result = run("fire", "pills")
    assert result == (1, "", "the gateway is busy, so nothing was fired: the inbox is full\n")


def test_each_refusal_is_shown_as_it_happens_with_the_next_try(place: Place, run: Run) -> None:
    looks: list[Message] = []

    def script(request: Message) -> list[Message]:
        if "status" not in request:
            return [{"id": request["id"], "status": "accepted"}]
        looks.append(request)
        again = {"id": request["status"], "status": "retrying", "error": f"no way {len(looks) // 2}"}
        if len(looks) < 4:
            return [{**again, "next_try": "2026-11-23T11:00:30Z"}]
        return [{"id": request["status"], "status": "delivered"}]

    with place.gateway(script):
        result = run("fire", "pills")
    *lines, last = result.err.splitlines()
    assert (result.status, last.split()[0]) == (0, "delivered")
    assert [line.partition("; next try at")[0] for line in lines] == [
        "Ctrl-C ends only the waiting; the gateway goes on.", "failed: no way 0", "failed: no way 1"
    ]  # fmt: skip
    assert "; next try at " in result.err


@pytest.mark.parametrize("arguments", [["fire", "pills"], ["send", "--to", "telegram:1", "--text", "x"]])
def test_no_gateway_is_69(place: Place, run: Run, arguments: list[str]) -> None:
    result = run(*arguments)
    assert (result.status, result.out) == (69, "")
    assert result.err.startswith(f"bub-cron: no gateway listens at {place.paths.socket}")
    with place.gateway(leave_after=1):
        result = run(*arguments)
    assert (result.status, result.out) == (69, "")
    assert "closed the connection before it had answered" in result.err


def test_a_gateway_that_leaves_while_one_waits_is_told_with_the_id(place: Place, run: Run) -> None:
    def accept_and_leave(request: Message) -> list[Message | bytes]:
        return [{"id": request["id"], "status": "accepted"}, LEAVE]

    with place.gateway(accept_and_leave) as gateway:
        result = run("fire", "pills")
    assert (result.status, result.out) == (1, "")
    assert f"{gateway.submitted[0]} is in its inbox: `bub-cron log` will show what becomes of it" in result.err


def test_what_the_gateway_says_is_shown_and_not_obeyed(place: Place, run: Run) -> None:
    with place.gateway(ending(status="failed", error=EVIL, reply=f"{EVIL}\n{EVIL}", seconds=1)):
        result = run("fire", "pills")
    shown = "\\u001b[31mred\\u0007\\u009b1m\\u202e\\u0000"
    assert result.err.splitlines()[1] == f"error: {shown}"
    assert result.out.splitlines() == [shown, shown]
    with place.gateway(lambda request: [{"id": request["id"], "status": "rejected", "error": EVIL}]):
        assert run("fire", "pills").err == f"rejected: {shown}\n"


def test_a_gateway_that_says_nothing_is_not_waited_for_for_ever(place: Place) -> None:
    code = (
        "import sys; from bub_cron.trigger import client; client.PATIENCE = 0.1\n"
        "from bub_cron.cli import commands; commands(['fire', 'pills', '--no-wait'])"
    )
    with place.gateway(lambda _: []):
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=15, check=False)
    assert found.returncode == 69


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--to", "telegram", "--text", "x"], "to must be channel:chat_id"),
        (["--to", "t:1"], "none of prompt, text"),
        (["--to", "t:1", "--text", "x", "--prompt", "y"], "more than one of prompt, text"),
        (["--to", "t:1", "--text", ""], "text is empty"),
        (["--to", "t:1", "--text", "x", "--timeout", "soon"], "timeout 'soon' is not a duration"),
        (["--to", "t:1", "--text", "\udcff"], "text holds half of a surrogate pair"),
        (["--text", "x"], "Missing option '--to'"),
    ],
)
def test_what_send_does_not_take_is_a_usage_error(place: Place, run: Run, options: list[str], message: str) -> None:
    with place.gateway() as gateway:
        result = run("send", *options)
    assert (result.status, result.out) == (2, "")
    assert message in result.err
    assert gateway.requests == []


def test_send_passes_all_it_was_given(place: Place, run: Run) -> None:
    with place.gateway(ending(status="silent")) as gateway:
        given = ["--to", "t:1", "--prompt", "p", "--session", "s", "--timeout", "1h30m"]
        assert run("send", *given).status == 0
    (request,) = gateway.requests
    assert request.pop("id").startswith("send-")
    assert request == {"to": "t:1", "prompt": "p", "session": "s", "timeout": 5400, "wait": True}


@pytest.mark.parametrize("option", ["--text", "--prompt", "--command"])
def test_send_reads_standard_input(place: Place, option: str) -> None:
    with place.gateway(ending(status="delivered")) as gateway:
        command = [sys.executable, "-m", "bub_cron", "send", "--to", "t:1", option, "-"]
        done = subprocess.run(command, input="Grüße\n\nzwei\n".encode(), capture_output=True, check=False)
        assert (done.returncode, done.stdout) == (0, b"")
        both = subprocess.run([*command, "--session", "-"], input=b"\xff", capture_output=True, check=False)
    (request,) = gateway.requests
    assert request[option.removeprefix("--")] == "Grüße\n\nzwei"
    assert both.returncode == 2
    assert b"not UTF-8" in both.stderr


def test_json_is_the_last_answer_of_the_socket(place: Place, run: Run) -> None:
    answer = {"status": "delivered", "reply": "All\nwell", "seconds": 1.5, "attempts": 1}
    with place.gateway(ending(**answer)):
        for arguments in (["fire", "pills"], ["send", "--to", "t:1", "--text", "x"]):
            result = run(*arguments, "--json")
            (line,) = parsed(result)
            assert (result.status, {key: line[key] for key in answer}) == (0, answer)
            assert line["id"].startswith(arguments[0])
    with place.gateway(rejecting):
        result = run("fire", "pills", "--json")
        assert (result.status, parsed(result)[0]["status"]) == (1, "rejected")
    with place.gateway():
        assert parsed(run("fire", "pills", "--json", "--no-wait"))[0]["status"] == "accepted"


def test_a_text_that_fits_no_line_is_a_usage_error(place: Place, run: Run) -> None:
    with place.gateway(ending(status="delivered")) as gateway:
        result = run("send", "--to", "t:1", "--text", "文" * (MAX_LINE // 3))
    assert gateway.requests == []
    assert result.status == 2


# --- The command line


def test_help_and_version(run: Run) -> None:
    assert run("--version").out == f"bub-cron, version {__version__}\n"
    for arguments in (["--help"], ["-h"], *([name, "-h"] for name in ENTRIES)):
        result = run(*arguments)
        assert (result.status, result.err) == (0, "")
        assert result.out.startswith("Usage: bub-cron")


def test_help_fits_80_columns_and_lists_each_command_in_its_group(run: Run) -> None:
    lines = run("--help").out.splitlines()
    assert max(map(len, lines)) <= 80
    assert not any("..." in line for line in lines[1:]), "no summary is cut"
    titles = [*GROUPS, "Examples", "Exit status"]
    assert [line.removesuffix(":") for line in lines if line.removesuffix(":") in titles] == titles
    for name, one in ENTRIES.items():
        assert f"  {name:10}  {one.summary}" in lines
    assert f"  2   {dict(STATUSES)['2']}" in lines


@pytest.mark.parametrize("name", ENTRIES)
def test_a_commands_help_ends_with_its_examples_and_its_exit_statuses(run: Run, name: str) -> None:
    shown = run(name, "--help").out
    assert max(map(len, shown.splitlines())) <= 80
    assert "--socket" not in shown, "the paths' options are told once, by `bub-cron --help`"
    examples, _, statuses = shown.partition("\nExamples:\n")[2].partition("\n\nExits with:\n")
    assert [line.removeprefix("  ") for line in examples.splitlines()] == list(ENTRIES[name].examples)
    assert statuses.strip() == ("the gate's own" if name == "gate" else f"{ENTRIES[name].exits}, 2 wrong usage")


def test_the_examples_in_the_help_are_command_lines_that_click_takes() -> None:
    for name, one in ENTRIES.items():
        for example in one.examples:
            line = re.sub(r'^eval "\$\((.*)\)"$', r"\1", example).partition("bub-cron ")[2].partition(" > ")[0]
            first, *arguments = shlex.split(line)
            command = commands.get_command(click.Context(commands), first)
            assert first == name
            assert command is not None
            command.make_context(name, arguments)  # a usage error is raised


def test_a_command_without_an_entry_lands_in_the_last_group(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(commands.commands, "new", click.Command("new", help="Do something new."))
    assert "\nOther:\n  new         Do something new.\n" in run("--help").out


def test_an_unknown_command_gets_the_nearest_name(run: Run) -> None:
    assert "there is no command 'lst'; did you mean list?" in run("lst").err


def test_help_loads_no_command(place: Place) -> None:
    code = (
        "import sys; from bub_cron.cli import commands\n"
        "commands(['--help'], standalone_mode=False)\n"
        "print([name for name in sys.modules if name.startswith(('bub_cron.cli.', 'yaml', 'rich', 'sqlite3'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['bub_cron.cli.contents', 'bub_cron.cli.base']"


@pytest.mark.parametrize("before", [True, False])
def test_the_paths_may_stand_before_or_after_a_command(place: Place, run: Run, before: bool) -> None:
    other = Place(place.home / "other")
    other.write("reminders: {}\n", NOON)
    option = ["--file", other.paths.file]
    result = run(*option, "check") if before else run("check", *option)
    assert result.out.startswith(f"{other.paths.file}: 0 reminders")
    assert run("--file", "/nowhere", "check", *option).status == 0, "what stands after it counts more"


def test_flags_override_the_environment(place: Place, run: Run) -> None:
    other = Place(place.home / "other")
    other.write("reminders: {}\n", NOON)
    assert run("check", "--file", other.paths.file).out.startswith(f"{other.paths.file}: 0 reminders")
    record(other, NOON)
    assert len(json_lines(run("log", "--json", "--state", other.paths.state))) == 1
    with other.gateway(ending(status="delivered")):
        assert run("fire", "pills", "--socket", other.paths.socket).status == 0


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ([], {}),
        (["--file", "f", "--state=s", "--socket", "k"], {"file": "f", "state": "s", "socket": "k"}),
        (["--file=a=b"], {"file": "a=b"}),
        (["--file", "a", "--file", "b"], {"file": "b"}),
        (["--file"], None),
        (["--file="], None),
        (["-h"], None),
        (["--fil", "x"], None),
        (["x"], None),
    ],
)
def test_a_ticks_options_are_read_without_click(arguments: list[str], options: dict[str, str] | None) -> None:
    assert _path_options(arguments) == options


@pytest.mark.parametrize("quick", [True, False])
def test_a_tick_runs_the_same_with_click_and_without(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], quick: bool
) -> None:
    place.write("reminders: [", NOON)
    # Click joins `--state=` and what follows as the quick way does; an empty --file is for click to judge.
    extra = [] if quick else ["--file="]
    monkeypatch.setattr(sys, "argv", ["bub-cron", "tick", f"--state={place.home / 's'}", *extra])
    monkeypatch.setattr(entry, "leave", sys.exit)
    with pytest.raises(SystemExit) as end:
        main()
    captured = capsys.readouterr()
    assert (end.value.code, captured.out) == (65, "")
    assert captured.err.startswith(f"bub-cron: {place.paths.file}:1:")
    assert (place.home / "s" / "ledger.db").exists()


def test_a_tick_submits_what_is_due_now(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = int(time.time())
    place.write("reminders:\n  a: {every: 1m, to: 't:1', text: x}\n", now - 600)
    place.tick(now - 120)
    monkeypatch.setattr(sys, "argv", ["bub-cron", "tick"])
    monkeypatch.setattr(entry, "leave", sys.exit)
    with place.gateway() as gateway, pytest.raises(SystemExit) as end:
        main()
    assert (end.value.code, capsys.readouterr()) == (0, ("", ""))
    assert gateway.taken


@pytest.mark.parametrize("arguments", [["tick", "--nonsense"], ["tick", "x"], ["nonsense"], []])
def test_what_is_no_command_is_a_usage_error(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bub-cron", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert capsys.readouterr().out == ""
    assert not Path(place.paths.state).exists()


@pytest.mark.parametrize("listener", [True, False])
def test_what_a_tick_says_goes_out_before_it_leaves(place: Place, listener: bool) -> None:
    place.write("reminders: [", NOON)
    command = [sys.executable, "-m", "bub_cron", "tick"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        if not listener:
            process.stderr.close()
        assert process.wait() == 65
        assert not listener or process.stderr.read().startswith(f"bub-cron: {place.paths.file}:1:")


def test_the_module_can_be_run(place: Place) -> None:
    found = subprocess.run([sys.executable, "-m", "bub_cron", "log"], capture_output=True, text=True, check=True)
    assert found.stdout == ""
    assert found.stderr == (
        "nothing has fired yet, and no tick has run: `bub-cron install` lets this machine run it each minute\n"
    )


def test_a_reader_that_leaves_is_no_traceback(place: Place) -> None:
    record(place, *range(NOON, NOON + 60 * 999, 60))
    process = subprocess.Popen(
        [sys.executable, "-m", "bub_cron", "log", "--json", "-n", "999"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    process.wait()


def test_an_inbox_in_use_is_seen_at_once(place: Place, run: Run) -> None:
    with closing(place.open_inbox()) as store:
        insert(store, id="poke-1", state="running", accepted_at=NOON)
        assert [line["outcome"] for line in json_lines(run("log", "--json"))] == ["running"]
        store.execute("UPDATE firings SET state = 'ran'")
        assert [line["outcome"] for line in json_lines(run("log", "--json"))] == ["ran"]
