"""Peak memory of an idle tick.

In: all that is resident at the worst moment, shared libraries too (`ru_maxrss`). Checked: what the starting process leaves
in that number (see launcher.py) is less than the baseline, so that neither side is hidden by it.
"""

from __future__ import annotations

from benchmarks.measure import PYTHON, Figure, floor_kib, in_turn, main, run
from benchmarks.places import Place


def measure(pairs: int = 30) -> Figure:
    """Compare the peak memory of an idle `bub-cron tick` with that of `python -I -c pass`."""
    with Place() as place:
        place.write(10)
        place.tick()
        found = in_turn(lambda: run(PYTHON, place.environment).peak_kib, lambda: place.idle_tick().peak_kib, pairs)
    if (floor := floor_kib()) >= min(found.baseline):
        raise RuntimeError(f"the launcher's own {floor:,} KiB hide the baseline's {min(found.baseline):,.0f}")
    more = found.difference
    return Figure(
        "peak memory of an idle tick",
        f"`python -I -c pass` ({sum(found.baseline) / pairs / 1024:.1f} MiB)",
        "at most + 4 MiB",
        f"+ {more.text(' MiB', 2, 1 / 1024)}, {pairs} pairs",
        more.median <= 4 * 1024,
        (f"no more than {floor / 1024:.1f} MiB of either can be the launcher's",),
    )


if __name__ == "__main__":
    main(measure)
