"""trigger/tick.py: every fire time ends with one word, whoever dies, whatever the clock does, however often ticks run."""

from __future__ import annotations

import os
import resource
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fake_gateway import Message, Place, at, busy, firing, insert, rejecting, silent

from bub_cron.trigger import client, firings
from bub_cron.trigger.ledger import Ledger
from bub_cron.wire import iso

DAY = "2026-11-23T"
NOON = at(DAY + "12:00:00")
MINUTE, HOUR, YEAR = 60, 3600, 365 * 86400


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "bub")


def file(schedule: str = "every: 1h", *more: str, name: str = "a", text: str = "hi") -> str:
    lines = [f"  {name}:", f"    {schedule}", f"    text: {text}", *(f"    {key}" for key in more)]
    return "\n".join(["defaults: {to: 'telegram:1', timezone: UTC}", "reminders:", *lines, ""])


def a(clock: str) -> str:
    """The id of the reminder a's firing at a time of the day."""
    return firing("a", f"{DAY}{clock}:00")


def begin(place: Place, text: str, now: int = NOON - 30) -> None:
    """Write a file and let the first tick read it."""
    place.write(text, now)
    assert place.tick(now) == (0, "")
    assert place.states() == {}


def in_doubt(place: Place, text: str | None = None) -> None:
    """Leave the noon firing submitted, to a gateway that left without an answer."""
    begin(place, text or file())
    with place.gateway(leave_after=1):
        assert place.tick(NOON)[0] == 69
    assert place.select("SELECT state, submitted_at FROM firings") == [("due", NOON)]


# --- The plain way


def test_a_fire_time_that_has_come_is_submitted_and_accepted(place: Place) -> None:
    begin(place, file("every: 1h", "attempts: 2", text="Grüße"))
    with place.gateway() as gateway:
        assert place.tick(NOON) == (0, "")
    assert place.states() == {a("12:00"): "accepted"}
    assert gateway.requests == [
        {
            "id": a("12:00"), "fire_time": f"{DAY}12:00:00Z", "expires": f"{DAY}13:00:00Z", "wait": False,
            "reminder": "a", "to": "telegram:1", "text": "Grüße", "attempts": 2, "timeout": 600, "overlap": "skip",
            "reply": "chat", "quiet": False, "timezone": "UTC",
        }
    ]  # fmt: skip


def test_a_second_in_the_minute_or_a_fraction_of_one_changes_nothing(place: Place) -> None:
    begin(place, file())
    with place.gateway() as gateway:
        for now in (NOON - 0.1, NOON, NOON + 0.5, NOON + 30, NOON + 59.9):
            assert place.tick(now) == (0, "")
    assert gateway.submitted == [a("12:00")]


def test_reminders_fire_each_by_its_own(place: Place) -> None:
    begin(place, file() + file("every: 30m", name="b").split("reminders:\n")[1])
    with place.gateway() as gateway:
        for now in (NOON, NOON + 30 * MINUTE, NOON + HOUR):
            assert place.tick(now) == (0, "")
    assert Counter(identity[0] for identity in gateway.taken) == {"a": 2, "b": 3}


def test_the_firing_is_on_disk_before_its_line_is_written(place: Place) -> None:
    begin(place, file())
    seen: list[Any] = []

    def look(_: Message) -> None:
        seen.extend(place.select("SELECT id, state, submitted_at FROM firings"))

    with place.gateway(on_line=look):
        assert place.tick(NOON) == (0, "")
    assert seen == [(a("12:00"), "due", NOON)]


