"""proof.py: which exceptions prove that nothing arrived, and what they say about trying again."""

from __future__ import annotations

import socket
from datetime import timedelta
from typing import Any

import aiohttp
import httpx
import pytest
import telegram.error
from aiohttp.client_reqrep import ConnectionKey

from bub_cron.gateway.proof import FOR_GOOD, NO_CONNECTION, Refusal, refusal


def made(name: str, *bases: type[BaseException], **attributes: Any) -> Any:
    """An exception of a class that says it is `package.Class`."""
    module, _, qualname = name.rpartition(".")
    return type(qualname, bases or (Exception,), {"__module__": module, **attributes})("made up")


def caused(outer: BaseException, cause: BaseException) -> BaseException:
    outer.__cause__ = cause
    return outer


def during(outer: BaseException, context: BaseException) -> BaseException:
    outer.__context__ = context
    return outer


KEY = ConnectionKey("x", 443, True, True, None, None, None)
CONNECT = httpx.ConnectError("no")
READ = httpx.ReadError("gone")


@pytest.mark.parametrize(
    "error",
    [
        CONNECT, httpx.ConnectTimeout("no"), httpx.PoolTimeout("no"), httpx.ProxyError("403"), httpx.UnsupportedProtocol("x"),
        ConnectionRefusedError(), socket.gaierror(-2, "no such name"),
        aiohttp.ClientConnectorError(KEY, OSError()), aiohttp.ClientConnectorDNSError(KEY, OSError()),
        aiohttp.ClientProxyConnectionError(KEY, OSError()), aiohttp.ConnectionTimeoutError(),
        made("requests.exceptions.ConnectTimeout"), made("urllib3.exceptions.NewConnectionError"),
        made("urllib3.exceptions.ConnectTimeoutError"), made("httpcore.ConnectError"),
        made("mychat.NoWay", httpx.ConnectError),  # derived from one that proves it
        caused(RuntimeError("sending failed"), CONNECT),
        caused(RuntimeError("a"), caused(RuntimeError("b"), httpx.PoolTimeout("c"))),
        caused(telegram.error.NetworkError("httpx.ConnectError"), CONNECT),
        caused(telegram.error.TimedOut(), httpx.ConnectTimeout("no")),
        caused(telegram.error.TimedOut(), httpx.PoolTimeout("no")),
        RuntimeError(ConnectionRefusedError()),
        made("urllib3.exceptions.MaxRetryError", reason=made("urllib3.exceptions.NewConnectionError")),
        ExceptionGroup("both", [CONNECT, ConnectionRefusedError()]),
        BaseExceptionGroup("nested", [ExceptionGroup("in", [CONNECT])]),
        caused(RuntimeError("all failed"), ExceptionGroup("both", [CONNECT, CONNECT])),
    ],
    ids=repr,
)  # fmt: skip
def test_a_connection_that_never_came_about_is_proof(error: BaseException) -> None:
    assert refusal(error) == NO_CONNECTION


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("no"), Exception(), OSError("network"), TimeoutError(), ConnectionResetError(), BrokenPipeError(),
        ConnectionError(), ConnectionAbortedError(), EOFError(), KeyError("message_id"), ValueError("bad JSON"),
        READ, httpx.WriteError("x"), httpx.ReadTimeout("x"), httpx.WriteTimeout("x"), httpx.RemoteProtocolError("x"),
        httpx.CloseError("x"), httpx.DecodingError("x"),
        aiohttp.ServerDisconnectedError(), aiohttp.ClientOSError(104, "reset"), aiohttp.ServerTimeoutError(),
        aiohttp.SocketTimeoutError(), aiohttp.ClientPayloadError(),
        telegram.error.NetworkError("Bad Gateway"), telegram.error.TimedOut(), telegram.error.TelegramError("odd"),
        telegram.error.Conflict("409"),
        caused(telegram.error.NetworkError("x"), httpx.RemoteProtocolError("closed")),
        caused(telegram.error.TimedOut(), httpx.ReadTimeout("x")),
        during(telegram.error.NetworkError("x"), CONNECT),  # an earlier try's
        during(caused(RuntimeError("x"), READ), CONNECT),
        made("mychat.ConnectError"), made("mychat.ConnectTimeout"),  # a name that anybody may give to anything
        SystemExit(1), KeyboardInterrupt(), GeneratorExit(), made("pyo3_runtime.PanicException", BaseException),
        ExceptionGroup("both", [CONNECT, READ]), BaseExceptionGroup("both", [CONNECT, KeyboardInterrupt()]),
        made("requests.exceptions.ConnectionError"),
    ],
    ids=repr,
)  # fmt: skip
def test_everything_else_proves_nothing(error: BaseException) -> None:
    assert refusal(error) is None


