"""inbox.py: both tables row by row, one sync for many, what a bad disk does, and whom a failure is told."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fake_bub import NOON, FakeClockInbox, open_inbox, request, run

from bub_cron.errors import StoreError
from bub_cron.gateway.acceptance import DifferentContentError, FullError
from bub_cron.gateway.firing import Firing
from bub_cron.gateway.inbox import StaleFiringError
from bub_cron.states import FINAL

OPEN_STATES = ("accepted", "running", "retrying", "sending")
FINISHED = ("delivered", "silent", "ran", "undelivered", "failed", "unknown", "missed")


def delay(attempts: int) -> float:
    return 30.0


async def put(inbox: FakeClockInbox, state: str, firing_id: str = "a", **fields: Any) -> Firing:
    """A firing of a prompt in this state; `sending` is `running` with a send begun, `kept` with a reply kept."""
    if not {"text", "command"} & set(fields):
        fields = {"prompt": "hi", **fields}
    firing, _ = await inbox.take_in(request(id=firing_id, **fields), NOON)
    if state in ("running", "retrying", "kept", "sending"):
        firing = await inbox.start_attempt(firing_id, NOON)
    if state == "retrying":
        firing = await inbox.retry(firing_id, "no luck", NOON + 30)
    if state in ("kept", "sending"):
        firing = await inbox.keep_reply(firing_id, "the reply", 7)
    if state == "sending":
        firing = await inbox.begin_send(firing_id, NOON)
    if state in FINISHED:
        if before := BEFORE.get(state):
            await bring(inbox, before, firing_id)
        firing, _ = await inbox.finish(firing_id, state, "why" if state != "delivered" else None, NOON + 5)
    return firing


# A last word -> the state that its firing comes from, where not any will do.
BEFORE = {"delivered": "sending", "unknown": "sending", "silent": "running", "ran": "running"}


async def bring(inbox: FakeClockInbox, state: str, firing_id: str = "a") -> None:
    """Bring an accepted firing into its turn, or its send."""
    await inbox.start_attempt(firing_id, NOON)
    if state == "sending":
        await inbox.begin_send(firing_id, NOON)


async def state_of(inbox: FakeClockInbox, firing_id: str = "a") -> str:
    firing = await inbox.get(firing_id)
    assert firing is not None
    return firing.state


def with_inbox(path: Path, test: Callable[[FakeClockInbox], Awaitable[None]], **options: int) -> None:
    async def main() -> None:
        async with open_inbox(path, **options) as inbox:
            await test(inbox)

    run(main())


# --- The first table: a request


def test_a_request_is_accepted_with_all_that_it_says(tmp_path: Path) -> None:
    async def test(inbox: FakeClockInbox) -> None:
        firing, new = await inbox.take_in(
            request(
                id="x", to="chat:a:b", prompt="do it", session="s", reminder="r", fire_time="2027-01-15T08:00:00Z",
                attempts=2, timeout="1m", reply="agent", quiet=True, model="m", context={"thread_id": "t"},
            ),
            NOON,
        )  # fmt: skip
        assert new
        assert (firing.state, firing.attempts, firing.sends, firing.sending) == ("accepted", 0, 0, False)
        assert (firing.to, firing.session, firing.kind, firing.body) == ("chat:a:b", "s", "prompt", "do it")
        assert (firing.reminder, firing.fire_time) == ("r", "2027-01-15T08:00:00Z")
        assert (firing.attempts_allowed, firing.timeout, firing.reply_mode, firing.quiet) == (2, 60.0, "agent", True)
        assert (firing.model, firing.context, firing.expires) == ("m", {"thread_id": "t"}, NOON + 3600)
        assert (firing.accepted_at, firing.started_at, firing.finished_at) == (NOON, None, None)

    with_inbox(tmp_path, test)


def test_a_text_is_its_own_reply_from_the_start(tmp_path: Path) -> None:
    async def test(inbox: FakeClockInbox) -> None:
        assert (await put(inbox, "accepted", text="hello")).reply == "hello"
        assert (await put(inbox, "accepted", "b", prompt="hello")).reply is None

    with_inbox(tmp_path, test)


def test_a_request_that_is_too_late_is_missed_at_once(tmp_path: Path) -> None:
    async def test(inbox: FakeClockInbox) -> None:
        firing, new = await inbox.take_in(request(expires=NOON - 0.5), NOON)
        assert new
        assert firing.answer() == {
            "id": "a",
            "status": "missed",
            "error": "too late to start when it was submitted",
        }
        assert firing.finished_at == NOON
        assert await inbox.recover(NOON, delay) == []

    with_inbox(tmp_path, test)


def test_a_request_at_its_very_last_instant_is_accepted(tmp_path: Path) -> None:
    async def test(inbox: FakeClockInbox) -> None:
        assert (await put(inbox, "accepted", expires=NOON)).state == "accepted"

    with_inbox(tmp_path, test)


# --- Overlap


@pytest.mark.parametrize("state", ["running", "retrying", "kept", "sending"])
def test_a_fire_time_at_which_an_earlier_firing_had_started_is_missed(tmp_path: Path, state: str) -> None:
    async def test(inbox: FakeClockInbox) -> None:
        await put(inbox, state, reminder="r")
        later = await put(inbox, "accepted", "b", reminder="r")
        assert (later.state, later.error) == ("missed", "a still ran")

    with_inbox(tmp_path, test)


def test_overlap_is_judged_at_the_fire_time_not_when_it_is_submitted(tmp_path: Path) -> None:
    """The machine was busy: the second fire time came before the first firing had started."""

    async def test(inbox: FakeClockInbox) -> None:
        await put(inbox, "running", reminder="r")  # started at NOON = 2027-01-15T08:00:00Z
        before = await put(inbox, "accepted", "b", reminder="r", fire_time="2027-01-15T07:59:59Z")
        same = await put(inbox, "accepted", "c", reminder="r", fire_time="2027-01-15T09:00:00+01:00")
        assert (before.state, same.state) == ("accepted", "missed")

    with_inbox(tmp_path, test)


def test_a_fire_time_that_is_no_instant_is_judged_now(tmp_path: Path) -> None:
    async def test(inbox: FakeClockInbox) -> None:
        await put(inbox, "running", reminder="r")
        assert (await put(inbox, "accepted", "b", reminder="r", fire_time="this morning")).state == "missed"

    with_inbox(tmp_path, test)


@pytest.mark.parametrize("state", ["accepted", *FINISHED])
def test_a_firing_that_has_not_started_or_has_ended_overlaps_nothing(tmp_path: Path, state: str) -> None:
    async def test(inbox: FakeClockInbox) -> None:
        await put(inbox, state, reminder="r")
        assert (await put(inbox, "accepted", "b", reminder="r")).state == "accepted"

    with_inbox(tmp_path, test)


def test_what_a_stop_gave_back_had_started_and_still_overlaps(tmp_path: Path) -> None:
    async def test(inbox: FakeClockInbox) -> None:
        await put(inbox, "running", reminder="r")
        await inbox.give_back("a")
        assert (await put(inbox, "accepted", "b", reminder="r")).state == "missed"

    with_inbox(tmp_path, test)


def test_queue_other_reminders_and_pokes_do_not_overlap(tmp_path: Path) -> None:
    async def test(inbox: FakeClockInbox) -> None:
        await put(inbox, "running", reminder="r")
        await put(inbox, "running", "nameless")
        assert (await put(inbox, "accepted", "b", reminder="r", overlap="queue")).state == "accepted"
        assert (await put(inbox, "accepted", "c", reminder="other")).state == "accepted"
        assert (await put(inbox, "accepted", "d")).state == "accepted"

    with_inbox(tmp_path, test)


# --- The first table: the runner's rows


async def start(inbox: FakeClockInbox) -> Any:
    return await inbox.start_attempt("a", NOON + 1)


async def keep(inbox: FakeClockInbox) -> Any:
    return await inbox.keep_reply("a", "new", 3)


async def begin(inbox: FakeClockInbox) -> Any:
    return await inbox.begin_send("a", NOON + 2)


async def again(inbox: FakeClockInbox) -> Any:
    return await inbox.retry("a", "refused", NOON + 60)


async def give_back(inbox: FakeClockInbox) -> Any:
    return await inbox.give_back("a")


ROWS = [
    # from, step, to, attempts, sends, sending, reply
    ("accepted", start, "running", 1, 0, False, None),
    ("retrying", start, "running", 2, 0, False, None),
    ("accepted", begin, "running", 0, 1, True, None),
    ("retrying", begin, "running", 1, 1, True, None),
    ("kept", begin, "running", 1, 1, True, "the reply"),
    ("running", keep, "running", 1, 0, False, "new"),
    ("running", again, "retrying", 1, 0, False, None),
    ("sending", again, "retrying", 1, 1, False, "the reply"),
    ("running", give_back, "accepted", 0, 0, False, None),
    ("kept", give_back, "accepted", 1, 0, False, "the reply"),
    ("sending", give_back, "accepted", 1, 0, False, "the reply"),
]


@pytest.mark.parametrize(("before", "step", "after", "attempts", "sends", "sending", "reply"), ROWS)
def test_each_row_of_the_state_table(
    tmp_path: Path, before: str, step: Any, after: str, attempts: int, sends: int, sending: bool, reply: str | None
) -> None:
    async def test(inbox: FakeClockInbox) -> None:
        await put(inbox, before)
        moved = await step(inbox)
        assert (moved.state, moved.attempts, moved.sends, moved.sending) == (after, attempts, sends, sending)
        assert moved.reply == reply
        assert await inbox.get("a") == moved

    with_inbox(tmp_path, test)


STALE = [
    (start, ("running", "kept", "sending")),
    (keep, ("accepted", "retrying")),
    (again, ("accepted", "retrying")),
    (give_back, ("accepted", "retrying")),
]


@pytest.mark.parametrize(("step", "before"), [(step, state) for step, states in STALE for state in states])
def test_a_step_from_a_state_that_the_firing_is_not_in_changes_nothing(tmp_path: Path, step: Any, before: str) -> None:
    async def test(inbox: FakeClockInbox) -> None:
        firing = await put(inbox, before)
        with pytest.raises(StaleFiringError):
            await step(inbox)
        assert await inbox.get("a") == firing

    with_inbox(tmp_path, test)


@pytest.mark.parametrize("word", FINISHED)
@pytest.mark.parametrize("step", [start, keep, begin, again, give_back])
def test_a_last_word_never_changes(tmp_path: Path, word: str, step: Any) -> None:
    async def test(inbox: FakeClockInbox) -> None:
        firing = await put(inbox, word)
        with pytest.raises(StaleFiringError):
            await step(inbox)
        with pytest.raises(StaleFiringError):
            await inbox.finish("a", "delivered", None, NOON + 9)
        await inbox.recover(NOON, delay)
        assert await inbox.get("a") == firing

    with_inbox(tmp_path, test)


def test_a_step_of_a_firing_that_is_not_there_is_stale(tmp_path: Path) -> None:
    async def test(inbox: FakeClockInbox) -> None:
        for step in (start, keep, begin, again, give_back):
            with pytest.raises(StaleFiringError):
                await step(inbox)
        assert await inbox.get("a") is None

    with_inbox(tmp_path, test)


@pytest.mark.parametrize("word", FINISHED)
def test_a_last_word_says_when_and_why_and_waits_for_nothing(tmp_path: Path, word: str) -> None:
    async def test(inbox: FakeClockInbox) -> None:
        await put(inbox, "accepted" if word == "missed" else "sending")
        firing, _ = await inbox.finish("a", word, "why", NOON + 5)
        assert (firing.state, firing.error, firing.finished_at) == (word, "why", NOON + 5)
        assert firing.seconds == (None if word == "missed" else 5.0)
        assert (firing.sending, firing.not_before, firing.is_final) == (False, None, True)

    with_inbox(tmp_path, test)


def test_the_words_that_the_store_takes_are_those_of_the_protocol() -> None:
    assert set(FINISHED) == FINAL - {"rejected", "skipped"}


@pytest.mark.parametrize("before", ["accepted", "retrying", "running", "kept"])
def test_delivered_is_only_said_of_a_firing_whose_send_has_begun(tmp_path: Path, before: str) -> None:
    async def test(inbox: FakeClockInbox) -> None:
        firing = await put(inbox, before)
        with pytest.raises(StaleFiringError):
            await inbox.finish("a", "delivered", None, NOON)
        assert await inbox.get("a") == firing

    with_inbox(tmp_path, test)


def test_a_kept_reply_takes_the_place_of_the_error_before_it_and_adds_its_tokens(tmp_path: Path) -> None:
    async def test(inbox: FakeClockInbox) -> None:
        await put(inbox, "retrying")
        await inbox.start_attempt("a", NOON)
        assert (await inbox.keep_reply("a", "new", 5)).error is None
        assert await inbox.column("a", "tokens") == 5
        await inbox.keep_reply("a", "newer", 6)
        assert await inbox.column("a", "tokens") == 11
        await inbox.keep_reply("a", "newest", None)
        assert await inbox.column("a", "tokens") == 11

    with_inbox(tmp_path, test)


def test_the_start_is_the_first_one(tmp_path: Path) -> None:
    async def test(inbox: FakeClockInbox) -> None:
        await put(inbox, "retrying")
        assert (await inbox.start_attempt("a", NOON + 60)).started_at == NOON

    with_inbox(tmp_path, test)


# --- Ids


def test_the_same_request_again_changes_nothing_and_tells_where_it_stands(tmp_path: Path) -> None:
    async def test(inbox: FakeClockInbox) -> None:
        await put(inbox, "kept")
        again, new = await inbox.take_in(request(prompt="hi", expires=NOON - 99, wait=False), NOON + 50)
        assert not new
        assert (again.state, again.reply, again.expires) == ("running", "the reply", NOON + 3600)

    with_inbox(tmp_path, test)


@pytest.mark.parametrize(
    "other",
    [{"prompt": "ho"}, {"to": "chat:2"}, {"quiet": True}, {"attempts": 9}, {"reminder": "r"}, {"context": {"a": "b"}},
     {"text": "hi", "prompt": None}, {"fire_time": "x"}, {"session": "s"}, {"timeout": 5}, {"model": "m"}],
)  # fmt: skip
def test_a_known_id_with_other_content_is_refused_and_the_firing_untouched(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    async def test(inbox: FakeClockInbox) -> None:
        firing = await put(inbox, "accepted")
        fields = {key: value for key, value in {"prompt": "hi", **other}.items() if value is not None}
        with pytest.raises(DifferentContentError):
            await inbox.take_in(request(**fields), NOON)
        assert await inbox.get("a") == firing

    with_inbox(tmp_path, test)


def test_one_id_asked_for_twice_in_one_batch_is_there_once(tmp_path: Path) -> None:
    async def test(inbox: FakeClockInbox) -> None:
        async with inbox.thread_held():
            asked = [asyncio.create_task(inbox.take_in(request(), NOON)) for _ in range(5)]
            await asyncio.sleep(0)
        assert [new for _, new in await asyncio.gather(*asked)] == [True, False, False, False, False]
        assert await inbox.sql("SELECT count(*) FROM firings") == [(1,)]

    with_inbox(tmp_path, test)


# --- Full


def test_beyond_its_size_the_inbox_is_full_until_a_firing_ends(tmp_path: Path) -> None:
    async def test(inbox: FakeClockInbox) -> None:
        await put(inbox, "accepted", "a")
        await put(inbox, "sending", "b")
        with pytest.raises(FullError):
            await put(inbox, "accepted", "c")
        assert await inbox.get("c") is None
        again, new = await inbox.take_in(request(id="a", prompt="hi"), NOON)  # known ones are answered all the same
        assert (again.state, new) == ("accepted", False)
        await inbox.finish("b", "delivered", None, NOON)
        await put(inbox, "accepted", "c")
        with pytest.raises(FullError):
            await put(inbox, "accepted", "d")

    with_inbox(tmp_path, test, most_open=2)


def test_what_is_missed_at_once_takes_no_room(tmp_path: Path) -> None:
    async def test(inbox: FakeClockInbox) -> None:
        for number in range(3):
            assert (await put(inbox, "accepted", f"late{number}", expires=1.0)).state == "missed"
        assert (await put(inbox, "accepted", "a")).state == "accepted"

    with_inbox(tmp_path, test, most_open=1)


def test_a_full_inbox_is_still_full_after_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        async with open_inbox(tmp_path) as inbox:
            await put(inbox, "accepted", "a")
            await put(inbox, "running", "b")
        async with open_inbox(tmp_path, most_open=2) as inbox:
            with pytest.raises(FullError):
                await put(inbox, "accepted", "c")
            await inbox.recover(NOON, delay)
            with pytest.raises(FullError):
                await put(inbox, "accepted", "c")

    run(main())


def test_the_batch_in_which_it_becomes_full_takes_as_many_as_fit(tmp_path: Path) -> None:
    async def test(inbox: FakeClockInbox) -> None:
        async with inbox.thread_held():
            asked = [asyncio.create_task(inbox.take_in(request(id=str(number)), NOON)) for number in range(5)]
            await asyncio.sleep(0)
        ended = await asyncio.gather(*asked, return_exceptions=True)
        assert [isinstance(end, FullError) for end in ended] == [False, False, True, True, True]
        assert await inbox.sql("SELECT id FROM firings ORDER BY seq") == [("0",), ("1",)]

    with_inbox(tmp_path, test, most_open=2)


def test_firings_that_a_bad_disk_refused_take_no_room(tmp_path: Path) -> None:
    async def test(inbox: FakeClockInbox) -> None:
        await inbox.break_disk()
        for number in range(3):
            with pytest.raises(StoreError):
                await put(inbox, "accepted", str(number))
        await inbox.mend_disk()
        await put(inbox, "accepted", "a")
        with pytest.raises(FullError):
            await put(inbox, "accepted", "b")

    with_inbox(tmp_path, test, most_open=1)


# --- One transaction for many


def test_what_is_asked_while_the_thread_is_busy_is_committed_together(tmp_path: Path) -> None:
    async def test(inbox: FakeClockInbox) -> None:
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

    with_inbox(tmp_path, test)


def test_what_was_accepted_is_in_the_file_for_everybody_to_see(tmp_path: Path) -> None:
    async def test(inbox: FakeClockInbox) -> None:
        await put(inbox, "accepted")
        with sqlite3.connect(f"file:{tmp_path}/inbox.db?mode=ro", uri=True) as reader:
            assert reader.execute("SELECT id, state FROM firings").fetchall() == [("a", "accepted")]
        reader.close()

    with_inbox(tmp_path, test)


def test_the_store_syncs_every_commit(tmp_path: Path) -> None:
    async def test(inbox: FakeClockInbox) -> None:
        assert await inbox.sql("PRAGMA synchronous") == [(2,)]  # FULL: in WAL mode the one that syncs each commit
        assert await inbox.sql("PRAGMA journal_mode") == [("wal",)]

    with_inbox(tmp_path, test)


def test_one_asker_that_is_refused_does_not_touch_the_others_of_its_batch(tmp_path: Path) -> None:
    async def test(inbox: FakeClockInbox) -> None:
        await put(inbox, "accepted", "a")
        async with inbox.thread_held():
            first = asyncio.create_task(inbox.take_in(request(id="b"), NOON))
            wrong = asyncio.create_task(inbox.take_in(request(id="a", text="other"), NOON))
            stale = asyncio.create_task(inbox.retry("a", "x", NOON))
            last = asyncio.create_task(inbox.take_in(request(id="c"), NOON))
            await asyncio.sleep(0)
        ended = await asyncio.gather(first, wrong, stale, last, return_exceptions=True)
        assert isinstance(ended[1], DifferentContentError)
        assert isinstance(ended[2], StaleFiringError)
        assert await inbox.sql("SELECT id FROM firings ORDER BY seq") == [("a",), ("b",), ("c",)]

    with_inbox(tmp_path, test)


def test_a_step_that_raises_takes_back_what_it_had_written_and_the_thread_goes_on(tmp_path: Path) -> None:
    def half(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE firings SET attempts = 99")
        raise RuntimeError("in the middle")

    async def test(inbox: FakeClockInbox) -> None:
        firing = await put(inbox, "accepted")
        for _ in range(3):
            with pytest.raises(RuntimeError, match="in the middle"):
                await inbox._ask(half)
        assert await inbox.get("a") == firing

    with_inbox(tmp_path, test)


def test_an_asker_that_leaves_does_not_take_its_request_back(tmp_path: Path) -> None:
    async def test(inbox: FakeClockInbox) -> None:
        async with inbox.thread_held():
            asked = asyncio.create_task(inbox.take_in(request(), NOON))
            await asyncio.sleep(0)
            asked.cancel()
            await asyncio.wait({asked})
        assert await state_of(inbox) == "accepted"

    with_inbox(tmp_path, test)


# --- A bad disk


def test_a_disk_error_reaches_everybody_who_asked_and_nothing_is_stored(tmp_path: Path) -> None:
    async def test(inbox: FakeClockInbox) -> None:
        await put(inbox, "accepted", "a")
        await inbox.break_disk()
        async with inbox.thread_held():
            asked = [
                asyncio.create_task(inbox.take_in(request(id="b"), NOON)),
                asyncio.create_task(inbox.start_attempt("a", NOON)),
                asyncio.create_task(inbox.take_in(request(id="c"), NOON)),
            ]
            await asyncio.sleep(0)
        ended = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(end) for end in ended] == [StoreError] * 3
        assert "inbox.db" in str(ended[0])
        await inbox.mend_disk()
        assert await inbox.sql("SELECT id, state FROM firings") == [("a", "accepted")]

    with_inbox(tmp_path, test)


def test_a_full_disk_refuses_what_does_not_fit_and_takes_again_what_does(tmp_path: Path) -> None:
    async def test(inbox: FakeClockInbox) -> None:
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

    with_inbox(tmp_path, test)


def test_the_inbox_knows_how_full_it_is_after_a_disk_that_could_not_even_be_read(tmp_path: Path) -> None:
    def unplug(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM firings")
        raise sqlite3.OperationalError("disk I/O error")

    async def test(inbox: FakeClockInbox) -> None:
        await put(inbox, "accepted", "a")
        with pytest.raises(StoreError):
            await inbox._ask(unplug)
        with pytest.raises(FullError):
            await put(inbox, "accepted", "b")

    with_inbox(tmp_path, test, most_open=1)


def test_a_file_that_is_no_store_is_never_lost(tmp_path: Path) -> None:
    """Refused, or set aside: its bytes are still there, and nobody waits for ever."""
    (tmp_path / "inbox.db").write_text("dear diary, " * 1000)

    async def main() -> None:
        with suppress(StoreError):
            async with open_inbox(tmp_path):
                pass

    run(main())
    assert any(file.read_bytes() == b"dear diary, " * 1000 for file in tmp_path.iterdir())


def test_a_store_of_a_newer_version_is_refused_with_what_to_do(tmp_path: Path) -> None:
    async def main() -> None:
        async with open_inbox(tmp_path) as inbox:
            await inbox.sql("PRAGMA user_version = 99")
        with pytest.raises(StoreError, match="newer bub-cron"):
            async with open_inbox(tmp_path):
                raise AssertionError("opened")

    run(main())


def test_the_store_is_private_from_the_start(tmp_path: Path) -> None:
    async def main() -> None:
        async with open_inbox(tmp_path / "new") as inbox:
            await put(inbox, "accepted")
            modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "new").iterdir()}
            assert modes["inbox.db"] == modes["inbox.db-wal"] == 0o600
            assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700

    run(main())


def test_a_closed_inbox_says_so(tmp_path: Path) -> None:
    async def main() -> None:
        async with open_inbox(tmp_path) as inbox:
            await put(inbox, "accepted")
        with pytest.raises(StoreError, match="closed"):
            await inbox.get("a")

    run(main())


def test_what_was_asked_before_the_close_is_carried_out(tmp_path: Path) -> None:
    async def main() -> None:
        async with open_inbox(tmp_path) as inbox:
            async with inbox.thread_held():
                asked = asyncio.create_task(put(inbox, "accepted"))
                await asyncio.sleep(0)
                closing = asyncio.create_task(inbox.close())
                await asyncio.sleep(0)
            await closing
            await asked
        async with open_inbox(tmp_path) as inbox:
            assert await state_of(inbox) == "accepted"

    run(main())


# --- The second table: what a crash left


CRASHES: list[tuple[str, dict[str, Any], str, float | None, str | None]] = [
    # state at the crash, fields, state after the start, not before, error
    ("accepted", {}, "accepted", None, None),
    ("retrying", {}, "retrying", NOON + 30, "no luck"),
    ("sending", {}, "unknown", None, "the gateway ended in the middle of the send"),
    ("sending", {"attempts": 1}, "unknown", None, "the gateway ended in the middle of the send"),
    ("kept", {}, "retrying", None, None),
    ("kept", {"attempts": 1}, "retrying", None, None),
    ("running", {}, "retrying", NOON + 130, "the gateway ended in the middle of the turn"),
    ("running", {"attempts": 1}, "failed", None, "the gateway ended in the middle of the turn"),
    ("running", {"reply": "agent"}, "retrying", NOON + 130, "the gateway ended in the middle of the turn"),
    ("running", {"reply": "agent", "attempts": 1}, "unknown", None, "the gateway ended in the middle of the turn"),
    ("running", {"command": ",x"}, "unknown", None, "the gateway ended in the middle of the turn"),
    ("running", {"command": ",x", "attempts": 2}, "retrying", NOON + 130, "the gateway ended in the middle of the turn"),
]  # fmt: skip


@pytest.mark.parametrize(("state", "fields", "after", "not_before", "error"), CRASHES)
def test_each_row_of_the_crash_table(
    tmp_path: Path, state: str, fields: dict[str, Any], after: str, not_before: float | None, error: str | None
) -> None:
    async def main() -> None:
        async with open_inbox(tmp_path) as inbox:
            before = await put(inbox, state, **fields)
        async with open_inbox(tmp_path) as inbox:
            open_ones = await inbox.recover(NOON + 100, delay)
            firing = await inbox.get("a")
            assert firing is not None
            assert (firing.state, firing.not_before, firing.error) == (after, not_before, error)
            assert (firing.attempts, firing.sends, firing.reply) == (before.attempts, before.sends, before.reply)
            assert open_ones == ([] if firing.is_final else [firing])
            assert not firing.sending

    run(main())


def test_a_text_whose_send_had_begun_is_unknown_after_a_crash(tmp_path: Path) -> None:
    async def test(inbox: FakeClockInbox) -> None:
        await put(inbox, "accepted", text="hi")
        await inbox.begin_send("a", NOON)
        assert await inbox.recover(NOON, delay) == []
        assert await state_of(inbox) == "unknown"

    with_inbox(tmp_path, test)


def test_what_a_crash_left_comes_back_in_the_order_of_acceptance(tmp_path: Path) -> None:
    async def test(inbox: FakeClockInbox) -> None:
        for firing_id, state in [
            ("z", "running"),
            ("m", "accepted"),
            ("x", "sending"),
            ("a", "kept"),
            ("b", "retrying"),
        ]:
            await put(inbox, state, firing_id)
        assert [firing.id for firing in await inbox.recover(NOON, delay)] == ["z", "m", "a", "b"]

    with_inbox(tmp_path, test)


def test_the_delay_after_a_crash_is_that_of_the_attempts_made(tmp_path: Path) -> None:
    async def test(inbox: FakeClockInbox) -> None:
        await put(inbox, "retrying")
        await inbox.start_attempt("a", NOON)
        (firing,) = await inbox.recover(NOON, lambda attempts: 1000.0 * attempts)
        assert firing.not_before == NOON + 2000

    with_inbox(tmp_path, test)


def test_settling_a_crash_twice_changes_nothing_more(tmp_path: Path) -> None:
    async def test(inbox: FakeClockInbox) -> None:
        await put(inbox, "running", "a")
        await put(inbox, "kept", "b")
        first = await inbox.recover(NOON, delay)
        assert await inbox.recover(NOON + 500, delay) == first

    with_inbox(tmp_path, test)


# --- Told once


async def fail(inbox: FakeClockInbox, firing_id: str, word: str = "failed", **fields: Any) -> bool:
    await put(inbox, "accepted", firing_id, **{"reminder": "r", "overlap": "queue", **fields})
    if word != "missed":
        await bring(inbox, "sending", firing_id)
    _, tell = await inbox.finish(firing_id, word, "why", NOON)
    return tell


def test_a_reminders_failure_is_told_once_until_it_has_worked(tmp_path: Path) -> None:
    async def test(inbox: FakeClockInbox) -> None:
        assert await fail(inbox, "1")
        assert not await fail(inbox, "2")
        assert not await fail(inbox, "3")
        assert not await fail(inbox, "4", "delivered")
        assert await fail(inbox, "5")

    with_inbox(tmp_path, test)


@pytest.mark.parametrize("word", ["delivered", "silent", "ran"])
def test_each_good_word_ends_the_streak(tmp_path: Path, word: str) -> None:
    async def test(inbox: FakeClockInbox) -> None:
        assert await fail(inbox, "1")
        assert not await fail(inbox, "2", word)
        assert await fail(inbox, "3")

    with_inbox(tmp_path, test)


@pytest.mark.parametrize("word", ["undelivered", "unknown", "missed"])
def test_other_words_neither_tell_nor_end_the_streak(tmp_path: Path, word: str) -> None:
    async def test(inbox: FakeClockInbox) -> None:
        assert not await fail(inbox, "1", word)
        assert await fail(inbox, "2")
        assert not await fail(inbox, "3", word)
        assert not await fail(inbox, "4")

    with_inbox(tmp_path, test)


def test_each_reminder_has_its_own_streak_and_a_poke_has_none(tmp_path: Path) -> None:
    async def test(inbox: FakeClockInbox) -> None:
        assert await fail(inbox, "1")
        assert await fail(inbox, "2", reminder="other")
        await put(inbox, "running", "poke")
        _, tell = await inbox.finish("poke", "failed", "why", NOON)
        assert not tell

    with_inbox(tmp_path, test)


def test_a_streak_lasts_over_restarts(tmp_path: Path) -> None:
    async def main() -> None:
        async with open_inbox(tmp_path) as inbox:
            assert await fail(inbox, "1")
        async with open_inbox(tmp_path) as inbox:
            assert not await fail(inbox, "2")

    run(main())


# --- Answers


def test_an_answer_holds_what_applies(tmp_path: Path) -> None:
    async def test(inbox: FakeClockInbox) -> None:
        assert (await put(inbox, "accepted")).answer() == {"id": "a", "status": "accepted"}
        assert (await inbox.start_attempt("a", NOON)).answer() == {"id": "a", "status": "running", "attempts": 1}
        assert (await inbox.keep_reply("a", "secret", None)).answer() == {
            "id": "a",
            "status": "running",
            "attempts": 1,
        }
        await inbox.begin_send("a", NOON)
        firing, _ = await inbox.finish("a", "delivered", None, NOON + 1.5)
        assert firing.answer() == {"id": "a", "status": "delivered", "reply": "secret", "attempts": 1, "seconds": 1.5}

    with_inbox(tmp_path, test)


def test_the_answer_to_a_text_does_not_repeat_it(tmp_path: Path) -> None:
    async def test(inbox: FakeClockInbox) -> None:
        await put(inbox, "accepted", text="hello")
        await inbox.begin_send("a", NOON)
        firing, _ = await inbox.finish("a", "delivered", None, NOON + 0.2)
        assert firing.answer() == {"id": "a", "status": "delivered", "seconds": 0.2}

    with_inbox(tmp_path, test)


def test_old_records_are_pruned_but_none_without_a_last_word(tmp_path: Path) -> None:
    async def test(inbox: FakeClockInbox) -> None:
        for number, state in enumerate(["accepted", "running", "retrying", "delivered", "failed"]):
            await put(inbox, state, str(number))
        assert await inbox.prune(NOON + 5) == 0
        assert await inbox.prune(NOON + 6) == 2
        assert await inbox.sql("SELECT state FROM firings ORDER BY seq") == [("accepted",), ("running",), ("retrying",)]

    with_inbox(tmp_path, test)


def test_a_notice_is_to_be_sent_until_it_has_begun(tmp_path: Path) -> None:
    async def test(inbox: FakeClockInbox) -> None:
        assert await fail(inbox, "1")
        [firing] = await inbox.notices()
        assert firing.id == "1"
        await inbox.begin_notice(firing)
        assert await inbox.notices() == []
        assert not await fail(inbox, "2")
        await inbox.forget_notice(firing)
        assert await fail(inbox, "3"), "the chat has not heard of the first after all"

    with_inbox(tmp_path, test)
