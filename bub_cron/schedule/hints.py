"""What to write instead of a name that is unknown: a zone's, a weekday's, a month's.

Kept true here: a hint names only what is known here. Hints for zones take milliseconds, so they are kept: the same mistake
may stand in every reminder of a file.
"""

from difflib import get_close_matches
from functools import cache, lru_cache
from zoneinfo import available_timezones

from bub_cron.schedule.zones import MAX_NAME, NO_ZONES


def nearest_name(word: str, names: tuple[str, ...]) -> str:
    """Offer the short name that a longer or a mistyped word means (`monday`, `fryday`, `mno`); "" if none is near."""
    near = [name for name in names if word.startswith(name)] or get_close_matches(word[:3], names, n=1)
    return f"; did you mean {near[0]}?" if near else ""


@lru_cache(maxsize=64)
def nearest_zones(name: str) -> str:
    """Offer up to three names that are near, or an example."""
    if len(name) > MAX_NAME:
        near = []
    else:
        zones, wanted = _zones(), name.strip().lower().replace(" ", "_")
        same = [zone for zone in zones if wanted in (zone, zone.rpartition("/")[2])]
        near = [zones[zone] for zone in same[:3] or get_close_matches(wanted, zones, n=3)]
    if not near:
        return "write an IANA name such as Europe/Berlin"
    return f"did you mean {' or '.join(filter(None, [', '.join(near[:-1]), near[-1]]))}?"


@cache
def _zones() -> dict[str, str]:
    """All zones, by their names in lower case."""
    return {zone.lower(): zone for zone in sorted(available_timezones() - NO_ZONES)}
