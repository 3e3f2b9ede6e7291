"""What holds reminders back: pauses by hand, skips, and `pause_until` in the file.

Invariants:
- A pause is an interval, and stays known once it is over: what fell into it is skipped, also where no tick ran meanwhile.
- A skip is an interval, too, up to the last fire time that was to be skipped: nothing counts down, so nothing is lost
  when a tick is killed, or when its clock goes back.

Pure: no clock is read and nothing is stored. A tick loads it only when something is due.
"""

from itertools import pairwise

from bub_cron.schedule import next_fire_time
from bub_cron.wire import iso

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bub_cron.schedule import Schedule

ALL = ""
"""The name by which a pause holds every reminder."""
PAUSE, SKIP, FILE = "pause", "skip", "file"
_REASONS = {PAUSE: "paused", SKIP: "skip", FILE: "paused"}


class Pause:
    """Hold the fire times of `reminder` in [since, until) back; instants are epoch seconds, and `until` may be open (None).

    `who` is the user that asked for it, "" for the file.
    """

    __slots__ = ("kind", "reminder", "since", "until", "who", "why")

    def __init__(self, reminder: str, kind: str, since: int, until: int | None, why: str | None, who: str) -> None:
        self.reminder = reminder
        self.kind = kind
        self.since = since
        self.until = until
        self.why = why
        self.who = who

    @property
    def reason(self) -> str:
        """The code of why a firing ended that this held back."""
        return _REASONS[self.kind]

    def covers(self, fire_time: int) -> bool:
        return self.since <= fire_time and (self.until is None or fire_time < self.until)

    def holds(self, now: int) -> bool:
        """Tell whether it is not over yet. One that begins later was made by a clock that was ahead."""
        return self.until is None or now < self.until

    def sentence(self, clock: "Callable[[int], str]" = iso) -> str:
        """Return what holds it back, until when and why; `clock` writes an instant."""
        until = "" if self.until is None else f" until {clock(self.until)}"
        if self.kind == FILE:
            return f"paused{until} by pause_until in the file"
        if self.kind == SKIP:
            return f"skipped by {self.who}{f': {self.why}' if self.why else ''}"
        what = "all reminders are paused" if self.reminder == ALL else "paused"
        return f"{what} since {clock(self.since)}{until} by {self.who}{f': {self.why}' if self.why else ''}"


class Pauses:
    """The pauses and skips that a ledger knows, those that are over too."""

    __slots__ = ("_by_reminder",)

    def __init__(self, pauses: "Iterable[Pause]" = ()) -> None:
        self._by_reminder: dict[str, list[Pause]] = {}
        for pause in pauses:
            self._by_reminder.setdefault(pause.reminder, []).append(pause)

    def of(self, reminder: str, pause_until: int | None = None) -> list[Pause]:
        """Return what holds, or held, a reminder; `pause_until` is that of its file."""
        found = [*self._by_reminder.get(reminder, ()), *self._by_reminder.get(ALL, ())]
        if pause_until is not None:
            found.append(Pause(reminder, FILE, 0, pause_until, None, ""))
        return found

    def holding(self, now: int) -> list[Pause]:
        """Return the pauses and skips that are not over, those of all reminders first."""
        return [pause for name in sorted(self._by_reminder) for pause in self._by_reminder[name] if pause.holds(now)]

    def gone(self, names: "Iterable[str]", now: int) -> list[Pause]:
        """Return the pauses that are not over and whose reminder is none of these names: it was renamed or removed."""
        known = {*names, ALL}
        return [pause for pause in self.holding(now) if pause.reminder not in known]


def covering(pauses: "Iterable[Pause]", fire_time: int) -> Pause | None:
    """Return the first of some pauses that holds a fire time back."""
    return next((pause for pause in pauses if pause.covers(fire_time)), None)


def in_force(pauses: "Iterable[Pause]", now: int) -> Pause | None:
    """Return the pause, not a skip, that is not over: of several the one that ends last."""
    found = [pause for pause in pauses if pause.kind != SKIP and pause.holds(now)]
    return max(found, key=lambda pause: float("inf") if pause.until is None else pause.until, default=None)


def parts(pauses: "list[Pause]", after: int, until: int) -> list[tuple[int, int, Pause | None]]:
    """Cut (after, until] where a pause begins or ends: (after, until, what holds that part back), the oldest first."""
    if not pauses or after >= until:
        return [(after, until, None)]
    edges = {edge - 1 for pause in pauses for edge in (pause.since, pause.until) if edge is not None}
    cuts = sorted({after, until, *(edge for edge in edges if after < edge < until)})
    return [(begin, end, covering(pauses, end)) for begin, end in pairwise(cuts)]


def next_running(schedule: "Schedule", pauses: "list[Pause]", after: int) -> int | None:
    """Return the next fire time that nothing holds back, as far as is known."""
    moment = next_fire_time(schedule, after)
    while moment is not None and (pause := covering(pauses, moment)):
        moment = None if pause.until is None else next_fire_time(schedule, pause.until - 1)
    return moment
