"""delivery.py: what counts as sent, as refused, and as not seen. What proves what is in test_proof.py."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import httpx
import pytest
import telegram.error
from bub.channels import ChannelMessage
from bub.channels.telegram import TelegramChannel
from fake_bub import House, elapsed, hang, in_house
from loguru import logger

from bub_cron.gateway.delivery import SendRefusedError, SendUnseenError
from bub_cron.gateway.turns import GatewayStopsError

# --- Where to


@in_house(begin=False)
async def test_the_targets_are_the_enabled_channels_that_can_send(home: House) -> None:
    assert home.delivery.targets() == ["chat", "other"]


@pytest.mark.parametrize("channel", ["nosuch", "off", "telegram", "cli", "face", "cron", "mute"])
@in_house(begin=False)
async def test_what_can_not_deliver_is_refused_by_name(home: House, channel: str) -> None:
    assert channel in (home.delivery.refusal(f"{channel}:1") or "")
    assert home.delivery.refusal("chat:1") is None


@in_house(begin=False)
async def test_a_channel_that_can_not_be_asked_takes_no_other_with_it(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exits(self: object) -> bool:
        sys.exit("no")

    assert home.delivery.targets() == ["chat", "other"]
    monkeypatch.setattr(type(home.other), "enabled", property(exits))
    assert home.delivery.targets() == ["chat", "other"]
    assert home.delivery.refusal("chat:1") is None
    assert "not enabled" in (home.delivery.refusal("off:1") or "")


@in_house(begin=False)
async def test_the_message_goes_by_its_target_whatever_the_turns_session_was(home: House) -> None:
    context = {"thread_id": "7"}
    await home.delivery.send("chat:a:b", "hi", context)
    (message,) = home.chat.taken
    assert (message.channel, message.chat_id, message.session_id) == ("chat", "a:b", "chat:a:b")
    assert message.content == "hi"
    assert message.context == {"thread_id": "7", "channel": "$chat", "chat_id": "a:b"}
    assert context == {"thread_id": "7"}


@in_house(begin=False)
async def test_a_firing_in_another_session_is_sent_to_its_chat(home: House) -> None:
    home.runner.begin()
    await home.run(to="chat:42", session="chat:43", text="hi")
    assert [(message.chat_id, message.session_id) for message in home.chat.taken] == [("42", "chat:42")]


@in_house(begin=False)
async def test_an_empty_message_is_never_sent(home: House) -> None:
    with pytest.raises(SendRefusedError, match="empty") as caught:
        await home.delivery.send("chat:1", " \n", {})
    assert caught.value.for_good
    assert home.chat.begun == []


# --- What the router says


@in_house(begin=False)
async def test_without_a_router_nothing_was_sent_and_the_gateway_stops(home: House) -> None:
    home.framework.bind_channel_router(None)
    with pytest.raises(GatewayStopsError):
        await home.delivery.send("chat:1", "hi", {})


@in_house(begin=False)
async def test_a_router_that_does_not_take_the_message_has_refused_it(home: House) -> None:
    class Unwilling:
        async def dispatch_output(self, message: object) -> bool:
            return False

    home.framework.bind_channel_router(Unwilling())  # type: ignore[arg-type]
    with pytest.raises(SendRefusedError, match="router did not take") as caught:
        await home.delivery.send("chat:1", "hi", {})
    assert not caught.value.for_good


@in_house(begin=False)
async def test_a_router_that_says_nothing_leaves_the_send_unseen(home: House) -> None:
    class Forgetful:
        async def dispatch_output(self, message: object) -> None:
            """Sends it, perhaps, and forgets to say so."""

    home.framework.bind_channel_router(Forgetful())  # type: ignore[arg-type]
    with pytest.raises(SendUnseenError, match="neither"):
        await home.delivery.send("chat:1", "hi", {})


# --- Refused, or not seen


@in_house(begin=False)
async def test_what_is_proven_not_to_have_arrived_is_refused(home: House) -> None:
    home.chat.always = httpx.ConnectError("no route")
    with pytest.raises(SendRefusedError, match="ConnectError: no route") as caught:
        await home.delivery.send("chat:1", "hi", {})
    assert (caught.value.for_good, caught.value.retry_after) == (False, None)


@in_house(begin=False)
async def test_a_refusal_for_good_says_so_and_names_what_helps(home: House) -> None:
    home.chat.always = telegram.error.ChatMigrated(-100)
    with pytest.raises(SendRefusedError, match=r"\(the group's new chat id is -100\)") as caught:
        await home.delivery.send("chat:1", "hi", {})
    assert caught.value.for_good


@pytest.mark.filterwarnings("ignore::telegram.warnings.PTBDeprecationWarning")
@in_house(begin=False)
async def test_a_refusal_passes_on_how_long_to_wait(home: House) -> None:
    home.chat.always = telegram.error.RetryAfter(300)
    with pytest.raises(SendRefusedError) as caught:
        await home.delivery.send("chat:1", "hi", {})
    assert (caught.value.for_good, caught.value.retry_after) == (False, 300)


@pytest.mark.parametrize(
    "error", [RuntimeError("no"), httpx.ReadError("gone"), TimeoutError(), KeyError("message_id")], ids=repr
)
@in_house(begin=False)
async def test_an_exception_that_proves_nothing_was_not_seen(home: House, error: Exception) -> None:
    home.chat.always = error
    with pytest.raises(SendUnseenError, match=type(error).__name__):
        await home.delivery.send("chat:1", "hi", {})


class UnspeakableError(Exception):
    """One that can't be looked at."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    @property
    def reason(self) -> BaseException:
        raise RuntimeError("no reason")


