"""The whole chain from the file to the chat, link by link; for each broken one what is wrong and what to do.

Invariants: looking changes nothing; a link that can't be looked at says so, and hides none of the others; every
broken link has a remedy that can be typed or done.
"""

from __future__ import annotations

import errno
import os
import pwd
import shlex
import stat
from collections.abc import Iterator
from typing import Any

from bub_cron import __version__, records
from bub_cron.checkers import NONE, split_to
from bub_cron.errors import (
    BubCronError,
    DamagedStoreError,
    FaultyFilesError,
    FileFaultsError,
    FileMissingError,
    ScheduleError,
    each_of,
)
from bub_cron.health.chat import chat_findings
from bub_cron.health.finding import BROKEN, OK, WARNING, Finding
from bub_cron.health.gateways import unit_trouble, why_absent
from bub_cron.health.status import LATE_SECONDS, MOST, Status, because, faults_in_short, local, look, told
from bub_cron.health.triggers import Trigger, find_triggers
from bub_cron.paths import Paths
from bub_cron.programs import decoded, first_line, output, run_by
from bub_cron.reminders import Reminder, load, suspicions
from bub_cron.schedule import machine_zone
from bub_cron.trigger.units import USER
from bub_cron.wire import COMMAND, PROTOCOL
from bub_cron.writable import user_name

_ROOM = 64 * 1024  # bytes that a store needs room for
_SCARCE = 20 * 1024 * 1024
# What a file system that knows no files without a name says.
_NO_TMPFILE = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT})


def examine(paths: Paths, now: int) -> Iterator[Finding]:
    """Look at every link, in the order in which a firing passes them."""
    status = look(paths, now)
    yield from _file(paths, now)
    yield _zone()
    yield from _stores(paths)
    yield from _disk(paths)
    yield _clock(status)
    triggers = find_triggers()
    yield from _triggers(status, triggers, paths)
    yield _tick(status)
    yield from _linger([trigger for trigger in triggers if trigger.serves(paths)])
    yield from _socket(paths, status)
    yield from _gateway(paths, status)
    if status.gateway is not None:
        yield _plugin(status.gateway)
        yield from _interpreters(triggers, paths, status.gateway)
        yield from _channels(status.reminders or [], status.gateway)
    yield from chat_findings(paths, status.gateway, status.reminders)
    yield from _firings(paths, status)


# --- The file and its zones


def _file(paths: Paths, now: int) -> Iterator[Finding]:
    try:
        reminders = load(paths.file)
    except FileMissingError as error:
        yield Finding("file", BROKEN, str(error), "bub-cron init")
    except (FileFaultsError, FaultyFilesError) as error:
        for one in each_of(error):
            text = f"{faults_in_short(one)}; its last good version stays in force"
            yield Finding("file", BROKEN, text, "bub-cron check    # shows each, with its line")
    except BubCronError as error:
        yield Finding(
            "file", BROKEN, str(error), f"ls -l {shlex.quote(paths.file)}    # this user has to be able to read it"
        )
    else:
        yield Finding("file", OK, f"{paths.file}, {_many(len(reminders), 'reminder')}")
        if notices := suspicions(reminders, now):
            where = f"{notices[0].file}:{notices[0].line}"
            text = f"something may not be meant, such as {where}: {notices[0].message}"
            yield Finding("file", WARNING, text, "bub-cron check    # shows each")


def _zone() -> Finding:
    try:
        return Finding("zone", OK, f"the machine's is {machine_zone()}")
    except ScheduleError as error:
        return Finding("zone", BROKEN, str(error), "sudo timedatectl set-timezone Europe/Berlin    # or yours")


# --- The stores


