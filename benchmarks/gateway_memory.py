"""Memory that the plugin adds to an idle gateway.

In: what is resident (VmRSS) of a gateway some seconds after it came up, with the plugin and without it; an empty inbox.
Each pair is two fresh processes. Out: what firings that wait would add (see growth).
"""

from __future__ import annotations

from benchmarks.gateways import INSTANT, Gateway, settle
from benchmarks.measure import Figure, in_turn, main
from benchmarks.places import Place


def measure(pairs: int = 7) -> Figure:
    """Compare the resident memory of an idle gateway with bub-cron with that of one without it."""
    found = in_turn(lambda: _resident_kib(cron=False), lambda: _resident_kib(cron=True), pairs, warm_up=False)
    more = found.difference
    return Figure(
        "memory the plugin adds to an idle gateway",
        f"the gateway without the plugin ({sum(found.baseline) / pairs / 1024:.1f} MiB)",
        "at most 6 MiB",
        f"+ {more.text(' MiB', 2, 1 / 1024)}, {pairs} pairs",
        more.median <= 6 * 1024,
    )


def _resident_kib(*, cron: bool) -> float:
    with Place() as place, Gateway(place, INSTANT, cron=cron) as gateway:
        settle()
        return gateway.resident_kib()


if __name__ == "__main__":
    main(measure)
