"""CPU of a gateway with the plugin that has nothing to do, against one without it.

In: both processes over the same window of time, side by side, with the same chat. How often their threads were woken up is
told beside it: polling would show there first.
"""

from __future__ import annotations

import time
from statistics import median

from benchmarks.gateways import INSTANT, Gateway, settle
from benchmarks.measure import Figure, Pairs, main
from benchmarks.places import Place


def measure(pairs: int = 3, seconds: float = 60.0) -> Figure:
    """Compare the CPU that two idle gateways use meanwhile, one with bub-cron and one without it."""
    with (
        Place() as one, Place() as other,
        Gateway(one, INSTANT, cron=False) as without, Gateway(other, INSTANT) as having,
    ):  # fmt: skip
        settle()
        windows = [_window(without, having, seconds) for _ in range(pairs)]
    cpu = Pairs(tuple(w[0] for w in windows), tuple(w[1] for w in windows))
    more = cpu.difference
    woken = [f"{median(window[place] for window in windows):.0f}" for place in (2, 3)]
    return Figure(
        f"CPU of the gateway with nothing to do, over {seconds:.0f} s",
        f"the gateway without the plugin ({median(cpu.baseline) * 1000:.1f} ms)",
        "no difference that shows (here: under 5 ms); no polling",
        f"+ {more.text(' ms', 1, 1000)}, {pairs} pairs",
        more.median < 0.005,
        (f"woken up {woken[1]} times, against {woken[0]}",),
    )


def _window(without: Gateway, having: Gateway, seconds: float) -> tuple[float, float, int, int]:
    before = without.cpu(), having.cpu(), without.switches(), having.switches()
    time.sleep(seconds)
    return (
        without.cpu() - before[0], having.cpu() - before[1],
        without.switches() - before[2], having.switches() - before[3],
    )  # fmt: skip


if __name__ == "__main__":
    main(measure)