def _stores(paths: Paths) -> Iterator[Finding]:
    try:
        found = os.stat(paths.state)
    except FileNotFoundError:
        yield Finding("stores", OK, f"no {paths.state} yet: the first tick, or the gateway, makes it")
        return
    except OSError as error:
        yield Finding("stores", BROKEN, f"{paths.state}: {error.strerror}", _as_owner(os.path.dirname(paths.state)))
        return
    if found.st_uid not in (os.geteuid(), 0) and os.geteuid() != 0:
        yield Finding("stores", BROKEN, f"{paths.state} is {user_name(found.st_uid)}'s", _as_owner(paths.state))
    elif stat.S_IMODE(found.st_mode) & 0o022:
        text = f"{paths.state} may be written by others (mode {stat.S_IMODE(found.st_mode):04o})"
        yield Finding("stores", BROKEN, text, f"chmod 700 {shlex.quote(paths.state)}")
    for path in (paths.ledger, paths.inbox):
        yield _store(path)


def _store(path: str) -> Finding:
    is_ledger = os.path.basename(path) == "ledger.db"
    try:
        size = os.path.getsize(path)
    except FileNotFoundError:
        return Finding(
            "stores", OK, f"no {os.path.basename(path)} yet: {'a tick' if is_ledger else 'the gateway'} makes it"
        )
    except OSError as error:
        return Finding("stores", BROKEN, f"{path}: {error.strerror}", _as_owner(os.path.dirname(path)))
    try:
        records.check(path)
    except DamagedStoreError as error:
        again = "bub-cron tick" if is_ledger else "restart the gateway"
        return Finding("stores", BROKEN, str(error), f"{again}    # puts it aside, and keeps what can be read of it")
    except BubCronError as error:
        return Finding("stores", BROKEN, str(error), _as_owner(path))
    return Finding("stores", OK, f"{os.path.basename(path)}, {size / 1024:,.0f} KiB")


def _disk(paths: Paths) -> Iterator[Finding]:
    if not os.path.isdir(paths.state):
        return
    where = shlex.quote(paths.state)
    try:
        room = os.statvfs(paths.state)
        free = room.f_bavail * room.f_frsize
        _write_nothing(paths.state)
    except OSError as error:
        text = f"nothing can be written in {paths.state}: {error.strerror}"
        remedies = {
            errno.EROFS: f"findmnt -T {where}    # mount it for writing",
            errno.EACCES: _as_owner(paths.state),
            errno.EDQUOT: "quota    # make room, or ask for more",
        }
        yield Finding("disk", BROKEN, text, remedies.get(error.errno or 0, f"df -h {where}    # make room"))
        return
    text = f"{free / 1024**2:,.0f} MiB free for the stores"
    yield (
        Finding("disk", OK, text)
        if free >= _SCARCE
        else Finding("disk", WARNING, text, f"df -h {where}    # make room")
    )


def _write_nothing(directory: str) -> None:
    """Write as much as a store needs, to a file without a name, which leaves nothing behind whatever happens."""
    try:
        probe = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        room = os.statvfs(directory)
        if error.errno not in _NO_TMPFILE:
            raise
        if room.f_bavail * room.f_frsize < _ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        return
    try:
        if os.write(probe, bytes(_ROOM)) < _ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(probe)
    finally:
        os.close(probe)


# --- The tick


def _clock(status: Status) -> Finding:
    last = status.last_tick
    if last is None or last <= status.now + LATE_SECONDS:
        return Finding("clock", OK, f"{local(status.now)} here")
    behind = last - status.now
    then = "the next tick counts on from now"
    text = f"it is {local(status.now)} here, {behind:,} s before the last tick, at {local(last)}: {then}"
    return Finding("clock", BROKEN, text, "timedatectl    # is the time right, and synchronized?")


def _triggers(status: Status, triggers: list[Trigger], paths: Paths) -> Iterator[Finding]:
    ours = [trigger for trigger in triggers if trigger.serves(paths)]
    is_run = any(trigger.runs for trigger in ours)
    for trigger in ours:
        if trigger.runs:
            yield Finding("trigger", OK, f"{trigger.what} runs the tick")
        else:
            # That no cron daemon is seen doesn't prove that there is none.
            ticks_come = trigger.manager == "crontab" and not status.is_late and status.last_tick is not None
            yield Finding("trigger", WARNING if is_run or ticks_come else BROKEN, trigger.off, trigger.mend)
        if trigger.failure and (status.is_late or not status.trouble):
            yield Finding(
                "trigger", WARNING, f"the last tick of {trigger.what} failed: {trigger.failure}", "bub-cron tick"
            )
    if ours:
        return  # who else runs ticks, for other places, has a reason
    # Something else may run them: another user's cron, or a container's.
    state = WARNING if status.last_tick is not None and not status.is_late else BROKEN
    for trigger in triggers:
        home = trigger.places.home
        text = f"{trigger.what} runs the tick for other places (BUB_HOME={home}) than these ({paths.home})"
        yield Finding(
            "trigger", state, text, f"BUB_HOME={shlex.quote(home)} bub-cron doctor    # or bub-cron install, for these"
        )
    if not triggers:
        yield Finding("trigger", state, "no timer and no crontab line of this user runs the tick", "bub-cron install")


