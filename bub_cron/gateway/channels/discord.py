"""Discord, by bub-discord.

Its `send()` goes by `session_id` alone (`discord:NUMBER`; a thread is a channel with a number of its own), and answers the
last message of that session where it knows one. A number that leads nowhere is a logged warning and no error. discord.py
waits out a 429 by itself, with a warning, and tries again by itself after a 5xx, without a word.
"""

from __future__ import annotations

from bub.channels import Channel

from bub_cron.gateway.channels.facts import Facts, is_unset
from bub_cron.gateway.parts import Limit, code_points


def _bad_chat_id(chat_id: str) -> str | None:
    is_number = chat_id.isascii() and chat_id.isdecimal()
    return None if is_number else f"a chat id of discord is the number of a channel or a thread, not {chat_id!r}"


def _not_connected(channel: Channel) -> str | None:
    if is_unset(channel, "_bot"):
        return "the channel discord is not connected"
    is_ready = getattr(getattr(channel, "_bot", None), "is_ready", None)
    return "the channel discord is not ready" if callable(is_ready) and is_ready() is False else None


FACTS = Facts(
    sender="bub_discord.channel.DiscordChannel",
    learned_from="bub-discord 0.0.2",
    limit=Limit(2000, code_points, "characters"),
    bad_chat_id=_bad_chat_id,
    not_connected=_not_connected,
    tries_again_after=1.0,
    chatter=("discord.http",),
)
