"""Once a day: look through the ledger, and let go of what is old, or too much.

Invariants:
- A clock that is ahead for one tick takes nothing away that wouldn't have gone a day later anyway.
"""

import os

from bub_cron.trigger import firings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bub_cron.trigger.ledger import Ledger

KEEP_DAYS = 30
KEEP_MIB = 256
_MOST = 1_000_000  # days, or MiB: as good as for ever
_DAY = 86400


def look_through(ledger: "Ledger", last_tick: int, now: int) -> None:
    """Raise `DamagedStoreError` if anything in the ledger is damaged; then prune it by age and by size."""
    # What nobody reads may be damaged for long without anybody's notice.
    ledger.check()
    firings.prune(ledger, min(now, last_tick + _DAY) - limit("BUB_CRON_KEEP_DAYS", KEEP_DAYS) * _DAY)
    firings.prune_to_size(ledger, limit("BUB_CRON_KEEP_MIB", KEEP_MIB) << 20)


def limit(variable: str, default: int) -> int:
    """Return what an environment variable allows: at least 1, and at most so much that it is as good as no limit.

    One that is no number counts as not set; the gateway, which reads the same variables, complains of it.
    """
    text = (os.environ.get(variable) or "").strip()
    if not text.isdecimal():
        return default
    digits = text.lstrip("0")
    return min(max(1, int(digits or 0)), _MOST) if len(digits) <= 7 else _MOST