class PanicError(BaseException):
    """As Rust's panics come through pyo3: no `Exception`."""


@pytest.mark.parametrize(
    "error",
    [SystemExit("this plugin thinks it is a program"), KeyboardInterrupt(), GeneratorExit(), PanicError("panicked"), BaseExceptionGroup("all", [PanicError("x")]), UnspeakableError(),
     ExceptionGroup("some", [httpx.ConnectError("a"), RuntimeError("b")])],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
@in_house(begin=False)
async def test_no_exception_of_any_kind_gets_past(home: House, error: BaseException) -> None:
    async def raises() -> NoReturn:
        raise error

    home.chat.script = [raises]
    with pytest.raises(SendUnseenError, match=type(error).__name__):
        await home.delivery.send("chat:1", "hi", {})
    await home.delivery.send("chat:1", "the loop goes on", {})
    assert home.chat.texts == ["the loop goes on"]


@in_house(begin=False)
async def test_a_group_all_of_whose_leaves_are_proof_is_refused(home: House) -> None:
    home.chat.always = ExceptionGroup("both", [httpx.ConnectError("a"), ConnectionRefusedError()])
    with pytest.raises(SendRefusedError):
        await home.delivery.send("chat:1", "hi", {})


@in_house(begin=False)
async def test_our_own_cancellation_gets_through_and_ends_the_send(home: House) -> None:
    ended: list[str] = []

    async def hangs() -> None:
        try:
            await hang()
        finally:
            ended.append("ended")

    home.chat.always = hangs
    sending = asyncio.create_task(home.delivery.send("chat:1", "hi", {}))
    await asyncio.sleep(1)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    await asyncio.sleep(1)
    assert ended == ["ended"]


@in_house(begin=False)
async def test_a_send_that_swallows_its_cancellation_was_not_seen_and_holds_nobody(home: House) -> None:
    async def stubborn() -> None:
        while elapsed() < 1000:
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                continue

    home.chat.script = [stubborn]
    with pytest.raises(SendUnseenError, match="60 s"):
        await home.delivery.send("chat:1", "hi", {})
    assert elapsed() == 60
    await asyncio.sleep(2000)


@in_house(begin=False)
async def test_a_send_that_does_not_return_in_time_is_cancelled_and_not_seen(home: House) -> None:
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


@in_house(begin=False)
async def test_a_send_that_was_cancelled_by_somebody_else_was_not_seen(home: House) -> None:
    async def cancelled() -> None:
        raise asyncio.CancelledError

    home.chat.always = cancelled
    with pytest.raises(SendUnseenError, match="cancelled"):
        await home.delivery.send("chat:1", "hi", {})


# --- What is logged while it sends


def warns_by_loguru() -> None:
    logger.warning("chat.create.failed code={}\nmsg=no", 230002)


def fail(error: Exception) -> NoReturn:
    raise error


def fails_by_loguru() -> None:
    try:
        fail(RuntimeError("the API said no"))
    except RuntimeError:
        logger.exception("chat.send failed")


def warns_by_logging() -> None:
    logging.getLogger("some.sdk").warning("not %s", "in the chat")


def fails_by_a_logger_that_keeps_to_itself() -> None:
    silent = logging.getLogger("some.sdk.silent")
    silent.propagate = False
    silent.addHandler(logging.NullHandler())
    silent.error("quota exceeded")


@pytest.mark.parametrize(
    ("logs", "words"),
    [
        (warns_by_loguru, "chat logged while it sent: chat.create.failed code=230002 msg=no"),
        (fails_by_loguru, "chat logged while it sent: chat.send failed"),
        (warns_by_logging, "chat logged while it sent: not in the chat"),
        (fails_by_a_logger_that_keeps_to_itself, "chat logged while it sent: quota exceeded"),
    ],
)
@pytest.mark.parametrize("where", ["task", "child", "thread"])
@in_house(begin=False)
async def test_a_channel_that_warns_and_returns_was_not_seen(
    home: House, logs: Callable[[], None], words: str, where: str
) -> None:
    async def child() -> None:
        logs()

    async def sends() -> None:
        match where:
            case "task":
                logs()
            case "child":
                await asyncio.create_task(child())
            case "thread":
                await asyncio.to_thread(logs)

    home.chat.always = sends
    with pytest.raises(SendUnseenError) as caught:
        await home.delivery.send("chat:1", "hi", {})
    assert str(caught.value) == words


@in_house(begin=False)
async def test_what_others_log_meanwhile_is_not_heard(home: House) -> None:
    async def another() -> None:
        warns_by_loguru()
        warns_by_logging()

    begun, may_end = asyncio.Event(), asyncio.Event()

    async def sends() -> None:
        logger.info("sent")
        logging.getLogger("some.sdk").info("sent")
        begun.set()
        await may_end.wait()

    home.chat.always = sends
    sending = asyncio.create_task(home.delivery.send("chat:1", "hi", {}))
    await begun.wait()
    warns_by_loguru()  # in a task that doesn't send
    await asyncio.create_task(another())
    may_end.set()
    await sending


@pytest.mark.parametrize("source", ["asyncio", "py.warnings", "bub_cron.gateway.memory"])
@in_house(begin=False)
async def test_lines_that_come_up_by_chance_or_are_ours_are_not_heard(home: House, source: str) -> None:
    async def sends() -> None:
        logging.getLogger(source).error("Unclosed client session")
        logger.patch(lambda record: record.update({"name": source})).error("Unclosed client session")

    home.chat.always = sends
    await home.delivery.send("chat:1", "hi", {})


@in_house(begin=False)
async def test_what_is_logged_after_a_send_is_over_changes_nothing(home: House) -> None:
    late: list[asyncio.Task[None]] = []

    async def afterwards() -> None:
        await asyncio.sleep(5)
        warns_by_loguru()

    async def sends() -> None:
        late.append(asyncio.create_task(afterwards()))

    home.chat.always = sends
    await home.delivery.send("chat:1", "hi", {})
    await late[0]


@in_house(begin=False)
async def test_a_warning_about_the_very_error_that_was_raised_takes_nothing_from_its_proof(home: House) -> None:
    async def logs_and_raises() -> None:
        try:
            fail(httpx.ConnectError("no route"))
        except httpx.ConnectError as error:
            logger.error("chat.send failed: {}", error)
            raise RuntimeError("sending failed") from error

    home.chat.always = logs_and_raises
    with pytest.raises(SendRefusedError):
        await home.delivery.send("chat:1", "hi", {})


@pytest.mark.parametrize("how", ["handling", "afterwards", "within"])
@in_house(begin=False)
async def test_a_warning_about_an_earlier_try_takes_the_proof_from_the_last_one(home: House, how: str) -> None:
    async def tries_twice() -> None:
        try:
            fail(httpx.ReadTimeout("it may have arrived"))
        except httpx.ReadTimeout:
            if how != "afterwards":
                logger.warning("chat.send: trying again")
            if how == "within":
                fail(httpx.ConnectError("gone"))
        if how == "afterwards":
            logger.warning("chat.send: trying again")
        raise httpx.ConnectError("gone")

    home.chat.always = tries_twice
    with pytest.raises(SendUnseenError, match=r"after it had logged: chat\.send: trying again"):
        await home.delivery.send("chat:1", "hi", {})


@contextmanager
def logging_as_before() -> Iterator[list[str]]:
    """Collect what loguru shows meanwhile; fail if logging is another one afterwards."""
    factory, handlers = logging.getLogRecordFactory(), list(logging.getLogger().handlers)
    shown: list[str] = []
    sink = logger.add(lambda message: shown.append(message.record["message"]), level="WARNING")
    inside = set(logger._core.handlers)  # type: ignore[attr-defined]
    yield shown
    assert set(logger._core.handlers) == inside  # type: ignore[attr-defined]
    logger.remove(sink)
    assert logging.getLogRecordFactory() is factory
    assert logging.getLogger().handlers == handlers


@in_house(begin=False)
async def test_logging_is_left_as_it_was_found(home: House) -> None:
    async def sends() -> None:
        warns_by_loguru()

    home.chat.script = [sends]
    with logging_as_before() as shown:
        with pytest.raises(SendUnseenError):
            await home.delivery.send("chat:1", "hi", {})
        await home.delivery.send("chat:1", "hi", {})
        home.delivery.close()
    assert shown == ["chat.create.failed code=230002\nmsg=no"]  # others see the line, once, as it is


@in_house(begin=False)
async def test_a_factory_that_somebody_put_around_ours_stays(home: House) -> None:
    before = logging.getLogRecordFactory()
    await home.delivery.send("chat:1", "hi", {})
    ours = logging.getLogRecordFactory()

    def theirs(*arguments: Any, **named: Any) -> logging.LogRecord:
        return ours(*arguments, **named)

    logging.setLogRecordFactory(theirs)
    try:
        home.delivery.close()
        assert logging.getLogRecordFactory() is theirs
        warns_by_logging()
    finally:
        logging.setLogRecordFactory(before)


@in_house(begin=False)
async def test_who_removes_all_sinks_does_not_make_us_deaf(home: House) -> None:
    await home.delivery.send("chat:1", "hi", {})
    logger.remove()

    async def sends() -> None:
        warns_by_loguru()

    home.chat.always = sends
    try:
        with pytest.raises(SendUnseenError):
            await home.delivery.send("chat:1", "hi", {})
    finally:
        logger.add(sys.stderr)


# --- Telegram, as far as it needs no network (tests/neighbours/ has the rest)


class FakeBot:
    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []

    async def send_message(self, *, chat_id: str, text: str) -> None:
        self.sent.append((chat_id, text))


class FakeApp:
    def __init__(self) -> None:
        self.bot = FakeBot()


REPLIES = [
    "hello", "42", "null", "true", '"quoted"', '{"a": 1}', '{"message": "inner"}', "[]", '{"message": 5}', " 7 \n", "NaN", "🎉",
    '{"broken', "3.0", "Infinity", "1" * 4301, "[" * 4000,
]  # fmt: skip


@pytest.mark.parametrize("reply", REPLIES)
@in_house(begin=False)
async def test_telegram_gets_every_reply_as_it_is_through_its_own_send(home: House, reply: str) -> None:
    channel = home.manager._channels["telegram"]
    assert isinstance(channel, TelegramChannel)
    app = FakeApp()
    channel._app = app  # type: ignore[assignment]
    await home.delivery.send("telegram:5", reply, {})
    assert app.bot.sent == [("5", reply)]


@in_house(begin=False)
async def test_telegram_that_has_not_started_refuses_and_may_be_tried_again(home: House) -> None:
    with pytest.raises(SendRefusedError, match="not started") as caught:
        await home.delivery.send("telegram:5", "hi", {})
    assert not caught.value.for_good


class OwnSend(TelegramChannel):
    """Derived from Telegram's channel, with a `send()` of its own."""

    async def send(self, message: ChannelMessage) -> None:
        self.got = message.content


class InheritedSend(TelegramChannel):
    """Derived from Telegram's channel, with its `send()`."""


def put(home: House, kind: type[TelegramChannel]) -> TelegramChannel:
    channel = kind(None)  # type: ignore[arg-type]
    channel._app = FakeApp()  # type: ignore[assignment]
    home.manager._channels["telegram"] = channel
    return channel


@in_house(begin=False)
async def test_a_channel_derived_from_telegrams_with_its_own_send_is_unknown_to_us(home: House) -> None:
    channel = put(home, OwnSend)
    await home.delivery.send("telegram:5", "42", {})
    assert channel.got == "42"  # type: ignore[attr-defined]
    assert home.delivery.parts("telegram:5", "x" * 5000) == ["x" * 5000]
    assert home.delivery.limit_words("telegram:5") is None


@in_house(begin=False)
async def test_a_channel_derived_from_telegrams_that_keeps_its_send_is_known(home: House) -> None:
    channel = put(home, InheritedSend)
    await home.delivery.send("telegram:5", "42", {})
    assert channel._app.bot.sent == [("5", "42")]
    assert list(map(len, home.delivery.parts("telegram:5", "x" * 5000))) == [4096, 904]


@in_house(begin=False)
async def test_other_chats_get_json_untouched(home: House) -> None:
    await home.delivery.send("chat:1", json.dumps({"a": 1}), {})
    assert home.chat.texts == ['{"a": 1}']


@in_house(begin=False)
async def test_the_prompt_hears_of_a_limit_that_is_known(home: House) -> None:
    words = home.delivery.limit_words("telegram:5") or ""
    assert words.startswith("A message to this chat may have at most 4,096 characters;")
    assert home.delivery.limit_words("chat:1") is None
    assert home.delivery.limit_words("nosuch:1") is None
    assert home.delivery.parts("nosuch:1", "x" * 9000) == ["x" * 9000]


# --- What it costs


@in_house(begin=False)
async def test_a_send_costs_little(home: House) -> None:
    await home.delivery.send("chat:1", "hi", {})
    begun = time.process_time()
    for _ in range(200):
        await home.delivery.send("chat:1", "hi", {})
    assert (time.process_time() - begun) / 200 < 0.005
