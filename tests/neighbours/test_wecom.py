"""bub-wecom's channel (bub-contrib's) and the real aibot SDK over a WeCom on loopback.

It is not on PyPI (the bub-wecom there is another one): this runs where it can be imported (bub-contrib's
packages/bub-wecom/src and wecom-aibot-python-sdk on PYTHONPATH).
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from neighbours.certificates import Authority
from neighbours.rigs import Rig, channel_class, rig

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # the SDK leaves tasks behind
]


class WeCom:
    """A WeCom that answers each message as told: `ok`, `refuse`, `close`, `silent`."""

    def __init__(self) -> None:
        self.does = "ok"
        self.arrived: list[dict[str, Any]] = []
        self.reachable = True

    async def __call__(self, connection: Any) -> None:
        async for raw in connection:
            frame = json.loads(raw)
            answer = {"headers": frame["headers"], "errcode": 0, "errmsg": "ok"}
            if "body" in frame and "chatid" in frame["body"]:
                self.arrived.append(frame["body"])
                if self.does == "close":
                    return
                if self.does == "silent":
                    continue
                if self.does == "refuse":
                    answer |= {"errcode": 846607, "errmsg": "invalid chatid"}
            await connection.send(json.dumps(answer))


def with_wecom(
    path: Path, monkeypatch: pytest.MonkeyPatch, wecom: WeCom, test: Callable[[Rig], Awaitable[None]]
) -> None:
    kind = channel_class("bub_wecom.channel.WeComChannel")
    import aibot.ws  # type: ignore[import-not-found, unused-ignore]
    import websockets.asyncio.server as server  # type: ignore[import-not-found, unused-ignore]

    authority = Authority(path)
    monkeypatch.setattr(aibot.ws, "_SSL_CONTEXT", ssl.create_default_context(cafile=str(authority.file)))

    async def main() -> None:
        async with server.serve(wecom, "127.0.0.1", 0, ssl=authority.context("localhost")) as listening:
            port = listening.sockets[0].getsockname()[1] if wecom.reachable else 1
            settings = {
                "BUB_WECOM_BOT_ID": "b", "BUB_WECOM_SECRET": "s", "BUB_WECOM_WEBSOCKET_URL": f"wss://localhost:{port}",
            }  # fmt: skip
            async with rig(path, "wecom", settings, kind, start=False) as made:
                await test(made)

    asyncio.run(main())


def test_in_the_good_case_each_text_arrives_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wecom = WeCom()

    async def test(made: Rig) -> None:
        for text in ("42", '{"message": "x"}', "x" * 4000):
            assert await made.send("wecom:U1", text, thread_id="x") == "sent"
        assert [len(part) for part in made.delivery.parts("wecom:U1", "x" * 4001)] == [4000, 1]

    with_wecom(tmp_path, monkeypatch, wecom, test)
    assert [body["markdown"]["content"] for body in wecom.arrived] == ["42", '{"message": "x"}', "x" * 4000]
    assert {body["chatid"] for body in wecom.arrived} == {"U1"}


@pytest.mark.parametrize("does", ["refuse", "close", "silent"])
def test_whatever_goes_wrong_was_not_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str) -> None:
    wecom = WeCom()
    wecom.does = does

    async def test(made: Rig) -> None:
        assert await made.send("wecom:U1") == "not seen"

    with_wecom(tmp_path, monkeypatch, wecom, test)
    assert len(wecom.arrived) == 1


def test_without_a_connection_it_is_refused_although_it_logs_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wecom = WeCom()
    wecom.reachable = False

    async def test(made: Rig) -> None:
        assert await made.send("wecom:U1") == "refused", made.error

    with_wecom(tmp_path, monkeypatch, wecom, test)
