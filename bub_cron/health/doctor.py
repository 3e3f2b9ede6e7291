"""The whole chain from the file to the chat, link by link; for each broken one what is wrong and what to do.

Invariants: looking changes nothing; a link that can't be looked at says so, and hides none of the others; every
broken link has a remedy that can be typed or done, with the paths and flags in force.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator
from typing import Any

from bub_cron import __version__
from bub_cron.errors import (
    BubCronError,
    FaultyFilesError,
    FileFaultsError,
    FileMissingError,
    ScheduleError,
    each_of,
    user_name,
)
from bub_cron.health.channels import channel_findings
from bub_cron.health.chat import chat_findings
from bub_cron.health.finding import BROKEN, OK, WARNING, Finding
from bub_cron.health.firings import firing_findings
from bub_cron.health.gateways import unit_trouble, why_absent
from bub_cron.health.status import Status, faults_in_words, look, only_for, work_in_words
from bub_cron.health.storage import disk_finding, store_findings
from bub_cron.health.ticks import clock_finding, interpreter_findings, linger_finding, tick_finding, trigger_findings
from bub_cron.paths import Paths
from bub_cron.reminders import load, suspicions
from bub_cron.schedule import machine_zone
from bub_cron.trigger.machine import find_triggers
from bub_cron.trigger.remedies import command_line, gateway_line, owner_of
from bub_cron.wire import PROTOCOL


def examine(paths: Paths, now: int) -> Iterator[Finding]:
    """Look at every link, in the order in which a firing passes them."""
    if why := only_for(paths):
        yield Finding("user", BROKEN, why, command_line(paths, "doctor", uid=owner_of(paths)))
        return
    status = look(paths, now)
    triggers = find_triggers()
    ours = [trigger for trigger in triggers if trigger.serves(paths)]
    yield from _file(paths, status)
    yield _zone()
    yield from store_findings(paths)
    if (disk := disk_finding(paths)) is not None:
        yield disk
    yield clock_finding(status)
    yield from trigger_findings(status, triggers, paths)
    yield tick_finding(status, paths)
    yield from linger_finding(ours)
    yield from _socket(paths, status)
    yield from _gateway(paths, status)
    if status.gateway is not None:
        yield _plugin(status.gateway)
        yield from interpreter_findings(ours, paths, status.gateway)
        yield from channel_findings(status.reminders, status.gateway)
    yield from chat_findings(paths, status.gateway, status.reminders)
    yield from firing_findings(paths, status)


# --- The file and its zones


def _file(paths: Paths, status: Status) -> Iterator[Finding]:
    try:
        reminders = load(paths.file)
    except FileMissingError as error:
        yield Finding("file", BROKEN, str(error), command_line(paths, "init"))
    except (FileFaultsError, FaultyFilesError) as error:
        for one in each_of(error):
            remedy = f"{command_line(paths, 'check')}    # shows each, with its line"
            yield Finding("file", BROKEN, faults_in_words(one, status.in_force), remedy)
    except BubCronError as error:
        yield Finding(
            "file", BROKEN, str(error), f"ls -l {shlex.quote(paths.file)}    # this user has to be able to read it"
        )
    else:
        yield Finding("file", OK, f"{paths.file}, {len(reminders):,} reminder{'' if len(reminders) == 1 else 's'}")
        if notices := suspicions(reminders, status.now):
            where = f"{notices[0].file}:{notices[0].line}"
            text = f"something may not be meant, such as {where}: {notices[0].message}"
            yield Finding("file", WARNING, text, f"{command_line(paths, 'check')}    # shows each")


def _zone() -> Finding:
    try:
        return Finding("zone", OK, f"the machine's is {machine_zone()}")
    except ScheduleError as error:
        return Finding("zone", BROKEN, str(error), "sudo timedatectl set-timezone Europe/Berlin    # or yours")


# --- The gateway


def _socket(paths: Paths, status: Status) -> Iterator[Finding]:
    directory = os.path.dirname(paths.socket)
    try:
        found, around = os.lstat(paths.socket), os.stat(directory)
    except OSError:
        return  # that it can't be reached is the next link's word
    path = shlex.quote(paths.socket)
    if not stat.S_ISSOCK(found.st_mode):
        yield Finding(
            "socket",
            BROKEN,
            f"{paths.socket} is there and is no socket",
            f"mv {path} {path}.old    # then restart the gateway",
        )
    elif found.st_uid != os.geteuid() and os.geteuid() != 0 and status.gateway is None:
        text = f"{paths.socket} is {user_name(found.st_uid)}'s, and this is {user_name(os.geteuid())}"
        remedy = command_line(paths, "doctor", uid=found.st_uid)
        remedy = f"{remedy}    # or give the gateway BUB_CRON_ALLOW_UIDS={os.geteuid()}"
        yield Finding("socket", BROKEN, text, remedy)
    elif around.st_mode & 0o022 and not around.st_mode & stat.S_ISVTX:
        text = f"others may replace the socket: {directory} may be written by them"
        yield Finding("socket", BROKEN, text, f"chmod 700 {shlex.quote(directory)}")
    else:
        yield Finding("socket", OK, paths.socket)


def _gateway(paths: Paths, status: Status) -> Iterator[Finding]:
    pong, error = status.gateway, (status.gateway_error or "").partition("\n")[0]
    unit = unit_trouble(is_absent=pong is None and not status.refused)
    if pong is not None:
        text = f"process {pong.get('pid')} listens, {work_in_words(pong)}"
        if not status.why_not_ready:
            yield Finding("gateway", OK, text)
        elif status.is_starting:
            remedy = f"{command_line(paths, 'doctor')}    # again in a minute"
            yield Finding("gateway", WARNING, f"{text}; it is starting: {status.why_not_ready}", remedy)
        else:
            remedy = "journalctl --user -u bub-gateway    # or where its log is; then restart it"
            yield Finding("gateway", BROKEN, f"{text}; it is not ready to start any: {status.why_not_ready}", remedy)
        if unit is not None:
            yield Finding("gateway", WARNING, f"it won't start by itself: {unit.text}", unit.remedy)
    elif status.refused:
        remedy = f"give the gateway BUB_CRON_ALLOW_UIDS={os.geteuid()}, and restart it"
        yield Finding("gateway", BROKEN, f"the gateway at {paths.socket} refuses this user: {error}", remedy)
    else:
        causes = ([unit] if unit is not None else []) + why_absent(paths)
        is_known = any(cause.state == BROKEN for cause in causes)
        yield Finding("gateway", BROKEN, error, "what follows says why" if is_known else gateway_line(paths))
        for cause in causes:
            yield Finding("gateway", cause.state, cause.text, cause.remedy)


def _plugin(pong: dict[str, Any]) -> Finding:
    version, protocol = pong.get("version"), pong.get("protocol")
    if protocol != PROTOCOL or version != __version__:
        text = f"the gateway has bub-cron {version}, this is {__version__}"
        remedy = "upgrade both to the same version, then restart the gateway"
        return Finding("plugin", BROKEN if protocol != PROTOCOL else WARNING, text, remedy)
    return Finding("plugin", OK, f"bub-cron {version} on both sides, bub {pong.get('bub')}")
