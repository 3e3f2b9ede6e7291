"""One firing, tick and gateway together, against `bub run`.

In: the whole tick (the console script, one reminder due, a cron in a zone), and what the gateway uses from before the tick
until the firing's final outcome is on disk and the gateway rests; the baseline is the whole process. The model, on both sides,
is a plugin's `run_model` that returns a text at once, so that the model's turn is in neither, and Bub's own handling of a
message in both.
"""

from __future__ import annotations

import os
from statistics import median

from benchmarks.gateways import INSTANT, START, Gateway, bub_environment, settle
from benchmarks.measure import Figure, in_turn, main, run
from benchmarks.places import Place


def measure(pairs: int = 10) -> Figure:
    """Compare the CPU of one firing, without the model's turn, with that of `bub run`."""
    with Place() as place, Gateway(place, INSTANT) as gateway:
        settle()
        labels = iter(range(1_000_000))
        ticks: list[float] = []

        def bub_run() -> float:
            command = [*START, "run", "Anything urgent in the inbox?"]
            return run(command, bub_environment(place, INSTANT)).cpu

        def firing() -> float:
            if os.path.exists(place.paths.ledger):
                os.unlink(place.paths.ledger)
            place.write_due(1, message="prompt: Anything urgent?", label=f"due-{next(labels)}")
            sent, before = gateway.command("sent"), gateway.cpu()
            ticks.append(place.tick().cpu)
            gateway.command("wait_for_sent", count=sent + 1)
            gateway.wait_until_idle()
            return ticks[-1] + gateway.cpu() - before

        found = in_turn(bub_run, firing, pairs)
    ratio = found.ratio
    return Figure(
        "a firing, tick and gateway together, without the model's turn",
        f"`bub run` ({median(found.baseline):.2f} s)",
        "at most 1/40 of its CPU (0.025)",
        f"{ratio.text(digits=4)}, {pairs} pairs",
        ratio.median <= 1 / 40,
        (f"{median(found.ours) * 1000:.0f} ms, of which the tick {median(ticks) * 1000:.0f} ms",),
    )


if __name__ == "__main__":
    main(measure)
