"""Telegram, by Bub's own channel.

Its `send()` raises what python-telegram-bot raises, doesn't cut, ignores `session_id` and `context` (so no topic can be
reached), and takes content that parses as JSON for an envelope. An empty text is dropped in silence.
"""

from __future__ import annotations

from bub.channels import Channel

from bub_cron.gateway.channels.facts import Facts, without_json
from bub_cron.gateway.parts import Limit, utf16_units


def _not_connected(channel: Channel) -> str | None:
    # Without its application, send() would raise an AttributeError that proves nothing.
    return None if hasattr(channel, "_app") else "the channel telegram has not started"


FACTS = Facts(
    sender="bub.channels.telegram.TelegramChannel",
    learned_from="bub 0.5.1",
    limit=Limit(4096, utf16_units, "characters"),
    content=without_json,
    not_connected=_not_connected,
)