def _tick(status: Status) -> Finding:
    if status.stores_error is not None:
        return Finding("tick", BROKEN, "when the last one ran can't be read", "fix the stores first, see above")
    if status.last_tick is None:
        return Finding("tick", BROKEN, "no tick has ever run here", "bub-cron tick    # and see the trigger, above")
    if status.is_late:
        text = f"no tick has run since {local(status.last_tick)}"
        return Finding("tick", BROKEN, text, "bub-cron tick    # says what is wrong, if it is the tick itself")
    if status.trouble:
        return Finding("tick", WARNING, f"the last one said: {status.trouble.splitlines()[0]}", "bub-cron tick")
    return Finding("tick", OK, f"the last one was at {local(status.last_tick)}")


def _linger(triggers: list[Trigger]) -> Iterator[Finding]:
    if any(trigger.manager == USER for trigger in triggers) and not _lingers():
        text = "your timer runs only while you are logged in"
        yield Finding("linger", WARNING, text, "loginctl enable-linger")


def _lingers() -> bool:
    name = pwd.getpwuid(os.geteuid()).pw_name
    return first_line("loginctl", "show-user", name, "--property=Linger", "--value") == "yes"


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
        remedy = f"{_as_owner(paths.socket)}, or give the gateway BUB_CRON_ALLOW_UIDS={os.geteuid()}"
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
        text = f"process {pong.get('pid')} listens; {pong.get('waiting')} wait and {pong.get('running')} run"
        if not status.why_not_ready:
            yield Finding("gateway", OK, text)
        elif status.is_starting:
            remedy = "bub-cron doctor    # again in a minute"
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
        yield Finding("gateway", BROKEN, error, "" if causes else "bub gateway")
        for cause in causes:
            yield Finding("gateway", BROKEN, cause.text, cause.remedy)


def _plugin(pong: dict[str, Any]) -> Finding:
    version, protocol = pong.get("version"), pong.get("protocol")
    if protocol != PROTOCOL or version != __version__:
        text = f"the gateway has bub-cron {version}, this is {__version__}"
        remedy = "upgrade both to the same version, then restart the gateway"
        return Finding("plugin", BROKEN if protocol != PROTOCOL else WARNING, text, remedy)
    return Finding("plugin", OK, f"bub-cron {version} on both sides, bub {pong.get('bub')}")


def _interpreters(triggers: list[Trigger], paths: Paths, pong: dict[str, Any]) -> Iterator[Finding]:
    theirs = str(pong.get("python", ""))
    for trigger in triggers:
        python = trigger.python
        if python is None or not trigger.serves(paths):
            continue
        done = output(*run_by(trigger.account, python, "-P", "-B", "-m", "bub_cron", "--version"))
        said = decoded(done.stdout).strip().rpartition(" ")[2]
        if done.returncode != 0:
            text = f"{trigger.what} runs {python}, which has no bub-cron that works"
            yield Finding("interpreter", BROKEN, text, "bub-cron install    # with the one in use now")
        elif said != pong.get("version"):
            text = f"{trigger.what} runs {python} with bub-cron {said}, the gateway has {pong.get('version')}"
            yield Finding("interpreter", BROKEN, text, "upgrade the older one, then run its `bub-cron install`")
        elif os.path.exists(theirs) and os.path.dirname(python) != os.path.dirname(theirs):
            text = f"{trigger.what} runs {python}, the gateway {theirs}: an upgrade of one leaves the other behind"
            yield Finding("interpreter", WARNING, text, f"{shlex.quote(theirs)} -m bub_cron install")