@pytest.mark.parametrize("refused", [(firings, "record"), (Ledger, "note_gap"), (Ledger, "set_last_tick")])
def test_recording_a_fire_time_and_moving_on_past_it_are_one(
    place: Place, refused: tuple[Any, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(place, file(), NOON - 130)
    before = place.select("SELECT next_at, last_tick FROM reminders, tick")
    step = getattr(*refused)

    def refuse(*args: Any, **kwargs: Any) -> None:
        step(*args, **kwargs)
        raise sqlite3.OperationalError("no")

    with monkeypatch.context() as patch, place.gateway() as gateway:
        patch.setattr(*refused, refuse)
        assert place.tick(NOON) == (74, f"bub-cron: {place.paths.ledger}: no\n")
    assert gateway.requests == []
    assert place.states() == {}
    assert place.select("SELECT next_at, last_tick FROM reminders, tick") == before
    with place.gateway() as gateway:
        assert place.tick(NOON + MINUTE) == (0, "")
    assert gateway.taken == [a("12:00")]
    assert place.select("SELECT next_at, last_tick FROM reminders, tick") == [(NOON + HOUR, NOON + MINUTE)]


def test_any_standing_of_a_known_firing_means_that_the_gateway_has_it(place: Place) -> None:
    begin(place, file("every: 1m"))
    words = [
        "accepted",
        "running",
        "retrying",
        "delivered",
        "silent",
        "ran",
        "undelivered",
        "failed",
        "unknown",
        "missed",
    ]
    answers = iter(words)

    def answer(request: Message) -> list[Message] | None:
        return [{"id": request["id"], "status": next(answers)}] if "id" in request else None

    with place.gateway(answer) as gateway:
        gateway.knows_all = True
        for number in range(len(words)):
            assert place.tick(NOON + number * MINUTE) == (0, "")
    assert Counter(place.states().values()) == {"accepted": len(words)}


# --- A gateway that doesn't take it


def test_without_a_gateway_it_stays_due_and_goes_out_with_a_later_tick(place: Place) -> None:
    begin(place, file())
    status, text = place.tick(NOON)
    assert status == 69
    assert text == (
        f"bub-cron: no gateway listens at {place.paths.socket}: start `bub gateway`, or set BUB_CRON_SOCKET to where it"
        " listens\nbub-cron: 1 due firing waits for it\n"
    )
    assert place.states() == {a("12:00"): "due"}
    with place.gateway() as gateway:
        assert place.tick(NOON + 50 * MINUTE) == (0, "")
    assert gateway.taken == [a("12:00")]
    assert place.states() == {a("12:00"): "accepted"}


def test_nothing_due_needs_no_gateway(place: Place) -> None:
    begin(place, file())
    assert place.tick(NOON - 1) == (0, "")


def test_what_is_read_and_not_answered_is_submitted_again_and_runs_once(place: Place) -> None:
    in_doubt(place)
    with place.gateway() as gateway:
        assert place.tick(NOON + MINUTE) == (0, "")
    assert gateway.taken == [a("12:00")]
    assert place.states() == {a("12:00"): "accepted"}


def test_what_is_taken_and_not_answered_is_submitted_again_with_the_same_content(place: Place) -> None:
    in_doubt(place)
    with place.gateway(silent) as first, pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "PATIENCE", 0.05)
        assert place.tick(NOON + MINUTE)[0] == 69
    with place.gateway() as second:
        assert place.tick(NOON + 2 * MINUTE) == (0, "")
    assert first.requests == second.requests


def test_the_answers_until_the_gateway_left_stand(place: Place) -> None:
    begin(place, file("every: 1m", "catch_up: all"))
    with place.gateway(leave_after=3):
        assert place.tick(NOON + 5 * MINUTE)[0] == 69
    assert list(place.states().values()) == ["accepted"] * 2 + ["due"] * 4
    with place.gateway():
        assert place.tick(NOON + 5 * MINUTE + 30) == (0, "")
    assert set(place.states().values()) == {"accepted"}


def test_busy_leaves_it_due(place: Place) -> None:
    begin(place, file())
    with place.gateway(busy):
        assert place.tick(NOON) == (69, "bub-cron: the gateway is busy: the inbox is full\n")
        assert place.tick(NOON + MINUTE) == (69, "")
    assert place.states() == {a("12:00"): "due"}
    with place.gateway():
        assert place.tick(NOON + 2 * MINUTE) == (0, "")
    assert place.states() == {a("12:00"): "accepted"}


def test_rejected_is_said_once_and_never_submitted_again(place: Place) -> None:
    begin(place, file())
    with place.gateway(rejecting) as gateway:
        assert place.tick(NOON) == (76, f"bub-cron: the gateway rejected {a('12:00')}: commands are not allowed\n")
        assert place.tick(NOON + MINUTE) == (0, "")
    assert gateway.submitted == [a("12:00")]
    assert place.states() == {a("12:00"): "rejected"}
    assert (place.reason(a("12:00")), place.error(a("12:00"))) == ("rejected", "commands are not allowed")


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400\r\n", b"[]\n", b"\xff\n"])
def test_something_else_at_the_socket_leaves_it_due(place: Place, garbage: bytes) -> None:
    begin(place, file())
    with place.gateway(lambda _: [garbage]):
        status, text = place.tick(NOON)
    assert (status, "is no gateway of bub-cron" in text) == (69, True)
    assert place.states() == {a("12:00"): "due"}


@pytest.mark.parametrize(
    "answer", [{"status": "unknown-id"}, {"status": "pong"}, {"status": "due"}, {"status": None}, {"status": ["x"]}, {}]
)
def test_only_a_word_of_the_protocol_settles_a_firing(place: Place, answer: Message) -> None:
    begin(place, file())
    with place.gateway(lambda request: [{"id": request["id"], **answer}]):
        assert place.tick(NOON)[0] in (69, 76)
    assert place.states() == {a("12:00"): "due"}


def test_an_answer_whose_id_is_a_list_ends_no_tick(place: Place) -> None:
    begin(place, file())
    with place.gateway(lambda _: [{"id": [], "status": "accepted"}]):
        assert place.tick(NOON)[0] == 69
    assert place.states() == {a("12:00"): "due"}


def test_a_refused_connection_is_told_with_the_gateways_words(place: Place) -> None:
    begin(place, file())
    refusal = {"status": "rejected", "error": "user 7 may not talk to this gateway"}
    with place.gateway(lambda _: [refusal]):
        assert place.tick(NOON) == (
            69, "bub-cron: the gateway refused the connection: user 7 may not talk to this gateway\n",
        )  # fmt: skip
    assert place.states() == {a("12:00"): "due"}


def test_a_refused_connection_is_told_however_many_wait(place: Place) -> None:
    begin(place, file("every: 1m", "catch_up: all"))

    def refuse(_: Message) -> list[Message]:
        return [{"status": "rejected", "error": "user 7 may not talk to this gateway"}]

    with place.gateway(refuse, leave_after=2):
        status, text = place.tick(NOON + MINUTE)
    assert (status, "user 7 may not talk to this gateway" in text) == (69, True)


def test_a_rejection_is_told_also_when_the_gateway_left_afterwards(place: Place) -> None:
    begin(place, file("every: 1m", "catch_up: all"))
    with place.gateway(rejecting, leave_after=2):
        status, text = place.tick(NOON + MINUTE)
    assert place.states() == {a("12:00"): "rejected", a("12:01"): "due"}
    assert (status, f"the gateway rejected {a('12:00')}: commands are not allowed" in text) == (76, True)


# --- Downtime


def test_of_what_was_missed_the_latest_within_grace_starts(place: Place) -> None:
    begin(place, file("every: 1h", "grace: 4h"))
    with place.gateway() as gateway:
        assert place.tick(NOON + 6 * HOUR + 30 * MINUTE) == (0, "")
    assert place.states() == {
        a("12:00"): "missed", a("13:00"): "missed", a("14:00"): "missed",  # beyond grace
        a("15:00"): "skipped", a("16:00"): "skipped", a("17:00"): "skipped",
        a("18:00"): "accepted",
    }  # fmt: skip
    assert (place.reason(a("14:00")), place.error(a("14:00"))) == ("late", "its grace was over before a tick ran")
    assert (place.reason(a("15:00")), place.error(a("15:00"))) == ("superseded", f"{a('18:00')} starts in its place")
    assert gateway.submitted == [a("18:00")]


def test_with_catch_up_all_each_within_grace_starts_in_order(place: Place) -> None:
    begin(place, file("every: 1h", "grace: 4h", "catch_up: all"))
    with place.gateway() as gateway:
        assert place.tick(NOON + 6 * HOUR + 30 * MINUTE) == (0, "")
    assert gateway.taken == [a("15:00"), a("16:00"), a("17:00"), a("18:00")]
    assert Counter(place.states().values()) == {"missed": 3, "accepted": 4}


@pytest.mark.parametrize("second", [0, 1, 59])
def test_catching_up_starts_one_and_none_of_the_old_ones_beside_a_fresh_one(place: Place, second: int) -> None:
    begin(place, file("every: 1m"))
    with place.gateway() as gateway:
        assert place.tick(NOON + 5 * MINUTE + second) == (0, "")
    assert gateway.taken == [a("12:05")]
    assert {place.reason(a(f"12:0{minute}")) for minute in range(5)} == {"superseded"}


def test_while_no_gateway_takes_them_all_within_grace_wait(place: Place) -> None:
    begin(place, file("every: 1h", "grace: 4h"))
    for hour in range(4):
        assert place.tick(NOON + hour * HOUR)[0] == 69
    assert set(place.states().values()) == {"due"}
    with place.gateway() as gateway:
        assert place.tick(NOON + 3 * HOUR + 2 * MINUTE) == (0, "")
    assert gateway.taken == [a("15:00")]


def test_what_was_submitted_already_is_not_superseded(place: Place) -> None:
    in_doubt(place, file("every: 1m"))
    with place.gateway() as gateway:
        assert place.tick(NOON + 3 * MINUTE + 5) == (0, "")
    assert gateway.taken == [a("12:00"), a("12:03")]
    assert {place.states()[a("12:01")], place.states()[a("12:02")]} == {"skipped"}


def test_what_was_submitted_already_is_not_superseded_when_it_was_edited_since(place: Place) -> None:
    in_doubt(place, file("every: 1m"))
    place.write(file("every: 1m", text="better"), NOON + 30)
    with place.gateway() as gateway:
        assert place.tick(NOON + 3 * MINUTE + 5) == (0, "")
    assert gateway.taken == [a("12:00"), a("12:03")]


def test_what_waited_for_a_gateway_until_its_grace_was_over_is_missed(place: Place) -> None:
    begin(place, file("every: 1d", "grace: 10m"), at(DAY + "00:00:00") - 30)
    midnight = at(DAY + "00:00:00")
    for now in (midnight, midnight + 10 * MINUTE):
        assert place.tick(now)[0] == 69
    assert place.states() == {a("00:00"): "due"}
    assert place.tick(midnight + 10 * MINUTE + 1) == (0, "")
    assert place.states() == {a("00:00"): "missed"}
    assert (place.reason(a("00:00")), place.error(a("00:00"))) == (
        "late", "its grace was over before a gateway could take it",
    )  # fmt: skip


def test_more_than_a_thousand_missed_share_a_row_with_their_count(place: Place) -> None:
    begin(place, file("every: 1m"))
    with place.gateway() as gateway:
        assert place.tick(NOON + 1699 * MINUTE + 5) == (0, "")
    rows = place.select("SELECT id, state, count, fire_time, error FROM firings ORDER BY fire_time")
    assert place.reason(rows[0][0]) == "downtime"
    assert rows[0] == (
        f"{a('12:00')}/{iso(NOON + 699 * MINUTE)}", "missed", 700, NOON + 699 * MINUTE,
        "700 fire times passed while no tick ran",
    )  # fmt: skip
    assert [row[3] for row in rows[1:]] == [NOON + minute * MINUTE for minute in range(700, 1700)]
    assert {row[2] for row in rows[1:]} == {1}
    assert gateway.taken == [iso_id for iso_id, state, *_ in rows if state == "accepted"]
    assert len(gateway.taken) == 1  # the present one


def test_exactly_a_thousand_have_a_row_each(place: Place) -> None:
    begin(place, file("every: 1m"))
    place.tick(NOON + 999 * MINUTE)
    assert place.select("SELECT count(*), max(count) FROM firings") == [(1000, 1)]


# --- The clock


def test_a_clock_that_goes_back_an_hour_repeats_nothing_and_goes_on(place: Place) -> None:
    begin(place, file("every: 30m"))
    with place.gateway() as gateway:
        for minutes in (0, 30, 60, 1, 31, 61, 90):  # 12:00, 12:30, 13:00, then 12:01 ...
            status, said = place.tick(NOON + minutes * MINUTE)
            assert (status, "the clock is behind" in said) == (0, minutes == 1)
    assert gateway.submitted == [a("12:00"), a("12:30"), a("13:00"), a("13:30")]


def test_a_clock_that_goes_back_is_told_of_if_it_is_by_more_than_a_minute(place: Place) -> None:
    begin(place, file("every: 1d"))
    said = [place.tick(NOON - seconds)[1] for seconds in (0, 30, 90, 151, 2 * HOUR, 2 * HOUR)]
    assert ["the clock is behind" in text for text in said] == [False, False, False, True, True, False]


@pytest.mark.parametrize("back", [4 * HOUR, YEAR])
def test_a_clock_that_goes_far_back_counts_on_from_now_and_says_so(place: Place, back: int) -> None:
    begin(place, file())
    with place.gateway() as gateway:
        for hour in range(3):
            assert place.tick(NOON + hour * HOUR) == (0, "")
        now = NOON + 2 * HOUR - back
        assert place.tick(now) == (
            0,
            f"bub-cron: the clock is behind the last tick ({DAY}14:00:00Z): counting on from {iso(now)}; no firing"
            " repeats\n",
        )
        for hour in range(1, 6):
            assert place.tick(now + hour * HOUR) == (0, "")
    # Nothing from before the reminder came into force fires, unless the clock can't be right.
    fresh = [f"a@{iso(now + hour * HOUR)}" for hour in range(1, 6) if back == YEAR or now + hour * HOUR > NOON - 30]
    known = {a("12:00"), a("13:00"), a("14:00")}
    assert gateway.submitted == [*sorted(known), *(identity for identity in fresh if identity not in known)]


def test_three_hours_back_for_one_tick_cost_and_repeat_nothing(place: Place) -> None:
    begin(place, file("every: 1m"))
    with place.gateway() as gateway:
        place.tick(NOON)
        assert place.tick(NOON - 3 * HOUR)[0] == 0
        assert place.tick(NOON + MINUTE) == (0, "")
    assert gateway.submitted == [a("12:00"), a("12:01")]


def test_a_clock_that_goes_a_year_ahead_leaves_a_bounded_number_of_rows(place: Place) -> None:
    begin(place, file("cron: '* * * * *'", "catch_up: all", "grace: 5m"))
    with place.gateway() as gateway:
        assert place.tick(NOON + YEAR) == (0, "")
        assert place.select("SELECT count(*), sum(count) FROM firings") == [(1001, YEAR // MINUTE + 1)]
        assert len(gateway.taken) == 6
        status, text = place.tick(NOON + MINUTE)  # and back
        assert (status, "the clock is behind" in text) == (0, True)
        assert place.tick(NOON + 2 * MINUTE) == (0, "")
    assert gateway.taken[6:] == [a("12:00"), a("12:01"), a("12:02")]


# --- Edits


def test_a_new_entry_counts_from_the_files_save(place: Place) -> None:
    begin(place, file("every: 1d"))
    place.write(file("every: 1m", name="b"), NOON + 90)
    with place.gateway() as gateway:
        assert place.tick(NOON + 3 * MINUTE) == (0, "")
    assert gateway.taken == [firing("b", DAY + "12:03:00")]
    assert list(place.states()) == [firing("b", DAY + "12:02:00"), firing("b", DAY + "12:03:00")]


def test_an_at_that_is_saved_ten_seconds_before_its_minute_fires(place: Place) -> None:
    begin(place, file("every: 1d"), NOON - MINUTE + 5)
    place.write(file("at: 2026-11-23 12:00"), NOON - 10)
    with place.gateway() as gateway:
        assert place.tick(NOON + 5) == (0, "")
    assert gateway.taken == [a("12:00")]


def test_an_at_that_is_past_is_recorded_as_missed(place: Place) -> None:
    begin(place, file("every: 1d"))
    place.write(file("at: 2026-11-23 11:00"), NOON)
    assert place.tick(NOON + 5) == (0, "")
    assert place.states() == {a("11:00"): "missed"}
    assert place.reason(a("11:00")) == "past"


def test_a_due_firing_takes_a_corrected_message_over(place: Place) -> None:
    begin(place, file())
    place.tick(NOON)
    place.write(file("every: 1h", "grace: 2h", "to: matrix:2", text="better"), NOON + 90)
    with place.gateway() as gateway:
        assert place.tick(NOON + 2 * MINUTE) == (0, "")
    (request,) = gateway.requests
    assert (request["id"], request["text"], request["to"], request["expires"]) == (
        a("12:00"), "better", "matrix:2", f"{DAY}14:00:00Z",
    )  # fmt: skip


EDITS = {
    "removed": file(name="b"),
    "disabled": file("every: 1h", "enabled: false"),
    "rescheduled": file("every: 2h"),
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("there", [True, False])
def test_a_due_firing_whose_reminder_was_edited_away_is_skipped(place: Place, edit: str, there: bool) -> None:
    begin(place, file())
    place.tick(NOON)
    place.write(EDITS[edit], NOON + 90)
    if there:
        with place.gateway() as gateway:
            assert place.tick(NOON + 2 * MINUTE) == (0, "")
        assert gateway.requests == []
    else:
        assert place.tick(NOON + 2 * MINUTE) == (0, "")
    assert place.states() == {a("12:00"): "skipped"}
    assert place.reason(a("12:00")) == "edited"


@pytest.mark.parametrize("edit", EDITS)
def test_a_fire_time_before_the_edit_has_its_word_too(place: Place, edit: str) -> None:
    begin(place, file())
    place.write(EDITS[edit], NOON + 5)  # after 12:00, and before the tick that would have recorded 12:00
    with place.gateway():
        assert place.tick(NOON + 10) == (0, "")
    assert place.states().get(a("12:00")) == "skipped"
    assert place.reason(a("12:00")) == "edited"


def test_an_accepted_firing_is_not_recalled(place: Place) -> None:
    begin(place, file())
    with place.gateway() as gateway:
        place.tick(NOON)
        place.write(EDITS["removed"], NOON + 30)
        assert place.tick(NOON + MINUTE) == (0, "")
    assert gateway.submitted == [a("12:00")]
    assert place.states() == {a("12:00"): "accepted"}


# --- In doubt: submitted, and no answer came

ENDINGS: dict[str, tuple[Callable[[Place], None], int]] = {
    **{edit: (lambda place, text=text: place.write(text, NOON + 30), NOON + MINUTE) for edit, text in EDITS.items()},  # type: ignore[misc]
    "changed": (lambda place: place.write(file(text="better"), NOON + 30), NOON + MINUTE),
    "too late": (lambda place: place.write(file("every: 1h", "grace: 5m"), NOON + 30), NOON + 6 * MINUTE),
}


@pytest.fixture(params=ENDINGS)
def ending(request: pytest.FixtureRequest, place: Place) -> tuple[str, int]:
    """Something that would end or change the firing in doubt: its name, and when the next tick runs."""
    in_doubt(place)
    change, now = ENDINGS[request.param]
    change(place)
    return request.param, now


def test_nobody_to_ask_leaves_it_due(place: Place, ending: tuple[str, int]) -> None:
    for _ in range(2):
        assert place.tick(ending[1])[0] == 69
    assert place.states() == {a("12:00"): "due"}


def test_an_unreadable_inbox_is_nobody(place: Place, ending: tuple[str, int]) -> None:
    for content in (b"", b"no database", b"SQLite format 3\0" + b"\xff" * 4096):
        Path(place.paths.inbox).write_bytes(content)
        assert place.tick(ending[1])[0] == 69
        assert place.states() == {a("12:00"): "due"}


def test_an_inbox_file_that_knows_it_makes_it_accepted(place: Place, ending: tuple[str, int]) -> None:
    place.fill_inbox(id=a("12:00"), state="delivered")
    assert place.tick(ending[1]) == (0, "")
    assert place.states() == {a("12:00"): "accepted"}


def test_an_inbox_file_in_use_is_read_as_well(place: Place, ending: tuple[str, int]) -> None:
    with closing(place.open_inbox()) as store:
        insert(store, id=a("12:00"))
        assert Path(f"{place.paths.inbox}-wal").stat().st_size > 0
        assert place.tick(ending[1]) == (0, "")
    assert place.states() == {a("12:00"): "accepted"}


def test_an_inbox_file_that_does_not_know_it_lets_it_end(place: Place, ending: tuple[str, int]) -> None:
    place.fill_inbox(id="another")
    status, _ = place.tick(ending[1])
    if ending[0] == "changed":
        assert status == 69
        assert place.select("SELECT state, content LIKE '%better%' FROM firings") == [("due", 1)]
    else:
        assert status == 0
        assert place.states() == {a("12:00"): "missed" if ending[0] == "too late" else "skipped"}


def test_a_gateway_that_knows_it_makes_it_accepted(place: Place, ending: tuple[str, int]) -> None:
    with place.gateway() as gateway:
        gateway.inbox[a("12:00")] = "whatever it took"
        assert place.tick(ending[1]) == (0, "")
    assert (gateway.asked, gateway.submitted) == ([a("12:00")], [])
    assert place.states() == {a("12:00"): "accepted"}


def test_a_gateway_that_does_not_know_it_lets_it_end(place: Place, ending: tuple[str, int]) -> None:
    with place.gateway() as gateway:
        assert place.tick(ending[1]) == (0, "")
    assert gateway.asked == [a("12:00")]
    if ending[0] == "changed":
        assert [request["text"] for request in gateway.requests[1:]] == ["better"]
        assert place.states() == {a("12:00"): "accepted"}
    else:
        assert gateway.submitted == []
        assert place.states() == {a("12:00"): "missed" if ending[0] == "too late" else "skipped"}


def test_a_gateway_that_leaves_when_asked_leaves_it_due(place: Place, ending: tuple[str, int]) -> None:
    with place.gateway(leave_after=1):
        assert place.tick(ending[1])[0] == 69
    assert place.states() == {a("12:00"): "due"}


@pytest.mark.parametrize(
    "answer",
    [{"status": "busy", "error": "database is locked"}, {"status": "rejected", "error": "bad field"}],
)
def test_a_gateway_that_cannot_tell_leaves_it_due(place: Place, ending: tuple[str, int], answer: Message) -> None:
    with place.gateway(lambda request: [{"id": request.get("status", request.get("id")), **answer}]):
        place.tick(ending[1])
    assert place.select("SELECT state, content LIKE '%better%' FROM firings") == [("due", 0)]


def test_a_gateway_that_refuses_to_talk_leaves_it_due(place: Place, ending: tuple[str, int]) -> None:
    with place.gateway(lambda _: [{"status": "rejected", "error": "user 7 may not talk to this gateway"}]):
        place.tick(ending[1])
    assert place.select("SELECT state, content LIKE '%better%' FROM firings") == [("due", 0)]


# --- The file


@pytest.mark.parametrize(
    ("broken", "status"),
    [
        ("reminders: [", 65),
        (file("every: 1x"), 65),
        (None, 66),
        (".", 65),  # a directory
    ],
)
def test_while_the_file_is_not_good_the_last_good_one_stays_in_force(
    place: Place, broken: str | None, status: int
) -> None:
    begin(place, file("every: 1m"))
    os.unlink(place.paths.file)
    if broken == ".":
        os.mkdir(place.paths.file)
    elif broken is not None:
        place.write(broken, NOON + 30)
    with place.gateway() as gateway:
        said = [place.tick(NOON + minute * MINUTE) for minute in range(62)]
    assert [code for code, _ in said] == [status] * 62  # the status says it every time
    assert [minute for minute, (_, text) in enumerate(said) if text] == [0, 60]  # the words once an hour
    assert said[0][1].startswith(f"bub-cron: {place.paths.file}")
    assert said[0][1].endswith("bub-cron: until that is fixed, the last good version stays in force\n")
    assert len(gateway.taken) == 62


def test_every_fault_has_its_line(place: Place) -> None:
    place.write("reminders:\n  a:\n    evry: 1m\n    to: telegram:1\n  b c: {}\n", NOON)
    status, text = place.tick(NOON)
    lines = text.splitlines()
    assert status == 65
    assert len(lines) > 2
    assert all(line.startswith(f"bub-cron: {place.paths.file}:") for line in lines[:-1])


def test_a_mended_file_counts_from_the_next_tick(place: Place) -> None:
    begin(place, file())
    place.write("reminders: [", NOON - 20)
    assert place.tick(NOON - 10)[0] == 65
    place.write(file("every: 1m"), NOON - 5)
    with place.gateway() as gateway:
        assert place.tick(NOON) == (0, "")
    assert gateway.taken == [a("12:00")]


def test_another_trouble_is_said_at_once(place: Place) -> None:
    begin(place, file())
    place.write("reminders: [", NOON - 20)
    assert place.tick(NOON - 10)[1] != ""
    status, text = place.tick(NOON)
    assert status == 69  # of several troubles, the more urgent one
    assert "no gateway listens" in text
    assert "last good version" in text
    assert place.tick(NOON + MINUTE) == (69, "")


def test_more_that_waits_is_no_other_trouble(place: Place) -> None:
    begin(place, file("every: 1m"))
    said = [place.tick(NOON + minute * MINUTE)[1] for minute in range(3)]
    assert [bool(text) for text in said] == [True, False, False]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user")
def test_a_file_that_could_not_be_read_is_read_when_it_can_be() -> None:
    with tempfile.TemporaryDirectory() as home:
        place = Place(Path(home))
        os.chmod(home, 0o755)  # noqa: S103 - another user's state directory lies in here
        os.mkdir(place.paths.state, 0o700)
        os.chown(place.paths.state, 65534, 65534)
        place.write(file("every: 1m"), NOON)
        os.chmod(place.paths.file, 0o600)
        os.seteuid(65534)
        try:
            assert place.tick(NOON)[0] == 65
        finally:
            os.seteuid(0)
        assert place.tick(NOON + 10) == (0, "")


def test_a_path_that_is_not_utf_8_is_a_path(place: Place) -> None:
    place.paths.file = os.fsdecode(os.fsencode(place.paths.file) + b"\xff")
    place.write(file(), NOON)
    assert place.tick(NOON) == (0, "")


def test_a_schedule_that_this_version_cannot_read_keeps_no_other_from_firing(place: Place) -> None:
    begin(place, file() + file(name="b").split("reminders:\n")[1])
    with closing(sqlite3.connect(place.paths.ledger, isolation_level=None)) as ledger:
        ledger.execute("UPDATE reminders SET schedule = 'of another version' WHERE name = 'b'")
    with place.gateway() as gateway:
        assert place.tick(NOON)[0] == 65
    assert gateway.taken == [a("12:00")]


# --- What is said


def test_what_a_terminal_would_obey_is_not_printed(place: Place) -> None:
    begin(place, file())
    with place.gateway(
        lambda request: [{"id": request["id"], "status": "rejected", "error": "\x1b[31m\x07\x9b\u202e"}]
    ):
        status, text = place.tick(NOON)
    assert status == 76
    assert all(line.isprintable() for line in text.splitlines())


# --- The store


def refused_foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE mine (x)")


def refused_newer(path: Path) -> None:
    Place(path.parent.parent).tick(NOON)
    with closing(sqlite3.connect(path)) as ledger:
        ledger.execute("PRAGMA user_version = 99")


@pytest.mark.parametrize("spoil", [refused_foreign, refused_newer])
def test_a_store_that_is_refused_is_left_alone_and_nothing_is_submitted(
    place: Place, spoil: Callable[[Path], None]
) -> None:
    place.write(file("at: 2026-11-23 12:00"), NOON - 30)
    ledger = Path(place.paths.ledger)
    ledger.parent.mkdir()
    spoil(ledger)
    before = ledger.read_bytes()
    with place.gateway() as gateway:
        for now in (NOON, NOON + MINUTE):
            status, text = place.tick(now)
            assert (status, text.startswith(f"bub-cron: {ledger}")) == (74, True)
            assert text.count("\n") == 1
    assert ledger.read_bytes() == before
    assert os.listdir(ledger.parent) == ["ledger.db"]
    assert gateway.requests == []


def test_a_disk_that_is_full_loses_nothing(place: Place) -> None:
    begin(place, file("every: 1m", "catch_up: all", "grace: 2h"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(place.paths.ledger), limits[1]))
    try:
        with place.gateway() as gateway:
            status, text = place.tick(NOON + 100 * MINUTE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (status, text.startswith(f"bub-cron: {place.paths.ledger}: ")) == (74, True)
    assert gateway.requests == []
    with place.gateway() as gateway:
        assert place.tick(NOON + 100 * MINUTE) == (0, "")
    assert len(gateway.taken) == 101


def test_a_store_that_another_holds_is_waited_for_and_then_an_error(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bub_cron.store.BUSY_SECONDS", 0.05)
    begin(place, file())
    with closing(sqlite3.connect(place.paths.ledger, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        status, text = place.tick(NOON)
        assert (status, "database is locked" in text) == (74, True)
        other.execute("ROLLBACK")
    with place.gateway():
        assert place.tick(NOON) == (0, "")


# --- Several at once, and one that is idle

WORKER = """
import sys
from bub_cron.paths import find_paths
from bub_cron.trigger import tick
paths = find_paths({"BUB_HOME": sys.argv[1]})
for line in sys.stdin:
    print(tick.run(paths, float(line)), flush=True)
"""


@pytest.fixture
def workers(place: Place) -> Iterator[Sequence[subprocess.Popen[str]]]:
    """Processes that run a tick for each instant that they are given."""
    command = [sys.executable, "-c", WORKER, str(place.home)]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    yield processes
    for process in processes:
        process.communicate()


def test_ticks_at_once_submit_and_settle_each_firing_once(
    place: Place, workers: Sequence[subprocess.Popen[str]]
) -> None:
    rounds = 60
    text = file("every: 1m") + "".join(
        file("every: 1m", f"catch_up: {which}", name=f"r{number}").split("reminders:\n")[1]
        for number, which in enumerate(["all", "latest"] * 3)
    )
    begin(place, text)
    with closing(sqlite3.connect(place.paths.ledger, isolation_level=None)) as ledger:
        ledger.execute("CREATE TABLE settled (id, state)")
        ledger.execute(
            "CREATE TRIGGER watch AFTER UPDATE OF state ON firings BEGIN INSERT INTO settled VALUES (new.id, new.state); END"
        )
    with place.gateway() as gateway:
        for number in range(rounds):
            if number % 10 == 5:
                continue  # a minute without a tick, so that something is caught up
            for worker in workers:
                assert worker.stdin is not None
                worker.stdin.write(f"{NOON + number * MINUTE}\n")
                worker.stdin.flush()
            assert [worker.stdout and worker.stdout.readline() for worker in workers] == ["0\n"] * len(workers)
    states = place.states()
    assert len(states) == 7 * rounds
    # Of a minute without a tick, those start that are to be caught up with in any case.
    left_out = {name[-7:-4] for name, state in states.items() if state == "skipped"}
    assert left_out == {f":{minute}5" for minute in range(rounds // 10)}
    assert Counter(states.values()) == {"accepted": 7 * rounds - 4 * rounds // 10, "skipped": 4 * rounds // 10}
    assert sorted(place.select("SELECT id, state FROM settled")) == sorted(states.items())
    assert sorted(gateway.taken) == sorted(name for name, state in states.items() if state == "accepted")


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


def test_a_tick_that_is_killed_anywhere_loses_and_repeats_nothing(place: Place) -> None:
    begin(place, file("every: 1m", "catch_up: all"))
    command = [sys.executable, "-c", WORKER, str(place.home)]
    inbox: dict[str, str] = {}
    taken: list[str] = []
    for number in range(12):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        lines = iter(range(1 + number % 4))

        def end(_: Message, process: subprocess.Popen[str] = process, lines: Iterator[int] = lines) -> None:
            if next(lines, None) is None:
                kill(process)

        with place.gateway(on_line=end) as gateway:
            gateway.inbox, gateway.taken = inbox, taken
            assert process.stdin is not None
            process.stdin.write(f"{NOON + number * 3 * MINUTE}\n")
            process.stdin.close()
            process.wait()
    last = NOON + 40 * MINUTE
    with place.gateway() as gateway:
        gateway.inbox, gateway.taken = inbox, taken
        assert place.tick(last) == (0, "")
    assert set(place.states().values()) == {"accepted"}
    assert sorted(taken) == sorted(place.states())
    assert len(taken) == 41


IDLE = """
import sys
before = set(sys.modules)
sys.argv = ["bub-cron", "tick"]
from bub_cron import __main__
__main__.leave = sys.exit
try:
    __main__.main()
except SystemExit as end:
    loaded = set(sys.modules) - before
    heavy = {"yaml", "croniter", "click", "rich", "json", "re", "socket", "zoneinfo", "dataclasses", "bub"}
    print(end.code, sorted(loaded & heavy), sorted(name for name in loaded if name.startswith("bub_cron")))
"""


def test_an_idle_tick_loads_little_and_leaves_its_ledger_alone(place: Place) -> None:
    # A far fire time: nothing is due at whatever time this test runs.
    place.write(file("at: 9998-01-01 00:00"), 0)
    environ = {**os.environ, **place.environ}
    outputs = [
        subprocess.run([sys.executable, "-I", "-c", IDLE], env=environ, capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert [output.stderr for output in outputs] == ["", ""]
    assert outputs[1].stdout == (
        "0 [] ['bub_cron', 'bub_cron.__main__', 'bub_cron.paths', 'bub_cron.store', 'bub_cron.trigger',"
        " 'bub_cron.trigger.ledger', 'bub_cron.trigger.tick']\n"
    )
    assert os.listdir(place.paths.state) == ["ledger.db"]


def test_a_tick_that_submits_needs_no_json_before_its_line_is_written(place: Place) -> None:
    begin(place, file())
    code = (
        "import sys; from bub_cron.paths import find_paths; from bub_cron.trigger import tick\n"
        "from bub_cron.trigger.client import Connection\n"
        "def exchange(self, lines, on_answer): print(sorted({'json', 're', 'yaml', 'croniter'} & set(sys.modules)))\n"
        "Connection.exchange = exchange\n"
        f"tick.run(find_paths({place.environ!r}), {NOON})"
    )
    with place.gateway():
        found = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


# --- Pruning


@pytest.mark.parametrize(("days", "left"), [(None, 30), ("7", 7), ("many", 30)])
def test_old_rows_are_pruned_once_a_day_but_never_a_due_one(
    place: Place, monkeypatch: pytest.MonkeyPatch, days: str | None, left: int
) -> None:
    if days is not None:
        monkeypatch.setenv("BUB_CRON_KEEP_DAYS", days)
    day = 86400
    begin(place, file("every: 24h", "grace: 366d", "catch_up: all"))
    with place.gateway():
        for number in range(1, 40):
            place.tick(NOON + number * day)
    for number in (40, 41):
        assert place.tick(NOON + number * day)[0] == 69
    kept = place.select("SELECT state, count(*) FROM firings GROUP BY state ORDER BY state")
    assert kept == [("accepted", left - 2 + 1), ("due", 2)]
    for number in range(42, 90):
        place.tick(NOON + number * day)
    assert place.select("SELECT DISTINCT state FROM firings") == [("due",)]


# --- Gaps


def gaps(place: Place) -> list[tuple[int, int]]:
    return place.select("SELECT began, ended FROM gaps ORDER BY began")


def test_ticks_of_a_usual_timer_leave_no_gap(place: Place) -> None:
    begin(place, file("cron: 0 3 * * *"), NOON + 1)
    for number, late in enumerate((0, 0.9, 59, 0, 59.9, 0, 31)):  # as late as a busy machine starts them
        assert place.tick(NOON + number * MINUTE + MINUTE + late) == (0, "")
    assert gaps(place) == []


@pytest.mark.parametrize(("began", "ended"), [(-30, 60), (-1, 119), (-60, 3600), (-30, YEAR)])
def test_a_whole_minute_without_a_tick_is_one_gap(place: Place, began: int, ended: int) -> None:
    place.write("reminders: {}\n", NOON)
    place.tick(NOON + began)
    place.tick(NOON + ended)
    place.tick(NOON + ended + 1)
    place.tick(NOON + ended + MINUTE)
    assert gaps(place) == [(NOON + began, NOON + ended)]


def test_the_first_tick_ends_no_gap(place: Place) -> None:
    place.write("reminders: {}\n", NOON)
    place.tick(NOON)
    assert gaps(place) == []


@pytest.mark.parametrize("back", [MINUTE, 2 * HOUR, 4 * HOUR, YEAR])
def test_a_clock_that_is_set_back_makes_no_gap(place: Place, back: int) -> None:
    place.write("reminders: {}\n", NOON - YEAR)
    place.tick(NOON)
    for number in range(1, 4):
        place.tick(NOON - back + number * MINUTE)
    assert gaps(place) == []


def test_gaps_are_pruned_with_the_rows(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUB_CRON_KEEP_DAYS", "3")
    place.write("reminders: {}\n", NOON)
    for day in range(20):
        place.tick(NOON + day * 86400)
    found = gaps(place)
    assert found[-1] == (NOON + 18 * 86400, NOON + 19 * 86400)
    assert len(found) == 4


def test_gaps_are_bounded_by_the_days_that_are_kept(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a tick runs every five minutes only, each time is one; a day has no more of them than that."""
    monkeypatch.setenv("BUB_CRON_KEEP_DAYS", "1")
    place.write("reminders: {}\n", NOON)
    for number in range(5 * 288 // 2):
        place.tick(NOON + number * 300)
    assert len(gaps(place)) <= 2 * 288


# --- Under systemd


def test_systemd_is_told_of_each_failure_in_one_line(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of one that is not printed again, and of nothing while all is well."""
    with tempfile.TemporaryDirectory() as short, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        monkeypatch.setenv("NOTIFY_SOCKET", f"{short}/notify")
        systemd.bind(f"{short}/notify")
        systemd.setblocking(False)
        begin(place, file())
        with pytest.raises(BlockingIOError):
            systemd.recv(4096)
        place.write("reminders:\n  a: {every: 1h}\n", NOON)
        assert [place.tick(NOON)[1] != "", place.tick(NOON + 60)[1] != ""] == [True, False]
        first, second = (systemd.recv(4096).decode() for _ in range(2))
    assert first == second
    assert first.startswith(f"STATUS={place.paths.file}:2:3: 'a' has no message")
    assert "\n" not in first


def test_a_systemd_that_does_not_listen_changes_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")
    begin(place, file())
    status, said = place.tick(NOON)
    assert said
    assert status == 69
