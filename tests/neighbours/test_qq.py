"""bub-qq's channel over a QQ on loopback: what arrived, and what we say of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from neighbours.platform import (
    TAKES_AND_BABBLES,
    TAKES_AND_CLOSES,
    TAKES_AND_HANGS,
    TAKES_AND_RESETS,
    Platform,
    Request,
    Step,
    answers,
)
from neighbours.rigs import Rig, channel_class, rig

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def usual(request: Request) -> tuple[int, Any]:
    if request.path == "/token":
        return 200, {"access_token": "t", "expires_in": "7200"}
    return 200, {"id": "r1", "timestamp": "2026-01-01T00:00:00+08:00"}


@pytest.fixture
def qq() -> Iterator[Platform]:
    made = Platform(usual, lambda request: request.path.startswith("/v2/")).start()
    yield made
    made.stop()


def with_qq(path: Path, platform: Platform, test: Callable[[Rig], Awaitable[None]], **how: Any) -> None:
    kind = channel_class("bub_qq.channel.QQChannel")
    settings = {
        "BUB_QQ_APPID": "1", "BUB_QQ_SECRET": "s", "BUB_QQ_TOKEN_URL": f"{platform.url}/token",
        "BUB_QQ_OPENAPI_BASE_URL": platform.url, "BUB_QQ_TIMEOUT_SECONDS": "2", "BUB_QQ_RECEIVE_MODE": "webhook",
        "BUB_QQ_WEBHOOK_PORT": "0",
    }  # fmt: skip

    async def main() -> None:
        async with rig(path, "qq", settings, kind, start=False, **how) as made:
            try:
                await test(made)
            finally:
                await made.channel.stop()

    asyncio.run(main())


async def user_writes(made: Rig, *, message_id: str = "m1", minutes_ago: float = 1) -> None:
    """Let a user's message come in, which later sends answer."""
    when = datetime.now(UTC) - timedelta(minutes=minutes_ago)
    data = {"id": message_id, "author": {"user_openid": "U"}, "content": "hi", "timestamp": when.isoformat()}
    await made.channel._handle_transport_payload({"op": 0, "t": "C2C_MESSAGE_CREATE", "id": "e", "d": data})


def test_what_answers_a_users_message_arrives_once_as_it_is(tmp_path: Path, qq: Platform) -> None:
    texts = ["hello", "42", '{"message": "x"}']

    async def test(made: Rig) -> None:
        await user_writes(made)
        for text in texts:
            assert await made.send("qq:c2c:U", text) == "sent"

    with_qq(tmp_path, qq, test)
    assert [(request.path, request.fields()["content"]) for request in qq.arrived] == [
        ("/v2/users/U/messages", text) for text in texts
    ]


@pytest.mark.parametrize("minutes_ago", [None, 61])
def test_where_nobody_wrote_within_the_hour_it_was_not_seen(
    tmp_path: Path, qq: Platform, minutes_ago: float | None
) -> None:
    async def test(made: Rig) -> None:
        if minutes_ago is not None:
            await user_writes(made, minutes_ago=minutes_ago)
        assert await made.send("qq:c2c:U") == "not seen"
        assert "qq logged while it sent: qq.send skipped" in str(made.error)

    with_qq(tmp_path, qq, test)
    assert qq.asked == []


def test_the_same_text_a_second_time_is_dropped_and_not_said_to_be_delivered(tmp_path: Path, qq: Platform) -> None:
    async def test(made: Rig) -> None:
        await user_writes(made)
        assert await made.send("qq:c2c:U", "Time for your pills.") == "sent"
        assert await made.send("qq:c2c:U", "Time for your pills.") == "not seen"
        assert "qq.send duplicate" in str(made.error)
        assert await made.send("qq:c2c:U", "<no_reply/> is a tag") == "not seen"

    with_qq(tmp_path, qq, test)
    assert len(qq.asked) == 1


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (answers(400, {"code": 304027, "message": "reply expired"}), "reply_expired"),
        (answers(429, {"code": 22009, "message": "too many"}), "rate_limited"),
        (answers(500, {"code": 1, "message": "odd"}), "qq.send failed"),
        (answers(202, {"code": 304024, "message": "waits for a censor"}), "pending_audit"),
        (TAKES_AND_BABBLES, "qq.send failed"),
        (TAKES_AND_CLOSES, "ServerDisconnectedError"),
        (TAKES_AND_RESETS, "reset by peer"),
        (TAKES_AND_HANGS, "TimeoutError"),
    ],
    ids=str,
)
def test_what_was_not_seen_is_not_seen(tmp_path: Path, qq: Platform, step: Step, words: str) -> None:
    async def test(made: Rig) -> None:
        await user_writes(made)
        qq.script = [step]
        assert await made.send("qq:c2c:U") == "not seen"
        assert words in str(made.error)

    with_qq(tmp_path, qq, test)
    assert len(qq.asked) == 1


def test_without_a_connection_it_is_refused(tmp_path: Path, qq: Platform) -> None:
    async def test(made: Rig) -> None:
        await user_writes(made)
        qq.stop()
        assert await made.send("qq:c2c:U") == "refused"

    with_qq(tmp_path, qq, test)


def test_a_chat_id_without_its_kind_is_no_chat(tmp_path: Path, qq: Platform) -> None:
    async def test(made: Rig) -> None:
        assert "begins with c2c: or group:" in (made.delivery.refusal("qq:U") or "")
        assert made.delivery.refusal("qq:group:G") is None

    with_qq(tmp_path, qq, test)
