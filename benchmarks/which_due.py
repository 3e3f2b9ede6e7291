"""Which of 10,000 reminders are due, against which of ten.

In: the tick's two questions to its ledger (`overdue`, `waiting`), asked of an open store; one reminder is due
each time. Out: opening it, and what is then done about the one that is due, which is the same for both.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, closing

from benchmarks.measure import Figure, in_turn, main
from benchmarks.places import Place
from bub_cron.trigger.ledger import Ledger


def measure(pairs: int = 200, reminders: int = 10_000, asked: int = 100) -> Figure:
    """Compare the time of finding the one that is due among many reminders with that among ten."""
    with ExitStack() as stack:
        few, many = (_asking(stack, count, asked) for count in (10, reminders))
        found = in_turn(few, many, pairs)
    ratio = found.ratio
    return Figure(
        f"which of {reminders:,} reminders are due",
        f"of 10 ({sum(found.baseline) / pairs * 1e6:.0f} µs)",
        "at most 2",
        f"{ratio.text()}, {pairs} pairs",
        ratio.median <= 2,
        (f"each value of a pair is the mean of asking {asked} times",),
    )


def _asking(stack: ExitStack, count: int, asked: int) -> Callable[[], float]:
    place = stack.enter_context(Place())
    place.write_due(1, message="text: x", others=count - 1)
    ledger = stack.enter_context(closing(Ledger(place.paths.ledger)))
    now = int(time.time())

    def ask() -> float:
        began = time.perf_counter()
        for _ in range(asked):
            due = ledger.overdue(now)
            ledger.waiting(now)
        seconds = (time.perf_counter() - began) / asked
        if len(due) != 1:
            raise RuntimeError(f"{len(due)} are due, not one")
        return seconds

    return ask


if __name__ == "__main__":
    main(measure)
