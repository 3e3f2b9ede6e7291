"""`bub-cron list` of 10,000 reminders, against 10.

In: the whole process, its start included; the output is piped. Out: the tick, which has read the files before. What the
JSON, `next` and `check` take is told below.
"""

from __future__ import annotations

from contextlib import ExitStack

from benchmarks.measure import SCRIPTS, Figure, Pairs, in_turn, main, run
from benchmarks.places import Place

FEW = 10


def measure(pairs: int = 15, reminders: int = 10_000) -> Figure:
    """Compare the CPU of `bub-cron list` with so many reminders with that with 10."""
    with ExitStack() as stack:
        few, many = stack.enter_context(Place()), stack.enter_context(Place())
        for place, count in ((few, FEW), (many, reminders)):
            place.write(count)
            place.tick()

        def compared(*command: str, pairs: int = pairs) -> Pairs:
            def cpu(place: Place) -> float:
                return run([str(SCRIPTS / "bub-cron"), *command], place.environment).cpu

            return in_turn(lambda: cpu(few), lambda: cpu(many), pairs)

        listing = compared("list")
        others = {name: compared(*name.split(), pairs=max(1, pairs // 3)) for name in ("list --json", "next", "check")}
    ratio = listing.ratio
    return Figure(
        f"CPU of `bub-cron list` with {reminders:,} reminders",
        f"with {FEW} ({sum(listing.baseline) / pairs * 1000:.0f} ms)",
        "at most 8",
        f"{ratio.text()}, {pairs} pairs",
        ratio.median <= 8,
        tuple(f"`{name}`: {found.ratio.text()}" for name, found in others.items()),
    )


if __name__ == "__main__":
    main(measure)
