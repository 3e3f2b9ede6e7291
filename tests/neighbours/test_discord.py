"""bub-discord's channel and the real discord.py over a Discord on loopback: what arrived, and what we say of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from neighbours.platform import (
    TAKES,
    TAKES_AND_BABBLES,
    TAKES_AND_CLOSES,
    TAKES_AND_FAILS,
    TAKES_AND_HANGS,
    TAKES_AND_RESETS,
    Platform,
    Request,
    Step,
    answers,
)
from neighbours.rigs import Rig, channel_class, rig

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

BOT = {"id": "1", "username": "bub", "discriminator": "0", "global_name": None, "avatar": None, "bot": True}


def usual(request: Request) -> tuple[int, Any]:
    path = request.path.partition("/api/v10")[2]
    if path.endswith("/messages"):
        number = path.split("/")[2]
        return 200, {
            "id": "9", "channel_id": number, "content": request.fields()["content"], "author": BOT, "type": 0,
            "timestamp": "2026-01-01T00:00:00+00:00", "edited_timestamp": None, "tts": False, "mention_everyone": False,
            "mentions": [], "mention_roles": [], "attachments": [], "embeds": [], "pinned": False,
        }  # fmt: skip
    if path.startswith("/channels/404"):
        return 404, {"message": "Unknown Channel", "code": 10003}
    if path.startswith("/channels/"):
        return 200, {
            "id": path.split("/")[2], "type": 0, "guild_id": "7", "name": "general", "position": 0, "permission_overwrites": [],
            "nsfw": False, "parent_id": None,
        }  # fmt: skip
    if path.startswith("/users"):
        return 200, {**BOT, "flags": 0}
    return 200, {
        "id": "1", "name": "bub", "description": "", "icon": None, "summary": "", "verify_key": "k", "flags": 0, "hook": True,
        "bot_public": False, "bot_require_code_grant": False, "owner": BOT,
    }  # fmt: skip


@pytest.fixture
def discord() -> Iterator[Platform]:
    made = Platform(usual, lambda request: request.method == "POST" and request.path.endswith("/messages")).start()
    yield made
    made.stop()


def with_discord(
    path: Path, platform: Platform, monkeypatch: pytest.MonkeyPatch, test: Callable[[Rig], Awaitable[None]], **how: Any
) -> None:
    kind = channel_class("bub_discord.channel.DiscordChannel")
    import discord.http as http  # type: ignore[import-not-found, unused-ignore]
    from discord.ext import commands  # type: ignore[import-not-found, unused-ignore]

    monkeypatch.setattr(http.Route, "BASE", f"{platform.url}/api/v10")

    async def main() -> None:
        async with rig(path, "discord", {"BUB_DISCORD_TOKEN": "t"}, kind, start=False, **how) as made:
            import discord

            bot = commands.Bot(command_prefix="!", intents=discord.Intents.none(), help_command=None)
            async with bot:
                await bot.login("t")
                bot._ready.set()  # what Discord's websocket would bring
                made.channel._bot = bot
                await test(made)

    asyncio.run(main())


def sent(platform: Platform) -> list[tuple[str, str]]:
    return [(request.path.split("/")[-2], request.fields()["content"]) for request in platform.arrived]


def test_in_the_good_case_each_text_arrives_once_as_it_is(
    tmp_path: Path, discord: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["hello", "42", '{"message": "x"}', "🎉", "x" * 2000]

    async def test(made: Rig) -> None:
        for text in texts:
            assert await made.send("discord:42", text, thread_id="43") == "sent"

    with_discord(tmp_path, discord, monkeypatch, test)
    assert sent(discord) == [("42", text) for text in texts]


def test_it_goes_by_its_target_and_not_by_the_turns_session(
    tmp_path: Path, discord: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    # bub-discord goes by the session id alone: with the firing's session, this arrived in 43, or nowhere at all.
    async def test(made: Rig) -> None:
        for session in ("discord:43", "briefs"):
            assert await made.send("discord:42", session) == "sent"

    with_discord(tmp_path, discord, monkeypatch, test)
    assert [number for number, _ in sent(discord)] == ["42", "42"]


def test_each_part_of_a_long_text_is_one_request(
    tmp_path: Path, discord: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "word " * 1500

    async def test(made: Rig) -> None:
        parts = made.delivery.parts("discord:42", text)
        for part in parts:
            assert await made.send("discord:42", part) == "sent"
        assert [content for _, content in sent(discord)] == parts

    with_discord(tmp_path, discord, monkeypatch, test)


@pytest.mark.parametrize(
    ("step", "outcome", "words"),
    [
        (TAKES_AND_CLOSES, "not seen", "ServerDisconnectedError"),
        (TAKES_AND_RESETS, "not seen", "reset by peer"),
        (TAKES_AND_BABBLES, "not seen", ""),
        (TAKES_AND_HANGS, "not seen", "did not return within 2 s"),
        (answers(503, {"message": "no"}), "not seen", "503"),
        (answers(403, {"message": "Missing Access", "code": 50001}), "refused for good", "Missing Access"),
        (answers(400, {"message": "Invalid Form Body", "code": 50035}), "refused for good", "Invalid Form Body"),
        (answers(429, {"message": "banned"}), "refused", "429"),  # without Via: from Cloudflare
    ],
    ids=str,
)
def test_how_a_send_ends(
    tmp_path: Path, discord: Platform, monkeypatch: pytest.MonkeyPatch, step: Step, outcome: str, words: str
) -> None:
    async def test(made: Rig) -> None:
        discord.script = [step]
        assert await made.send("discord:42") == outcome
        assert words in str(made.error)

    with_discord(tmp_path, discord, monkeypatch, test, send_seconds=2.0)
    assert len(discord.asked) == 1


def test_a_429_that_discord_py_waits_out_is_no_false_alarm(
    tmp_path: Path, discord: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(made: Rig) -> None:
        limited = {"message": "You are being rate limited.", "retry_after": 0.2, "global": False}
        discord.script = [answers(429, limited, Via="1.1 google"), TAKES]
        assert await made.send("discord:42") == "sent"

    with_discord(tmp_path, discord, monkeypatch, test)
    assert [len(discord.asked), len(discord.arrived)] == [2, 1]


def test_a_connection_that_fails_after_a_hidden_try_proves_nothing(
    tmp_path: Path, discord: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    # discord.py tries again by itself after a 502, whose request may have been taken.
    async def test(made: Rig) -> None:
        assert await made.send("discord:42", "warm") == "sent"
        discord.script = [TAKES_AND_FAILS]
        sending = asyncio.create_task(made.send("discord:42", "twice"))
        while len(discord.asked) < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        discord.stop()
        assert await sending == "not seen"
        assert "ClientConnectorError" in str(made.error)

    with_discord(tmp_path, discord, monkeypatch, test)


def test_a_number_that_leads_nowhere_was_not_seen(
    tmp_path: Path, discord: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(made: Rig) -> None:
        assert await made.send("discord:404") == "not seen"
        assert "discord logged while it sent: discord.outbound unresolved channel" in str(made.error)

    with_discord(tmp_path, discord, monkeypatch, test)
    assert discord.asked == []


def test_before_it_is_connected_it_is_refused(
    tmp_path: Path, discord: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(made: Rig) -> None:
        made.channel._bot._ready.clear()
        assert await made.send("discord:42") == "refused"
        made.channel._bot = None
        assert await made.send("discord:42") == "refused"
        assert "discord is not connected" in str(made.error)
        assert "is the number of a channel" in (made.delivery.refusal("discord:general") or "")

    with_discord(tmp_path, discord, monkeypatch, test)
    assert discord.asked == []
