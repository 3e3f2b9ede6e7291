"""May the gateway send where the reminders should go: channels, commands, gates and tools.

Invariants: a channel that is installed and lacks its settings is told from one that isn't installed, as far as the gateway
says which; no remedy keeps a gateway from starting.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bub_cron.channel_facts import SETTINGS
from bub_cron.checkers import NONE, split_to
from bub_cron.health.finding import BROKEN, OK, WARNING, Finding
from bub_cron.health.status import MOST, no_channel
from bub_cron.reminders import Reminder
from bub_cron.wire import COMMAND


def channel_findings(found: list[Reminder] | None, pong: Mapping[str, Any]) -> Iterator[Finding]:
    """Look at what the reminders need of the gateway that answered; they are None where a file can't be used."""
    reminders = found or []
    enabled = [str(name) for name in pong.get("channels", ())]
    wanted: dict[str, list[str]] = {}
    for reminder in reminders:
        for channel in dict.fromkeys(_channels(reminder)):
            wanted.setdefault(channel, []).append(reminder.name)
    absent = [channel for channel in wanted if channel not in enabled]
    for channel in absent:
        text, remedy = _absent(channel, pong)
        yield Finding("channels", BROKEN, f"{text}, where {_names(wanted[channel])} should go", remedy)
    if not absent and (text := no_channel(pong)):
        yield Finding("channels", BROKEN, text, "bub onboard    # sets a chat up; then restart the gateway")
    may_not = False
    for what, allowed, names in (
        ("commands", pong.get("commands"), [one.name for one in reminders if one.enabled and one.kind == COMMAND]),
        ("gates", pong.get("gates"), [one.name for one in reminders if one.enabled and one.gate is not None]),
    ):
        if names and not allowed:
            may_not = True
            text = f"the gateway allows no {what}, and {_names(names)} should run one"
            yield Finding(
                "channels", BROKEN, text, f"give the gateway BUB_CRON_ALLOW_{what.upper()}=true, and restart it"
            )
    for name, tools in pong.get("unknown_tools", {}).items():
        text = f"the gateway has no tool {', '.join(tools)}, which {name} may use"
        yield Finding("channels", WARNING, text, f"look at the tools of {name}, or install their plugin")
    if not absent and not may_not and enabled:
        unused = (
            "no enabled reminder uses one"
            if found is not None
            else "which of them reminders use can't be seen in the file"
        )
        yield Finding("channels", OK, ", ".join(wanted) or f"{', '.join(enabled)}; {unused}")


def _channels(reminder: Reminder) -> Iterator[str]:
    if not reminder.enabled:
        return
    if reminder.reply == "chat":
        yield from (split_to(target)[0] for target in (reminder.to, *reminder.also))
    if reminder.alert not in (None, NONE):
        yield split_to(reminder.alert or "")[0]


def _absent(channel: str, pong: Mapping[str, Any]) -> tuple[str, str]:
    """Return what is wrong with a channel that isn't enabled, and the remedy."""
    settings = SETTINGS.get(channel)
    set_up = f"give the gateway {' and '.join(settings)}" if settings else "set it up"
    match pong.get("not_enabled", {}).get(channel):
        case "not configured":
            return (
                f"the channel {channel} is installed but not configured",
                f"{set_up}, or run `bub onboard`; then restart the gateway",
            )
        case "left out":
            return (
                f"the gateway's BUB_ENABLED_CHANNELS leaves {channel} out",
                f"add {channel} there, or remove that setting; then restart the gateway",
            )
    has = ", ".join(map(str, pong.get("channels", ()))) or "none"
    return (
        f"the gateway has no channel {channel} (it has {has})",
        f"install the plugin of {channel} beside the gateway; {set_up}; then restart the gateway",
    )


def _names(names: list[str]) -> str:
    shown = ", ".join(names[:MOST])
    return f"{shown} and {len(names) - MOST:,} more" if len(names) > MOST else shown
