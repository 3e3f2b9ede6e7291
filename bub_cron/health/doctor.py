"""The whole chain from the file to the chat, link by link; for each broken one what is wrong and what mends it.

Kept true here: looking changes nothing; a link that can't be looked at says so, and hides none of the others; every
broken link has a remedy that can be typed or done.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bub_cron import __version__, records
from bub_cron.errors import BubCronError, FileFaultsError, FileMissingError, GatewayAbsentError, ScheduleError
from bub_cron.health.status import LATE_SECONDS, Status, look
from bub_cron.health.triggers import Trigger, find_triggers, processes
from bub_cron.paths import Paths, find_paths
from bub_cron.programs import decoded, first_line, output
from bub_cron.reminders import Reminder, load, suspicions
from bub_cron.schedule import machine_zone
from bub_cron.trigger import units
from bub_cron.trigger.client import ask
from bub_cron.wire import COMMAND, PONG, PROTOCOL, iso, split_to

OK, WARNING, BROKEN = "ok", "warning", "broken"
_ROOM = 64 * 1024  # bytes that a store needs room for
_SCARCE = 20 * 1024 * 1024
_PROBE_SECONDS_BACK = 3 * 3600


@dataclass(slots=True)
class Finding:
    """One link and how it stands; `remedy` is a command, or what to do, for one that isn't ok."""

    link: str
    state: str
    text: str
    remedy: str = ""


def examine(paths: Paths, now: int) -> Iterator[Finding]:
    """Look at every link, in the order in which a firing passes them."""
    reminders: list[Reminder] = []
    yield from _file(paths, now, reminders)
    yield _zone()
    yield from _stores(paths)
    yield from _disk(paths)
    status = look(paths, now)
    yield _clock(status)
    triggers = find_triggers()
    yield from _tick(status, triggers, paths)
    pong: dict[str, Any] = {}
    yield from _socket(paths)
    yield from _gateway(paths, pong)
    if pong:
        yield _plugin(pong)
        yield from _interpreters(triggers, paths, pong)
        yield from _channels(reminders, pong)
    yield _last_firing(paths, status)


# --- The file and its zones


def _file(paths: Paths, now: int, reminders: list[Reminder]) -> Iterator[Finding]:
    try:
        reminders += load(paths.file)
    except FileMissingError as error:
        yield Finding("file", BROKEN, str(error), "bub-cron init")
    except FileFaultsError as error:
        count = len(error.faults)
        text = f"{paths.file} has {count} fault{'' if count == 1 else 's'}; the last good one stays in force"
        yield Finding("file", BROKEN, text, "bub-cron check    # shows each, with its line")
    except BubCronError as error:
        yield Finding("file", BROKEN, str(error), f"ls -l {paths.file}    # this user has to be able to read it")
    else:
        count = len(reminders)
        yield Finding("file", OK, f"{paths.file}, {count} reminder{'' if count == 1 else 's'}")
        for notice in suspicions(reminders, now):
            text = f"line {notice.line}: {notice.message}"
            yield Finding("file", WARNING, text, "bub-cron check")


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
        yield Finding("stores", WARNING, f"there is no {paths.state} yet: the first tick makes it", "bub-cron tick")
        return
    except OSError as error:
        yield Finding("stores", BROKEN, f"{paths.state}: {error.strerror}", "run it as the user whose directory it is")
        return
    if found.st_uid not in (os.geteuid(), 0) and os.geteuid() != 0:
        remedy = f"run it as user {found.st_uid}, or set BUB_CRON_STATE to a directory of your own"
        yield Finding("stores", BROKEN, f"{paths.state} is another user's", remedy)
    elif stat.S_IMODE(found.st_mode) & 0o022:
        text = f"{paths.state} may be written by others (mode {stat.S_IMODE(found.st_mode):04o})"
        yield Finding("stores", BROKEN, text, f"chmod 700 {paths.state}")
    for path in (paths.ledger, paths.inbox):
        yield _store(path)


def _store(path: str) -> Finding:
    name = os.path.basename(path)
    if not os.path.exists(path):
        who = "a tick" if name == "ledger.db" else "a gateway"
        return Finding("stores", OK, f"{name}: none yet, {who} makes it")
    try:
        records.check(path)
    except BubCronError as error:
        remedy = "bub-cron tick    # puts it aside, and keeps what can be read"
        return Finding("stores", BROKEN, str(error), remedy if name == "ledger.db" else "restart the gateway")
    return Finding("stores", OK, f"{name}, {os.path.getsize(path) / 1024:,.0f} KiB")


