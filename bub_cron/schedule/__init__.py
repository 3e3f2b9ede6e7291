"""A schedule and a zone -> fire times. Pure: no clock is read and nothing is stored.

Invariants: a schedule's fire times are one fixed set of instants, whatever interval is asked for, so those in (a, c]
are those in (a, b] and (b, c]. Instants are whole seconds since the Unix epoch.

A tick decodes what its store holds and walks: that takes `kinds` and `zones`, which load nothing heavy. What reads users'
texts or writes for people is loaded when it is first asked for.
"""

from bub_cron.schedule.kinds import Schedule, decode, encode, fire_times, next_fire_time, parse_every
from bub_cron.schedule.zones import require_zone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bub_cron.schedule.crons import parse_cron
    from bub_cron.schedule.dates import parse_at
    from bub_cron.schedule.doubts import cron_doubts, zone_doubt
    from bub_cron.schedule.machine import machine_zone
    from bub_cron.schedule.phrases import describe

# fmt: off
__all__ = [
    "Schedule", "cron_doubts", "decode", "describe", "encode", "fire_times", "machine_zone", "next_fire_time", "parse_at",
    "parse_cron", "parse_every", "require_zone", "zone_doubt",
]
# fmt: on
_LATER = {"parse_cron": "crons", "parse_at": "dates", "machine_zone": "machine", "describe": "phrases"}
_LATER |= {"cron_doubts": "doubts", "zone_doubt": "doubts"}

if not TYPE_CHECKING:  # or mypy would take any name for one of ours

    def __getattr__(name):
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
