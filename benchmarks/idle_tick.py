"""CPU of a tick with nothing to do, as a user runs it.

In: the whole process, from the console script's first instruction to its end; it opens the ledger and commits its row.
Out: what cron or systemd use to start it. The file has ten reminders and hasn't changed.
"""

from __future__ import annotations

from benchmarks.measure import PYTHON, Figure, in_turn, main, run
from benchmarks.places import Place


def measure(pairs: int = 200) -> Figure:
    """Compare the CPU of an idle `bub-cron tick` with that of `python -I -c pass`."""
    with Place() as place:
        place.write(10)
        place.tick()
        found = in_turn(lambda: run(PYTHON, place.environment).cpu, lambda: place.idle_tick().cpu, pairs)
    ratio = found.ratio
    return Figure(
        "CPU of an idle tick",
        f"`python -I -c pass` ({1000 * sum(found.baseline) / pairs:.1f} ms)",
        "at most 1.6",
        f"{ratio.text()}, {pairs} pairs",
        ratio.median <= 1.6,
        (f"that is {found.difference.text(' ms', 1, 1000)} more",),
    )


if __name__ == "__main__":
    main(measure)
