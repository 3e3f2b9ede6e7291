"""What to write instead of a name that is unknown: a zone's, a weekday's, a month's.

Invariants:
- A hint names only what is known here.
- Names of places are guessed from their spelling. Offsets, abbreviations and Windows' names never are: the nearest
  spelling may be hours away. For those a known mapping is offered, or only what is wanted.

Hints for zones take milliseconds, so they are kept: the same mistake may stand in every reminder of a file.
"""

import re
from difflib import get_close_matches
from functools import cache, lru_cache
from zoneinfo import available_timezones

_MAX_GUESSED = 64  # characters: no zone's name is longer
_NO_PLACES = ("Etc/", "GMT", "UTC", "UCT", "SystemV/")  # a place is never meant by these
_OFFSET = re.compile(r"(?:UTC|GMT|Z)? ?([+-])([0-9]{1,2})(?::?([0-9]{2}))?", re.IGNORECASE)
_ABBREVIATION = re.compile("[A-Z]{1,5}|[a-z]{1,3}t")  # AEST, PST, cest
_CITY = "write the name of a city there, such as Europe/Berlin"
_WANTED = "write an IANA name such as Europe/Berlin"


def nearest_name(word: str, names: tuple[str, ...]) -> str:
    """Offer the short name that a longer or a mistyped word means (`monday`, `fryday`, `mno`); "" if none is near."""
    near = [name for name in names if word.startswith(name)] or get_close_matches(word[:3], names, n=1)
    return f"; did you mean {near[0]}?" if near else ""


@lru_cache(maxsize=64)
def zone_hint(name: str, no_zones: frozenset[str]) -> str:
    """Say what to write instead of `name`, which is no zone's. `no_zones` are names that are never offered."""
    if len(name) > _MAX_GUESSED:
        return _WANTED
    written = name.strip()
    if written.upper() in {"Z", "ZULU TIME"}:
        return "did you mean UTC?"
    zones, wanted = _zones(no_zones), written.lower().replace(" ", "_")
    if offset := _OFFSET.fullmatch(written):
        return _offset_hint(zones, *offset.groups())
    if same := [zone for zone in zones if wanted in (zone, zone.rpartition("/")[2])]:
        return _did_you_mean([zones[zone] for zone in same[:3]])
    if re.search(r"\b(standard|daylight|summer) time$", written, re.IGNORECASE):
        known = _of_windows().get(written.lower())
        return f"that is Windows' name for {known}" if known else f"Windows' names are not taken; {_CITY}"
    if _ABBREVIATION.fullmatch(written):
        return f"abbreviations are not taken, for several zones may share one; {_CITY}"
    places = {zone: zones[zone] for zone in zones if "/" in zone and not zones[zone].startswith(_NO_PLACES)}
    near = get_close_matches(wanted, places, n=3)
    return _did_you_mean([zones[zone] for zone in near]) if near else _WANTED


def _did_you_mean(zones: list[str]) -> str:
    return f"did you mean {' or '.join(filter(None, [', '.join(zones[:-1]), zones[-1]]))}?"


def _offset_hint(zones: dict[str, str], sign: str, hours: str, minutes: str | None) -> str:
    """The names below Etc/ have the sign of POSIX: Etc/GMT-8 is 8 hours ahead of UTC."""
    count = int(hours)
    if count == 0 and not int(minutes or 0):
        return "did you mean UTC?"
    fixed = f"Etc/GMT{'-' if sign == '+' else '+'}{count}"
    if int(minutes or 0) or fixed.lower() not in zones:
        return f"no zone is named by that offset; {_CITY}"
    side = "ahead of" if sign == "+" else "behind"
    return (
        f"{_CITY}, for its zone follows the changes of its clock; {fixed} is {count} hour{'s' * (count > 1)} {side}"
        " UTC all year (the signs of these names are inverted)"
    )


@cache
def _zones(no_zones: frozenset[str]) -> dict[str, str]:
    """All zones, by their names in lower case."""
    return {zone.lower(): zone for zone in sorted(available_timezones() - no_zones)}


@cache
def _of_windows() -> dict[str, str]:
    """Windows' zones, by their names in lower case: CLDR's table, as icalendar has it."""
    from icalendar.timezone.windows_to_olson import WINDOWS_TO_OLSON

    return {windows.lower(): zone for windows, zone in WINDOWS_TO_OLSON.items()}
