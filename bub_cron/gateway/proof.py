"""Tell whether an exception that came out of a `send()` proves that nothing arrived.

Invariants:
- An exception proves something only by its class, known by module and name: no SDK is imported. A class that is not known
  here proves nothing.
- It counts itself, and what it names as its cause: `__cause__`, a `reason`, an exception as its first argument. What it
  came up during (`__context__`) may be an earlier try's, and never counts.
- A group proves something only if each of its leaves does.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

_LONGEST_CHAIN = 10
_LONGEST_WAIT = 7 * 86400.0  # seconds; what a platform asks for beyond that is no wait any more


class Refusal(NamedTuple):
    """That nothing arrived, and whether it is worth trying again: not if `for_good`, not before `retry_after` seconds."""

    for_good: bool = False
    retry_after: float | None = None
    text: str | None = None
    """What to tell beyond the exception's own words."""
    answered: bool = True
    """Whether the platform said so; else the request never left."""


NO_CONNECTION = Refusal(answered=False)
FOR_GOOD = Refusal(for_good=True)

# The request never left: there was no name, no connection, no place in a pool, no tunnel through a proxy.
_BEFORE_THE_REQUEST = frozenset({
    "builtins.ConnectionRefusedError",
    "socket.gaierror",
    *(
        f"{package}.{name}"
        for package in ("httpx", "httpx2", "httpcore", "httpcore2")
        for name in ("ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol")
    ),
    "aiohttp.ClientConnectorError",
    "aiohttp.ClientHttpProxyError",
    "aiohttp.ConnectionTimeoutError",
    "requests.ConnectTimeout",
    "urllib3.ConnectTimeoutError",
    "urllib3.NewConnectionError",
})


def refusal(error: BaseException) -> Refusal | None:
    """Return the refusal that an exception proves, None if the message may have arrived."""
    for one in causes(error):
        if isinstance(one, BaseExceptionGroup):
            found = [refusal(leaf) for leaf in one.exceptions]
            proven = [leaf for leaf in found if leaf is not None]
            return _all_of(proven) if len(proven) == len(found) else None
        names = _names(one)
        if not _BEFORE_THE_REQUEST.isdisjoint(names):
            return NO_CONNECTION
        for name in names:
            answer = _ANSWERS.get(name)
            if answer is not None:
                return answer(one)
    return None


def _all_of(refusals: list[Refusal]) -> Refusal:
    waits = [one.retry_after for one in refusals if one.retry_after is not None]
    texts = [one.text for one in refusals if one.text is not None]
    return Refusal(
        for_good=all(one.for_good for one in refusals),
        retry_after=max(waits, default=None),
        text="; ".join(texts) or None,
        answered=all(one.answered for one in refusals),
    )


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and the causes that it names, outermost first."""
    one: BaseException | None = error
    for _ in range(_LONGEST_CHAIN):
        if one is None:
            return
        yield one
        named = (one.__cause__, _get(one, "reason"), one.args[0] if one.args else None)
        one = next((cause for cause in named if isinstance(cause, BaseException)), None)


def _get(error: BaseException, name: str) -> Any:
    """Return an attribute, None if it isn't there or is a property that raises."""
    try:
        return getattr(error, name, None)
    except Exception:
        return None


def _names(error: BaseException) -> list[str]:
    """Return the names of an exception's class and its bases, as `package.Class`."""
    return [f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}" for kind in type(error).__mro__]


# What platforms answer, as their SDKs tell it. A 5xx says that something went wrong over there, not that nothing was done.


def _telegram(error: BaseException) -> Refusal | None:
    # With a cause it was no answer of Telegram's: its text could not be read, so a proxy may have spoken.
    return FOR_GOOD if error.__cause__ is None else None


def _telegram_migrated(error: BaseException) -> Refusal:
    return Refusal(for_good=True, text=f"the group's new chat id is {_get(error, 'new_chat_id')}")


def _asks_to_wait(error: BaseException) -> Refusal:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # python-telegram-bot 22 warns that this will be a timedelta
        return Refusal(retry_after=_seconds(_get(error, "retry_after")))


def _http_status(error: BaseException) -> Refusal | None:
    """Judge an answer by its HTTP status."""
    status = _get(error, "status")
    if status == 429:
        return _asks_to_wait(error)
    return FOR_GOOD if isinstance(status, int) and 400 <= status < 500 and status != 408 else None


def _slack(error: BaseException) -> Refusal | None:
    response = _get(error, "response")
    data = getattr(response, "data", response)
    code = data.get("error") if isinstance(data, Mapping) and data.get("ok") is False else None
    if not isinstance(code, str):
        return None  # an answer that could not be read
    if code in ("ratelimited", "rate_limited"):
        headers = getattr(response, "headers", None)
        asked = headers.get("Retry-After", headers.get("retry-after")) if isinstance(headers, Mapping) else None
        return Refusal(retry_after=_seconds(asked))
    # Slack's own words for "something went wrong, we don't know what".
    return None if code in ("fatal_error", "internal_error", "request_timeout") else FOR_GOOD


def _seconds(value: Any) -> float | None:
    """Return a number of seconds that a platform gave in whichever way, None for what is none."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return min(seconds, _LONGEST_WAIT) if seconds >= 0 else None


_ANSWERS: Mapping[str, Callable[[BaseException], Refusal | None]] = {
    "telegram.RetryAfter": _asks_to_wait,
    "telegram.ChatMigrated": _telegram_migrated,
    "telegram.Forbidden": _telegram,
    "telegram.BadRequest": _telegram,
    "telegram.InvalidToken": _telegram,
    "discord.RateLimited": _asks_to_wait,
    "discord.HTTPException": _http_status,
    "slack_sdk.SlackApiError": _slack,
}
