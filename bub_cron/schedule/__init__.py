"""A schedule and a zone -> fire times. Pure: no clock is read and nothing is stored.

Invariants: a schedule's fire times are one fixed set of instants, whatever interval is asked for, so those in (a, c]
are those in (a, b] and (b, c]. Instants are whole seconds since the Unix epoch.

A tick decodes what its store holds and walks: that takes `kinds` and `zones`, which load nothing heavy. What reads users'
texts or writes for people is loaded when it is first asked for.
"""

from bub_cron.schedule.kinds import (
    Schedule,
    count_fire_times,
    decode,
    encode,
    fire_times,
    latest_fire_times,
    next_fire_time,
    parse_every,
)
from bub_cron.schedule.zones import require_zone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bub_cron.schedule.calendars import Calendar
    from bub_cron.schedule.crons import parse_cron
    from bub_cron.schedule.dates import parse_at, parse_day, parse_pause_until, parse_start, parse_until
    from bub_cron.schedule.doubts import cron_doubts, zone_doubt
    from bub_cron.schedule.limits import MAX_TIMES, calendars_of, left_out, limit, sources_of, unlimited
    from bub_cron.schedule.machine import machine_zone
    from bub_cron.schedule.phrases import describe
    from bub_cron.schedule.rule_texts import parse_rrule
    from bub_cron.schedule.rules import parse_every_from
    from bub_cron.schedule.sources import country_source, require_readable

# fmt: off
__all__ = [
    "MAX_TIMES", "Calendar", "Schedule", "calendars_of", "count_fire_times", "country_source", "cron_doubts", "decode",
    "describe", "encode", "fire_times", "latest_fire_times", "left_out", "limit", "machine_zone", "next_fire_time",
    "parse_at", "parse_cron", "parse_day", "parse_every", "parse_every_from", "parse_pause_until", "parse_rrule", "parse_start",
    "parse_until", "require_readable", "require_zone", "sources_of", "unlimited", "zone_doubt",
]
# fmt: on
_BY_MODULE = {
    "calendars": ("Calendar",),
    "crons": ("parse_cron",),
    "dates": ("parse_at", "parse_day", "parse_pause_until", "parse_start", "parse_until"),
    "doubts": ("cron_doubts", "zone_doubt"),
    "limits": ("MAX_TIMES", "calendars_of", "left_out", "limit", "sources_of", "unlimited"),
    "machine": ("machine_zone",),
    "phrases": ("describe",),
    "rule_texts": ("parse_rrule",),
    "rules": ("parse_every_from",),
    "sources": ("country_source", "require_readable"),
}
_LATER = {name: module for module, names in _BY_MODULE.items() for name in names}

if not TYPE_CHECKING:  # or mypy would take any name for one of ours

    def __getattr__(name):
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