def test_a_chain_of_causes_that_bites_its_tail_ends() -> None:
    error = RuntimeError("a")
    error.__cause__ = caused(RuntimeError("b"), error)
    assert refusal(error) is None


# --- What platforms answer


@pytest.mark.parametrize(
    "error",
    [
        telegram.error.Forbidden("bot was blocked by the user"), telegram.error.BadRequest("chat not found"),
        telegram.error.InvalidToken(), caused(RuntimeError("wrapped"), telegram.error.Forbidden("x")),
    ],
    ids=repr,
)  # fmt: skip
def test_telegrams_refusals_are_for_good(error: BaseException) -> None:
    assert refusal(error) == FOR_GOOD


def test_a_migrated_chats_new_id_is_told() -> None:
    found = refusal(telegram.error.ChatMigrated(-100123))
    assert found == Refusal(for_good=True, text="the group's new chat id is -100123")


def test_an_answer_that_could_not_be_read_is_no_answer_of_telegrams() -> None:
    unreadable = telegram.error.TelegramError("Invalid server response")
    assert refusal(caused(telegram.error.Forbidden("Forbidden (403)"), unreadable)) is None


@pytest.mark.filterwarnings("ignore::telegram.warnings.PTBDeprecationWarning")
def test_telegrams_wait_is_honoured() -> None:
    assert refusal(telegram.error.RetryAfter(300)) == Refusal(retry_after=300.0)


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [(5, 5.0), ("7", 7.0), (timedelta(minutes=2), 120.0), (2.5, 2.5), (None, None), ("soon", None), (-1, None),
     (float("nan"), None), (1e30, 7 * 86400.0)],
)  # fmt: skip
def test_a_wait_is_read_however_it_is_given(asked: object, seconds: float | None) -> None:
    assert refusal(made("telegram.error.RetryAfter", retry_after=asked)) == Refusal(retry_after=seconds)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, FOR_GOOD),
        (403, FOR_GOOD),
        (404, FOR_GOOD),
        (408, None),
        (429, Refusal()),
        (500, None),
        (503, None),
        (None, None),
    ],
)
def test_discords_answers_go_by_their_status(status: int | None, expected: Refusal | None) -> None:
    assert refusal(made("discord.errors.HTTPException", status=status)) == expected


def test_discords_wait_is_honoured() -> None:
    assert refusal(made("discord.errors.RateLimited", retry_after=61.5)) == Refusal(retry_after=61.5)


class SlackAnswer:
    def __init__(self, data: Any, headers: dict[str, str] | None = None) -> None:
        self.data = data
        self.headers = headers or {}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (SlackAnswer({"ok": False, "error": "channel_not_found"}), FOR_GOOD),
        (SlackAnswer({"ok": False, "error": "ratelimited"}, {"Retry-After": "30"}), Refusal(retry_after=30.0)),
        (SlackAnswer({"ok": False, "error": "ratelimited"}), Refusal()),
        (SlackAnswer({"ok": False, "error": "internal_error"}), None),
        (SlackAnswer({"ok": False}), None),
        (SlackAnswer("<html>"), None),
        (SlackAnswer({}), None),
        (None, None),
    ],
)
def test_slacks_answers_go_by_their_code(answer: object, expected: Refusal | None) -> None:
    assert refusal(made("slack_sdk.errors.SlackApiError", response=answer)) == expected


def test_of_several_answers_the_hardest_to_try_again_counts() -> None:
    several = ExceptionGroup("x", [made("telegram.error.RetryAfter", retry_after=9), telegram.error.Forbidden("x")])
    assert refusal(several) == Refusal(for_good=False, retry_after=9.0)
    mixed = ExceptionGroup("x", [CONNECT, telegram.error.Forbidden("x")])
    assert refusal(mixed) == Refusal(answered=False)
    assert refusal(ExceptionGroup("x", [telegram.error.Forbidden("x"), telegram.error.BadRequest("y")])) == FOR_GOOD
