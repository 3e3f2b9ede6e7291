"""CPU of a tick with nothing to do whose file has ten drop-ins beside it.

In and out: as `idle_tick`. None of the files has changed since the tick before.
"""

from __future__ import annotations

from benchmarks.measure import PYTHON, Figure, in_turn, main, run
from benchmarks.places import Place


def measure(pairs: int = 200, drop_ins: int = 10) -> Figure:
    """Compare the CPU of an idle tick over a file and drop-ins with that of `python -I -c pass`."""
    with Place() as place:
        place.write(10)
        place.write_drop_ins(drop_ins)
        place.tick()
        found = in_turn(lambda: run(PYTHON, place.environment).cpu, lambda: place.idle_tick().cpu, pairs)
    return Figure(
        f"CPU of an idle tick, with {drop_ins} drop-ins",
        f"`python -I -c pass` ({1000 * sum(found.baseline) / pairs:.1f} ms)",
        "at most 1.6",
        f"{found.ratio.text()}, {pairs} pairs",
        found.ratio.median <= 1.6,
    )


if __name__ == "__main__":
    main(measure)
