"""Who is told that a reminder doesn't work, or works again, and in which words; and the address of a ping. Pure.

Invariants: a sentence is for its reader: what, which fire time, the cause in plain words, the command to look with. Nothing
in it looks like a secret.
"""

from __future__ import annotations

import re
from datetime import datetime
from urllib.parse import urlsplit, urlunsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from bub_cron.checkers import NONE
from bub_cron.errors import one_line
from bub_cron.rare_fields import split_budget
from bub_cron.states import BAD, FAILED, GOOD, MISSED, REASONS, REJECTED, SKIPPED, UNDELIVERED, UNKNOWN
from bub_cron.wire import Request, parse_instant

_HAPPENED = {
    FAILED: "failed",
    UNDELIVERED: "could not be delivered",
    UNKNOWN: "may not have arrived",
    MISSED: "was missed",
    REJECTED: "was rejected by the gateway",
}
_MOST_CAUSE = 200
# What providers write into their errors: keys, tokens, addresses with a password or a query.
_SECRETS = (
    (re.compile(r"(?i)\b(cookie['\"]?\s*[=:]\s*).+"), r"\1[...]"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{6,}"), r"\1 [...]"),
    (
        re.compile(r"(?i)\b(authorization['\"]?\s*[=:]\s*['\"]?(?!(?:bearer|basic) \[)(?:[a-z]+\s+(?=\S*\d))?)\S+"),
        r"\1[...]",
    ),
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]{1,20}://)[^\s'\"<>]+"), r"\1[...]"),
    (
        re.compile(  # api_key=..., "access_token": "...", OPENAI_API_KEY=..., SecretAccessKey: ...
            r"(?i)((?:api|access|private)[_ -]?key|token|passwo?r?d|pwd|secret)(['\"]?\s*[=:]\s*|\s+provided:\s*)\S+"
        ),
        r"\1\2[...]",
    ),
    (re.compile(r"\b[A-Za-z]{1,8}[-_][\w*-]{12,}"), "[...]"),  # sk-..., ghp_..., xoxb-...
    (re.compile(r"(?=[\w*-]*\d)(?=[\w*-]*[A-Za-z])[\w*-]{20,}"), "[...]"),
    (re.compile(r"(?<![\w+/=.-])(?=[\w+/=]*\d)(?=[\w+/=]*[a-z])(?=[\w+/=]*[A-Z])[\w+/=]{36,}"), "[...]"),  # base64
    (re.compile(r"\b\d{6,}:[\w-]{20,}"), "[...]"),  # a Telegram bot's token
)


def target(request: Request, outcome: str) -> tuple[str, str] | None:
    """Return (kind of message, who) for a reminder's firing that ended so; None where nobody is to be told."""
    if request.reminder is None or request.alert == NONE or outcome not in BAD:
        return None
    if request.alert is not None:
        return "alert", request.alert
    return ("notice", request.to) if outcome == FAILED else None


def sentence(request: Request, outcome: str, reason: str | None, error: str | None) -> str:
    """Return what is told of a firing that ended badly."""
    when = due(request)
    cause = without_secrets(error or REASONS.get(reason or "", "") or "")
    because = f": {cause.rstrip('.')}" if cause else ""
    name = f"{request.reminder}, due {when}," if when else request.reminder
    return f"The reminder {name} {_HAPPENED[outcome]}{because}. To look: bub-cron log --id {request.id}"


def due(request: Request) -> str:
    """Return the fire time for its reader, such as "Tue 2026-12-01 21:00 Europe/Berlin"; a label as it is, "" without one."""
    try:
        instant, zone = local_fire_time(request)
    except ValueError:
        return request.fire_time or ""
    return f"{instant:%a %Y-%m-%d %H:%M} {zone}"


def local_fire_time(request: Request) -> tuple[datetime, str]:
    """Return the fire time on the clock that the reader has, and the name of that clock's zone; ValueError for a label.

    The clock is that of the reminder's zone, else of the machine's.
    """
    instant = datetime.fromtimestamp(parse_instant(request.fire_time or "")).astimezone()
    if request.timezone is not None:
        try:
            return instant.astimezone(ZoneInfo(request.timezone)), request.timezone
        except (ZoneInfoNotFoundError, ValueError, OSError):
            pass  # a zone that this machine doesn't know
    return instant, f"{instant:%Z}"


def notice(request: Request, error: str | None) -> str:
    """Return what a reminder's own chat is told when it fails and no `alert` is set."""
    return f"The reminder {request.reminder} failed: {without_secrets(error or '').rstrip('.')}."


def used_up(request: Request, error: str | None) -> str:
    """Return what is told once in a period whose budget is used up."""
    _, period = split_budget(request.budget or "")
    return f"The reminder {request.reminder} is skipped until the next {period}: {error}."


def works_again(request: Request) -> str:
    """Return what is told once a reminder works again."""
    return f"The reminder {request.reminder} works again."


def ping_address(ping: str, outcome: str) -> str:
    """Return the address for an outcome: that of a success, `/fail`, or `/log` for what is neither.

    By healthchecks' protocol (https://healthchecks.io/docs/http_api/).
    """
    if outcome in GOOD or outcome == SKIPPED:
        return ping
    parts = urlsplit(ping)
    path = parts.path.rstrip("/") + ("/log" if outcome == UNKNOWN else "/fail")
    return urlunsplit(parts._replace(path=path))


def without_secrets(text: str) -> str:
    """Return an error as one short line in which nothing looks like a key, a token or an address with one."""
    line = one_line(text, 4 * _MOST_CAUSE)
    for pattern, instead in _SECRETS:
        line = pattern.sub(instead, line)
    return line if len(line) <= _MOST_CAUSE else line[: _MOST_CAUSE - 3] + "..."
