"""memory.py: what was delivered in the agent's name stands once on the tape of its chat's session, and nothing else does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import bub
import pytest
from bub.channels import ChannelMessage
from bub.store import AsyncTapeStoreAdapter, InMemoryTapeStore
from bub.tape import Tape
from fake_bub import House, elapsed, given, hang, house, in_virtual_time, says, settle, takes

from bub_cron.gateway.firing import Firing
from bub_cron.gateway.memory import Memory


@asynccontextmanager
async def house_with_memory(path: Path) -> AsyncIterator[House]:
    async with house(path) as home, home.framework.running():
        home.runner._remember = Memory(home.framework).note
        yield home


in_house = given(house_with_memory)


def store_of(home: House) -> InMemoryTapeStore:
    store = home.framework.get_tape_store()
    assert isinstance(store, InMemoryTapeStore)
    return store


async def tape(home: House, session: str = "chat:1") -> list[dict[str, Any]]:
    """The messages on a session's tape, as Bub's own agent reads them for the session's next turn."""
    tapes = Tape(bub.home / "tapes", AsyncTapeStoreAdapter(store_of(home)), home.framework.build_tape_context())
    found = tapes.session_tape(session, home.framework.workspace)
    return [message for message in await found.read_messages() if "Anchor created" not in message["content"]]


async def word(home: House, **fields: Any) -> Firing:
    """Take a firing to its final outcome, and wait for what comes after that."""
    firing = await home.run(**fields)
    await settle()
    return firing


def said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


@in_house
async def test_a_text_is_what_the_agent_said(home: House) -> None:
    await word(home, text="Time for your pills.")
    assert await tape(home) == [said("Time for your pills.")]


@in_house
async def test_a_texts_own_session_changes_nothing_about_whose_chat_it_was_said_in(home: House) -> None:
    await word(home, text="Time for your pills.", session="elsewhere")
    assert await tape(home) == [said("Time for your pills.")]
    assert len(store_of(home).list_tapes()) == 1


@in_house
async def test_the_reply_of_a_prompt_in_another_session_is_what_the_agent_said_in_the_chat(home: House) -> None:
    home.model.always = says("Two commits.")
    await word(home, prompt="Look it up.", session="elsewhere")
    assert await tape(home) == [said("Two commits.")]


@in_house
async def test_a_prompt_in_the_chats_own_session_is_left_to_its_turn(home: House) -> None:
    """Bub's own agent writes it down; the fake one of these tests writes nothing."""
    await word(home, prompt="Look it up.")
    assert store_of(home).list_tapes() == []


@pytest.mark.parametrize(
    "fields",
    [
        {"text": "x", "to": "nosuch:1"},
        {"prompt": "x", "session": "s", "reply": "agent"},
        {"prompt": "x", "session": "s", "quiet": True},
    ],
)
@in_house
async def test_what_was_not_delivered_was_not_said(home: House, fields: dict[str, Any]) -> None:
    home.model.always = says("<no_reply/>")
    assert (await word(home, **fields)).state != "delivered"
    assert store_of(home).list_tapes() == []


@in_house
async def test_what_was_refused_first_is_written_once(home: House) -> None:
    home.chat.script = [ConnectionRefusedError("not now")] * 2
    assert (await word(home, text="x")).state == "delivered"
    assert await tape(home) == [said("x")]


@in_house
async def test_a_session_that_has_no_tape_yet_begins_it_as_a_turn_would(home: House) -> None:
    await word(home, id="a", text="x")
    await word(home, id="b", text="y")
    (name,) = store_of(home).list_tapes()
    kinds = [entry.kind for entry in store_of(home).read(name) or []]
    assert kinds.count("anchor") == 1
    assert kinds.index("anchor") < kinds.index("message")
    assert await tape(home) == [said("x"), said("y")]


@in_house
async def test_a_tape_that_cannot_be_written_changes_nothing_about_what_was_delivered(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(store_of(home), "append", full)
    firing = await word(home, text="x")
    assert (firing.state, firing.error, home.chat.texts) == ("delivered", None, ["x"])


@in_virtual_time
async def test_a_gateway_that_stops_has_no_tape_and_none_is_missed(tmp_path: Path) -> None:
    async with house(tmp_path) as home:  # the framework doesn't run
        await Memory(home.framework).note(await word(home, text="x"))


@in_house
async def test_a_users_turn_that_runs_meanwhile_is_not_waited_for(home: House) -> None:
    home.model.script = [takes(100)]
    user = asyncio.create_task(home.framework.process_inbound(ChannelMessage("chat:1", "chat", "hi", chat_id="1")))
    await settle()
    await word(home, text="x")
    assert await tape(home) == [said("x")]
    await user


@in_house
async def test_a_tape_store_that_hangs_holds_up_nobody(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AsyncTapeStoreAdapter, "append", lambda *_: hang())
    for number in range(20):  # more than may be sent at once
        assert (await home.run(id=str(number), text="x")).state == "delivered"
    assert elapsed() == 0
    await asyncio.sleep(11)
    assert home.runner._hands == {}


@in_house
async def test_what_several_chats_were_sent_stands_on_the_tape_of_each_that_got_it(home: House) -> None:
    home.model.always = says("the digest")
    home.other.script = [RuntimeError("?")]
    firing = await word(home, prompt="x", session="fresh", also=["other:2", "other:3"])
    assert firing.state == "unknown"
    assert [await tape(home, session) for session in ("chat:1", "other:3")] == [[said("the digest")]] * 2
    assert len(store_of(home).list_tapes()) == 2


@in_house
async def test_a_turn_in_the_session_of_one_of_several_chats_is_noted_on_those_of_the_others(home: House) -> None:
    await word(home, prompt="x", session="other:2", also="other:2")
    assert await tape(home) == [said("the reply")]
    assert len(store_of(home).list_tapes()) == 1
