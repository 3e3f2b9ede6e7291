"""delivery.py: what counts as sent, as refused, and as not seen; and how Telegram gets its text as it is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from bub.channels import ChannelMessage
from bub.channels.telegram import TelegramChannel
from fake_bub import House, elapsed, hang, house, run

from bub_cron.gateway.delivery import SendRefusedError, SendUnseenError
from bub_cron.gateway.firing import Firing
from bub_cron.gateway.turns import GatewayStopsError


def in_house(path: Path, test: Callable[[House], Awaitable[None]]) -> None:
    async def main() -> None:
        async with house(path, begin=False) as home:
            await test(home)

    run(main())


async def firing_to(home: House, to: str = "chat:1", **fields: Any) -> Firing:
    return await home.get(await home.take(to=to, **fields))


# --- Where to


def test_the_targets_are_the_enabled_channels_that_can_send(tmp_path: Path) -> None:
    async def test(home: House) -> None:
        assert home.delivery.targets() == ["chat", "other"]

    in_house(tmp_path, test)


@pytest.mark.parametrize("channel", ["nosuch", "off", "telegram", "cli", "face", "cron", "mute"])
def test_what_can_not_deliver_is_refused_by_name(tmp_path: Path, channel: str) -> None:
    async def test(home: House) -> None:
        assert channel in (home.delivery.refusal(f"{channel}:1") or "")
        assert home.delivery.refusal("chat:1") is None

    in_house(tmp_path, test)


def test_the_message_is_for_the_chat_and_carries_session_and_context(tmp_path: Path) -> None:
    async def test(home: House) -> None:
        firing = await firing_to(home, "chat:a:b", session="s", context={"thread_id": "7"})
        await home.delivery.send(firing, "hi")
        (message,) = home.chat.taken
        assert (message.channel, message.chat_id, message.session_id, message.content) == ("chat", "a:b", "s", "hi")
        assert message.context == {"thread_id": "7", "channel": "$chat", "chat_id": "a:b"}
        assert firing.context == {"thread_id": "7"}

    in_house(tmp_path, test)


def test_an_empty_message_is_never_sent(tmp_path: Path) -> None:
    async def test(home: House) -> None:
        with pytest.raises(SendRefusedError, match="empty"):
            await home.delivery.send("chat:1", " \n", {})
        assert home.chat.begun == []

    in_house(tmp_path, test)


def test_without_a_router_nothing_was_sent_and_the_gateway_stops(tmp_path: Path) -> None:
    async def test(home: House) -> None:
        home.framework.bind_channel_router(None)
        with pytest.raises(GatewayStopsError):
            await home.delivery.send("chat:1", "hi", {})

    in_house(tmp_path, test)


# --- Refused, or not seen


def error_class(name: str, *bases: type[Exception]) -> type[Exception]:
    return type(name, bases or (Exception,), {})


TimeoutException = error_class("TimeoutException")


def wrapped(outer: Exception, cause: Exception) -> Exception:
    outer.__cause__ = cause
    return outer


@pytest.mark.parametrize(
    "error",
    [RuntimeError("no"), ConnectionRefusedError(), error_class("Forbidden")("bot was blocked"),
     error_class("ConnectTimeout", TimeoutException)(), error_class("PoolTimeout", TimeoutException)(),
     error_class("ConnectionTimeoutError", TimeoutError)(), error_class("ConnectTimeoutError")(),
     wrapped(error_class("TimedOut")(), error_class("ConnectTimeout", TimeoutException)()),
     wrapped(error_class("TimedOut")(), error_class("PoolTimeout", TimeoutException)())],
)  # fmt: skip
def test_an_error_before_the_request_left_is_a_refusal(tmp_path: Path, error: Exception) -> None:
    async def test(home: House) -> None:
        home.chat.always = error
        with pytest.raises(SendRefusedError, match=type(error).__name__):
            await home.delivery.send("chat:1", "hi", {})

    in_house(tmp_path, test)


@pytest.mark.parametrize(
    "error",
    [TimeoutError(), error_class("ReadTimeout", TimeoutException)(), error_class("WriteTimeout", TimeoutException)(),
     error_class("TimedOut")(), error_class("ServerTimeoutError")(), error_class("Odd", TimeoutError)(),
     wrapped(RuntimeError("sending failed"), error_class("ReadTimeout", TimeoutException)()),
     wrapped(error_class("TimedOut")(), error_class("ReadTimeout", TimeoutException)())],
)  # fmt: skip
def test_a_timeout_after_the_request_may_have_left_was_not_seen(tmp_path: Path, error: Exception) -> None:
    async def test(home: House) -> None:
        home.chat.always = error
        with pytest.raises(SendUnseenError, match=type(error).__name__):
            await home.delivery.send("chat:1", "hi", {})

    in_house(tmp_path, test)


def test_a_channel_that_tried_a_second_address_after_a_connect_timeout_may_have_sent(tmp_path: Path) -> None:
    async def two_addresses() -> None:
        try:
            raise error_class("ConnectTimeout", TimeoutException)
        except TimeoutException:
            raise error_class("ReadTimeout", TimeoutException) from None

    async def test(home: House) -> None:
        home.chat.always = two_addresses
        with pytest.raises(SendUnseenError):
            await home.delivery.send("chat:1", "hi", {})

    in_house(tmp_path, test)


def test_a_chain_of_causes_that_bites_its_tail_ends(tmp_path: Path) -> None:
    async def test(home: House) -> None:
        error = RuntimeError("a")
        error.__context__ = wrapped(RuntimeError("b"), error)
        home.chat.always = error
        with pytest.raises(SendRefusedError):
            await home.delivery.send("chat:1", "hi", {})

    in_house(tmp_path, test)


def test_a_send_that_does_not_return_in_time_is_cancelled_and_not_seen(tmp_path: Path) -> None:
    async def test(home: House) -> None:
        ended: list[str] = []

        async def hangs() -> None:
            try:
                await hang()
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise

        home.chat.always = hangs
        with pytest.raises(SendUnseenError, match="60 s"):
            await home.delivery.send("chat:1", "hi", {})
        assert elapsed() == 60
        await asyncio.sleep(1)
        assert ended == ["cancelled"]

    in_house(tmp_path, test)


def test_a_send_that_was_cancelled_by_somebody_else_was_not_seen(tmp_path: Path) -> None:
    async def cancelled() -> None:
        raise asyncio.CancelledError

    async def test(home: House) -> None:
        home.chat.always = cancelled
        with pytest.raises(SendUnseenError, match="cancelled"):
            await home.delivery.send("chat:1", "hi", {})

    in_house(tmp_path, test)


# --- Telegram


class FakeBot:
    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []

    async def send_message(self, *, chat_id: str, text: str) -> None:
        self.sent.append((chat_id, text))


class FakeApp:
    def __init__(self) -> None:
        self.bot = FakeBot()


async def nobody(_: ChannelMessage) -> None: ...


@pytest.mark.parametrize(
    "reply",
    ["hello", "42", "null", "true", '"quoted"', '{"a": 1}', '{"message": "inner"}', "[]", '{"message": 5}', " 7 \n", "NaN",
     "🎉", '{"broken', "3.0", "Infinity",
     "1" * 4301,
     "[" * 4000],
)  # fmt: skip
def test_telegram_gets_every_reply_as_it_is_through_its_own_send(tmp_path: Path, reply: str) -> None:
    async def test(home: House) -> None:
        telegram = home.manager._channels["telegram"]
        assert isinstance(telegram, TelegramChannel)
        app = FakeApp()
        telegram._app = app  # type: ignore[assignment]
        await home.delivery.send("telegram:5", reply, {})
        assert app.bot.sent == [("5", reply)]

    in_house(tmp_path, test)


def test_other_chats_get_json_untouched(tmp_path: Path) -> None:
    async def test(home: House) -> None:
        await home.delivery.send("chat:1", json.dumps({"a": 1}), {})
        assert home.chat.texts == ['{"a": 1}']

    in_house(tmp_path, test)
