"""Requests into rows of the inbox, many at once: what is new, what is known, what comes too late.

Kept true here: each request is judged alone, as if it had come by itself, in the order in which they came; an id is there
once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bub_cron.errors import BubCronError
from bub_cron.gateway.firing import COLUMNS, OPEN, WITHOUT_REPLY, Firing, firing_of
from bub_cron.states import ACCEPTED, FINAL, MISSED
from bub_cron.wire import TEXT, Request, parse_instant

_MOST_IDS = 500  # in one statement


class DifferentContentError(BubCronError):
    """An id that the inbox has already, with other content; the firing there is untouched."""


class FullError(BubCronError):
    """The inbox holds as many firings without a last word as it may."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of a request: the firing as it stands, and whether it is new; or the `error` that says why not.

    The error is a `DifferentContentError` for a known id with other content, a `FullError` where there is no room.
    """

    firing: Firing | None = None
    new: bool = False
    error: Exception | None = None


def accept(
    connection: sqlite3.Connection, requests: Sequence[Request], contents: list[str], now: float, room: int
) -> list[Accepted]:
    """Take requests in, with their canonical contents and room for so many; return for each what became of it."""
    known = rows_of(connection, [request.id for request in requests], WITHOUT_REPLY)
    # Those that have their last word come without their replies: thousands may be asked for at once.
    known |= rows_of(connection, [firing for firing, row in known.items() if row[8] not in FINAL])
    busy = _started(connection) if any(map(_minds_overlap, requests)) else {}
    done: list[Accepted] = []
    rows: list[tuple[Any, ...]] = []
    fresh: dict[str, tuple[str, Firing]] = {}  # of this very call: id -> (content, firing)
    for request, content in zip(requests, contents, strict=True):
        row = known.get(request.id)
        there = fresh.get(request.id)
        if row is not None or there is not None:
            done.append(_again(request, content, row, there))
        elif len(rows) >= room:
            done.append(
                Accepted(error=FullError("the inbox is full of firings that wait or run: submit it again later"))
            )
        else:
            missed = _why_missed(request, busy, now)
            firing = _new_firing(request, missed, now)
            fresh[request.id] = (content, firing)
            rows.append((
                request.id, request.reminder, request.fire_time, request.to, request.session, request.kind, content,
                request.expires, firing.state, firing.reply, missed, now, firing.finished_at,
            ))  # fmt: skip
            done.append(Accepted(firing, new=True))
    connection.executemany(
        "INSERT INTO firings (id, reminder, fire_time, target, session, kind, content, expires, state, reply, error,"
        " accepted_at, finished_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        rows,
    )
    return done


def _new_firing(request: Request, missed: str | None, now: float) -> Firing:
    """Return the firing that a request's new row is, as `firing_of` would read it."""
    return Firing(
        id=request.id, reminder=request.reminder, fire_time=request.fire_time, to=request.to, session=request.session,
        kind=request.kind, body=request.body, expires=request.expires, attempts_allowed=request.attempts,
        timeout=float(request.timeout), reply_mode=request.reply, quiet=request.quiet, model=request.model,
        context=request.context, state=MISSED if missed else ACCEPTED, attempts=0, sends=0, sending=False,
        reply=request.body if request.kind == TEXT else None, error=missed, not_before=None, accepted_at=now,
        started_at=None, finished_at=now if missed else None,
    )  # fmt: skip


def _again(request: Request, content: str, row: tuple[Any, ...] | None, there: tuple[str, Firing] | None) -> Accepted:
    """Return what becomes of a request whose id is known: by its row, or by an earlier request of the same call."""
    before = row[6] if row is not None else there[0] if there is not None else ""
    if before != content:
        text = f"the id {request.id} is known already, with other content; the firing is untouched"
        return Accepted(error=DifferentContentError(text))
    if there is not None:
        return Accepted(there[1])
    try:
        return Accepted(firing_of(row or ()))
    except (ValueError, KeyError, TypeError) as error:  # the row was damaged: the others are not to suffer from it
        return Accepted(error=error)


def _minds_overlap(request: Request) -> bool:
    return request.reminder is not None and request.overlap == "skip"


def _why_missed(request: Request, busy: dict[str, list[tuple[float, str]]], now: float) -> str | None:
    if now > request.expires:
        return "too late to start when it was submitted"
    if request.reminder not in busy or not _minds_overlap(request):
        return None
    instant = _fire_instant(request, now)
    return next((f"{firing} still ran" for started, firing in busy[request.reminder] if started <= instant), None)


def _started(connection: sqlite3.Connection) -> dict[str, list[tuple[float, str]]]:
    """Return, by reminder, (started_at, id) of the firings that have started and have no last word."""
    found: dict[str, list[tuple[float, str]]] = {}
    query = (
        f"SELECT reminder, started_at, id FROM firings WHERE state IN {OPEN} AND started_at IS NOT NULL ORDER BY seq"  # noqa: S608
    )
    for reminder, started_at, firing in connection.execute(query):
        if reminder is not None:
            found.setdefault(reminder, []).append((started_at, firing))
    return found


def rows_of(connection: sqlite3.Connection, ids: Sequence[str], columns: str = COLUMNS) -> dict[str, tuple[Any, ...]]:
    found: dict[str, tuple[Any, ...]] = {}
    for start in range(0, len(ids), _MOST_IDS):
        some = ids[start : start + _MOST_IDS]
        marks = ", ".join("?" * len(some))
        query = f"SELECT {columns} FROM firings WHERE id IN ({marks})"  # noqa: S608
        found |= {row[0]: row for row in connection.execute(query, some)}
    return found


def _fire_instant(request: Request, now: float) -> float:
    """Return the instant at which overlap is judged: the fire time where the label is one, else now."""
    try:
        return parse_instant(request.fire_time) if request.fire_time else now
    except ValueError:
        return now
