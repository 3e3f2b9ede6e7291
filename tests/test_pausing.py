"""Pauses: what they hold back ends skipped, with who, why and until when, and is never caught up."""

from __future__ import annotations

import json
import os
import pwd
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fake_gateway import Place, Result, Run, at, firing

from bub_cron import records
from bub_cron.cli import commands
from bub_cron.health.status import look
from bub_cron.pauses import ALL, FILE, PAUSE, SKIP, Pause, Pauses, covering, in_force, next_running, parts
from bub_cron.schedule import machine_zone, parse_every
from bub_cron.trigger import firings, pausing
from bub_cron.trigger import submitting as submitting_
from bub_cron.trigger.ledger import Ledger

DAY = "2026-11-23T"
NOON = at(DAY + "12:00:00")
MINUTE, HOUR = 60, 3600
ME = pwd.getpwuid(os.getuid()).pw_name
FILE_ = """\
defaults: {to: 'telegram:1', timezone: UTC}
reminders:
  a: {every: 1h, text: hi}
  b: {every: 1h, text: hi}
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "bub")


def a(clock: str, name: str = "a") -> str:
    return firing(name, f"{DAY}{clock}:00")


def begin(place: Place, text: str = FILE_, now: int = NOON - 30) -> None:
    place.write(text, now)
    assert place.tick(now) == (0, "")


def pause(
    place: Place, *names: str, now: int, until: int | None = None, why: str | None = None, who: str = "ada"
) -> None:
    with closing(Ledger(place.paths.ledger)) as ledger, ledger.transaction():
        pausing.pause(ledger, names or [ALL], until=until, why=why, who=who, now=now)


def resume(place: Place, *names: str, now: int) -> None:
    with closing(Ledger(place.paths.ledger)) as ledger, ledger.transaction():
        pausing.resume(ledger, names or [ALL], now)


def skip(place: Place, name: str, last: int, *, now: int) -> None:
    with closing(Ledger(place.paths.ledger)) as ledger, ledger.transaction():
        pausing.skip(ledger, name, last, who="ada", now=now)


def rows(place: Place, name: str = "a") -> list[tuple[Any, ...]]:
    return place.select(
        "SELECT strftime('%H:%M', fire_time, 'unixepoch'), state, reason FROM firings WHERE reminder = ?"
        " ORDER BY fire_time",
        name,
    )


# --- The intervals


def test_a_part_is_held_back_by_what_covers_all_of_it() -> None:
    first, second = Pause("a", PAUSE, 10, 20, None, "x"), Pause("a", PAUSE, 15, None, None, "x")
    assert parts([first, second], 0, 30) == [(0, 9, None), (9, 14, first), (14, 19, first), (19, 30, second)]
    assert parts([first], 12, 18) == [(12, 18, first)]
    assert parts([first], 19, 30) == [(19, 30, None)]
    assert parts([first], 5, 5) == [(5, 5, None)]


@pytest.mark.parametrize("instant", range(8, 23))
def test_parts_and_covering_agree(instant: int) -> None:
    pauses = [
        Pause("a", PAUSE, 10, 20, None, "x"),
        Pause("a", SKIP, 12, 14, None, "x"),
        Pause(ALL, PAUSE, 21, 22, None, "x"),
    ]
    found = [held for begin, end, held in parts(pauses, 5, 25) if begin < instant <= end]
    assert found == [covering(pauses, instant)]


def test_the_next_that_runs_is_behind_every_pause() -> None:
    hourly = parse_every(HOUR)
    chain = [Pause("a", PAUSE, NOON, NOON + HOUR, None, "x"), Pause("a", SKIP, NOON, NOON + HOUR + 1, None, "x")]
    assert next_running(hourly, chain, NOON - 1) == NOON + 2 * HOUR
    assert next_running(hourly, [*chain, Pause(ALL, PAUSE, NOON, None, None, "x")], NOON - 1) is None
    assert next_running(hourly, [Pause("a", FILE, 0, NOON, None, "")], NOON - HOUR) == NOON


def test_of_several_pauses_the_one_that_ends_last_counts() -> None:
    pauses = Pauses([
        Pause("a", PAUSE, 0, 20, None, "x"),
        Pause(ALL, PAUSE, 0, None, None, "x"),
        Pause("a", SKIP, 0, 9, None, "x"),
    ])
    found = in_force(pauses.of("a", 30), 5)
    assert found is not None
    assert found.until is None
    assert in_force(pauses.of("b"), 5) is found
    assert in_force(Pauses([Pause("a", SKIP, 0, 9, None, "x")]).of("a"), 5) is None


# --- Ticks


def test_a_paused_reminder_is_skipped_with_who_why_and_until_when(place: Place) -> None:
    begin(place)
    pause(place, "a", now=NOON - 10, until=NOON + HOUR, why="on leave")
    with place.gateway() as gateway:
        for now in (NOON, NOON + HOUR):
            assert place.tick(now) == (0, "")
    assert rows(place) == [("12:00", "skipped", "paused"), ("13:00", "accepted", None)]
    assert place.error(a("12:00")) == ("paused since 2026-11-23T11:59:50Z until 2026-11-23T13:00:00Z by ada: on leave")
    assert gateway.submitted == [a("12:00", "b"), a("13:00"), a("13:00", "b")]


def test_a_pause_of_all_holds_each_and_touches_no_enabled(place: Place) -> None:
    begin(place, FILE_ + "  spare: {every: 1h, text: hi, enabled: false}\n")
    pause(place, now=NOON - 10)
    with place.gateway() as gateway:
        assert place.tick(NOON) == (0, "")
        resume(place, now=NOON + 10)
        assert place.tick(NOON + HOUR) == (0, "")
    for name in ("a", "b"):
        assert rows(place, name) == [("12:00", "skipped", "paused"), ("13:00", "accepted", None)]
    assert place.error(a("12:00")) == "all reminders are paused since 2026-11-23T11:59:50Z by ada"
    assert rows(place, "spare") == []
    assert gateway.submitted == [a("13:00"), a("13:00", "b")]
    assert place.select("SELECT enabled, next_at FROM reminders WHERE name = 'spare'") == [(0, None)]


def test_what_was_paused_is_not_caught_up_even_where_no_tick_ran_before_the_end(place: Place) -> None:
    begin(place)
    pause(place, "a", now=NOON + 10)
    resume(place, "a", now=NOON + HOUR + 10)
    with place.gateway():
        assert place.tick(NOON + 2 * HOUR) == (0, "")
    # 12:00 came before the pause, and its grace is over; 13:00 fell into it.
    assert rows(place) == [("12:00", "missed", "late"), ("13:00", "skipped", "paused"), ("14:00", "accepted", None)]


def test_the_grace_of_what_was_paused_does_not_matter(place: Place) -> None:
    begin(place)
    pause(place, "a", now=NOON - 10)
    assert place.tick(NOON + 5 * HOUR)[0] == 69  # for b
    assert {row[1:] for row in rows(place)} == {("skipped", "paused")}


def test_many_fire_times_of_a_pause_share_a_row_apart_from_those_before_it(place: Place) -> None:
    begin(place, "defaults: {to: 'telegram:1'}\nreminders:\n  a: {every: 1m, text: hi}\n")
    pause(place, "a", now=NOON + 2000 * MINUTE + 10)
    assert place.tick(NOON + 6000 * MINUTE) == (0, "")
    found = place.select(
        "SELECT state, reason, sum(count), count(*) FROM firings GROUP BY state, reason ORDER BY state"
    )
    assert found == [("missed", "downtime", 2000, 1), ("missed", "late", 1, 1), ("skipped", "paused", 4000, 1001)]


def test_what_is_due_when_a_pause_comes_is_skipped(place: Place) -> None:
    begin(place)
    assert place.tick(NOON)[0] == 69  # without a gateway
    pause(place, "a", now=NOON + 10)
    with place.gateway() as gateway:
        assert place.tick(NOON + MINUTE) == (0, "")
    assert rows(place) == [("12:00", "skipped", "paused")]
    assert gateway.submitted == [a("12:00", "b")]


def test_what_is_due_is_skipped_without_a_gateway_too(place: Place) -> None:
    begin(place)
    assert place.tick(NOON)[0] == 69
    pause(place, now=NOON + 10)
    assert place.tick(NOON + MINUTE) == (0, "")
    assert rows(place) == [("12:00", "skipped", "paused")]


def test_what_may_have_been_submitted_is_asked_for_first(place: Place) -> None:
    begin(place)
    with place.gateway(leave_after=2):
        assert place.tick(NOON)[0] == 69
    assert place.select("SELECT count(*) FROM firings WHERE submitted_at = ?", NOON) == [(2,)]
    pause(place, now=NOON + 10)
    place.fill_inbox(id=a("12:00"), reminder="a", fire_time=DAY + "12:00:00Z")
    assert place.tick(NOON + MINUTE) == (0, "")
    assert rows(place) == [("12:00", "accepted", None)]
    assert rows(place, "b") == [("12:00", "skipped", "paused")]


def test_a_pause_that_comes_between_judging_and_sending_counts(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(place)
    judge = submitting_._judge

    def judge_then_pause(*args: Any, **kwargs: Any) -> None:
        judge(*args, **kwargs)
        pause(place, "a", now=NOON)

    monkeypatch.setattr(submitting_, "_judge", judge_then_pause)
    with place.gateway() as gateway:
        assert place.tick(NOON) == (0, "")
    assert gateway.submitted == [a("12:00", "b")]
    assert place.select("SELECT state, submitted_at FROM firings WHERE reminder = 'a'") == [("due", None)]


def test_a_skip_takes_the_next_ones_and_no_more(place: Place) -> None:
    begin(place)
    skip(place, "a", NOON + HOUR, now=NOON - 10)
    with place.gateway() as gateway:
        for now in (NOON, NOON + HOUR, NOON + 2 * HOUR):
            assert place.tick(now) == (0, "")
    assert rows(place) == [("12:00", "skipped", "skip"), ("13:00", "skipped", "skip"), ("14:00", "accepted", None)]
    assert place.error(a("12:00")) == "skipped by ada"
    assert a("14:00") in gateway.submitted


def test_a_skip_leaves_alone_what_is_due_already(place: Place) -> None:
    begin(place)
    assert place.tick(NOON)[0] == 69
    skip(place, "a", NOON + HOUR, now=NOON)
    with place.gateway():
        assert place.tick(NOON + MINUTE) == (0, "")
        assert place.tick(NOON + HOUR) == (0, "")
    assert rows(place) == [("12:00", "accepted", None), ("13:00", "skipped", "skip")]


def test_a_tick_that_dies_in_the_middle_uses_up_no_skip(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(place)
    skip(place, "a", NOON + HOUR, now=NOON - 10)
    record = firings.record

    def die(*args: Any, **kwargs: Any) -> None:
        record(*args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(firings, "record", die)
        with pytest.raises(KeyboardInterrupt):
            place.tick(NOON)
    assert rows(place) == []
    with place.gateway():
        for now in (NOON, NOON + HOUR, NOON + 2 * HOUR):
            assert place.tick(now) == (0, "")
    assert [row[2] for row in rows(place)] == ["skip", "skip", None]


def test_a_clock_that_was_ahead_uses_up_no_skip_and_no_pause(place: Place) -> None:
    begin(place)
    for now in range(NOON - 8 * MINUTE, NOON, MINUTE):
        place.tick(now)
    skip(place, "a", NOON + HOUR, now=NOON - 10)
    with place.gateway():
        place.tick(NOON + 400 * 86400)  # for one tick
        place.tick(NOON - 5)
        for now in (NOON, NOON + HOUR, NOON + 2 * HOUR):
            place.tick(now)
    assert [row for row in rows(place) if row[0] in ("12:00", "13:00", "14:00")][:3] == [
        ("12:00", "skipped", "skip"), ("13:00", "skipped", "skip"), ("14:00", "accepted", None),
    ]  # fmt: skip


def test_pausing_again_keeps_the_beginning_and_takes_the_new_end(place: Place) -> None:
    begin(place)
    pause(place, "a", now=NOON - 20, why="one")
    pause(place, "a", now=NOON - 10, until=NOON + HOUR, why="two")
    assert place.select("SELECT since, until, why FROM pauses") == [(NOON - 20, NOON + HOUR, "two")]


def test_a_pause_in_the_second_in_which_one_ended_is_a_pause(place: Place) -> None:
    begin(place)
    pause(place, "a", now=NOON - 20)
    resume(place, "a", now=NOON - 20)
    pause(place, "a", now=NOON - 20, why="again")
    assert place.select("SELECT since, until, why FROM pauses") == [(NOON - 20, None, "again")]


def test_a_pause_that_is_long_over_is_pruned(place: Place) -> None:
    begin(place)
    pause(place, "a", now=NOON, until=NOON + 10)
    pause(place, "b", now=NOON)
    for day in range(1, 40):
        place.tick(NOON + day * 86400)
    assert place.select("SELECT reminder FROM pauses") == [("b",)]


def test_an_idle_tick_reads_nothing_about_pauses(place: Place) -> None:
    begin(place)
    pause(place, now=NOON - 10)
    script = (
        "import sys; from bub_cron.paths import find_paths; from bub_cron.trigger import tick;"
        "status = tick.run(find_paths(), float(sys.argv[1])); print(status, 'bub_cron.pauses' in sys.modules)"
    )

    def ticked(now: int) -> str:
        environ = {**os.environ, "BUB_HOME": str(place.home)}
        command = [sys.executable, "-c", script, str(now)]
        return subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout.strip()

    ticked(NOON - 8)  # it has a TZ of its own
    ticked(NOON - 7)
    assert ticked(NOON - 5) == "0 False"
    assert ticked(NOON) == "0 True"


def test_a_pause_that_no_command_wrote_is_damage_and_not_ignored(place: Place) -> None:
    begin(place)
    pause(place, now=NOON - 10)
    with closing(sqlite3.connect(place.paths.ledger)) as ledger:
        ledger.execute("PRAGMA ignore_check_constraints = ON")
        ledger.execute("UPDATE pauses SET until = -5")
        ledger.commit()
    status, said = place.tick(NOON)
    assert status == 74
    assert "is damaged" in said or "was damaged" in said


# --- pause_until in the file


def paused_file(until: str, schedule: str = "every: 1h", **more: str) -> str:
    extra = "".join(f", {key}: {value}" for key, value in more.items())
    return (
        "defaults: {to: 'telegram:1', timezone: UTC}\nreminders:\n"
        f"  a: {{{schedule}, text: hi, pause_until: {until}{extra}}}\n"
    )


def test_the_file_pauses_until_then_and_says_so(place: Place) -> None:
    begin(place, paused_file("2026-11-23 14:00"))
    with place.gateway():
        for now in (NOON, NOON + HOUR, NOON + 2 * HOUR):
            assert place.tick(now) == (0, "")
    assert rows(place) == [("12:00", "skipped", "paused"), ("13:00", "skipped", "paused"), ("14:00", "accepted", None)]
    assert place.error(a("12:00")) == "paused until 2026-11-23T14:00:00Z by pause_until in the file"


def test_a_date_is_the_beginning_of_that_day_in_the_reminders_zone(place: Place) -> None:
    begin(place, paused_file("2026-11-24", timezone="Europe/Berlin"))
    assert place.select("SELECT pause_until FROM reminders") == [(at("2026-11-23T23:00:00"),)]


def test_what_is_due_when_the_file_pauses_it_ends_edited(place: Place) -> None:
    begin(place, paused_file("2026-11-20"))
    assert place.tick(NOON)[0] == 69
    place.write(paused_file("2026-11-24"), NOON + 10)
    assert place.tick(NOON + MINUTE) == (0, "")
    assert rows(place) == [("12:00", "skipped", "edited")]
    assert (
        place.error(a("12:00"))
        == "its reminder was removed, disabled, paused or rescheduled before it could be submitted"
    )


def test_what_came_before_an_edit_of_pause_until_is_judged_by_the_old_one(place: Place) -> None:
    begin(place, paused_file("2026-11-24"))
    place.write(paused_file("2026-11-20"), NOON + 10)  # lifted, after noon
    with place.gateway():
        assert place.tick(NOON + MINUTE) == (0, "")
        assert place.tick(NOON + HOUR) == (0, "")
    assert rows(place) == [("12:00", "skipped", "paused"), ("13:00", "accepted", None)]


def test_another_edit_of_a_paused_entry_leaves_its_place_in_time(place: Place) -> None:
    begin(place, paused_file("2026-11-24"))
    place.write(paused_file("2026-11-24", grace="2h"), NOON + 10)
    assert place.tick(NOON + MINUTE) == (0, "")
    assert rows(place) == [("12:00", "skipped", "paused")]


# --- A reminder that is renamed while it is paused


def renamed() -> str:
    return FILE_.replace("  a:", "  c:")


def test_a_rename_while_paused_is_told_once_by_the_tick_and_is_no_failure(place: Place) -> None:
    begin(place)
    pause(place, "a", now=NOON - 20, why="on leave")
    place.write(renamed(), NOON - 15)
    status, said = place.tick(NOON - 10)
    assert status == 0
    assert said == (
        "bub-cron: the reminder a is not in the files any more, and it is paused since 2026-11-23T11:59:40Z by ada: on leave:"
        " if it was renamed, pause it by its new name; `bub-cron resume a` ends this pause\n"
    )
    assert place.tick(NOON - 5) == (0, "")


def test_status_tells_of_it_until_it_is_resumed(place: Place) -> None:
    begin(place)
    pause(place, "a", now=NOON - 20)
    place.write(renamed(), NOON - 15)
    place.tick(NOON - 10)
    found = look(place.paths, NOON)
    assert any("the files have no such reminder any more" in text for text in found.attention)
    resume(place, "a", now=NOON - 5)
    assert not any("no such reminder" in text for text in look(place.paths, NOON).attention)


def test_status_shows_each_pause_that_is_in_force(place: Place) -> None:
    begin(place, FILE_ + "  c: {every: 1h, text: hi, pause_until: 2026-11-25}\n")
    pause(place, "a", now=NOON - 20, why="on leave")
    pause(place, "b", now=NOON - 20, until=NOON - 10)
    found = look(place.paths, NOON)
    assert found.as_json()["paused"] == [
        {"reminder": "a", "since": "2026-11-23T11:59:40Z", "until": None, "by": "ada", "why": "on leave"},
        {"reminder": "c", "since": None, "until": "2026-11-25T00:00:00Z", "by": None, "why": None},
    ]
    assert found.next_fire == (NOON + HOUR, "b")


# --- The commands


@pytest.fixture
def run(place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    for name in ("BUB_CRON_FILE", "BUB_CRON_STATE", "BUB_CRON_SOCKET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BUB_HOME", str(place.home))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> Result:
        with pytest.raises(SystemExit) as end:
            commands(list(arguments), prog_name="bub-cron")
        captured = capsys.readouterr()
        code = end.value.code
        return Result(code if isinstance(code, int) else int(code is not None), captured.out, captured.err)

    return run


@pytest.fixture
def now(place: Place, monkeypatch: pytest.MonkeyPatch) -> int:
    """Half an hour before a fire time, by the clock of the commands too, with a file and a first tick a minute ago."""
    instant = NOON + 30 * MINUTE
    monkeypatch.setattr(time, "time", lambda: float(instant))
    begin(place, FILE_, instant - MINUTE)
    return instant


def listed(run: Run) -> dict[str, Any]:
    return {line["reminder"]: line for line in map(json.loads, run("list", "--json").out.splitlines())}


def test_pause_and_resume_by_name(place: Place, run: Run, now: int) -> None:
    done = run("pause", "a", "--why", "on\nleave")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("a is paused since ")
    assert done.out.endswith(f" ({machine_zone()}) by {ME}: on leave\n")
    assert (listed(run)["a"]["paused"], listed(run)["a"]["next"], listed(run)["b"]["paused"]) == (True, None, None)
    assert run("list").out.splitlines()[1].split()[1] == "paused"
    with place.gateway() as gateway:
        following = now // HOUR * HOUR + HOUR
        place.tick(following)
        assert gateway.submitted == [firing("b", time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(following)))]
    assert run("resume", "a") == (0, "a is no longer paused\n", "")
    assert run("resume", "a") == (0, "a was not paused\n", "")
    assert listed(run)["a"]["paused"] is None


def test_pause_until_an_instant(run: Run, now: int) -> None:
    assert run("pause", "a", "b", "--until", "3h").status == 0
    until = listed(run)["a"]["paused"]
    assert abs(at(until.removesuffix("Z")) - now - 3 * HOUR) < 60
    assert at(listed(run)["a"]["next"].removesuffix("Z")) >= now + 3 * HOUR
    upcoming = [json.loads(line) for line in run("next", "a", "-n", "5", "--json").out.splitlines()]
    assert [line["paused"] for line in upcoming] == [until] * 3 + [None] * 2
    assert "paused since" in run("next", "a").out
    assert "(paused)" in run("list").out
    assert "a is paused since" in run("log", "a").err


@pytest.mark.parametrize("day", ["tomorrow", "date"])
def test_pause_until_a_day_ends_when_it_begins(place: Place, run: Run, now: int, day: str) -> None:
    midnight = time.mktime((*time.localtime(now)[:2], time.localtime(now).tm_mday + 1, 0, 0, 0, 0, 0, -1))
    text = "tomorrow" if day == "tomorrow" else time.strftime("%Y-%m-%d", time.localtime(midnight))
    assert run("pause", "--all", "--until", text).status == 0
    assert place.select("SELECT reminder, until FROM pauses") == [("", int(midnight))]


def test_pause_all_and_resume_all(run: Run, now: int) -> None:
    assert run("pause", "b").status == 0
    assert run("pause", "--all").out.startswith("all reminders are paused since ")
    assert {name: line["paused"] for name, line in listed(run).items()} == {"a": True, "b": True}
    still = run("resume", "b")
    assert (still.status, still.out) == (1, "b is no longer paused\n")
    assert "b is still paused: all reminders are paused since" in still.err
    assert "`bub-cron resume --all` ends that" in still.err
    assert run("pause", "a").status == 0
    assert run("resume", "--all") == (0, "the pause of all reminders has ended\na is no longer paused\n", "")
    assert {name: line["paused"] for name, line in listed(run).items()} == {"a": None, "b": None}
    assert run("resume", "--all") == (0, "", "nothing was paused\n")


def test_resume_says_that_the_file_still_pauses(place: Place, run: Run, now: int) -> None:
    place.write(FILE_ + "  c: {every: 1h, text: hi, pause_until: 2099-01-01}\n", now)
    result = run("resume", "c")
    assert (result.status, result.out) == (1, "c was not paused\n")
    assert (
        f"c is still paused: paused until 2099-01-01 00:00 ({machine_zone()}) by pause_until in the file" in result.err
    )
    assert listed(run)["c"]["paused"] == "2099-01-01T00:00:00Z"


def test_skip_shows_what_it_skips_and_resume_ends_it(place: Place, run: Run, now: int) -> None:
    following = now // HOUR * HOUR + HOUR
    first = time.strftime("a skips %a %Y-%m-%d %H:%M UTC\n", time.gmtime(following))
    second = time.strftime("a skips %a %Y-%m-%d %H:%M UTC\n", time.gmtime(following + HOUR))
    assert run("skip", "a", "-n", "2") == (0, first + second, "")
    assert run("skip", "a", "-n", "2") == (0, first + second, "")  # the same two
    assert (listed(run)["a"]["paused"], at(listed(run)["a"]["next"].removesuffix("Z"))) == (None, following + 2 * HOUR)
    with place.gateway() as gateway:
        place.tick(following)
    assert len(gateway.submitted) == 1  # b alone
    assert run("resume", "a").status == 0
    assert at(listed(run)["a"]["next"].removesuffix("Z")) == following


def test_skip_counts_what_nothing_else_holds_back(run: Run, now: int) -> None:
    until = now // HOUR * HOUR + 3 * HOUR
    assert run("pause", "a", "--until", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(until))).status == 0
    assert run("skip", "a").out == time.strftime("a skips %a %Y-%m-%d %H:%M UTC\n", time.gmtime(until))
    assert run("pause", "b").status == 0
    assert run("skip", "b") == (1, "", "b has no upcoming fire time to skip\n")


@pytest.mark.parametrize("command", ["pause", "resume", "skip"])
def test_an_unknown_name_changes_nothing_and_names_the_nearest(place: Place, run: Run, now: int, command: str) -> None:
    place.write(FILE_.replace("  b:", "  standup:"), now)
    names = ["standpu"] if command == "skip" else ["a", "standpu"]
    assert run(command, *names) == (1, "", "bub-cron: there is no reminder standpu; did you mean standup?\n")
    assert place.select("SELECT count(*) FROM pauses") == [(0,)]


def test_the_exits_of_broken_and_missing_files_and_stores(place: Place, run: Run, now: int) -> None:
    assert run("pause", "a").status == 0
    place.write("reminders: [", now)
    assert [run(*words).status for words in (("pause", "b"), ("skip", "b"), ("resume", "b"))] == [65, 65, 65]
    assert run("resume", "a").status == 0  # what is paused is known without the file
    os.unlink(place.paths.file)
    assert [run(*words).status for words in (("pause", "b"), ("skip", "b"), ("resume", "b"))] == [66, 66, 66]
    place.write(FILE_, now)
    Path(place.paths.ledger).write_bytes(b"no store")
    result = run("pause", "b")
    assert result.status == 74
    assert "is damaged" in result.err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["pause"], "give the names of reminders, or --all"),
        (["resume"], "give the names of reminders, or --all"),
        (["pause", "a", "--all"], "not both"),
        (["pause", "a", "--until", "yesterday"], "is in the past"),
        (["pause", "a", "--until", "soon"], "is not an instant"),
        (["skip", "a", "-n", "0"], "0 is not in the range"),
    ],
)
def test_wrong_usage(place: Place, run: Run, now: int, arguments: list[str], text: str) -> None:
    result = run(*arguments)
    assert result.status == 2
    assert text in result.err
    assert place.select("SELECT count(*) FROM pauses") == [(0,)]


def test_fire_works_all_the_same(place: Place, run: Run, now: int) -> None:
    assert run("pause", "--all").status == 0
    with place.gateway(lambda request: [{"id": request["id"], "status": "delivered"}]) as gateway:
        assert run("fire", "a").status == 0
    assert len(gateway.requests) == 1


def test_list_tells_of_a_pause_whose_name_is_gone(place: Place, run: Run, now: int) -> None:
    assert run("pause", "a").status == 0
    place.write(renamed(), now)
    result = run("list")
    assert result.status == 0
    assert "the files have no such reminder any more" in result.err
    assert run("resume", "a").status == 0
    assert run("list").err == ""


def test_status_shows_a_pause_to_people(run: Run, now: int) -> None:
    assert run("pause", "--all", "--why", "on leave").status == 0
    assert f"by {ME}: on leave" in " ".join(run("status").out.split())


def test_where_the_ledger_cannot_be_read_next_still_tells_the_times(place: Place, run: Run, now: int) -> None:
    Path(place.paths.ledger).write_bytes(b"no store at all, only words" * 100)
    result = run("next", "a", "-n", "1")
    assert result.status == 0
    assert result.out
    assert "what is paused is not known" in result.err


@pytest.mark.parametrize("command", ["pause", "resume", "skip"])
def test_the_help_has_an_example(run: Run, command: str) -> None:
    result = run(command, "--help")
    assert result.status == 0
    assert f"Examples:\n  bub-cron {command} " in result.out


def test_a_real_process_pauses_for_its_user(place: Place, now: int) -> None:
    environ = {**os.environ, "BUB_HOME": str(place.home)}
    command = [sys.executable, "-m", "bub_cron", "pause", "a"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.endswith(f" by {ME}\n")
    assert records.pauses(place.paths).of("a")[0].who == ME


# --- What `check` says of pause_until


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("soon", "4:18: pause_until: 'soon' is not a date and time; write it as 2026-12-01 08:30"),
        ("2027-02-30", "4:18: pause_until: '2027-02-30' does not exist: day is out of range for month"),
        ("2027-01-01T08:00Z", "4:18: pause_until: '2027-01-01T08:00Z' has an offset"),
        ("2027-03-28 02:30", ""),  # it stands for the jump
        ("", "4:17: pause_until is empty"),
        ("[2027-01-01]", "4:18: pause_until must be a date such as 2026-12-31, or a date and time, not a list"),
    ],
)
def test_a_faulty_pause_until_is_told_at_its_place(place: Place, run: Run, value: str, message: str) -> None:
    head = "reminders:\n  a: {every: 1h, text: hi, to: 'x:1', timezone: Europe/Berlin}\n  b:\n"
    place.write(
        f"{head}    pause_until: {value}\n    every: 1h\n    text: ho\n    to: x:1\n    timezone: Europe/Berlin\n", NOON
    )
    result = run("check")
    assert result.status == (65 if message else 0)
    assert message in result.err + result.out


def test_a_pause_past_the_last_fire_time_is_doubted(place: Place, run: Run) -> None:
    place.write(
        "defaults: {to: 'x:1', timezone: UTC}\nreminders:\n"
        "  a: {at: 2098-01-01 08:00, text: hi, pause_until: 2098-01-02}\n"
        "  b: {at: 2098-01-01 08:00, text: ho, pause_until: 2098-01-01}\n",
        NOON,
    )
    result = run("check")
    assert result.status == 0
    assert "a is paused until its last fire time is over: it will not fire" in result.err + result.out
    assert "b is paused" not in result.err + result.out


def test_a_pause_until_of_the_defaults_counts_in_each_reminders_zone(place: Place) -> None:
    begin(
        place,
        "defaults: {to: 'x:1', pause_until: 2027-01-01}\nreminders:\n"
        "  a: {every: 1h, text: hi, timezone: Europe/Berlin}\n  b: {every: 1h, text: hi, timezone: UTC}\n",
    )
    found = dict(place.select("SELECT name, pause_until FROM reminders"))
    assert found == {"a": at("2026-12-31T23:00:00"), "b": at("2027-01-01T00:00:00")}
