"""The text of an `rrule` -> the schedule.

Invariants: only what RFC 5545 defines gets through to dateutil, which takes more, and reads some of it in a way of its own.
"""

import re
from datetime import datetime

from bub_cron.errors import ScheduleError
from bub_cron.schedule.rules import HORIZON, Rule

_MAX_TEXT = 1_000  # characters
_FREQUENCIES = ("DAILY", "WEEKLY", "MONTHLY", "YEARLY")
_WEEKDAY = re.compile(r"([+-]?[0-9]{1,2})?(MO|TU|WE|TH|FR|SA|SU)")
_UNTIL = re.compile(r"[0-9]{8}(T[0-9]{6}Z?)?")
# Of the parts that are lists of numbers: the least and the greatest, and whether they may count from the end.
_NUMBERS = {
    "BYMONTH": (1, 12, False), "BYMONTHDAY": (1, 31, True), "BYYEARDAY": (1, 366, True), "BYWEEKNO": (1, 53, True),
    "BYSETPOS": (1, 366, True), "BYHOUR": (0, 23, False), "BYMINUTE": (0, 59, False),
}  # fmt: skip
_COUNTS = {"INTERVAL": 10_000, "COUNT": 1_000_000}
_KNOWN = ("FREQ", *_COUNTS, "UNTIL", "BYDAY", *_NUMBERS, "WKST")
# RFC 5545, 3.3.10: what goes together with which FREQ.
_ONLY_WITH = {"BYWEEKNO": ("YEARLY",), "BYYEARDAY": ("YEARLY",), "BYMONTHDAY": ("DAILY", "MONTHLY", "YEARLY")}
_ELSEWHERE = {
    "DTSTART": "start:", "TZID": "timezone:", "EXDATE": "except:", "RDATE": "at:, in a reminder of its own",
    "BYSECOND": "whole minutes alone", "BYEASTER": "a calendar of a country",
}  # fmt: skip


def parse_rrule(text: str, start: str, zone: str) -> Rule:
    """Read a rule; `start` is as `parse_start` returns it. Raises ScheduleError, also for one that never fires."""
    canonical = _canonical(text)
    try:
        rule = Rule(canonical, start, zone)
        fires = next(rule.between(_before(rule), HORIZON), None) is not None
    except (ValueError, TypeError, OverflowError) as error:
        raise _fault(f"{text[:60]!r} can't be read: {error}") from error
    if not fires:
        raise _fault(f"it never fires from its start, {start.replace('T', ' ')}, on; choose another start or rule")
    return rule


def _before(rule: Rule) -> int:
    return rule.local - 2 * 86_400


def _canonical(text: str) -> str:
    """Return a rule's text in capitals and without blanks, or raise ScheduleError."""
    if len(text) > _MAX_TEXT:
        raise _fault(f"the text is longer than {_MAX_TEXT} characters")
    if "\n" in text.strip() or re.search(r"\b(DTSTART|EXDATE|RDATE)\b", text, re.IGNORECASE):
        raise _fault(
            "one rule alone is needed; what DTSTART says goes under start: and timezone:, EXDATE under except:"
        )
    plain = re.sub(r"\s", "", text).upper().removeprefix("RRULE:").rstrip(";")
    parts: dict[str, str] = {}
    for part in plain.split(";"):
        name, separator, value = part.partition("=")
        if not separator or not value:
            raise _fault(f"{part[:40]!r} can't be read; write it as FREQ=MONTHLY;BYDAY=MO")
        if name in parts:
            raise _fault(f"{name} stands in it twice; keep one")
        parts[name] = value
        _check_part(name, value)
    _check_together(parts)
    return ";".join(f"{name}={value}" for name, value in parts.items())


def _check_part(name: str, value: str) -> None:
    if name in _ELSEWHERE:
        raise _fault(f"{name} can't be part of it; write {_ELSEWHERE[name]}")
    if name not in _KNOWN:
        raise _fault(f"{name[:40]!r} is none of its parts: {', '.join(_KNOWN)}")
    if name == "FREQ" and value not in _FREQUENCIES:
        often = value in {"HOURLY", "MINUTELY", "SECONDLY"}
        why = "is not taken; write every: 2h or every: 30m" if often else f"is none of {', '.join(_FREQUENCIES)}"
        raise _fault(f"FREQ={value[:40]} {why}")
    elif name in _COUNTS and not (re.fullmatch("[1-9][0-9]{0,6}", value) and int(value) <= _COUNTS[name]):
        raise _fault(f"{name}={value[:40]} is not a number from 1 to {_COUNTS[name]:,}")
    elif name == "WKST" and not re.fullmatch("MO|TU|WE|TH|FR|SA|SU", value):
        raise _fault(f"WKST={value[:40]} is not one of MO, TU, WE, TH, FR, SA, SU")
    elif name == "UNTIL":
        _check_until(value)
    elif name == "BYDAY":
        _check_weekdays(value)
    elif name in _NUMBERS:
        _check_numbers(name, value)


def _check_weekdays(value: str) -> None:
    for day in value.split(","):
        found = _WEEKDAY.fullmatch(day)
        if found is None or (found[1] and not 1 <= abs(int(found[1])) <= 53):
            raise _fault(f"BYDAY={day[:40]} is not a weekday such as MO, 1MO or -1FR")


def _check_numbers(name: str, value: str) -> None:
    low, high, from_end = _NUMBERS[name]
    for number in value.split(","):
        if (
            not re.fullmatch(r"[+-]?[0-9]{1,3}", number)
            or not low <= (abs(int(number)) if from_end else int(number)) <= high
        ):
            end = f", or -{high} to -{low}" if from_end else ""
            raise _fault(f"{name}={number[:40]} is not a number from {low} to {high}{end}")


def _check_until(value: str) -> None:
    if not _UNTIL.fullmatch(value):
        raise _fault(f"UNTIL={value[:40]} can't be read; write it as 20261231, 20261231T180000 or 20261231T170000Z")
    try:
        datetime.strptime(value.removesuffix("Z"), "%Y%m%dT%H%M%S" if "T" in value else "%Y%m%d")
    except ValueError as error:
        raise _fault(f"UNTIL={value} does not exist") from error
    if not 1970 <= int(value[:4]) <= 9998:
        raise _fault(f"UNTIL={value} is out of range; write a year from 1970 to 9998")


def _check_together(parts: dict[str, str]) -> None:
    frequency = parts.get("FREQ")
    if frequency is None:
        raise _fault(f"FREQ is missing; write FREQ= and one of {', '.join(_FREQUENCIES)}")
    if "COUNT" in parts and "UNTIL" in parts:
        raise _fault("COUNT and UNTIL can't stand together; keep one")
    for name, allowed in _ONLY_WITH.items():
        if name in parts and frequency not in allowed:
            raise _fault(f"{name} goes only with FREQ={' or '.join(allowed)}")
    counted = any(day[0] in "+-0123456789" for day in parts.get("BYDAY", "MO").split(","))
    if counted and (frequency not in {"MONTHLY", "YEARLY"} or "BYWEEKNO" in parts):
        raise _fault("counted weekdays (1MO, -1FR) go only with FREQ=MONTHLY or YEARLY, without BYWEEKNO")
    if "BYSETPOS" in parts and not parts.keys() & {"BYDAY", *_NUMBERS} - {"BYSETPOS"}:
        raise _fault("BYSETPOS chooses among others; give it BYDAY, BYMONTHDAY or the like")


def _fault(message: str) -> ScheduleError:
    return ScheduleError(f"rrule: {message}")
