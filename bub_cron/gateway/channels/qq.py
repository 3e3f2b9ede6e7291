"""QQ, by bub-qq.

Its `send()` answers the last message of the chat: where nobody wrote within the hour, or after four answers to one message,
it logs a warning and returns (groups may allow more). It drops a text that it sent already as an answer to the same
message, one that begins with `<no_reply/>`, and counts one that waits for a censor as sent; of these it logs at INFO alone.
What the API refuses is a logged warning and no exception.
"""

from __future__ import annotations

from bub_cron.gateway.channels.facts import Facts


def _bad_chat_id(chat_id: str) -> str | None:
    kind, _, openid = chat_id.partition(":")
    if kind in ("c2c", "group") and openid.strip():
        return None
    return f"a chat id of qq begins with c2c: or group:, which {chat_id!r} doesn't"


FACTS = Facts(
    sender="bub_qq.channel.QQChannel",
    learned_from="bub-qq 0.1.0",
    bad_chat_id=_bad_chat_id,
    drops=("qq.send duplicate ", "qq.send skip_", "qq.send pending_audit "),
)
