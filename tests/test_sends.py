"""sends.py: what goes to which chat: a late one says so; one reply for several targets, each with its own evidence."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import telegram.error
from fake_bub import NOON, House, breaks, house, in_house, in_virtual_time, open_inbox, says, takes

from bub_cron.gateway.firing import Message
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


# --- Several targets

FORBIDDEN = telegram.error.Forbidden("blocked")
COPIED: list[tuple[dict[str, Any], Any, Any, str, str | None, list[tuple[str, str, str]]]] = [
    # what is asked, what the one chat does and the other; the outcome, its reason, the messages
    ({"prompt": "x"}, None, None, "delivered", None, [("reply", "chat:1", "delivered"), ("copy", "other:2", "delivered")]),
    ({"text": "x"}, None, None, "delivered", None, [("reply", "chat:1", "delivered"), ("copy", "other:2", "delivered")]),
    ({"text": "x", "also": ["chat:1", "other:2", "other:2"]}, None, None, "delivered", None,
     [("reply", "chat:1", "delivered"), ("copy", "other:2", "delivered")]),
    ({"prompt": "x"}, FORBIDDEN, None, "undelivered", "refused_for_good",
     [("reply", "chat:1", "undelivered"), ("copy", "other:2", "delivered")]),
    ({"prompt": "x"}, None, FORBIDDEN, "undelivered", "refused_for_good",
     [("reply", "chat:1", "delivered"), ("copy", "other:2", "undelivered")]),
    ({"prompt": "x"}, RuntimeError("?"), None, "unknown", "not_seen",
     [("reply", "chat:1", "unknown"), ("copy", "other:2", "delivered")]),
    ({"prompt": "x"}, RuntimeError("?"), FORBIDDEN, "undelivered", "refused_for_good",
     [("reply", "chat:1", "unknown"), ("copy", "other:2", "undelivered")]),
    ({"prompt": "x", "to": "nosuch:1"}, None, None, "undelivered", "no_channel",
     [("reply", "nosuch:1", "undelivered"), ("copy", "other:2", "delivered")]),
    ({"text": "x", "also": "nosuch:1"}, None, None, "undelivered", "no_channel",
     [("reply", "chat:1", "delivered"), ("copy", "nosuch:1", "undelivered")]),
    ({"text": "x", "to": "off:1", "also": "nosuch:1"}, None, None, "undelivered", "no_channel",
     [("reply", "off:1", "undelivered"), ("copy", "nosuch:1", "undelivered")]),
    ({"prompt": "x", "to": "off:1", "also": "nosuch:1"}, None, None, "undelivered", "no_channel", []),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "chat", "other", "state", "reason", "messages"), COPIED)
@in_house()
async def test_each_target_gets_its_own_message_and_the_outcome_is_the_worst(
    home: House, fields: dict[str, Any], chat: Any, other: Any, state: str, reason: str | None,
    messages: list[tuple[str, str, str]],
) -> None:  # fmt: skip
    home.chat.always, home.other.always = chat, other
    firing = await home.run(**{"also": ["other:2"], **fields})
    assert (firing.state, firing.reason) == (state, reason)
    assert [(one.kind, one.to, one.state) for one in firing.messages] == messages
    assert home.model.turns == ("prompt" in fields and messages != [])
    reached = [to for _, to, ended in messages if ended == "delivered"]
    assert firing.reached == reached
    assert [message.session_id for message in (*home.chat.taken, *home.other.taken)] == reached
    if len(messages) > 1:
        assert [(said["kind"], said["to"], said["state"]) for said in firing.answer()["messages"]] == messages


@in_house()
async def test_a_retry_goes_only_to_who_has_not_got_it_and_nobody_waits_for_it(home: House) -> None:
    home.chat.script = [ConnectionRefusedError("no"), ConnectionRefusedError("no")]
    firing_id = await home.take(prompt="x", also=["other:2", "other:3"])
    await asyncio.sleep(5)
    firing = await home.get()
    assert (firing.state, firing.error, home.other.texts) == (
        "retrying",
        "chat's send() raised ConnectionRefusedError: no",
        ["the reply"] * 2,
    )
    assert firing.answer()["next_try"] == iso(NOON + 30)
    firing = await home.outcome(firing_id)
    assert (firing.state, firing.finished_at, home.chat.texts) == ("delivered", NOON + 60, ["the reply"])
    assert [message.sends for message in firing.messages] == [3, 1, 1]
    assert len(home.other.begun) == 2


@in_house()
async def test_parts_are_cut_for_each_chat_and_stop_by_themselves(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home.delivery, "parts", lambda to, text: text.split() if to == "chat:1" else [text])
    home.model.always = says("one two three")
    home.chat.script = [None, RuntimeError("?")]
    firing = await home.run(prompt="x", also="other:2")
    assert [(one.to, one.state) for one in firing.messages] == [
        ("chat:1", "delivered"), ("chat:1", "unknown"), ("chat:1", "skipped"), ("other:2", "delivered"),
    ]  # fmt: skip
    assert (firing.state, firing.reached, home.other.texts) == ("unknown", ["other:2"], ["one two three"])


@in_house()
async def test_each_targets_first_message_is_marked_and_the_context_is_that_of_to(home: House) -> None:
    await home.run(text="pills", also="other:2", fire_time=DUE, context={"thread_id": "7"}, **IN_UTC)
    assert (home.chat.texts, home.other.texts) == ([f"{LATE}\npills"], [f"{LATE}\npills"])
    assert ["thread_id" in message.context for message in (*home.chat.taken, *home.other.taken)] == [True, False]


@in_house()
async def test_what_was_not_sent_when_its_grace_ended_never_is(home: House) -> None:
    async def slowly() -> None:
        await asyncio.sleep(50)

    home.chat.always = slowly
    for number in range(8):
        await home.take(id=str(number), text="x")
    firing = await home.run(text="late", to="nosuch:1", also="chat:2", expires=NOON + 20)
    assert (firing.state, [message.state for message in firing.messages]) == ("missed", ["undelivered", "skipped"])


@in_virtual_time
async def test_after_a_kill_only_who_has_not_got_it_is_sent_it(tmp_path: Path) -> None:
    async with open_inbox(tmp_path) as inbox:
        firing = await inbox.put("kept", also=["other:2", "other:3"])
        ways = [("reply", "chat:1"), ("copy", "other:2"), ("copy", "other:3")]
        until = firing.request.expires
        firing = firing._replace(messages=tuple(Message(n, kind, to, until) for n, (kind, to) in enumerate(ways, 1)))
        firing = await inbox.move_message(firing, firing.messages[0], "begin", NOON)
        firing = await inbox.move_message(firing, firing.messages[0], "deliver", NOON)
        await inbox.move_message(firing, firing.messages[1], "begin", NOON)
    async with house(tmp_path, recover=True) as home:
        firing = await home.outcome("a")
        assert [message.state for message in firing.messages] == ["delivered", "unknown", "delivered"]
        assert (firing.state, home.chat.texts, home.other.texts, home.model.turns) == ("unknown", [], ["the reply"], 0)
