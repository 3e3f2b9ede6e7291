"""inbox.py: every move of the tables, ids, overlap, notices, what damage does, pruning."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fake_bub import NOON, FakeClockInbox, given, in_virtual_time, open_inbox, request, run

from bub_cron.errors import StoreError
from bub_cron.gateway.firing import Firing, Message
from bub_cron.gateway.inbox import DifferentContentError, FullError, StaleError
from bub_cron.states import (
    FIRING_MOVES,
    IN_INBOX,
    MESSAGE_KINDS,
    MESSAGE_MOVES,
    OPEN,
    all_states,
    open_states,
)
from bub_cron.wire import LEFT_OUT

DAY = 86400.0
FINAL_IN_INBOX = sorted(IN_INBOX - OPEN)


with_inbox = given(open_inbox)


async def put_anyhow(inbox: FakeClockInbox, state: str, firing_id: str = "a", **fields: Any) -> Firing:
    """A firing in any state, final ones too, whatever led there."""
    firing = await inbox.put("accepted", firing_id, **fields)
    finished_at = None if state in OPEN else NOON
    await inbox.sql("UPDATE firings SET state = ?, finished_at = ? WHERE id = ?", state, finished_at, firing_id)
    return firing._replace(state=state, finished_at=finished_at)


# --- Accepting


@with_inbox
async def test_a_request_is_accepted_with_all_that_it_says(inbox: FakeClockInbox) -> None:
    asked = request(
        id="x", to="chat:a:b", prompt="do it", session="s", reminder="r", fire_time="2027-01-15T08:00:00Z",
        attempts=2, timeout="1m", reply="agent", quiet=True, model="m", context={"thread_id": "t"},
        delivery="at-least-once",
    )  # fmt: skip
    firing, new = await inbox.take_in(asked, NOON)
    assert new
    assert firing.answer() == {"id": "x", "status": "accepted"}
    stored = await inbox.get("x")
    assert stored is not None
    for name in {*vars(asked), *LEFT_OUT}:
        if name != "wait":
            assert getattr(stored.request, name) == getattr(asked, name), name
    assert stored == firing


@with_inbox
async def test_a_request_that_is_too_late_is_missed_at_once(inbox: FakeClockInbox) -> None:
    firing, _ = await inbox.take_in(request(expires=NOON - 0.5), NOON)
    assert firing.answer() == {
        "id": "a", "status": "missed", "reason": "late", "error": "too late to start when it was submitted"
    }  # fmt: skip
    assert (await inbox.get("a"), await inbox.unfinished(NOON)) != (None, [firing])
    assert (await inbox.put("accepted", "b", expires=NOON)).state == "accepted", "its very last instant counts"


@pytest.mark.parametrize("state", ["running", "retrying", "kept", "sending"])
@with_inbox
async def test_a_fire_time_at_which_an_earlier_firing_had_started_is_skipped(inbox: FakeClockInbox, state: str) -> None:
    await inbox.put(state, reminder="r")
    later = await inbox.put("accepted", "b", reminder="r")
    assert (later.state, later.reason, later.error) == ("skipped", "overlap", "a still ran")


@pytest.mark.parametrize(
    "fire_time, state",
    [
        ("2027-01-15T07:59:59Z", "accepted"),  # the earlier firing started at NOON, 2027-01-15T08:00:00Z
        ("2027-01-15T09:00:00+01:00", "skipped"),
        ("this morning", "skipped"),  # no instant: judged now
        ("2026-99-99T99:99:99Z", "skipped"),
    ],
)
@with_inbox
async def test_overlap_is_judged_at_the_fire_time(inbox: FakeClockInbox, fire_time: str, state: str) -> None:
    await inbox.put("running", reminder="r")
    assert (await inbox.put("accepted", "b", reminder="r", fire_time=fire_time)).state == state


@pytest.mark.parametrize("state", ["accepted", *FINAL_IN_INBOX])
@with_inbox
async def test_a_firing_that_has_not_started_or_has_ended_overlaps_nothing(inbox: FakeClockInbox, state: str) -> None:
    await put_anyhow(inbox, state, reminder="r")
    assert (await inbox.put("accepted", "b", reminder="r")).state == "accepted"


@with_inbox
async def test_queue_other_reminders_and_pokes_do_not_overlap(inbox: FakeClockInbox) -> None:
    await inbox.put("running", reminder="r")
    await inbox.put("running", "nameless")
    asked = [
        request(id="b", text="x", reminder="r", overlap="queue"),
        request(id="c", text="x", reminder="r"),  # beside a `queue` of the same reminder, in the same call
        request(id="d", text="x", reminder="other"),
        request(id="e", text="x"),
    ]
    accepted = await inbox.accept(asked, NOON, 9)
    assert [isinstance(found, Firing) and found.state for found in accepted] == [
        "accepted", "skipped", "accepted", "accepted"
    ]  # fmt: skip


@with_inbox
async def test_what_a_stop_gave_back_had_started_and_still_overlaps(inbox: FakeClockInbox) -> None:
    await inbox.move(await inbox.put("running", reminder="r"), "give_back", NOON, attempts=0)
    assert (await inbox.put("accepted", "b", reminder="r")).state == "skipped"


@with_inbox
async def test_the_same_request_again_changes_nothing_and_tells_where_it_stands(inbox: FakeClockInbox) -> None:
    await inbox.put("kept")
    again, new = await inbox.take_in(request(prompt="hi", expires=NOON - 99, wait=False), NOON + 50)
    assert (new, again.state, again.reply, again.request.expires) == (False, "running", "the reply", NOON + 3600)


@pytest.mark.parametrize(
    "other",
    [{"prompt": "ho"}, {"to": "chat:2"}, {"quiet": True}, {"attempts": 9}, {"reminder": "r"}, {"context": {"a": "b"}},
     {"text": "hi", "prompt": None}, {"fire_time": "x"}, {"session": "s"}, {"timeout": 5}, {"model": "m"},
     {"delivery": "at-least-once"}],
)  # fmt: skip
@with_inbox
async def test_a_known_id_with_other_content_is_refused_and_the_firing_untouched(
    inbox: FakeClockInbox, other: dict[str, Any]
) -> None:
    firing = await inbox.put("accepted")
    fields = {key: value for key, value in {"prompt": "hi", **other}.items() if value is not None}
    with pytest.raises(DifferentContentError):
        await inbox.take_in(request(**fields), NOON)
    found = await inbox.get("a")
    assert found is not None
    assert found.request.content() == firing.request.content()


@with_inbox
async def test_one_id_asked_for_twice_is_there_once(inbox: FakeClockInbox) -> None:
    asked = [request(), request(), request(text="other")]
    first, second, third = await inbox.accept(asked, NOON, 9)
    assert (isinstance(first, Firing), second) == (True, None)
    assert isinstance(third, DifferentContentError)
    assert await inbox.sql("SELECT count(*) FROM firings") == [(1,)]


@pytest.mark.parametrize("label", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59-12:00", "2026-99-99T99:99:99Z"])
@with_inbox
async def test_a_label_that_is_no_instant_of_the_stores_is_taken_as_a_label(inbox: FakeClockInbox, label: str) -> None:
    accepted = await inbox.accept([request(id="a", fire_time=label), request(id="b")], NOON, 9)
    assert all(isinstance(found, Firing) for found in accepted)
    assert await inbox.column("a", "moment") == NOON


@with_inbox
async def test_no_more_are_taken_than_there_is_room_for_but_known_ones_are_answered(inbox: FakeClockInbox) -> None:
    await inbox.put("accepted", "known", text="hello")
    accepted = await inbox.accept([request(id=name) for name in ("a", "b", "known", "c")], NOON, 1)
    assert [type(found) for found in accepted] == [Firing, FullError, type(None), FullError]
    assert await inbox.sql("SELECT id FROM firings ORDER BY seq") == [("known",), ("a",)]


# --- Every move of the tables


@pytest.mark.parametrize("state", all_states(FIRING_MOVES))
@pytest.mark.parametrize("event", [event for event, move in FIRING_MOVES.items() if move.sources])
@with_inbox
async def test_a_firing_moves_from_the_states_of_the_table_and_from_no_other(
    inbox: FakeClockInbox, event: str, state: str
) -> None:
    move = FIRING_MOVES[event]

    firing = await put_anyhow(inbox, state)
    if state in move.sources:
        assert (await inbox.move(firing, event, NOON)).state == move.state
    else:
        with pytest.raises(StaleError):
            await inbox.move(firing, event, NOON)
    assert await inbox.column("a", "state") == (move.state if state in move.sources else state)


@pytest.mark.parametrize("state", all_states(MESSAGE_MOVES))
@pytest.mark.parametrize("event", [event for event, move in MESSAGE_MOVES.items() if move.sources])
@with_inbox
async def test_a_message_moves_from_the_states_of_the_table_and_from_no_other(
    inbox: FakeClockInbox, event: str, state: str
) -> None:
    move = MESSAGE_MOVES[event]

    notice = Message(1, "notice", "chat:1", NOON + 9, "no luck", state, sends=1)
    firing = (await put_anyhow(inbox, "failed"))._replace(messages=(notice,))
    if state in move.sources:
        [moved] = (await inbox.move_message(firing, notice, event, NOON)).messages
        assert (moved.state, moved.finished_at is None) == (move.state, move.state in ("waiting", "sending"))
    else:
        with pytest.raises(StaleError):
            await inbox.move_message(firing, notice, event, NOON)


@with_inbox
async def test_the_store_takes_the_states_and_kinds_of_the_tables_alone(inbox: FakeClockInbox) -> None:
    firing = await inbox.put("sending")
    for state in all_states(FIRING_MOVES):
        await inbox.sql("UPDATE firings SET state = ?", state)
    for state in all_states(MESSAGE_MOVES):
        await inbox.sql("UPDATE messages SET state = ?", state)
    for kind in MESSAGE_KINDS:
        await inbox.sql("UPDATE messages SET kind = ?", kind)
    for statement in ("firings SET state", "messages SET state", "messages SET kind"):
        with pytest.raises((StoreError, sqlite3.Error)):
            await inbox.sql(f"UPDATE {statement} = 'due'")
    assert firing.messages


PARTS = [
    # the moves of two parts in turn, the firing's state after each, the states of the parts at the end
    (["1 deliver", "2 begin", "2 deliver"], ["running", "running", "delivered"], ["delivered", "delivered"]),
    (["1 lose"], ["unknown"], ["unknown", "skipped"]),
    (["1 refuse"], ["undelivered"], ["undelivered", "skipped"]),
    (["1 retry", "1 begin", "1 deliver"], ["retrying", "running", "running"], ["delivered", "waiting"]),
    (["1 give_back"], ["accepted"], ["waiting", "waiting"]),
    (["1 deliver", "2 begin", "2 lose"], ["running", "running", "unknown"], ["delivered", "unknown"]),
    (["1 deliver", "2 begin", "2 retry"], ["running", "running", "retrying"], ["delivered", "waiting"]),
    (["1 deliver", "2 begin", "2 refuse"], ["running", "running", "undelivered"], ["delivered", "undelivered"]),
]


@pytest.mark.parametrize("moves, states, ends", PARTS, ids=[" ".join(row[0]) for row in PARTS])
@with_inbox
async def test_a_firing_follows_its_messages(
    inbox: FakeClockInbox, moves: list[str], states: list[str], ends: list[str]
) -> None:
    parts = tuple(Message(number, "reply", "chat:1", NOON + 9, f"part {number}") for number in (1, 2))
    firing = (await inbox.put("kept"))._replace(messages=parts)
    firing = await inbox.move_message(firing, parts[0], "begin", NOON)
    seen = []
    for move in moves:
        number, event = move.split()
        firing = await inbox.move_message(firing, firing.messages[int(number) - 1], event, NOON + 1, error=move)
        seen.append(firing.state)
        assert await inbox.get("a") == firing
    assert seen == states
    assert [message.state for message in firing.messages] == ends
    if firing.is_final:
        assert firing.finished_at == NOON + 1
    if firing.state in ("unknown", "undelivered"):
        assert firing.error == moves[-1]


async def stored(inbox: FakeClockInbox) -> Firing:
    firing = await inbox.get("a")
    assert firing is not None
    return firing


@with_inbox
async def test_an_end_says_when_and_why_and_waits_for_nothing(inbox: FakeClockInbox) -> None:
    firing = await inbox.put("retrying")
    firing = await inbox.move(firing, "fail", NOON + 5, reason="attempts", error="why")
    assert (firing.state, firing.reason, firing.error) == ("failed", "attempts", "why")
    assert (firing.finished_at, firing.seconds, firing.not_before) == (NOON + 5, 5.0, None)
    assert await stored(inbox) == firing


# --- Together on disk


@with_inbox
async def test_what_is_asked_while_the_thread_is_busy_is_committed_together(inbox: FakeClockInbox) -> None:
    async with inbox.thread_held() as statements:
        asked = [asyncio.create_task(inbox.take_in(request(id=str(number)), NOON)) for number in range(300)]
        await asyncio.sleep(0)
    await asyncio.gather(*asked)
    assert [statement for statement in statements if statement.startswith(("BEGIN", "COMMIT"))] == [
        "COMMIT",  # of the transaction in which the thread was held
        "BEGIN IMMEDIATE",
        "COMMIT",
    ]
    assert await inbox.sql("SELECT count(*) FROM firings") == [(300,)]


@with_inbox
async def test_what_was_accepted_is_in_the_file_for_everybody_to_see(inbox: FakeClockInbox, tmp_path: Path) -> None:
    await inbox.put("accepted")
    with sqlite3.connect(f"file:{tmp_path}/inbox.db?mode=ro", uri=True) as reader:
        assert reader.execute("SELECT id, state FROM firings").fetchall() == [("a", "accepted")]
    reader.close()
    assert await inbox.sql("PRAGMA synchronous") == [(2,)]  # FULL: in WAL mode the one that syncs each commit
    assert await inbox.sql("PRAGMA journal_mode") == [("wal",)]


@with_inbox
async def test_one_that_is_refused_does_not_touch_the_others_of_its_batch(inbox: FakeClockInbox) -> None:
    firing = await inbox.put("accepted", text="hello")
    async with inbox.thread_held():
        asked = [
            asyncio.create_task(inbox.take_in(request(id="b"), NOON)),
            asyncio.create_task(inbox.take_in(request(id="a", text="other"), NOON)),
            asyncio.create_task(inbox.move(firing, "retry", NOON)),
            asyncio.create_task(inbox.take_in(request(id="c"), NOON)),
        ]
        await asyncio.sleep(0)
    ended = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(ended[1], DifferentContentError)
    assert isinstance(ended[2], StaleError)
    assert await inbox.sql("SELECT id FROM firings ORDER BY seq") == [("a",), ("b",), ("c",)]


@with_inbox
async def test_a_disk_error_reaches_who_submits_and_a_move_is_tried_again(inbox: FakeClockInbox) -> None:
    firing = await inbox.put("accepted")
    await inbox.break_disk()
    with pytest.raises(StoreError, match=r"inbox\.db"):
        await inbox.take_in(request(id="b"), NOON)
    moving = asyncio.create_task(inbox.move(firing, "start", NOON))
    await asyncio.sleep(100)
    assert not moving.done()
    await inbox.mend_disk()
    assert (await moving).state == "running"
    assert await inbox.sql("SELECT id, state FROM firings") == [("a", "running")]


@with_inbox
async def test_a_full_disk_refuses_what_does_not_fit_and_takes_again_what_does(inbox: FakeClockInbox) -> None:
    (((pages,),)) = await inbox.sql("PRAGMA page_count")
    await inbox.sql(f"PRAGMA max_page_count = {pages}")
    stored = 0
    with pytest.raises(StoreError, match="full"):
        for number in range(100):
            await inbox.take_in(request(id=str(number), text="x" * 10_000), NOON)
            stored += 1
    assert await inbox.sql("SELECT count(*) FROM firings") == [(stored,)]
    await inbox.sql("PRAGMA max_page_count = 1000000")
    await inbox.take_in(request(id="after", text="x" * 10_000), NOON)


@in_virtual_time
async def test_the_store_is_private_and_a_closed_one_says_so(tmp_path: Path) -> None:
    async with open_inbox(tmp_path / "new") as inbox:
        await inbox.put("accepted")
        modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "new").iterdir()}
        assert modes["inbox.db"] == modes["inbox.db-wal"] == 0o600
        assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    with pytest.raises(StoreError, match="closed"):
        await inbox.get("a")


# --- Damage


@with_inbox
async def test_a_firing_in_hand_whose_row_was_lost_is_written_again_from_memory(inbox: FakeClockInbox) -> None:
    firing = await inbox.put("running")
    await inbox.sql("DELETE FROM firings")
    firing = await inbox.move(firing, "keep_reply", NOON, reply="the reply")
    assert (await stored(inbox)).reply == "the reply"
    reply = Message(1, "reply", "chat:1", NOON + 9)
    firing = await inbox.move_message(firing._replace(messages=(reply,)), reply, "begin", NOON)
    await inbox.sql("DELETE FROM firings")
    await inbox.sql("DELETE FROM messages")
    firing = await inbox.move_message(firing, firing.messages[0], "deliver", NOON + 1)
    assert (firing.state, (await stored(inbox)).state, firing.messages[0].state) == ("delivered",) * 3


@with_inbox
async def test_what_is_in_hand_can_be_written_into_a_new_store(inbox: FakeClockInbox) -> None:
    firings = [await inbox.put("kept"), await inbox.put("sending", "b"), await inbox.put("accepted", "c")]
    await inbox.sql("DELETE FROM firings WHERE id <> 'c'")
    await inbox.sql("DELETE FROM messages")
    await inbox.keep(firings)
    found = await inbox.get_all(["a", "b", "c"])
    assert [found[firing.id] for firing in firings] == firings


@with_inbox
async def test_open_rows_that_cannot_be_read_end_and_keep_nobody_from_running(inbox: FakeClockInbox) -> None:
    for firing_id in ("broken", "worse", "sound"):
        await inbox.put("accepted", firing_id)
    await inbox.sql("UPDATE firings SET request = 'no JSON' WHERE id = 'broken'")
    await inbox.sql("UPDATE firings SET request = '{}' WHERE id = 'worse'")
    assert [firing.id for firing in await inbox.unfinished(NOON)] == ["sound"]
    assert await inbox.sql("SELECT state, reason FROM firings ORDER BY seq") == [
        ("failed", "unreadable"), ("failed", "unreadable"), ("accepted", None)
    ]  # fmt: skip


@with_inbox
async def test_a_final_row_that_cannot_be_read_keeps_nobody_from_starting(inbox: FakeClockInbox) -> None:
    await fail(inbox, "1")
    await inbox.sql("UPDATE firings SET request = 'no JSON'")
    await inbox.put("accepted", "2")
    assert [firing.id for firing in await inbox.unfinished(NOON)] == ["2"]
    assert await inbox.get("1") is None


def test_a_file_that_is_no_store_is_never_lost(tmp_path: Path) -> None:
    """Refused, or put aside: its bytes are still there, and nobody waits for ever."""
    (tmp_path / "inbox.db").write_text("dear diary, " * 1000)

    async def main() -> None:
        with suppress(StoreError):
            async with open_inbox(tmp_path):
                pass

    run(main())
    assert any(file.read_bytes() == b"dear diary, " * 1000 for file in tmp_path.iterdir())


# --- Notices


async def fail(inbox: FakeClockInbox, firing_id: str, event: str = "fail", **fields: Any) -> list[Message]:
    """End a firing of the reminder r by an event; return its notices."""
    firing = await inbox.put("running", firing_id, **{"reminder": "r", "overlap": "queue", **fields})
    return list((await inbox.move(firing, event, NOON, reason=None, error="why")).messages)


@with_inbox
async def test_a_reminders_failure_is_told_once_until_it_has_worked(inbox: FakeClockInbox) -> None:
    [notice] = await fail(inbox, "1")
    assert (notice.kind, notice.to, notice.state) == ("notice", "chat:1", "waiting")
    assert notice.content == "The reminder r failed: why."
    assert await fail(inbox, "2") == []
    for number, event in enumerate(["deliver", "be_silent", "run"]):
        assert await fail(inbox, f"good{number}", event) == []
        assert len(await fail(inbox, f"bad{number}")) == 1
        assert await fail(inbox, f"worse{number}") == []


@pytest.mark.parametrize("event", ["refuse", "lose"])
@with_inbox
async def test_other_ends_neither_tell_nor_end_the_streak(inbox: FakeClockInbox, event: str) -> None:
    assert await fail(inbox, "1", event) == []
    assert len(await fail(inbox, "2")) == 1
    assert await fail(inbox, "3", event) == []
    assert await fail(inbox, "4") == []


@with_inbox
async def test_each_reminder_has_its_own_streak_and_a_poke_has_none(inbox: FakeClockInbox) -> None:
    assert len(await fail(inbox, "1")) == 1
    assert len(await fail(inbox, "2", reminder="other")) == 1
    firing = await inbox.put("running", "poke")
    assert (await inbox.move(firing, "fail", NOON, error="why")).messages == ()


@in_virtual_time
async def test_a_notice_waits_over_restarts_and_one_that_was_refused_is_made_up_for(tmp_path: Path) -> None:
    async with open_inbox(tmp_path) as inbox:
        await fail(inbox, "1")
    async with open_inbox(tmp_path) as inbox:
        [firing] = await inbox.unfinished(NOON)
        assert await fail(inbox, "2") == [], "it is still to be told of the first"
        firing = await inbox.move_message(firing, firing.messages[0], "begin", NOON)
        firing = await inbox.move_message(firing, firing.messages[0], "refuse", NOON, reason="refused", error="no")
        assert (firing.state, await inbox.unfinished(NOON)) == ("failed", [])
        assert len(await fail(inbox, "3")) == 1


# --- Answers


@with_inbox
async def test_an_answer_holds_what_applies(inbox: FakeClockInbox) -> None:
    running = {"id": "a", "status": "running", "attempts": 1}
    assert (await inbox.put("running")).answer() == running
    firing = await inbox.move(await stored(inbox), "keep_reply", NOON, reply="secret")
    assert firing.answer() == running
    reply = Message(1, "reply", "chat:1", NOON + 9)
    firing = await inbox.move_message(firing._replace(messages=(reply,)), reply, "begin", NOON)
    firing = await inbox.move_message(firing, firing.messages[0], "deliver", NOON + 1.5)
    assert firing.answer() == {**running, "status": "delivered", "reply": "secret", "seconds": 1.5}


@with_inbox
async def test_the_answer_of_one_that_is_tried_again_says_why_and_when(inbox: FakeClockInbox) -> None:
    again = {"status": "retrying", "attempts": 1, "next_try": "2027-01-15T08:00:30Z"}
    assert (await inbox.put("retrying")).answer() == {"id": "a", "error": "no luck", **again}
    assert (await inbox.put("sent_in_vain", "b")).answer() == {"id": "b", "error": "no way", **again}


@with_inbox
async def test_the_answer_to_a_text_does_not_repeat_it_and_several_messages_are_listed(inbox: FakeClockInbox) -> None:
    parts = tuple(Message(number, "reply", "chat:1", NOON + 9, f"part {number}") for number in (1, 2))
    firing = (await inbox.put("accepted", text="hello"))._replace(messages=parts)
    firing = await inbox.move_message(firing, parts[0], "begin", NOON)
    firing = await inbox.move_message(firing, firing.messages[0], "lose", NOON, reason="not_seen", error="?")
    assert firing.answer() == {
        "id": "a", "status": "unknown", "reason": "not_seen", "error": "?", "seconds": 0.0,
        "messages": [
            {"kind": "reply", "to": "chat:1", "state": "unknown", "sends": 1, "error": "?"},
            {"kind": "reply", "to": "chat:1", "state": "skipped", "sends": 0},
        ],
    }  # fmt: skip


# --- Pruning


@with_inbox
async def test_old_final_firings_are_pruned_with_their_messages_and_no_open_one(inbox: FakeClockInbox) -> None:
    for state in (*open_states(FIRING_MOVES), "failed", "delivered"):
        await put_anyhow(inbox, state, state)
    await fail(inbox, "told")
    await inbox.sql("UPDATE firings SET finished_at = ?, accepted_at = ? WHERE id = 'told'", NOON, NOON)
    await inbox.take_in(request(NOON + 9 * DAY, id="new"), NOON + 9 * DAY)
    await inbox.prune_old(NOON + 9 * DAY, 9.5)
    assert len(await inbox.sql("SELECT id FROM firings")) == 7
    await inbox.prune_old(NOON + 9 * DAY, 8.5)
    assert await inbox.sql("SELECT id FROM firings ORDER BY seq") == [
        ("accepted",), ("retrying",), ("running",), ("new",)
    ]  # fmt: skip
    assert await inbox.sql("SELECT count(*) FROM messages") == [(0,)]


@with_inbox
async def test_a_clock_that_is_ahead_prunes_nothing(inbox: FakeClockInbox) -> None:
    await put_anyhow(inbox, "delivered")
    await inbox.prune_old(NOON + 40 * DAY, 30)
    assert await inbox.get("a") is not None


@with_inbox
async def test_beyond_its_size_the_oldest_final_firings_go_first(inbox: FakeClockInbox) -> None:
    await inbox.put("accepted", "open", text="x" * 60_000)
    await inbox.accept([request(id=str(number), text="x" * 1000) for number in range(3000)], NOON, 3000)
    await inbox.sql("UPDATE firings SET state = 'delivered', finished_at = ? WHERE id <> 'open'", NOON)
    await inbox.prune_to(1 << 21)
    left = [row[0] for row in await inbox.sql("SELECT id FROM firings ORDER BY seq")]
    assert (left[0], left[-1], len(left)) == ("open", "2999", 1001)
