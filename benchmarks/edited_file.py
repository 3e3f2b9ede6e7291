"""CPU of the tick after an edit of a file with 10,000 reminders.

In, on both sides: a whole process, from its start to its end. The edit changes one message; what a file costs that is new
as a whole, or whose schedules have all changed, is told beside it.
"""

from __future__ import annotations

import os
import sys

from benchmarks.measure import Figure, in_turn, main, run
from benchmarks.places import Place

LOAD = "import sys, yaml; yaml.load(open(sys.argv[1], 'rb'), yaml.CSafeLoader)"


def measure(pairs: int = 15, reminders: int = 10_000) -> Figure:
    """Compare the CPU of a tick that takes an edited file in with that of `yaml.load` of that file."""
    with Place() as place:

        def load() -> float:
            return run([sys.executable, "-I", "-c", LOAD, str(place.reminders)], place.environment).cpu

        def take_in() -> float:
            place.write(reminders, edited=f" Edited {os.urandom(4).hex()}.")
            return place.tick().cpu

        def take_in_anew() -> float:
            place.write(reminders)
            os.unlink(place.paths.ledger)
            return place.tick().cpu

        place.write(reminders)
        place.tick()
        found = in_turn(load, take_in, pairs)
        anew = in_turn(load, take_in_anew, max(1, pairs // 3))
        size = place.reminders.stat().st_size
    ratio = found.ratio
    return Figure(
        f"a tick after an edit of a file with {reminders:,} reminders",
        f"`yaml.load` with `CSafeLoader` ({sum(found.baseline) / pairs:.2f} s)",
        "at most 3",
        f"{ratio.text()}, {pairs} pairs",
        ratio.median <= 3,
        (f"the file has {size / 1e6:.1f} MB", f"where all of it is new to the ledger: {anew.ratio.text()}"),
    )


if __name__ == "__main__":
    main(measure)
