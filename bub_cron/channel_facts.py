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

INSTEAD = {
    "telegram": "Bub's Telegram channel can't send to a topic",
    "discord": "to reach a thread, use the thread's id as the chat id: discord:THREAD_ID",
    "slack": "to reach a thread, use to: slack:CHANNEL:THREAD_TS",
}
"""What to do about a key that is meant to choose a thread and doesn't, by the channel's name."""

_PLACES = frozenset({"thread_id", "message_thread_id", "thread_ts", "topic_id", "thread", "topic", "root_id"})


def ignored_context(channel: str, context: "dict[str, str]") -> "list[str]":
    """Return the keys of a context that this channel ignores when it sends, sorted; none for an unknown channel."""
    known = CONTEXT_KEYS.get(channel)
    return [] if known is None else sorted(key for key in context if key not in known)


def chooses_place(key: str) -> bool:
    """Tell whether a key of a context reads as if it chose a place within a chat: a topic or a thread."""
    return key in _PLACES
