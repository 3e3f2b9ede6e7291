"""How long to wait before the next attempt, and before the next send."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LATER_DELAY = 300.0
_ATTEMPT_DELAYS = (30.0, 120.0)  # after the first and the second failed attempt; then LATER_DELAY
_SEND_DELAYS = (30.0, 30.0, 120.0)  # after a refused send; then LATER_DELAY


def attempt_delay(attempts: int) -> float:
    """Return the seconds between a failed attempt, the `attempts`-th, and the next."""
    return _nth(_ATTEMPT_DELAYS, attempts)


def send_delay(sends: int) -> float:
    """Return the seconds between a refused send, the `sends`-th, and the next."""
    return _nth(_SEND_DELAYS, sends)


async def wait_until(instant: float | None, last: float, now: Callable[[], float]) -> None:
    """Wait until an instant (epoch seconds, as `now` gives them).

    Not for one that is later than `last`: a clock that was ahead has written it.
    """
    while instant is not None and instant <= last and (seconds := instant - now()) > 0:
        await asyncio.sleep(min(seconds, LATER_DELAY))  # the clock may be set meanwhile


def _nth(delays: tuple[float, ...], number: int) -> float:
    return delays[number - 1] if 1 <= number <= len(delays) else LATER_DELAY
