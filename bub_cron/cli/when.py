"""What commands take as WHEN: an instant, a local date or date and time, a duration, `today` and the like.

Invariants: a date stands for its whole day, so that nothing of it is left out at either end.
"""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo

import click

from bub_cron.checkers import parse_duration

_DAYS = {"yesterday": -1, "today": 0, "tomorrow": 1}
_WRITE = "write it like 2026-12-01T07:30:00Z, 2026-12-01, 2h or tomorrow"


def begin_of(text: str, now: int, *, ahead: bool, zone: tzinfo | None = None) -> int:
    """Return the last instant before WHEN, for an interval that begins after it; a duration is `ahead` of now, or ago.

    A local time is one of `zone`: None is the machine's.
    """
    day = _day(text, now, zone)
    return _instant(text, now, ahead=ahead, zone=zone) if day is None else int(day.timestamp()) - 1


def start_of(text: str, now: int, *, ahead: bool, zone: tzinfo | None = None) -> int:
    """Return the first instant of WHEN; a duration is `ahead` of now, or ago."""
    day = _day(text, now, zone)
    return _instant(text, now, ahead=ahead, zone=zone) if day is None else int(day.timestamp())


def end_of(text: str, now: int, *, ahead: bool, zone: tzinfo | None = None) -> int:
    """Return the last instant of WHEN, for an interval that ends with it; a duration is `ahead` of now, or ago."""
    day = _day(text, now, zone)
    if day is None:
        return _instant(text, now, ahead=ahead, zone=zone)
    return int((day + timedelta(days=1)).timestamp()) - 1


def _day(text: str, now: int, zone: tzinfo | None = None) -> datetime | None:
    """Return the local midnight with which a day begins, None if WHEN is no day."""
    word = text.strip().lower()
    if word in _DAYS:
        today = datetime.fromtimestamp(now, zone).replace(hour=0, minute=0, second=0, microsecond=0)
        return today + timedelta(days=_DAYS[word])
    if len(word) != len("2026-12-01"):
        return None
    try:
        day = datetime.fromisoformat(word).replace(tzinfo=zone)
        day.timestamp()
    except (ValueError, OverflowError):
        return None
    return day


def _instant(text: str, now: int, *, ahead: bool, zone: tzinfo | None = None) -> int:
    try:
        moment = datetime.fromisoformat(text.strip())
        return int((moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp() // 1)
    except (ValueError, OverflowError):
        pass
    try:
        seconds = parse_duration(text.strip())
    except ValueError as error:
        raise click.UsageError(f"{text!r} is not an instant; {_WRITE}") from error
    return now + seconds if ahead else now - seconds