def _disk(paths: Paths) -> Iterator[Finding]:
    if not os.path.isdir(paths.state):
        return
    try:
        room = os.statvfs(paths.state)
        # Without a name: it leaves nothing behind, whatever happens.
        probe = os.open(paths.state, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            os.write(probe, bytes(_ROOM))
            os.fsync(probe)
        finally:
            os.close(probe)
    except OSError as error:
        text = f"the disk of {paths.state} can't be written: {error.strerror}"
        yield Finding("disk", BROKEN, text, f"df -h {paths.state}    # make room, or mount it for writing")
        return
    free = room.f_bavail * room.f_frsize
    text = f"{free / 1024**2:,.0f} MiB free for the stores"
    if free < _SCARCE:
        yield Finding("disk", WARNING, text, f"df -h {paths.state}    # make room")
    else:
        yield Finding("disk", OK, text)


# --- The tick


def _clock(status: Status) -> Finding:
    last = status.last_tick
    if last is None or last <= status.now + LATE_SECONDS:
        return Finding("clock", OK, iso(status.now))
    behind = last - status.now
    then = (
        "the next tick counts on from now" if behind > _PROBE_SECONDS_BACK else "nothing fires until it has caught up"
    )
    text = f"the clock is {behind:,} s behind the last tick, which was at {iso(last)}: {then}"
    return Finding("clock", BROKEN, text, "timedatectl    # is the time right, and synchronized?")


def _tick(status: Status, triggers: list[Trigger], paths: Paths) -> Iterator[Finding]:
    ours = [trigger for trigger in triggers if trigger.serves(paths)]
    for trigger in ours:
        state = OK if trigger.runs else BROKEN
        yield Finding("trigger", state, f"{trigger.what} {'runs the tick' if trigger.runs else 'is off'}", trigger.mend)
        if trigger.failure:
            yield Finding("trigger", WARNING, f"its last tick said: {trigger.failure}", "bub-cron tick")
    for trigger in triggers:
        if trigger not in ours:
            home = trigger.environment.get("BUB_HOME", "~/.bub")
            text = f"{trigger.what} runs the tick for other places (BUB_HOME={home}) than this ({paths.home})"
            remedy = f"bub-cron install    # or BUB_HOME={home} bub-cron doctor"
            yield Finding("trigger", WARNING if ours else BROKEN, text, remedy)
    if not triggers:
        state = WARNING if status.last_tick is not None and not status.is_late else BROKEN
        yield Finding("trigger", state, "no timer and no crontab line of this user runs the tick", "bub-cron install")
    yield _ticked(status)
    if any(trigger.manager == units.USER for trigger in ours) and not _lingers():
        text = "your timer runs only while you are logged in"
        yield Finding("linger", WARNING, text, "loginctl enable-linger")


def _ticked(status: Status) -> Finding:
    if status.last_tick is None:
        return Finding("tick", BROKEN, "no tick has ever run here", "bub-cron tick; bub-cron install")
    if status.is_late:
        text = f"no tick has run since {iso(status.last_tick)}"
        return Finding("tick", BROKEN, text, "bub-cron tick    # says what is wrong, if it is the tick itself")
    if status.trouble:
        return Finding("tick", WARNING, f"the last one said: {status.trouble.splitlines()[0]}", "bub-cron tick")
    return Finding("tick", OK, f"the last one was at {iso(status.last_tick)}")


def _lingers() -> bool:
    name = first_line("id", "-un")
    return first_line("loginctl", "show-user", name, "--property=Linger", "--value") == "yes"


# --- The gateway


def _socket(paths: Paths) -> Iterator[Finding]:
    try:
        found = os.lstat(paths.socket)
        directory = os.stat(os.path.dirname(paths.socket))
    except OSError:
        return  # that it can't be reached is the next link's word
    if not stat.S_ISSOCK(found.st_mode):
        text = f"{paths.socket} is there and is no socket"
        yield Finding("socket", BROKEN, text, f"mv {paths.socket} {paths.socket}.old    # then restart the gateway")
    elif found.st_uid != os.geteuid() and os.geteuid() != 0:
        text = f"{paths.socket} is user {found.st_uid}'s, and this is user {os.geteuid()}"
        remedy = f"run as that user, or set BUB_CRON_ALLOW_UIDS={os.geteuid()} for the gateway"
        yield Finding("socket", WARNING, text, remedy)
    elif directory.st_mode & 0o022 and not directory.st_mode & stat.S_ISVTX:
        text = f"others may replace the socket: {os.path.dirname(paths.socket)} may be written by them"
        yield Finding("socket", BROKEN, text, f"chmod 700 {os.path.dirname(paths.socket)}")
    else:
        yield Finding("socket", OK, paths.socket)


def _gateway(paths: Paths, pong: dict[str, Any]) -> Iterator[Finding]:
    """Ask the gateway, and leave its answer in `pong` if it is one."""
    try:
        answer = ask(paths.socket, {"ping": True})
    except GatewayAbsentError as error:
        others = _gateway_processes()
        yield Finding("gateway", BROKEN, str(error).splitlines()[0], "bub gateway" if not others else "see below")
        for process in others:
            yield _why_absent(process, paths)
        return
    if answer.get("status") != PONG:
        text = f"the gateway at {paths.socket} refuses this user: {answer.get('error')}"
        yield Finding(
            "gateway", BROKEN, text, f"set BUB_CRON_ALLOW_UIDS={os.geteuid()} for the gateway, and restart it"
        )
        return
    pong.update(answer)
    text = f"process {answer.get('pid')} listens since {answer.get('since')}"
    yield Finding("gateway", OK, f"{text}; {answer.get('waiting')} wait and {answer.get('running')} run")


def _gateway_processes() -> list[int]:
    found = []
    for process, line in processes("cmdline"):
        words = line.split("\0")
        if any(os.path.basename(word) == "bub" and "gateway" in words[place:] for place, word in enumerate(words)):
            found.append(process)
    return found


def _why_absent(process: int, paths: Paths) -> Finding:
    """Return why a `bub gateway` that runs does not listen here, as far as this user may look."""
    what = f"process {process} is a `bub gateway` that does not listen here"
    environment = dict(entry.partition("=")[::2] for entry in _content(process, "environ").split("\0") if "=" in entry)
    if not environment:
        return Finding("gateway", BROKEN, f"{what}; it is another user's", f"ps -p {process} -o user,args")
    theirs = find_paths(environment)
    if theirs.socket != paths.socket:
        text = f"{what}, but at {theirs.socket}: it has another BUB_HOME, or BUB_CRON_SOCKET"
        return Finding("gateway", BROKEN, text, f"restart it with BUB_CRON_SOCKET={paths.socket}, or look with its own")
    python = _content(process, "cmdline").split("\0")[0]
    if not _has_plugin(python, environment):
        text = f"{what}: its Python, {python}, has no bub-cron"
        return Finding("gateway", BROKEN, text, f"{python} -m pip install bub-cron    # then restart the gateway")
    text = f"{what}; its log says why, at cron.off or cron.waiting, unless it excludes !cron from its channels"
    return Finding("gateway", BROKEN, text, "journalctl --user -u bub-gateway    # or where its log is")


def _content(process: int, what: str) -> str:
    try:
        with open(f"/proc/{process}/{what}", "rb") as file:
            return os.fsdecode(file.read())
    except OSError:  # another user's, or gone
        return ""


def _has_plugin(python: str, environment: dict[str, str]) -> bool:
    """Ask the gateway's interpreter; only this user's own processes get that far, so nobody else's program is run."""
    code = "import sys; from importlib.metadata import entry_points as e; sys.exit(not any(p.value.startswith('bub_cron.') for p in e(group='bub')))"
    path = environment.get("PYTHONPATH", "")
    return output("env", f"PYTHONPATH={path}", python, "-c", code).returncode == 0


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
        done = output(python, "-P", "-m", "bub_cron", "--version")
        said = decoded(done.stdout).strip().rpartition(" ")[2]
        if done.returncode != 0:
            text = f"{trigger.what} runs {python}, which has no bub-cron that works"
            yield Finding("interpreter", BROKEN, text, "bub-cron install    # with the one in use now")
        elif said != pong.get("version"):
            text = f"{trigger.what} runs {python} with bub-cron {said}, the gateway has {pong.get('version')}"
            yield Finding("interpreter", BROKEN, text, "upgrade the older one, then `bub-cron install`")
        elif os.path.exists(theirs) and os.path.dirname(python) != os.path.dirname(theirs):
            text = f"{trigger.what} runs {python}, the gateway {theirs}: an upgrade of one leaves the other behind"
            yield Finding("interpreter", WARNING, text, "run `bub-cron install` of the gateway's environment")


def _channels(reminders: list[Reminder], pong: dict[str, Any]) -> Iterator[Finding]:
    enabled = [str(name) for name in pong.get("channels", ())]
    wanted: dict[str, list[str]] = {}
    for reminder in reminders:
        if reminder.enabled and reminder.reply == "chat":
            wanted.setdefault(split_to(reminder.to)[0], []).append(reminder.name)
    for channel, names in wanted.items():
        if channel not in enabled:
            text = f"{', '.join(names)} goes to {channel}, which the gateway doesn't have or hasn't enabled"
            remedy = (
                f"install its plugin, or add it to BUB_ENABLED_CHANNELS; enabled are {', '.join(enabled) or 'none'}"
            )
            yield Finding("channels", BROKEN, text, remedy)
    commands = [reminder.name for reminder in reminders if reminder.enabled and reminder.kind == COMMAND]
    if commands and not pong.get("commands"):
        text = f"{', '.join(commands)} runs a command, which the gateway doesn't allow"
        yield Finding("channels", BROKEN, text, "set BUB_CRON_ALLOW_COMMANDS=true for the gateway, and restart it")
    if all(channel in enabled for channel in wanted):
        yield Finding("channels", OK, ", ".join(wanted) or "no reminder names one")


# --- What became of the last one


def _last_firing(paths: Paths, status: Status) -> Finding:
    try:
        newest = records.history(paths, until=status.now, most=1)
    except BubCronError as error:
        return Finding("last firing", BROKEN, str(error), "see the stores above")
    if not newest:
        return Finding("last firing", OK, "none yet")
    record = newest[0]
    text = f"{record.reminder or record.id}, at {iso(record.moment)}: {record.outcome}"
    if record.is_bad:
        why = f" ({record.error.splitlines()[0]})" if record.error else ""
        remedy = f"bub-cron log {record.reminder or ''}".strip()
        return Finding("last firing", BROKEN, f"{text}{why}", remedy)
    return Finding("last firing", OK, text)
