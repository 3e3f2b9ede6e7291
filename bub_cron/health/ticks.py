"""The tick: who runs it, with which interpreter, and how the last one went.

Invariants: looking changes nothing; nothing of another user's is run as root.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from bub_cron.checkers import span
from bub_cron.health.finding import BROKEN, OK, WARNING, Finding
from bub_cron.health.status import LATE_SECONDS, Status, local
from bub_cron.health.storage import why_refused
from bub_cron.paths import Paths
from bub_cron.programs import decoded, output, run_by
from bub_cron.trigger.machine import CRON_D, CRONTAB, Trigger, is_same, lingers
from bub_cron.trigger.remedies import command_line
from bub_cron.trigger.units import TICK_PING, USER


def clock_finding(status: Status) -> Finding:
    """Look whether the clock is behind the last tick."""
    last = status.last_tick
    if last is None or last <= status.now + LATE_SECONDS:
        return Finding("clock", OK, f"{local(status.now)} here")
    behind = f"{span(last - status.now)} before the last tick, at {local(last)}"
    text = f"it is {local(status.now)} here, {behind}: the next tick counts on from now"
    return Finding("clock", BROKEN, text, "timedatectl    # is the time right, and synchronized?")


def trigger_findings(status: Status, triggers: list[Trigger], paths: Paths) -> Iterator[Finding]:
    """Look at what runs the tick, for these places or for others."""
    ours = [trigger for trigger in triggers if trigger.serves(paths)]
    is_run = any(trigger.is_active for trigger in ours)
    ticks_come = status.last_tick is not None and not status.is_late
    for trigger in ours:
        if trigger.is_active:
            yield Finding("trigger", OK, f"{trigger.what} runs the tick{_with(trigger)}")
        else:
            # That no cron daemon is seen doesn't prove that there is none.
            may_run = is_run or (trigger.manager in (CRONTAB, CRON_D) and ticks_come)
            yield Finding("trigger", WARNING if may_run else BROKEN, trigger.why_inactive, trigger.remedy)
        if trigger.failure and (status.is_late or not status.trouble):
            text = f"the last tick of {trigger.what} failed: {trigger.failure}"
            yield Finding("trigger", WARNING, text, command_line(paths, "tick"))
    if ours:
        return  # who else runs ticks, for other places, has a reason
    install = command_line(paths, "install")
    # Something else may run them: another user's cron, or a container's.
    state = WARNING if ticks_come else BROKEN
    for trigger in triggers:
        text = f"{trigger.what} runs the tick for other places ({_difference(trigger.places, paths)})"
        beside = "" if is_same(trigger.places.home, paths.home) else " --name NAME"
        remedy = f"{command_line(trigger.places, 'doctor')}    # or for these places: {install}{beside}"
        yield Finding("trigger", state, text, remedy)
    if not triggers:
        yield Finding("trigger", state, "no timer and no crontab line of this user runs the tick", install)


def _with(trigger: Trigger) -> str:
    zone = trigger.environment.get("TZ", "")
    parts = [f"TZ={zone}"] if zone and zone != os.environ.get("TZ") else []
    parts += ["a ping"] if trigger.environment.get(TICK_PING) else []
    return f", with {' and '.join(parts)}" if parts else ""


def _difference(theirs: Paths, ours: Paths) -> str:
    """Name what another tick goes by, where it isn't ours."""
    if theirs.home != ours.home:
        return f"BUB_HOME={theirs.home}, and this is {ours.home}"
    pairs = ((name, getattr(theirs, name), getattr(ours, name)) for name in ("file", "state", "socket"))
    return "; ".join(f"--{name} {their}, and this is {our}" for name, their, our in pairs if their != our)


def tick_finding(status: Status, paths: Paths) -> Finding:
    """Look how the last tick went."""
    tick = command_line(paths, "tick")
    if why_refused(paths):
        return Finding("tick", BROKEN, "every tick is refused", "do what is said of the stores, above")
    if status.stores_error is not None:
        return Finding("tick", BROKEN, "when the last one ran can't be read", "do what is said of the stores, above")
    if status.last_tick is None:
        return Finding("tick", BROKEN, "no tick has ever run here", f"{tick}    # and see the trigger, above")
    if status.is_late:
        text = f"no tick has run since {local(status.last_tick)}"
        return Finding("tick", BROKEN, text, f"{tick}    # says what is wrong, if it is the tick itself")
    if status.trouble:
        return Finding("tick", WARNING, f"the last one said: {status.trouble.splitlines()[0]}", tick)
    return Finding("tick", OK, f"the last one was at {local(status.last_tick)}")


def linger_finding(triggers: list[Trigger]) -> Iterator[Finding]:
    """Look whether a timer of this user's runs without a login."""
    if any(trigger.manager == USER for trigger in triggers) and not lingers():
        yield Finding("linger", WARNING, "your timer runs only while you are logged in", "loginctl enable-linger")


def interpreter_findings(triggers: list[Trigger], paths: Paths, pong: Mapping[str, Any]) -> Iterator[Finding]:
    """Look whether the ticks have the bub-cron that the gateway has."""
    theirs = str(pong.get("python", ""))
    install = command_line(paths, "install")
    for trigger in triggers:
        python = trigger.python
        if python is None:
            continue
        done = output(*run_by(trigger.account, python, "-P", "-B", "-m", "bub_cron", "--version"))
        said = decoded(done.stdout).strip().rpartition(" ")[2]
        if done.returncode != 0:
            text = f"{trigger.what} runs {python}, which has no bub-cron that works"
            yield Finding("interpreter", BROKEN, text, f"{install}    # with the one in use now")
        elif said != pong.get("version"):
            text = f"{trigger.what} runs {python} with bub-cron {said}, the gateway has {pong.get('version')}"
            yield Finding("interpreter", BROKEN, text, f"upgrade the older one, then run its `{install}`")
        elif os.path.exists(theirs) and os.path.dirname(python) != os.path.dirname(theirs):
            text = f"{trigger.what} runs {python}, the gateway {theirs}: an upgrade of one leaves the other behind"
            module = f"{shlex.quote(theirs)} -m bub_cron"
            yield Finding("interpreter", WARNING, text, install.replace("bub-cron", module, 1))
