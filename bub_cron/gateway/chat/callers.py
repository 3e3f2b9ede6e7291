"""Who calls a tool: the chat whose message started the turn, and who wrote it.

Invariants: the chat is taken from the turn's inbound message, so no parameter can name another one. A subagent's turn has
its parent's state, and with it its caller.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from bub.envelope import Envelope, content_of, field_of

from bub_cron.errors import BubCronError, one_line

if TYPE_CHECKING:
    from bub_cron.gateway.chat.book import Book

KEY = "_bub_cron_caller"  # of a turn's state
_WHO = ("full_name", "username", "sender_name", "user_name", "nickname", "sender", "sender_id", "user_id")
_MOST_CONTENT = 100_000  # characters of a message that are looked through for who wrote it


class RefusedError(BubCronError):
    """What a tool was asked for can't be done; the text says why, and what would be right."""


class Caller:
    """The chat of a turn (`to`, as in the file), and whether a reminder started it."""

    __slots__ = ("_desk", "_message", "by_reminder", "to")

    def __init__(self, desk: Desk, to: str, message: Envelope, *, by_reminder: bool) -> None:
        self._desk = desk
        self._message = message
        self.to = to
        self.by_reminder = by_reminder

    @property
    def book(self) -> Book:
        """What reads and writes the reminders; RefusedError where no gateway serves them."""
        if self._desk.book is None:
            raise RefusedError("reminders are made in a chat of a running gateway, and here is none that is ready")
        return self._desk.book()

    @property
    def who(self) -> str:
        """Who wrote the message, as far as the channel tells; else the chat."""
        given = (one_line(str(value), 60) for value in _said_of_sender(self._message) if isinstance(value, str | int))
        return next(filter(None, given), self.to)


class Desk:
    """Where a turn finds the book. One for each plugin; while the gateway serves, the channel has put there what gives it."""

    def __init__(self) -> None:
        self.book: Callable[[], Book] | None = None

    def close(self) -> None:
        self.book = None

    def state(self, message: Envelope, to: str | None) -> dict[str, Any]:
        """Return what a turn's state needs for the tools; `to` is the target of the reminder that started it, if one did."""
        if to is not None:
            return {KEY: Caller(self, to, message, by_reminder=True)}
        channel, chat_id = field_of(message, "channel"), field_of(message, "chat_id")
        if not isinstance(channel, str) or not isinstance(chat_id, str):
            return {}
        return {KEY: Caller(self, f"{channel}:{chat_id}", message, by_reminder=False)}


def caller_of(state: Mapping[str, Any]) -> Caller:
    """Return the caller in a turn's state; RefusedError for a turn that no message started."""
    caller = state.get(KEY)
    if not isinstance(caller, Caller):
        raise RefusedError("no chat's message started this turn, so there is no chat whose reminders these could be")
    return caller


def _said_of_sender(message: Envelope) -> Iterator[object]:
    """Yield what the message says of its sender: in its context, or in JSON that is its content, as Telegram's."""
    for source in (field_of(message, "context"), _json_content(message)):
        if isinstance(source, Mapping):
            yield from (source[key] for key in _WHO if source.get(key))


def _json_content(message: Envelope) -> object:
    content = content_of(message)
    if not content.startswith("{") or len(content) > _MOST_CONTENT:
        return None
    try:
        return json.JSONDecoder().raw_decode(content)[0]  # several messages that came at once follow each other
    except (ValueError, RecursionError):
        return None
