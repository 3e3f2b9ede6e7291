"""bub-feishu's channel and the real SDK over a Feishu on loopback: what arrived, and what we say of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from neighbours.platform import (
    CLOSES,
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
    if request.path.startswith("/open-apis/auth/"):
        return 200, {"code": 0, "msg": "ok", "tenant_access_token": "t", "expire": 7200}
    return 200, {"code": 0, "msg": "success", "data": {"message_id": "om_1"}}


@pytest.fixture
def feishu() -> Iterator[Platform]:
    made = Platform(usual, lambda request: request.path.startswith("/open-apis/im/v1/messages")).start()
    yield made
    made.stop()


def with_feishu(path: Path, platform: Platform, test: Callable[[Rig], Awaitable[None]], **how: Any) -> None:
    kind = channel_class("bub_feishu.channel.FeishuChannel")
    import lark_oapi  # type: ignore[import-not-found, unused-ignore]

    async def main() -> None:
        settings = {"BUB_FEISHU_APP_ID": f"cli_{platform.port}", "BUB_FEISHU_APP_SECRET": "s"}
        async with rig(path, "feishu", settings, kind, start=False, **how) as made:
            # As its start() does, which would also talk to Feishu's own websocket.
            builder = lark_oapi.Client.builder().app_id(settings["BUB_FEISHU_APP_ID"]).app_secret("s")
            made.channel._api_client = builder.domain(platform.url).build()
            await test(made)

    asyncio.run(main())


def sent(platform: Platform) -> list[tuple[str, str]]:
    bodies = [request.fields() for request in platform.arrived]
    return [(body["receive_id"], json.loads(body["content"])["text"]) for body in bodies]


def test_in_the_good_case_each_text_arrives_once_as_it_is(tmp_path: Path, feishu: Platform) -> None:
    texts = ["hello", "42", '{"message": "x"}', "🎉"]

    async def test(made: Rig) -> None:
        for text in texts:
            assert await made.send("feishu:oc_1", text, thread_id="t") == "sent"

    with_feishu(tmp_path, feishu, test)
    assert sent(feishu) == [("oc_1", text) for text in texts]


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (
            answers(200, {"code": 230002, "msg": "Bot/User can NOT be out of the chat."}),
            "feishu.create.failed code=230002",
        ),
        (answers(400, {"code": 230025, "msg": "The length of the message content reaches its limit."}), "code=230025"),
        (answers(400, {"code": 230020, "msg": "This operation triggers the frequency limit."}), "code=230020"),
        (answers(500, {"code": 1000, "msg": "internal"}), "code=1000"),
        (answers(502, "bad gateway"), ""),
        (TAKES_AND_CLOSES, "RemoteProtocolError"),
        (TAKES_AND_RESETS, "ReadError"),
        (TAKES_AND_BABBLES, ""),
        (TAKES_AND_HANGS, "did not return within 2 s"),
        (CLOSES, "RemoteProtocolError"),
    ],
    ids=str,
)
def test_what_was_not_seen_is_not_seen(tmp_path: Path, feishu: Platform, step: Step, words: str) -> None:
    async def test(made: Rig) -> None:
        feishu.script = [step]
        assert await made.send("feishu:oc_1") == "not seen"
        assert words in str(made.error)

    with_feishu(tmp_path, feishu, test, send_seconds=2.0)
    assert len(feishu.asked) == 1


@pytest.mark.parametrize("has_token", [False, True])
def test_without_a_connection_it_is_refused(tmp_path: Path, feishu: Platform, has_token: bool) -> None:
    async def test(made: Rig) -> None:
        if has_token:
            assert await made.send("feishu:oc_1") == "sent"
        feishu.stop()
        assert await made.send("feishu:oc_1") == "refused"

    with_feishu(tmp_path, feishu, test)


def test_before_it_is_connected_it_is_refused_rather_than_dropped(tmp_path: Path, feishu: Platform) -> None:
    async def test(made: Rig) -> None:
        made.channel._api_client = None
        assert await made.send("feishu:oc_1") == "refused"
        assert "not connected" in str(made.error)

    with_feishu(tmp_path, feishu, test)
    assert feishu.asked == []


@pytest.mark.parametrize("text", ["日" * 60_000, '"\\\n' * 20_000, "x" * 200_000, "\x01" * 25_000])
def test_each_part_of_a_long_text_fits_into_a_request(tmp_path: Path, feishu: Platform, text: str) -> None:
    async def test(made: Rig) -> None:
        for part in made.delivery.parts("feishu:oc_1", text):
            assert await made.send("feishu:oc_1", part) == "sent"

    with_feishu(tmp_path, feishu, test)
    assert max(len(request.body) for request in feishu.arrived) <= 150_000
    assert "".join(part for _, part in sent(feishu)).replace("\n", "") == text.replace("\n", "")
