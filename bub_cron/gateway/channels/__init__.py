"""What is known of particular channels: a module for each, with the version that it was learned from.

Invariants:
- A channel is known by the class that defines the `send()` in force, by module and name: no SDK is imported. One that
  derives from a known channel and has a `send()` of its own is as unknown to us as any other.
- What is known only ever makes us more careful, or keeps a text as it is. An unknown channel gets the general rules.
- A private attribute of a channel is only read, and one that isn't there tells nothing.
"""

from __future__ import annotations

from bub.channels import Channel

from bub_cron.gateway.channels import dingtalk, discord, feishu, qq, slack, telegram, wecom
from bub_cron.gateway.channels.facts import Facts

KNOWN = (telegram.FACTS, discord.FACTS, slack.FACTS, feishu.FACTS, dingtalk.FACTS, qq.FACTS, wecom.FACTS)
GENERAL = Facts(sender="", learned_from="")

_BY_SENDER = {facts.sender: facts for facts in KNOWN}


def facts_of(channel: Channel) -> Facts:
    """Return what is known of a channel."""
    return _BY_SENDER.get(sender_of(type(channel)), GENERAL)


def sender_of(kind: type[Channel]) -> str:
    """Return the class whose `send()` is in force, as `module.Class`."""
    defining = next(base for base in kind.__mro__ if "send" in vars(base))
    return f"{defining.__module__}.{defining.__qualname__}"
