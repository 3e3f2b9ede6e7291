"""Bub's own Telegram channel over a Bot API that misbehaves: what arrived, and what we say of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway_kit import House

from neighbours.bot_api import BLOCKED, INTERNAL, MIGRATED, NOT_FOUND, TOO_MANY, UNAUTHORIZED, BotApi
from neighbours.platform import (
    CLOSES,
    HANGS,
    TAKES,
    TAKES_AND_BABBLES,
    TAKES_AND_BREAKS_OFF,
    TAKES_AND_CLOSES,
    TAKES_AND_FAILS,
    TAKES_AND_HANGS,
    TAKES_AND_RESETS,
    Step,
)
from neighbours.rigs import Rig, rig

pytestmark = pytest.mark.filterwarnings("ignore::telegram.warnings.PTBDeprecationWarning")


@pytest.fixture
def api(tmp_path: Path) -> Iterator[BotApi]:
    made = BotApi(tmp_path).start()
    yield made
    made.stop()


def with_telegram(path: Path, api: BotApi, test: Callable[[Rig], Awaitable[None]], **how: Any) -> None:
    async def main() -> None:
        async with rig(path, "telegram", api.environment, **how) as made:
            await test(made)

    asyncio.run(main())


def test_in_the_good_case_each_text_arrives_once_as_it_is(tmp_path: Path, api: BotApi) -> None:
    texts = ["hello", "42", '{"a": 1}', "🎉 é", "x" * 4096, "😀" * 2048]

    async def test(made: Rig) -> None:
        for text in texts:
            assert await made.send("telegram:42", text) == "sent"

    with_telegram(tmp_path, api, test)
    assert api.messages() == [("42", text) for text in texts]


@pytest.mark.parametrize(
    "step",
    [TAKES_AND_CLOSES, TAKES_AND_RESETS, TAKES_AND_BREAKS_OFF, TAKES_AND_BABBLES, TAKES_AND_FAILS, TAKES_AND_HANGS,
     CLOSES, HANGS, INTERNAL,
     Step(takes=False, status=403, body=b"<html>your network's owner doesn't want this</html>"),
     Step(takes=False, status=429, body=b"<html>slow down</html>")],
    ids=str,
)  # fmt: skip
def test_what_was_not_seen_is_not_seen(tmp_path: Path, api: BotApi, step: Step) -> None:
    async def test(made: Rig) -> None:
        api.script = [step]
        assert await made.send("telegram:42") == "not seen", made.error
        assert len(api.asked) == 1
        assert len(api.arrived) == step.takes
        assert await made.send("telegram:42", "and on it goes") == "sent"

    with_telegram(tmp_path, api, test)


@pytest.mark.parametrize(
    ("step", "outcome", "wait", "words"),
    [
        (TOO_MANY, "refused", 300, "Retry in 300 seconds"),
        (NOT_FOUND, "refused for good", None, "Chat not found"),
        (BLOCKED, "refused for good", None, "bot was blocked by the user"),
        (UNAUTHORIZED, "refused for good", None, "Unauthorized"),
        (MIGRATED, "refused for good", None, "the group's new chat id is -100500"),
    ],
    ids=["429", "400", "403", "401", "migrated"],
)
def test_what_telegram_answers_is_a_refusal(
    tmp_path: Path, api: BotApi, step: Step, outcome: str, wait: float | None, words: str
) -> None:
    async def test(made: Rig) -> None:
        api.script = [step]
        assert await made.send("telegram:42") == outcome
        assert words in str(made.error)
        assert getattr(made.error, "retry_after", None) == wait
        assert api.arrived == []

    with_telegram(tmp_path, api, test)


def test_without_a_connection_it_is_refused_and_arrives_when_the_platform_is_back(tmp_path: Path, api: BotApi) -> None:
    async def test(made: Rig) -> None:
        assert await made.send("telegram:42", "before") == "sent"
        api.stop()
        assert await made.send("telegram:42", "meanwhile") == "refused"
        assert "ConnectError" in str(made.error)
        api.start()
        assert await made.send("telegram:42", "meanwhile") == "sent"

    with_telegram(tmp_path, api, test)
    assert [text for _, text in api.messages()] == ["before", "meanwhile"]


def test_one_unit_too_many_is_refused_for_good_and_its_parts_arrive(tmp_path: Path, api: BotApi) -> None:
    text = "One paragraph.\n\n" + "word " * 1000 + "\n\n" + "😀" * 3000

    async def test(made: Rig) -> None:
        assert await made.send("telegram:42", "x" * 4097) == "refused for good"
        for part in made.delivery.parts("telegram:42", text):
            assert await made.send("telegram:42", part) == "sent"

    with_telegram(tmp_path, api, test)
    assert "".join("".join(text for _, text in api.messages()).split()) == "".join(text.split())
    assert len(api.arrived) == 5


def test_a_send_that_never_ends_was_not_seen_within_its_limit(tmp_path: Path, api: BotApi) -> None:
    async def test(made: Rig) -> None:
        api.script = [TAKES_AND_HANGS]
        assert await made.send("telegram:42") == "not seen"
        assert "did not return within 1 s" in str(made.error)

    with_telegram(tmp_path, api, test, send_seconds=1.0)


def test_no_key_of_the_context_reaches_the_api(tmp_path: Path, api: BotApi) -> None:
    # Why `check` warns: should Bub's channel learn to send to a topic, this fails, and the warning goes.
    async def test(made: Rig) -> None:
        assert await made.send("telegram:-100", "hi", thread_id="43", message_thread_id="43") == "sent"

    with_telegram(tmp_path, api, test)
    assert [request.fields() for request in api.arrived] == [{"chat_id": "-100", "text": "hi"}]


def test_telegram_that_has_not_started_refuses(tmp_path: Path, api: BotApi) -> None:
    async def test(made: Rig) -> None:
        assert await made.send("telegram:42") == "refused"

    with_telegram(tmp_path, api, test, start=False)
    assert api.asked == []


def test_sends_at_once_are_told_apart(tmp_path: Path, api: BotApi) -> None:
    steps = [TAKES, TAKES_AND_BABBLES, BLOCKED, TAKES]

    async def test(made: Rig) -> None:
        api.script = list(steps)
        outcomes = await asyncio.gather(*(made.send("telegram:42", f"text {number}") for number in range(4)))
        assert sorted(outcomes) == ["not seen", "refused for good", "sent", "sent"]

    with_telegram(tmp_path, api, test)


def test_through_a_real_gateway_nothing_that_was_taken_is_sent_twice(house: House, api: BotApi) -> None:
    steps = [TAKES, TAKES_AND_CLOSES, TAKES_AND_RESETS, TAKES_AND_BABBLES]
    gateway = house.gateway(api.environment)
    api.script = list(steps)
    outcomes = [gateway.ask(to="telegram:42", text=f"text {number}")[-1]["status"] for number in range(len(steps))]
    assert outcomes == ["delivered", "unknown", "unknown", "unknown"]
    assert api.messages() == [("42", f"text {number}") for number in range(len(steps))]
    assert gateway.stop() == 0
