"""`bub-cron log`: a time range, the times without a tick, and --follow; what it says of a firing is in test_cli.py."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import ledger_kit
import pytest
from click.testing import CliRunner
from fake_gateway import Place
from gateway_kit import SCRIPTS, until
from health_kit import FILE, NOON, record

from bub_cron.cli import commands
from bub_cron.trigger.ledger import Ledger

MINUTE, HOUR, DAY = 60, 3600, 86400


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    made = Place(tmp_path / "bub")
    made.write(FILE, NOON)
    monkeypatch.setenv("BUB_HOME", str(made.home))
    for name in ("BUB_CRON_FILE", "BUB_CRON_STATE", "BUB_CRON_SOCKET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    return made


def ticked(place: Place, last: float, *gaps: tuple[int, int]) -> None:
    with closing(Ledger(place.paths.ledger)) as ledger:
        ledger.set_last_tick(int(last), int(last))
        for began, ended in gaps:
            ledger.note_gap(began, ended)


def log(*arguments: str, exits: int = 0) -> list[str]:
    """Return the lines below the head."""
    done = CliRunner().invoke(commands, ["log", *arguments])
    assert done.exit_code == exits, done.output
    return [line for line in done.stdout.splitlines() if line[:4] not in ("time", "    ")]


def times(*arguments: str) -> list[str]:
    return [line[11:16] for line in log(*arguments)]


# --- A time range


def test_since_and_until_are_instants_with_both_ends(place: Place) -> None:
    record(place, *(NOON + number * HOUR for number in range(5)))
    assert times("--since", "2026-11-23T13:00", "--until", "2026-11-23T15:00:00Z") == ["15:00", "14:00", "13:00"]
    assert times("--until", "2026-11-23T12:59") == ["12:00"]
    assert times("--since", "2026-11-23T13:00", "-n", "1") == ["16:00"]
    assert times("pills", "--since", "2026-11-23T17:00") == []


def test_since_may_say_how_long_ago(place: Place) -> None:
    now = int(time.time())
    record(place, now - 3 * HOUR, now - HOUR)
    assert len(log("--since", "2h")) == 1
    assert len(log("--since", "4h", "--until", "2h")) == 1
    assert len(log("--since", "1d")) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--since", "soon"], "'soon' is not an instant"),
        (["--until", ""], "'' is not an instant"),
        (["--follow", "--until", "1h"], "leave --until out"),
    ],
)
def test_what_is_no_time_is_a_usage_error(place: Place, arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(commands, ["log", *arguments])
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr


# --- Times without a tick


def test_a_gap_is_a_line_where_it_stands_in_time(place: Place) -> None:
    record(place, NOON, NOON + 3 * HOUR)
    ticked(place, time.time(), (NOON + HOUR, NOON + 2 * HOUR + MINUTE))
    after, gap, before = log()
    assert re.fullmatch(r"2026-11-23 13:00  \(no tick\) +until 14:01 \(1 h 1 min\)", gap)
    assert (after[11:16], before[11:16]) == ("15:00", "12:00")
    assert len(log("--json")) == 2
    assert len(log("pills")) == 3, "why did nothing happen at one? asked of a reminder"
    assert len(log("--outcome", "missed")) == 2
    assert len(log("nobody", exits=1)) == 1


def test_gaps_without_a_firing_in_between_are_one_line(place: Place) -> None:
    record(place, NOON, NOON + DAY)
    many = [(NOON + number * 300, NOON + number * 300 + 240) for number in range(1, 100)]
    ticked(place, time.time(), *many, (NOON + DAY + HOUR, NOON + 2 * DAY + HOUR))
    latest, second, run, first = log()
    assert latest.endswith("(no tick)           until 2026-11-25 13:00 (1 d)")
    assert run.endswith("99 times until 20:19 (6 h 36 min in all)")
    assert (second[8:16], first[8:16]) == ("24 12:00", "23 12:00")


def test_gaps_outside_of_what_is_asked_for_are_left_out(place: Place) -> None:
    record(place, *(NOON + number * HOUR for number in range(4)))
    gaps = [(NOON + number * HOUR + 600, NOON + number * HOUR + 1200) for number in range(4)]
    ticked(place, time.time(), *gaps)
    assert len(log()) == 8
    assert times("-n", "2") == ["15:10", "15:00", "14:10", "14:00"], "none that is older than the oldest firing shown"
    assert times("--since", "2026-11-23T14:30") == ["15:10", "15:00"]
    assert times("--until", "2026-11-23T12:15") == ["12:10", "12:00"]


@pytest.mark.parametrize(
    ("ago", "said"),
    [(30, False), (150, True), (None, False)],  # who only pokes the socket needs no tick
)
def test_that_no_tick_comes_any_more_is_said(place: Place, ago: int | None, said: bool) -> None:
    if ago is not None:
        ticked(place, time.time() // 60 * 60 - ago)
    record(place, NOON)
    done = CliRunner().invoke(commands, ["log"])
    assert done.exit_code == 0
    assert done.stderr.startswith("no tick has run since ") is said
    assert bool(done.stderr) is said


def test_an_empty_log_says_what_to_do_next(place: Place) -> None:
    def said(*arguments: str) -> str:
        done = CliRunner().invoke(commands, ["log", *arguments])
        assert (done.exit_code, done.stdout) == (0, "")
        return done.stderr

    assert "`bub-cron install`" in said()
    ticked(place, time.time())
    assert "`bub-cron next`" in said()
    assert "`bub-cron log` without options" in said("--outcome", "failed")
    assert said("--id", "x") == "no firing x is recorded\n"


def test_what_is_dated_in_the_future_is_not_the_newest(place: Place) -> None:
    now = int(time.time())
    record(place, now - HOUR, now + DAY)
    shown = log()
    assert [line[:16] for line in shown[::2]] == [
        time.strftime("%Y-%m-%d %H:%M", time.gmtime(at)) for at in (now - HOUR, now + DAY)
    ]
    assert shown[1].startswith("dated in the future")
    assert [json.loads(line)["fire_time"][:10] for line in log("--json")] == [
        time.strftime("%Y-%m-%d", time.gmtime(at)) for at in (now - HOUR, now + DAY)
    ]
    assert len(log("-n", "1")) == 1
    assert len(log("--until", "1h")) == 1


def test_times_are_by_the_clock_of_the_reminder_or_else_the_machine(place: Place) -> None:
    place.write("reminders: {pills: {cron: '0 9 * * *', timezone: Asia/Tokyo, to: 'x:1', text: x}}\n", NOON)
    record(place, NOON)
    for arguments, head, shown in (((), "time (Etc/UTC) ", "12:00"), (("pills",), "time (Asia/Tokyo) ", "21:00")):
        lines = CliRunner().invoke(commands, ["log", *arguments]).stdout.splitlines()
        assert lines[0].startswith((head, head.replace("Etc/", "")))
        assert lines[1][11:16] == shown
    assert log("pills", "--since", "2026-11-23T21:01") == [], "WHEN, too"
    assert len(log("--since", "2026-11-23", "--until", "2026-11-23")) == 1


# --- On a terminal


def test_on_80_columns_a_long_reason_goes_below_its_row_whole(place: Place) -> None:
    record(place, NOON, NOON + 3 * HOUR, error="a long reason " * 20)
    ticked(place, time.time(), (NOON + HOUR, NOON + 2 * HOUR))
    lines = on_a_terminal()
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if "until 14:00" in line] == [
        "2026-11-23 13:00  (no tick)           until 14:00 (1 h)"
    ]
    assert " ".join(lines).split().count("reason") == 41, "20 each, and one in the head"
    assert all(line.startswith("    ") for line in lines if "reason a" in line)


def on_a_terminal(*arguments: str) -> list[str]:
    """Return what `log` prints on a terminal of 80 columns."""
    master, slave = pty.openpty()
    environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "TERM": "xterm"}
    subprocess.run([SCRIPTS / "bub-cron", "log", *arguments], stdout=slave, env=environment, check=True, timeout=60)
    os.close(slave)
    shown = os.read(master, 65536).decode()
    os.close(master)
    assert "\x1b[3" not in shown, "there is to be no colour"
    return re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()


@pytest.mark.parametrize("arguments", [["pills"], ["--id", "pills@2026-11-23T12:00:00Z"]])
def test_why_one_ended_is_never_cut_where_somebody_asks_for_it(place: Place, arguments: list[str]) -> None:
    words = [f"word-{number}" for number in range(60)]
    record(place, NOON, error=" ".join(words[:30]) + "\n" + " ".join(words[30:]))
    lines = on_a_terminal(*arguments)
    assert max(map(len, lines)) <= 80
    assert [word for line in lines for word in line.split() if word.startswith("word-")] == words
    assert all(line.index("word-") == 4 for line in lines[1:] if "word-" in line)


def test_a_long_reply_is_cut_unless_one_asks_for_its_reminder(place: Place) -> None:
    place.fill_inbox(id="x", reminder="pills", state="delivered", reply="word " * 60 + "end", accepted_at=NOON)
    lines = on_a_terminal()
    assert (len(lines), lines[1][-1]) == (2, "…")
    assert " ".join(on_a_terminal("pills")).split().count("word") == 60
    assert on_a_terminal("pills")[-1].endswith("end")


def test_a_name_or_an_id_shows_all_there_is(place: Place) -> None:
    place.fill_inbox(
        id="x", reminder="pills", state="failed", error="the model said no", reason="attempts", attempts=3, tokens=1200,
        gate="two mails\nfrom Ann\n", reply="Dear\nall", accepted_at=NOON,
        messages=[{"state": "undelivered", "sends": 3, "error": "chat not found"}],
    )  # fmt: skip
    details = [
        "    took: 3 attempts, 1,200 tokens", "    reason: attempts", "    reply to telegram:1: undelivered after 3 sends: chat not found",
        "    gate: two mails / from Ann", "    | Dear", "    | all",
    ]  # fmt: skip
    for arguments, head in ((["pills"], []), (["--id", "x"], ["    id: x", "    to: -"])):
        lines = CliRunner().invoke(commands, ["log", *arguments]).stdout.splitlines()
        assert lines[0].split()[2:] == ["reminder", "outcome", "reply", "or", "reason"]
        assert lines[1].split()[2:] == ["pills", "failed", "the", "model", "said", "no"]
        assert lines[2:] == head + details
    assert len(log()) == 1


# --- --follow


@pytest.fixture
def follow(place: Place) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `log --follow`, with its lines in a file that is read while it runs."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        with (place.home / "followed").open("w") as out:
            command = [str(SCRIPTS / "bub-cron"), "log", "--follow", *arguments]
            started.append(subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def lines(place: Place, count: int) -> list[str]:
    def look() -> list[str] | None:
        found = (place.home / "followed").read_text().splitlines()
        return found if len(found) >= count else None

    return until(look, f"{count} lines")


def test_follow_shows_each_change_of_an_outcome_once_the_newest_last(
    place: Place, follow: Callable[..., subprocess.Popen[str]]
) -> None:
    now = int(time.time()) // MINUTE * MINUTE
    record(place, *(now - number * MINUTE for number in range(9, 1, -1)))
    ticked(place, now)
    process = follow("-n", "3")
    head, *first = lines(place, 4)
    assert head.startswith("time ")
    assert [line[11:16] for line in first] == [time.strftime("%H:%M", time.gmtime(now - MINUTE * n)) for n in (4, 3, 2)]
    record(place, now, state=None)
    assert re.search(r"pills +due +waits for a gateway", lines(place, 5)[4])
    ticked(place, now + 600, (now, now + 600))
    assert "(no tick)" in lines(place, 6)[5]
    ledger_kit.settle_due(place.paths.ledger, "rejected", "no commands here", now)
    assert re.search(r"pills +rejected +no commands here", lines(place, 7)[6])
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert len(lines(place, 7)) == 7


def test_follow_chooses_and_speaks_json(place: Place, follow: Callable[..., subprocess.Popen[str]]) -> None:
    now = int(time.time())
    record(place, now - DAY)
    record(place, now - 60, name="other")
    follow("pills", "--json", "--outcome", "missed", "--since", "1h")
    record(place, now - 30, name="other")
    record(place, now, state=None)
    ledger_kit.settle_due(place.paths.ledger, "missed", "late", now)
    [line] = lines(place, 1)
    found = json.loads(line)
    assert (found["reminder"], found["outcome"], found["error"]) == ("pills", "missed", "late")


def test_what_is_piped_into_something_that_ends_is_no_traceback(place: Place) -> None:
    record(place, *(NOON + number * MINUTE for number in range(200)))
    ticked(place, time.time())
    command = f"'{SCRIPTS}/bub-cron' log -n 200 --follow | head -1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("time ")
    assert "Traceback" not in done.stderr


# --- Days that calendars left out


def test_what_a_calendar_left_out_stands_among_the_firings_of_its_reminder(place: Place) -> None:
    calendars = "calendars: {off: {dates: 2026-11-22}, work: {weekdays: mon-fri}}\n"
    place.write(
        f'{calendars}{FILE}  tea: {{cron: "0 12 * * *", only: work, except: "off", text: x, to: "x:1", timezone: UTC}}\n',
        NOON,
    )
    shown = log("tea", "--since", "2026-11-20", "--until", "2026-11-23T11:00:00Z")
    assert [line.split("(left out)") for line in shown] == [
        ["2026-11-22 12:00  tea       ", "  off"],
        ["2026-11-21 12:00  tea       ", "  not in work"],
    ]
    assert log("--since", "2026-11-20", "--until", "2026-11-23T11:00:00Z") == []
    assert log("tea") == []  # from when it was in force can't be told
