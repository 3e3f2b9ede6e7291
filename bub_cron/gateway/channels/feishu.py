"""Feishu, by bub-feishu.

Its `send()` posts to `chat_id` and ignores `context`. Where a user's command in the chat has no answer yet, it answers that
message. What the API refuses is a logged error and no exception; before it is connected, everything is dropped in silence.
"""

from __future__ import annotations

from bub.channels import Channel

from bub_cron.gateway.channels.facts import Facts, is_unset


def _not_connected(channel: Channel) -> str | None:
    return "the channel feishu is not connected" if is_unset(channel, "_api_client") else None


FACTS = Facts(
    sender="bub_feishu.channel.FeishuChannel",
    learned_from="bub-feishu 0.0.2",
    not_connected=_not_connected,
)
