"""settling.py: what a killed gateway left in the middle, row by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_bub import NOON, in_virtual_time, open_inbox

from bub_cron.gateway.firing import Message
from bub_cron.gateway.settling import recover

TURN = "the gateway ended in the middle of the turn"
SEND = "the gateway ended in the middle of the send"
CRASHES: list[tuple[str, dict[str, Any], str, str | None, float | None, str | None]] = [
    # state at the crash, fields, state after the start, its reason, not before, error
    ("accepted", {}, "accepted", None, None, None),
    ("retrying", {}, "retrying", None, NOON + 30, "no luck"),
    ("sending", {}, "unknown", "not_seen", None, SEND),
    ("sending", {"attempts": 1}, "unknown", "not_seen", None, SEND),
    ("sending", {"text": "hi"}, "unknown", "not_seen", None, SEND),
    ("sending", {"delivery": "at-least-once"}, "retrying", None, None, SEND),
    ("sending", {"text": "hi", "delivery": "at-least-once"}, "retrying", None, None, SEND),
    ("sent_in_vain", {}, "retrying", None, None, "no way"),
    ("kept", {}, "retrying", None, None, None),
    ("kept", {"attempts": 1}, "retrying", None, None, None),
    ("running", {}, "retrying", None, NOON + 130, TURN),
    ("running", {"attempts": 1}, "failed", "attempts", None, TURN),
    ("running", {"reply": "agent"}, "retrying", None, NOON + 130, TURN),
    ("running", {"reply": "agent", "attempts": 1}, "unknown", "lost_turn", None, TURN),
    ("running", {"command": ",x"}, "unknown", "lost_turn", None, TURN),
    ("running", {"command": ",x", "attempts": 2}, "retrying", None, NOON + 130, TURN),
]


@pytest.mark.parametrize(("state", "fields", "after", "reason", "not_before", "error"), CRASHES)
@in_virtual_time
async def test_each_row_of_the_crash_table(
    tmp_path: Path,
    state: str,
    fields: dict[str, Any],
    after: str,
    reason: str | None,
    not_before: float | None,
    error: str | None,
) -> None:
    async with open_inbox(tmp_path) as inbox:
        before = await inbox.put(state, **fields)
    async with open_inbox(tmp_path) as inbox:
        unfinished = await recover(inbox, NOON + 100)
        firing = await inbox.get("a")
        assert firing is not None
        assert (firing.state, firing.reason, firing.not_before, firing.error) == (after, reason, not_before, error)
        assert (firing.attempts, firing.sends, firing.reply) == (before.attempts, before.sends, before.reply)
        assert [found.id for found in unfinished if not found.is_final] == ([] if firing.is_final else ["a"])
        again = await recover(inbox, NOON + 500)
        assert [found.state for found in again] == [found.state for found in unfinished if not found.is_final]


@in_virtual_time
async def test_a_later_part_is_not_sent_after_one_whose_send_was_lost(tmp_path: Path) -> None:
    async with open_inbox(tmp_path) as inbox:
        parts = tuple(Message(number, "reply", "chat:1", NOON + 9, f"part {number}") for number in (1, 2))
        firing = (await inbox.put("kept"))._replace(messages=parts)
        await inbox.move_message(firing, parts[0], "begin", NOON)
    async with open_inbox(tmp_path) as inbox:
        [firing] = await recover(inbox, NOON)
        assert (firing.state, [part.state for part in firing.messages]) == ("unknown", ["unknown", "skipped"])


@in_virtual_time
async def test_a_notice_whose_send_was_lost_is_not_repeated_and_the_outcome_stands(tmp_path: Path) -> None:
    async with open_inbox(tmp_path) as inbox:
        firing = await inbox.move(await inbox.put("running", reminder="r"), "fail", NOON, error="why")
        await inbox.move_message(firing, firing.messages[0], "begin", NOON)
    async with open_inbox(tmp_path) as inbox:
        [firing] = await recover(inbox, NOON)
        assert (firing.state, firing.messages[0].state) == ("failed", "unknown")
        assert await recover(inbox, NOON) == []


@in_virtual_time
async def test_what_a_crash_left_comes_back_in_the_order_of_acceptance(tmp_path: Path) -> None:
    async with open_inbox(tmp_path) as inbox:
        for firing_id, state in [("z", "running"), ("m", "accepted"), ("a", "kept"), ("b", "retrying")]:
            await inbox.put(state, firing_id)
        assert [firing.id for firing in await recover(inbox, NOON)] == ["z", "m", "a", "b"]
