"""seen.py: the chats that have written: bounded, kept across restarts, and cheap to note."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bub.channels import ChannelMessage
from bub.channels.admission import TurnSnapshot
from fake_bub import NOON, FakeClockInbox, bub_home, framework_in, given, open_inbox, run

from bub_cron.gateway.plugin import CronPlugin
from bub_cron.gateway.seen import MOST, WRITE_SECONDS, Seen
from bub_cron.wire import MAX_LINE, encode

with_inbox = given(open_inbox)


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


def message(chat_id: str, channel: str = "telegram") -> ChannelMessage:
    return ChannelMessage("s", channel, "x", chat_id=chat_id)


def told(seen: Seen, *channels: str) -> list[str]:
    return [chat["to"] for chat in seen.answer(channels or ["telegram"])["chats"]]


def test_the_newest_come_first_and_each_once() -> None:
    clock = Clock()
    seen = Seen(clock)
    for chat_id in ("1", "2", "1"):
        seen.note(message(chat_id))
        clock.now += 1
    assert seen.answer(["telegram"]) == {
        "status": "chats",
        "chats": [
            {"to": "telegram:1", "seen": "2027-01-15T08:00:02Z"},
            {"to": "telegram:2", "seen": "2027-01-15T08:00:01Z"},
        ],
    }


def test_what_nothing_can_be_delivered_to_is_not_told_or_stored() -> None:
    seen = Seen(Clock())
    seen.note(message("1", "cli"))
    seen.note(message("1", "cron"))
    seen.note(message("1"))
    assert told(seen) == ["telegram:1"]


@pytest.mark.parametrize("chat_id", ["", " ", "a\nb", "a\x00b", "\ud800", "x" * 10_000, 5, None])
def test_what_is_no_target_is_not_noted(chat_id: Any) -> None:
    seen = Seen(Clock())
    seen.note({"channel": "telegram", "chat_id": chat_id})
    assert told(seen) == []


def test_it_is_bounded_and_so_is_the_answer() -> None:
    seen = Seen(Clock())
    for number in range(MOST + 5):
        seen.note(message(f"{number}-{'x' * 100}"))
    answer = seen.answer(["telegram"])
    assert len(encode(answer)) <= MAX_LINE
    assert len(answer["chats"]) + answer["left_out"] == MOST
    assert answer["chats"][0]["to"].startswith(f"telegram:{MOST + 4}-")


@with_inbox
async def test_it_outlives_a_restart(inbox: FakeClockInbox) -> None:
    clock = Clock()
    before = Seen(clock)
    for chat_id in ("1", "2"):
        before.note(message(chat_id))
        clock.now += 1
    before.note(message("0", "cli"))
    await before.store(inbox, ["telegram"])
    after = Seen(clock)
    after.note(message("1"))  # before the store is open
    await after.load(inbox)
    assert told(after, "telegram", "cli") == ["telegram:1", "telegram:2"]
    assert await inbox.chats() == {"telegram:1": NOON, "telegram:2": NOON + 1}


@with_inbox
async def test_a_chat_is_written_once_a_minute_at_most(inbox: FakeClockInbox) -> None:
    clock = Clock()
    seen = Seen(clock)
    written = []
    for _ in range(10):
        seen.note(message("1"))
        await seen.store(inbox, ["telegram"])
        written.append((await inbox.chats())["telegram:1"] - NOON)
        clock.now += WRITE_SECONDS / 4
    assert written == [0, 0, 0, 0, 60, 60, 60, 60, 120, 120]
    await seen.store(inbox, ["telegram"], all_=True)
    assert (await inbox.chats())["telegram:1"] == NOON + 135


@with_inbox
async def test_the_store_keeps_the_newest(inbox: FakeClockInbox) -> None:
    clock = Clock()
    seen = Seen(clock)
    for number in range(MOST + 50):
        seen.note(message(str(number)))
        clock.now += 1
        if number == 20:
            await seen.store(inbox, ["telegram"])
    await seen.store(inbox, ["telegram"])
    kept = await inbox.chats()
    assert len(kept) == MOST
    assert min(kept.values()) == NOON + 50


def test_the_hook_notes_what_comes_in(tmp_path: Path) -> None:
    async def main() -> None:
        plugin = CronPlugin(framework_in(tmp_path))
        snapshot = TurnSnapshot(session_id="s", is_running=False, running_count=0, pending_count=0)
        assert plugin.admit_message(session_id="s", message=message("1"), turn=snapshot) is None
        plugin._readiness.begin()
        plugin.admit_message(session_id="s", message=plugin._readiness.sentinel(), turn=snapshot)
        assert told(plugin._seen, "telegram", "cron") == ["telegram:1"]

    with bub_home(tmp_path):
        run(main())