def _channels(reminders: list[Reminder], pong: dict[str, Any]) -> Iterator[Finding]:
    enabled = [str(name) for name in pong.get("channels", ())]
    wanted: dict[str, list[str]] = {}
    for reminder in reminders:
        targets = [reminder.to, *reminder.also] if reminder.reply == "chat" else []
        if reminder.alert not in (None, NONE):
            targets.append(reminder.alert or "")
        for channel in dict.fromkeys(split_to(target)[0] for target in targets if reminder.enabled):
            wanted.setdefault(channel, []).append(reminder.name)
    absent = [channel for channel in wanted if channel not in enabled]
    for channel in absent:
        text = f"the gateway has no channel {channel}, or hasn't enabled it: it is where {_names(wanted[channel])} should go"
        has = ", ".join(enabled) or "none"
        remedy = f"install its plugin, or add it to BUB_ENABLED_CHANNELS, and restart the gateway; enabled are: {has}"
        yield Finding("channels", BROKEN, text, remedy)
    commands = [reminder.name for reminder in reminders if reminder.enabled and reminder.kind == COMMAND]
    if commands and not pong.get("commands"):
        text = f"the gateway allows no commands, and {_names(commands)} should run one"
        yield Finding("channels", BROKEN, text, "give the gateway BUB_CRON_ALLOW_COMMANDS=true, and restart it")
    gates = [reminder.name for reminder in reminders if reminder.enabled and reminder.gate is not None]
    if gates and not pong.get("gates"):
        text = f"the gateway allows no gates, and {_names(gates)} should run one"
        yield Finding("channels", BROKEN, text, "give the gateway BUB_CRON_ALLOW_GATES=true, and restart it")
    for name, tools in pong.get("unknown_tools", {}).items():
        text = f"the gateway has no tool {', '.join(tools)}, which {name} may use"
        yield Finding("channels", WARNING, text, f"look at the tools of {name}, or install their plugin")
    if not absent and (pong.get("commands") or not commands) and (pong.get("gates") or not gates):
        yield Finding("channels", OK, ", ".join(wanted) or "no reminder names one")


# --- What became of the last ones


def _firings(paths: Paths, status: Status) -> Iterator[Finding]:
    if status.stores_error is not None:
        yield Finding("firings", BROKEN, status.stores_error, "fix the stores first, see above")
        return
    if status.stuck:
        yield Finding("firings", BROKEN, status.stuck, "bub-cron tick    # says why")
    for record in status.bad[:MOST]:
        yield Finding("firings", BROKEN, told(record), f"bub-cron log {record.reminder}")
    if len(status.bad) > MOST:
        yield Finding("firings", BROKEN, f"and {len(status.bad) - MOST:,} more reminders like that", "bub-cron status")
    for record in status.retrying[:MOST]:
        yield Finding(
            "firings",
            WARNING,
            f"{record.id} is to be tried again{because(record)}",
            f"bub-cron log --id {shlex.quote(record.id)}",
        )
    if status.bad or status.stuck or status.retrying:
        return
    newest = records.history(paths, until=status.now, most=1)
    text = (
        f"{newest[0].reminder or newest[0].id} at {local(newest[0].moment)}: {newest[0].outcome}"
        if newest
        else "none yet"
    )
    yield Finding("firings", OK, text)


# --- Words


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _names(names: list[str]) -> str:
    shown = ", ".join(names[:MOST])
    return f"{shown} and {len(names) - MOST:,} more" if len(names) > MOST else shown


def _as_owner(path: str) -> str:
    """Return what the one whose a path is, or root, can do that this user can't."""
    try:
        uid = os.stat(path).st_uid
    except OSError:  # in a directory that may not be looked into
        return "sudo bub-cron doctor"
    return (
        f"sudo -u '#{uid}' bub-cron doctor    # as {user_name(uid)}, whose it is"
        if uid != os.geteuid()
        else f"ls -l {path}"
    )
