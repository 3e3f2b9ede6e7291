"""What is known of particular channels where no gateway runs: what they do with a reminder's `context`.

Invariants:
- Only what was seen in a channel's own code stands here; of an unknown channel nothing is said. docs/channels.md has the
  versions; `gateway/channels/` has what only a gateway needs.

Imports nothing: both the reminders and the gateway import it.
"""

CONTEXT_KEYS: "dict[str, frozenset[str]]" = {
    "telegram": frozenset(),
    "feishu": frozenset(),
    "discord": frozenset(),
    "slack": frozenset({"thread_ts"}),
    "dingtalk": frozenset(),
    "qq": frozenset(),
    "wecom": frozenset(),
}
"""The keys of a message's context that a channel's `send()` looks at, by the channel's name."""

PLACES = {
    "telegram": "Bub's Telegram channel can't send to a topic, so the message goes to the group itself",
    "discord": "a thread has an id of its own, to: discord:THREAD_ID",
    "slack": "a thread is reached by thread_ts, or to: slack:CHANNEL:THREAD_TS",
}
"""How a thread or a topic is reached instead, by the channel's name."""

SETTINGS = {
    "telegram": ("BUB_TELEGRAM_TOKEN",),
    "feishu": ("BUB_FEISHU_APP_ID", "BUB_FEISHU_APP_SECRET"),
    "discord": ("BUB_DISCORD_TOKEN",),
    "slack": ("BUB_SLACK_BOT_TOKEN", "BUB_SLACK_APP_TOKEN"),
    "dingtalk": ("BUB_DINGTALK_CLIENT_ID", "BUB_DINGTALK_CLIENT_SECRET"),
    "qq": ("BUB_QQ_APPID", "BUB_QQ_SECRET"),
    "wecom": ("BUB_WECOM_BOT_ID", "BUB_WECOM_SECRET"),
}
"""What a channel needs before the gateway can enable it, by the channel's name."""

_PLACE_KEYS = frozenset({
    "thread_id",
    "message_thread_id",
    "thread_ts",
    "topic_id",
    "thread",
    "topic",
    "root_id",
    "root_ts",
})


def ignored_context(channel: str, context: "dict[str, str]") -> "list[str]":
    """Return the keys of a context that this channel ignores when it sends, sorted; none for an unknown channel."""
    known = CONTEXT_KEYS.get(channel)
    return [] if known is None else sorted(key for key in context if key not in known)


def is_place(key: str) -> bool:
    """Tell whether a key of a context reads as if it chose a thread or a topic within a chat."""
    return key in _PLACE_KEYS
