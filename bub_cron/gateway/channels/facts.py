"""The form in which a channel is known, and small helpers that more than one of them uses."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bub.channels import Channel

from bub_cron.gateway.parts import Limit


def _as_it_is(text: str) -> str:
    return text


def _nothing_known(_: Any) -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a channel whose `send()` is that of the class `sender`, learned from a package's version.

    The defaults are the general rules, for a channel of which nothing is known.
    """

    sender: str
    learned_from: str
    limit: Limit | None = None
    """What it takes in one message."""
    content: Callable[[str], str] = _as_it_is
    """The form in which a text reaches the chat unchanged."""
    chat_id: Callable[[str], str] = _as_it_is
    """The message's `chat_id`, from the part of `to` behind the first colon."""
    bad_chat_id: Callable[[str], str | None] = _nothing_known
    """Why nothing can be sent to such a chat id, ever."""
    not_connected: Callable[[Channel], str | None] = _nothing_known
    """Why a send would reach nobody just now. Asked right before a send, which then doesn't begin."""
    tries_again_after: float | None = None
    """Its SDK may try again by itself, without a word, so many seconds after a send began or later.

    That the last try found no connection then says nothing about the first.
    """
    drops: tuple[str, ...] = ()
    """How the lines begin that it logs below WARNING when it drops a message."""
    chatter: tuple[str, ...] = ()
    """Loggers whose warnings are about tries in between, not about how a send ended."""


def without_json(text: str) -> str:
    """Return a text so that a `send()` which takes JSON objects for envelopes passes it on as it is.

    Such a `send()` sends the field `message` of what parses as JSON: `{"a": 1}` would vanish, and Telegram's would raise
    for `42`. So what parses, or can't be parsed at all (too long a number, too deep a nesting), goes in an envelope.
    """
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return text
    except (ValueError, RecursionError):
        return json.dumps({"message": text}, ensure_ascii=False)
    return json.dumps({"message": text}, ensure_ascii=False)


def is_unset(channel: Channel, attribute: str) -> bool:
    """Tell whether a private attribute is there and None; one that isn't there tells nothing."""
    return getattr(channel, attribute, ...) is None
