"""bub-dingtalk's channel over a DingTalk on loopback.

bub-dingtalk is not on PyPI: this runs where it can be imported (bub-contrib's packages/bub-dingtalk/src and dingtalk-stream
on PYTHONPATH).
"""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from neighbours.platform import CLOSES, TAKES_AND_BABBLES, TAKES_AND_CLOSES, Platform, Request, Step, answers
from neighbours.rigs import Rig, channel_class, rig

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def usual(request: Request) -> tuple[int, Any]:
    return 200, {"accessToken": "t"} if "accessToken" in request.path else {"processQueryKey": "k"}


@pytest.fixture
def dingtalk() -> Iterator[Platform]:
    made = Platform(usual, lambda request: "/robot/" in request.path).start()
    yield made
    made.stop()


def with_dingtalk(
    path: Path, platform: Platform, monkeypatch: pytest.MonkeyPatch, test: Callable[[Rig], Awaitable[None]]
) -> None:
    kind = channel_class("bub_dingtalk.channel.DingTalkChannel")
    script = importlib.import_module("skills.dingtalk.scripts.dingtalk_send")
    monkeypatch.setattr(script, "OPENAPI_BASE", platform.url)
    monkeypatch.setattr(script, "TOKEN_URL", f"{platform.url}/v1.0/oauth2/accessToken")

    async def main() -> None:
        settings = {"BUB_DINGTALK_CLIENT_ID": "c", "BUB_DINGTALK_CLIENT_SECRET": "s"}
        async with rig(path, "dingtalk", settings, kind, start=False) as made:
            await test(made)

    asyncio.run(main())


def test_in_the_good_case_each_text_arrives_once(
    tmp_path: Path, dingtalk: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(made: Rig) -> None:
        assert await made.send("dingtalk:user1", "42", thread_id="x") == "sent"
        assert await made.send("dingtalk:group:cid", '{"message": "x"}') == "sent"

    with_dingtalk(tmp_path, dingtalk, monkeypatch, test)
    bodies = [request.fields() for request in dingtalk.arrived]
    assert [json.loads(body["msgParam"])["text"] for body in bodies] == ["42", '{"message": "x"}']
    assert [body.get("userIds") or body.get("openConversationId") for body in bodies] == [["user1"], "cid"]


@pytest.mark.parametrize(
    "step",
    [answers(400, {"code": "invalidParameter"}), answers(200, {"errcode": 40014, "message": "x"}), answers(500, {}),
     TAKES_AND_BABBLES, TAKES_AND_CLOSES, CLOSES],
    ids=str,
)  # fmt: skip
def test_whatever_goes_wrong_was_not_seen(
    tmp_path: Path, dingtalk: Platform, monkeypatch: pytest.MonkeyPatch, step: Step
) -> None:
    async def test(made: Rig) -> None:
        dingtalk.script = [step]
        assert await made.send("dingtalk:user1") == "not seen"
        assert "dingtalk logged while it sent: DingTalk send failed" in str(made.error)

    with_dingtalk(tmp_path, dingtalk, monkeypatch, test)
    assert len(dingtalk.asked) == 1


def test_a_connection_that_never_came_about_was_not_seen_either(
    tmp_path: Path, dingtalk: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(made: Rig) -> None:
        dingtalk.stop()
        assert await made.send("dingtalk:user1") == "not seen"

    with_dingtalk(tmp_path, dingtalk, monkeypatch, test)
