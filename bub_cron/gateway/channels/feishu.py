"""Feishu, by bub-feishu.

Its `send()` posts to `chat_id` and ignores `context`. Where a user's command in the chat has no answer yet, it answers that
message. What the API refuses is a logged error and no exception; before it is connected, everything is dropped in silence.
Now and then it fetches a token, which holds the event loop for as long as that takes.

Feishu's documentation allows 150 KB for the body of the request. The text is in it as JSON within JSON.
"""

from __future__ import annotations

from bub.channels import Channel

from bub_cron.gateway.channels.facts import Facts, is_unset
from bub_cron.gateway.parts import Limit, utf8_bytes

_ESCAPED = {"\n": 3, "\r": 3, "\t": 3, '"': 4, "\\": 4}


def _bytes_in_the_request(character: str) -> int:
    return _ESCAPED.get(character) or (utf8_bytes(character) if character >= " " else 7)


def _not_connected(channel: Channel) -> str | None:
    return "the channel feishu is not connected" if is_unset(channel, "_api_client") else None


FACTS = Facts(
    sender="bub_feishu.channel.FeishuChannel",
    learned_from="bub-feishu 0.0.2",
    limit=Limit(140_000, _bytes_in_the_request, "bytes"),
    not_connected=_not_connected,
)
