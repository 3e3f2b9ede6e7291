"""Say of a message that it comes late: when it was due, and how late it started."""

from __future__ import annotations

from bub_cron.alerts import local_fire_time
from bub_cron.wire import Request, parse_instant


def lateness(request: Request, started_at: float) -> float | None:
    """Return how many seconds after its fire time a firing started; None where that is no instant, or lies ahead."""
    try:
        late = started_at - parse_instant(request.fire_time or "")
    except ValueError:
        return None
    return late if late > 0 else None


def mark(request: Request, started_at: float) -> str:
    """Return the line that a late firing's message begins with, "" for one that started in time."""
    late = lateness(request, started_at)
    if late is None or isinstance(request.mark_late, str) or late <= request.mark_late:
        return ""
    return f"(due at {due(request)}, {minutes(late)} late)"


def told(request: Request, started_at: float) -> str:
    """Return when a firing was due and how late it started, in the words of its turn's instructions; "" if that isn't known."""
    if not request.fire_time:
        return ""
    try:
        instant, zone = local_fire_time(request)
    except ValueError:
        return f"due at {request.fire_time}"  # a label
    late = lateness(request, started_at) or 0.0
    here = f"{instant:%Y-%m-%d %H:%M} in {zone}"
    return f"due at {request.fire_time} ({here}){f', {minutes(late)} late' if late >= 60 else ''}"


def due(request: Request) -> str:
    """Return the fire time as a clock shows it to the reader: in the reminder's zone, else the machine's."""
    try:
        instant, zone = local_fire_time(request)
    except ValueError:  # an instant that no local clock shows, such as the first of the year 1
        return request.fire_time or ""
    return f"{instant:%H:%M}" if zone == request.timezone or request.timezone is None else f"{instant:%H:%M} {zone}"


def minutes(seconds: float) -> str:
    """Return a length of time in the words of a chat: 42 minutes, 3 hours 5 minutes, 2 days 4 hours."""
    left, words = max(60, int(seconds)) // 60, []
    for unit, size in (("day", 1440), ("hour", 60), ("minute", 1)):
        count, left = divmod(left, size)
        if count:
            words.append(f"{count} {unit}{'s' * (count != 1)}")
    return " ".join(words[:2])
