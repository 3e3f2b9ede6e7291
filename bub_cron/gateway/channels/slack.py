"""Slack, by bub-slack (in bub-contrib's repository; not on PyPI).

Its `send()` posts to `chat_id`, in the thread that `context["thread_ts"]` or else the third part of `session_id` names. It
takes a JSON object for an envelope, cuts at 3,900 characters by itself, and drops everything in silence before it has
started. slack_sdk tries once more by itself where a connection failed or broke, without a word.
"""

from __future__ import annotations

from bub.channels import Channel

from bub_cron.gateway.channels.facts import Facts, is_unset, without_json
from bub_cron.gateway.parts import Limit, code_points


def _chat_id(chat_id: str) -> str:
    # slack:CHANNEL:THREAD is how its sessions are called. Its ids have no colon.
    return chat_id.partition(":")[0]


def _not_connected(channel: Channel) -> str | None:
    return "the channel slack is not connected" if is_unset(channel, "_web_client") else None


FACTS = Facts(
    sender="bub_slack.channel.SlackChannel",
    learned_from="bub-slack 0.1.0",
    limit=Limit(3900, code_points, "characters"),
    content=without_json,
    chat_id=_chat_id,
    not_connected=_not_connected,
    tries_again_after=0.0,
)
