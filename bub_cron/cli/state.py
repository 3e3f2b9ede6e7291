"""The commands that tell how it all stands: status, doctor.

Kept true here: looking changes nothing; they exit with 1 exactly when they name something that needs a human.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import click
from rich.text import Text

from bub_cron import terminal
from bub_cron.cli.base import commands, json_option, with_paths
from bub_cron.health.doctor import BROKEN, OK, WARNING, examine
from bub_cron.health.status import Status, look
from bub_cron.paths import Paths

_WIDTH = 11
_STYLES = {OK: "green", WARNING: "yellow", BROKEN: "bold red"}


@commands.command()
@with_paths
@json_option
def status(paths: Paths, as_json: bool) -> None:
    """Show how the gateway, the trigger and the last 24 hours stand.

    Exits with 1 if something needs a human: a late tick, no gateway, a faulty file, a store that can't be read, or a
    reminder whose newest firing of the last 24 hours failed, was missed, refused or not seen to its end.
    """
    found = look(paths, int(time.time()))
    if as_json:
        click.echo(terminal.json_line(found.as_json()))
    else:
        _show(found)
    sys.exit(1 if found.attention else 0)


@commands.command()
@with_paths
def doctor(paths: Paths) -> None:
    """Walk the whole chain, from the file to the chat: what is wrong with each link, and what mends it.

    Exits with 1 if a link is broken.
    """
    out = terminal.console()
    broken = False
    for finding in examine(paths, int(time.time())):
        broken = broken or finding.state == BROKEN
        shown = Text(f"{finding.state:9}", style=_STYLES[finding.state]) + Text(f"{finding.link:{_WIDTH + 1}}")
        out.print(shown + Text(terminal.clean(finding.text)), soft_wrap=True)
        if finding.state != OK and finding.remedy:
            out.print(Text(f"{'':{_WIDTH + 10}}-> {terminal.clean(finding.remedy)}", style="bold"), soft_wrap=True)
    sys.exit(1 if broken else 0)


def _show(found: Status) -> None:
    lines = [
        ("gateway", _gateway(found)),
        ("trigger", _trigger(found)),
        ("reminders", _reminders(found)),
        ("waiting", f"{found.due} for a gateway, {found.accepted} in it"),
        ("24 hours", ", ".join(f"{count:,} {word}" for word, count in found.outcomes.items()) or "nothing fired"),
        *(
            ("no tick", f"{_clock(began)} to {_clock(ended)} ({terminal.span(ended - began)})")
            for began, ended in found.gaps
        ),
    ]
    out = terminal.console()
    for title, text in lines:
        out.print(Text(f"{title:{_WIDTH}}", style="bold") + Text(terminal.clean(text)), soft_wrap=True)
    for text in found.attention:
        out.print(Text(f"{'look after':{_WIDTH}}", style="bold red") + Text(terminal.clean(text)), soft_wrap=True)


def _gateway(found: Status) -> str:
    pong: dict[str, Any] | None = found.gateway
    if pong is None:
        return "does not answer"
    channels = ", ".join(map(str, pong.get("channels", ()))) or "no channel"
    return (
        f"listens since {pong.get('since')} (process {pong.get('pid')}, bub-cron {pong.get('version')},"
        f" bub {pong.get('bub')}) for {channels}; {pong.get('waiting')} wait and {pong.get('running')} run"
    )


def _trigger(found: Status) -> str:
    if found.last_tick is None or found.next_tick is None:
        return "no tick has ever run here"
    ago = terminal.span(max(0, found.now - found.last_tick))
    late = f", late by {terminal.span(found.now - found.next_tick)}" if found.is_late else ""
    trouble = f"; it said: {terminal.first_line(found.trouble)}" if found.trouble else ""
    return f"the last tick was {ago} ago, at {_clock(found.last_tick)}; the next is expected at {_clock(found.next_tick)}{late}{trouble}"


def _reminders(found: Status) -> str:
    if found.reminders is None:
        return "the file can't be read; the last good one stays in force"
    if found.next_fire is None:
        return f"{found.reminders}; none is to fire"
    moment, name = found.next_fire
    return f"{found.reminders}; the next is {name}, at {terminal.local_time(moment)}, in {terminal.span(moment - found.now)}"


def _clock(instant: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(instant))
