"""CPU of 1,000 firings through a gateway, with a model that answers at once.

In: the gateway's process, all threads, from the first line on the socket until every firing has its final outcome on disk;
the turns are those of Bub's own agent, with its tape, and a stand-in for the model over HTTP in another process. The
baseline: the same gateway, the same number of turns, chats and turns at once, by direct calls of `process_inbound` whose
replies go to the same chat. Told beside it: the same where a plugin's `run_model` is the model, so that there is hardly
a turn at all. Out: the tick, and the model.
"""

from __future__ import annotations

from statistics import median

from stand_in_model import StandInModel

from benchmarks.gateways import INSTANT, Gateway, firing_lines, settle
from benchmarks.measure import Figure, Pairs, in_turn, main
from benchmarks.places import Place

AT_ONCE = 4  # the gateway's own default
CHATS = 100
WARM_UP = 8  # turns; the first of a gateway load the model's client


def measure(pairs: int = 3, hook_pairs: int = 5, firings: int = 1000) -> Figure:
    """Compare the gateway's CPU for firings with that for direct turns."""
    model = StandInModel(lambda _: "Nothing urgent.").start()
    try:
        found = _measure_with(model.environment(), pairs, firings)
    finally:
        model.stop()
    ratio = found.ratio
    return Figure(
        f"{firings:,} firings through a gateway with a model that answers at once",
        f"direct `process_inbound` calls ({_each(found.baseline, firings)} of CPU each)",
        "at most 1.15 in CPU",
        f"{ratio.text()}, {pairs} pairs",
        ratio.median <= 1.15,
        (
            f"a firing adds {found.difference.text(' ms', 2, 1000 / firings)} of CPU to its turn",
            *(_with_a_hook(hook_pairs, firings) if hook_pairs else []),
        ),
    )


def _with_a_hook(pairs: int, firings: int) -> list[str]:
    found = _measure_with(INSTANT, pairs, firings)
    return [
        f"where `run_model` is a hook that returns a text: {found.ratio.text()};"
        f" {_each(found.baseline, firings)} directly, {_each(found.ours, firings)} as firings"
    ]


def _measure_with(model: dict[str, str], pairs: int, firings: int) -> Pairs:
    with Place() as place, Gateway(place, model) as gateway:
        settle()
        labels = iter(range(1_000_000))
        gateway.run_directly(WARM_UP, AT_ONCE, CHATS)
        gateway.run_firings(firing_lines(WARM_UP, "warm-up", chats=CHATS))

        def directly() -> float:
            before = gateway.cpu()
            gateway.run_directly(firings, AT_ONCE, CHATS)
            return gateway.cpu() - before

        def as_firings() -> float:
            lines = firing_lines(firings, f"run-{next(labels)}", chats=CHATS)
            before = gateway.cpu()
            gateway.run_firings(lines)
            return gateway.cpu() - before

        return in_turn(directly, as_firings, pairs, warm_up=False)


def _each(seconds: tuple[float, ...], firings: int) -> str:
    return f"{median(seconds) / firings * 1000:.2f} ms"


if __name__ == "__main__":
    main(measure)
