"""CPU of an idle tick whose file has 10,000 reminders, against one whose file has ten.

In and out: as `idle_tick`. Neither file has changed since the tick before.
"""

from __future__ import annotations

from benchmarks.measure import Figure, in_turn, main
from benchmarks.places import Place


def measure(pairs: int = 200, reminders: int = 10_000) -> Figure:
    """Compare an idle tick's CPU with many reminders in the file to that with ten."""
    with Place() as small, Place() as large:
        for place, count in ((small, 10), (large, reminders)):
            place.write(count)
            place.tick()
        found = in_turn(lambda: small.idle_tick().cpu, lambda: large.idle_tick().cpu, pairs)
    ratio = found.ratio
    return Figure(
        f"the same with {reminders:,} reminders",
        "with 10",
        "at most 1.1",
        f"{ratio.text()}, {pairs} pairs",
        ratio.median <= 1.1,
    )


if __name__ == "__main__":
    main(measure)
