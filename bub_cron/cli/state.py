"""The commands that tell how it all stands: status, metrics, doctor.

Invariants: looking changes nothing; status and doctor exit with 1 exactly when they name something that needs a human.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from datetime import datetime
from typing import Any

import click
from rich.text import Text

from bub_cron import terminal
from bub_cron.cli.base import commands, json_option, with_paths
from bub_cron.errors import one_line
from bub_cron.health.doctor import examine
from bub_cron.health.finding import BROKEN, OK, WARNING, Finding
from bub_cron.health.metrics import metrics as metrics_of
from bub_cron.health.status import Status, because, few, look, work_in_words
from bub_cron.paths import Paths
from bub_cron.pauses import Pause
from bub_cron.records import Gated

_WIDTH = 13
_GAPS = 3
_REMEDY = 12  # columns before a remedy
_COMMENT = "    # "
_STYLES = {OK: "green", WARNING: "yellow", BROKEN: "bold red"}


@commands.command()
@with_paths
@json_option
def status(paths: Paths, as_json: bool) -> None:
    """Show how the gateway, the trigger and the last 24 hours stand.

    Exits with 1 if something needs a human: a late tick, no gateway, or one that isn't ready a minute after its start, a
    faulty file, a store that can't be read, or a reminder whose newest firing of the last 24 hours failed, was missed,
    refused or not seen to its end.
    """
    found = look(paths, int(time.time()))
    if as_json:
        click.echo(terminal.json_line(found.as_json()))
    else:
        _show(found)
    sys.exit(1 if found.attention else 0)


@commands.command()
@with_paths
def metrics(paths: Paths) -> None:
    """Print how it all stands as OpenMetrics text: for monitors.

    Gauges only, and no texts of reminders: for the textfile collector of Prometheus' node_exporter. systemd/metrics/ holds
    a service and a timer that write the file. It needs prometheus_client (the extra `metrics`), and exits with 69 without
    it. Exits with 0 also where something needs a human: bub_cron_needs_fixing tells how much.
    """
    # A service that writes them may well be kept from writing anywhere else, and node_exporter tells of full disks itself.
    click.echo(metrics_of(paths, look(paths, int(time.time()), tries_disk=False)), nl=False)


@commands.command()
@with_paths
@json_option
def doctor(paths: Paths, as_json: bool) -> None:
    """Walk the whole chain, from the file to the chat: what is wrong with each link, and what to do.

    Exits with 1 if a link is broken.
    """
    broken = False
    for finding in examine(paths, int(time.time())):
        broken = broken or finding.state == BROKEN
        if as_json:
            click.echo(terminal.json_line(asdict(finding)))
            continue
        head = Text(f"{finding.state:9}", style=_STYLES[finding.state]) + Text(f"{finding.link:{_WIDTH}}")
        terminal.paragraph(head, finding.text)
        if finding.state != OK and finding.remedy:
            _show_remedy(finding)
    sys.exit(1 if broken else 0)


def _show_remedy(finding: Finding) -> None:
    arrow = Text(f"{'->':>{_REMEDY - 1}} ", style="bold")
    out = terminal.console()
    command, _, comment = finding.remedy.partition(_COMMENT)
    if not finding.is_command:
        terminal.paragraph(arrow, finding.remedy)
    elif not comment or len(finding.remedy) + _REMEDY <= out.width:
        # A command is never wrapped by us: it is there to be copied.
        out.print(arrow + Text(terminal.clean(finding.remedy), style="bold"), soft_wrap=True)
    else:
        out.print(arrow + Text(terminal.clean(command), style="bold"), soft_wrap=True)
        terminal.paragraph(Text(" " * _REMEDY), f"# {comment}")


def _show(found: Status) -> None:
    for title, text in () if found.is_closed else _parts(found):
        terminal.paragraph(Text(f"{title:{_WIDTH}}", style="bold"), text)
    for text in found.attention:
        terminal.paragraph(Text(f"{'needs fixing':{_WIDTH}}", style="bold red"), text)


def _parts(found: Status) -> list[tuple[str, str]]:
    return [
        ("gateway", _gateway(found)),
        ("trigger", _trigger(found)),
        ("reminders", _reminders(found)),
        *(("paused", text) for text in few(map(_paused, found.paused))),
        ("waiting", _waiting(found)),
        *(("retrying", text) for text in few(f"{record.id}{because(record)}" for record in found.retrying)),
        ("24 hours", _outcomes(found)),
        *(("gates", text) for text in few(map(_gated, found.gated))),
        *([("no tick", _gaps(found))] if found.gaps else []),
    ]


def _gateway(found: Status) -> str:
    pong: dict[str, Any] | None = found.gateway
    if pong is None:
        return "refuses this user" if found.refused else "does not answer"
    channels = ", ".join(map(str, pong.get("channels", ()))) or "no channel"
    ready = f"; not ready: {found.why_not_ready}" if found.why_not_ready else ""
    return (
        f"listens since {_since(pong.get('since'))} for {channels}; {work_in_words(pong)}{ready}"
        f" (process {pong.get('pid')}, bub-cron {pong.get('version')}, bub {pong.get('bub')})"
    )


def _since(text: object) -> str:
    try:
        return terminal.local_time(datetime.fromisoformat(str(text)).timestamp())
    except ValueError:
        return str(text)


def _trigger(found: Status) -> str:
    if found.stores_error is not None:
        return "when the last tick ran can't be read"
    if found.last_tick is None or found.next_tick is None:
        return "no tick has ever run here"
    if found.last_tick > found.now:
        return f"the last tick was at {_clock(found.last_tick)}, which is in the future"
    ago = f"{terminal.span(found.now - found.last_tick)} ago" if found.now > found.last_tick else "just now"
    late = f", {terminal.span(found.now - found.next_tick)} ago" if found.is_late else ""
    word = "is" if found.now < found.next_tick else "was"
    trouble = f"; it said: {terminal.first_line(found.trouble)}" if found.trouble else ""
    return f"the last tick was {ago}{trouble}; the next {word} expected at {_clock(found.next_tick)}{late}"


def _reminders(found: Status) -> str:
    if found.reminders is None:
        kept = sum(found.in_force.values())
        if kept == 0 and found.is_file_missing:
            return "there is no file yet"
        if kept == 0:
            return "the file can't be used, and there is no earlier good version"
        stay = "reminder stays" if kept == 1 else "reminders stay"
        return f"a file can't be used; {kept:,} {stay} in force, as last read without a fault"
    count = f"{len(found.reminders):,}"
    if found.next_fire is None:
        return f"{count}; no upcoming fire times"
    moment, name = found.next_fire
    at = f"{terminal.local_time(moment)} ({terminal.clock()})"  # of this screen's clock, here alone
    return f"{count}; the next is {name}, at {at}, in {terminal.span(moment - found.now)}"


def _paused(pause: Pause) -> str:
    name = f"{pause.reminder} is " if pause.reminder else ""
    return f"{name}{one_line(pause.sentence(terminal.local_time))}"


def _waiting(found: Status) -> str:
    if found.stores_error is not None:
        return "can't be read"
    return f"{found.due:,} for a gateway, {found.accepted:,} in it" if found.due or found.accepted else "nothing"


def _outcomes(found: Status) -> str:
    if found.stores_error is not None:
        return "can't be read"
    return ", ".join(f"{count:,} {word}" for word, count in found.outcomes.items()) or "nothing fired"


def _gated(one: Gated) -> str:
    return f"{one.reminder}: skipped {one.skipped:,} of {one.firings:,} by its gate"


def _gaps(found: Status) -> str:
    """Return the newest few times without ticks, and what the others come to."""
    shown = [
        f"{terminal.local_time(began)} to {terminal.local_time(ended)} ({terminal.span(ended - began)})"
        for began, ended in found.gaps[:_GAPS]
    ]
    rest = found.gaps[_GAPS:]
    if rest:
        shown.append(
            f"and {len(rest):,} times before that, {terminal.span(sum(end - begin for begin, end in rest))} in all"
        )
    return ", ".join(shown)


def _clock(instant: int) -> str:
    return time.strftime(
        "%H:%M:%S" if abs(time.time() - instant) < 43200 else "%Y-%m-%d %H:%M:%S", time.localtime(instant)
    )
