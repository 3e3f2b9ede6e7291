"""A firing that its gate skips, against one that runs a turn of Bub's agent.

In: what the gateway and its children use from before the firings are submitted until it rests; the gate is `/bin/false`, a
process of its own. Out: the tick, which is the same for both, and the model, which answers at once from another process.
"""

from __future__ import annotations

import json
import os
from statistics import median

from stand_in_model import StandInModel

from benchmarks.gateways import Gateway, firing_lines, settle
from benchmarks.measure import Figure, cpu_of, in_turn, main
from benchmarks.places import Place

CHATS = 100


def measure(pairs: int = 5, firings: int = 200) -> Figure:
    """Compare the CPU of firings that a gate skips with that of firings that run a turn."""
    model = StandInModel(lambda _: "Nothing urgent.").start()
    try:
        with Place() as place, Gateway(place, model.environment(), BUB_CRON_ALLOW_GATES="true") as gateway:
            settle()
            labels = iter(range(1_000_000))
            gateway.run_firings(firing_lines(8, "warm-up", chats=CHATS))

            def turns() -> float:
                before = _cpu(gateway)
                gateway.run_firings(firing_lines(firings, f"turn-{next(labels)}", chats=CHATS))
                return (_cpu(gateway) - before) / firings

            def skipped() -> float:
                lines = [_gated(line) for line in firing_lines(firings, f"skip-{next(labels)}", chats=CHATS)]
                before = _cpu(gateway)
                gateway.submit(lines)
                gateway.wait_until_idle()
                return (_cpu(gateway) - before) / firings

            found = in_turn(turns, skipped, pairs, warm_up=False)
    finally:
        model.stop()
    ratio = found.ratio
    return Figure(
        "a firing that its gate skips",
        f"one that runs a turn of Bub's agent ({median(found.baseline) * 1000:.1f} ms of CPU)",
        "at most 0.25 of its CPU",
        f"{ratio.text()}, {pairs} pairs",
        ratio.median <= 0.25,
        (f"{median(found.ours) * 1000:.1f} ms, the gate's process with it; no call of a model",),
    )


def _gated(line: bytes) -> bytes:
    return json.dumps({**json.loads(line), "gate": ["/bin/false"]}).encode() + b"\n"


def _cpu(gateway: Gateway) -> float:
    """Return the seconds of CPU of a gateway and of its children that have ended."""
    with open(f"/proc/{gateway.process.pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return cpu_of(gateway.process.pid) + (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main(measure)
