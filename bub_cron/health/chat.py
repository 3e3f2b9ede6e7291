"""Reminders made in chat, from the agent's tool to the tick: may it make them, can the gateway write them, and does the tick
that this user runs read what is written.

Invariants: looking changes nothing. A reminder that the agent would confirm and no tick would ever see is a broken link; one
that the agent can't make in the first place is none.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from bub_cron.errors import FileMissingError, FileUnreadableError, user_name
from bub_cron.health.finding import BROKEN, OK, WARNING, Finding
from bub_cron.paths import Paths, chat_file
from bub_cron.reminders import Reminder
from bub_cron.reminders.file import read_source

_LINK = "chat"
_OFF = "give the gateway BUB_CRON_CHAT=off, and restart it"


def chat_findings(
    paths: Paths, gateway: Mapping[str, Any] | None, reminders: list[Reminder] | None
) -> Iterator[Finding]:
    """Look at the way of a reminder that is made in chat.

    `gateway` is what one answers to a ping, if one does; `reminders` are those of the files, None if they can't be used.
    """
    ours = chat_file(paths.file)
    setting = None if gateway is None else gateway.get("chat")
    if setting == "off":
        yield Finding(_LINK, OK, "off: the agent has no tools that make reminders (BUB_CRON_CHAT)")
        return
    findings = [*_unwritten(gateway or {}, ours), *_elsewhere(gateway or {}, paths)]
    findings += _unread(paths, None if findings else gateway)
    yield from findings
    if not findings:
        may = {"prompt": "the agent may make reminders; ", "text": "the agent may make reminders with a text; "}
        count = "nothing made in chat can be read" if reminders is None else _count(reminders, ours)
        yield Finding(_LINK, OK, f"{may.get(str(setting), '')}{count}")


def _count(reminders: list[Reminder], ours: str) -> str:
    count = sum(reminder.file == ours for reminder in reminders)
    return f"{ours} has {count:,}" if count else "none has been made in chat yet"


def _unwritten(gateway: Mapping[str, Any], ours: str) -> Iterator[Finding]:
    if error := gateway.get("chat_error"):
        directory = os.path.dirname(str(gateway.get("chat_file", ours)))
        remedy = f"let the gateway write there (in a unit: ReadWritePaths={directory}), or {_OFF}"
        yield Finding(_LINK, WARNING, f"the agent can't make reminders: {error}", remedy)


def _elsewhere(gateway: Mapping[str, Any], paths: Paths) -> Iterator[Finding]:
    """Tell where the gateway writes to another place than the tick reads, as far as that can be seen from here."""
    ours, theirs = chat_file(paths.file), str(gateway.get("chat_file", ""))
    if not theirs or os.path.realpath(theirs) == os.path.realpath(ours):
        return
    text = f"the gateway writes reminders made in chat to {theirs}, and the tick reads {ours}"
    if os.path.isdir(os.path.dirname(os.path.dirname(theirs))):
        remedy = f"restart the gateway with BUB_CRON_FILE={shlex.quote(paths.file)}, or {_OFF}"
        yield Finding(_LINK, BROKEN, f"{text}: they never fire", remedy)
    else:  # a container's: it may be the same directory, under another name
        remedy = f"let both see one directory (docs/chat.md), or {_OFF}"
        yield Finding(_LINK, WARNING, f"{text}; from here it can't be seen whether that is the same file", remedy)


def _unread(paths: Paths, gateway: Mapping[str, Any] | None) -> Iterator[Finding]:
    """Tell where this user's tick can't read what was written, or what this gateway is going to write."""
    ours, me = chat_file(paths.file), os.geteuid()
    try:
        owner = os.stat(ours).st_uid
        read_source(ours)
    except FileUnreadableError as error:
        remedy = f"run the tick as {user_name(owner)}, or {_OFF}" if owner != me else f"chmod 600 {shlex.quote(ours)}"
        yield Finding(_LINK, BROKEN, str(error), remedy)
    except (FileMissingError, OSError):  # not there, as far as this user can see
        owner = _future_owner(paths, ours) if gateway is not None else me
        if me not in (0, owner):
            text = f"what the gateway writes to {ours} is {user_name(owner)}'s alone, and this is {user_name(me)}"
            remedy = f"run the tick as {user_name(owner)}, or {_OFF}"
            yield Finding(_LINK, BROKEN, f"{text}: it never fires", remedy)


def _future_owner(paths: Paths, ours: str) -> int:
    """Return whose the file is going to be: the gateway's user's, whose is the socket; of root's, the directory's owner's."""
    try:
        owner = os.stat(paths.socket).st_uid
        return owner or os.stat(os.path.dirname(ours)).st_uid
    except OSError:
        return 0  # the directory is going to be made by root
