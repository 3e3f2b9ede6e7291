"""sends.py: what goes to which chat: a late one says so; one reply for several targets, each with its own evidence."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fake_bub import NOON, House, breaks, house, in_house, in_virtual_time, open_inbox, takes

from bub_cron.wire import iso

LATE = "(due at 07:18, 42 minutes late)"
DUE = iso(NOON - 42 * 60)
IN_UTC = {"timezone": "Etc/UTC"}

# --- Late ones

MARKED: list[tuple[dict[str, Any], list[str]]] = [
    ({"text": "pills"}, [f"{LATE}\npills"]),
    ({"prompt": "x"}, [f"{LATE}\nthe reply"]),
    ({"text": "pills", "mark_late": "never"}, ["pills"]),
    ({"text": "pills", "mark_late": "1h"}, ["pills"]),
    ({"text": "pills", "mark_late": "42m"}, ["pills"]),
    ({"text": "pills", "mark_late": "41m"}, [f"{LATE}\npills"]),
    ({"text": "pills", "fire_time": "noon"}, ["pills"]),
    ({"text": "pills", "fire_time": iso(NOON)}, ["pills"]),
]


@pytest.mark.parametrize(("fields", "texts"), MARKED)
@in_house()
async def test_a_message_that_starts_late_says_so(home: House, fields: dict[str, Any], texts: list[str]) -> None:
    firing = await home.run(**{"fire_time": DUE, **IN_UTC, **fields})
    assert home.chat.texts == texts
    assert firing.reply in (None, "the reply")


@in_house()
async def test_a_turn_is_late_by_its_first_attempt_and_the_model_is_told(home: House) -> None:
    home.model.script = [breaks(RuntimeError("no")), takes(500, "done")]
    await home.run(prompt="x", fire_time=iso(NOON - 300), **IN_UTC)
    assert home.chat.texts == ["done"]
    await home.run(id="b", prompt="x", fire_time=DUE, mark_late="never", **IN_UTC)
    assert f"due at {DUE} (2027-01-15 07:18 in Etc/UTC), 50 minutes late" in home.model.system_prompts[-1]


@in_house()
async def test_a_text_is_late_by_the_moment_its_first_send_begins(home: House) -> None:
    async def slowly() -> None:
        await asyncio.sleep(50)

    home.chat.always = slowly
    for number in range(8):  # as many as one channel gets at once
        await home.take(id=str(number), text="x", **IN_UTC)
    await home.run(text="pills", fire_time=iso(NOON - 570), **IN_UTC)
    assert home.chat.texts[-1] == "(due at 07:50, 10 minutes late)\npills"


@in_virtual_time
async def test_the_mark_does_not_change_over_a_restart(tmp_path: Path) -> None:
    """It is part of the message's row, which is on disk before the send."""
    async with house(tmp_path) as home:
        home.chat.always = ConnectionRefusedError("not now")
        await home.take(text="pills", fire_time=DUE, **IN_UTC)
        await asyncio.sleep(5)
    async with house(tmp_path, recover=True) as home:
        await asyncio.sleep(60)
        assert home.chat.texts == [f"{LATE}\npills"]


@in_virtual_time
async def test_a_reply_that_was_kept_before_a_kill_is_marked_by_its_attempt(tmp_path: Path) -> None:
    async with open_inbox(tmp_path) as inbox:
        await inbox.put("kept", fire_time=DUE, **IN_UTC)
    async with house(tmp_path, recover=True) as home:
        await asyncio.sleep(600)
        assert home.chat.texts == [f"{LATE}\nthe reply"]
